"""The sound of a file, on the clock of its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from perception.decoders.opening import open_video
from perception.frames import AUDIO_RATE, AudioChunk
from perception.sampling import NS

if TYPE_CHECKING:
    from av.container import InputContainer

_CHUNK = AUDIO_RATE
_GAP_NS = NS // 10
"""A jump of the sound's time stamps beyond this is filled with silence; less is jitter of the muxer."""
_LONGEST_SILENCE_NS = 3600 * NS


def has_audio(path: str) -> bool:
    """Whether the file has a sound track."""
    container = open_video(path)
    try:
        return bool(container.streams.audio)
    finally:
        container.close()


def read_audio(path: str, origin_ns: int, start_ns: int = 0) -> Iterator[AudioChunk]:
    """One-second chunks, mono, 16 kHz, float32. ``origin_ns``: the first picture's time on the container's clock;
    sound before it is left out. Packets that can't be decoded are passed over: silence takes their place."""
    container = open_video(path)
    try:
        yield from _chunks(container, origin_ns, start_ns)
    finally:
        container.close()


def _chunks(container: InputContainer, origin_ns: int, start_ns: int) -> Iterator[AudioChunk]:
    held = np.zeros(0, np.float32)
    position = 0  # samples from the first picture to the start of `held`
    for at_ns, samples in _samples(container, origin_ns):
        expected = (position + len(held)) * NS // AUDIO_RATE
        gap = at_ns - expected
        if gap > _GAP_NS:
            silence = min(gap, _LONGEST_SILENCE_NS) * AUDIO_RATE // NS
            held = np.concatenate([held, np.zeros(silence, np.float32)])
        elif gap < -_GAP_NS:
            samples = samples[min(len(samples), -gap * AUDIO_RATE // NS) :]
        held = np.concatenate([held, samples])
        while len(held) >= _CHUNK:
            chunk = AudioChunk(held[:_CHUNK].copy(), position * NS // AUDIO_RATE)
            held, position = held[_CHUNK:], position + _CHUNK
            if chunk.t_end_ns > start_ns:
                yield chunk
    if len(held):
        chunk = AudioChunk(held, position * NS // AUDIO_RATE)
        if chunk.t_end_ns > start_ns:
            yield chunk


def _samples(container: InputContainer, origin_ns: int) -> Iterator[tuple[int, np.ndarray]]:
    import av

    stream = container.streams.audio[0]
    resampler = av.AudioResampler(format="flt", layout="mono", rate=AUDIO_RATE)
    at_ns: int | None = None
    while True:
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except (av.error.InvalidDataError, av.error.EOFError, ValueError):
                    continue
                for frame in frames:
                    if frame.pts is not None and frame.time_base is not None:
                        at_ns = round(frame.pts * frame.time_base * NS) - origin_ns
                    frame.pts = None
                    for out in resampler.resample(frame):
                        samples = out.to_ndarray().reshape(-1).astype(np.float32)
                        start = at_ns or 0
                        at_ns = start + len(samples) * NS // AUDIO_RATE
                        if start < 0:
                            samples = samples[min(len(samples), -start * AUDIO_RATE // NS) :]
                            start = 0
                        yield start, np.clip(samples, -1.0, 1.0)
            return
        except av.error.EOFError:
            return
        except (av.error.InvalidDataError, ValueError):
            continue
