"""Clips whose truth is known: every picture carries its own number as twelve black or white blocks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BLOCK = 16
BITS = 12
WIDTH, HEIGHT = BLOCK * BITS, 64
TICK = Fraction(1, 90_000)


def picture(number: int, *, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(h, w, 3) uint8: the number's bits on top, a moving bar below so that there is something to compress."""
    image = np.full((height, width, 3), 96, np.uint8)
    for bit in range(BITS):
        image[: 2 * BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 235 if number >> bit & 1 else 20
    x = number * 5 % (width - 8)
    image[2 * BLOCK :, x : x + 8] = (40, 200, 90)
    return image


def number_of(image: np.ndarray) -> int:
    """The number that :func:`picture` wrote."""
    middle = image[BLOCK // 2 : BLOCK + BLOCK // 2, : BLOCK * BITS].mean(axis=(0, 2))
    blocks = middle.reshape(BITS, BLOCK).mean(axis=1)
    return int(sum(1 << bit for bit in range(BITS) if blocks[bit] > 128))


def steady(count: int, rate: Fraction | int) -> list[Fraction]:
    """Times in seconds of ``count`` frames."""
    return [Fraction(number) / rate for number in range(count)]


def write_clip(
    path: Path,
    times: Sequence[Fraction],
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    gop: int = 12,
    pix_fmt: str = "yuv420p",
    rate: Fraction | int = 25,
    rotate: int = 0,
    hflip: bool = False,
    shift: Fraction = Fraction(0),
    sound: Sequence[tuple[float, float]] | None = None,
    seconds_of_sound: float = 0.0,
    images: Sequence[np.ndarray] | None = None,
    format: str | None = None,
    aspect: Fraction | None = None,
    colorspace: int | None = None,
    first_number: int = 0,
) -> Path:
    """``sound``: stretches (start, end) in seconds of a 440 Hz tone; None: no sound track."""
    container = av.open(str(path), "w", format=format, options=container_options or {})
    stream = container.add_stream(codec, rate=rate, options=options or {})
    pictures = images if images is not None else [picture(first_number + n) for n in range(len(times))]
    stream.width, stream.height = pictures[0].shape[1], pictures[0].shape[0]
    stream.pix_fmt = pix_fmt
    stream.codec_context.gop_size = gop
    # MPEG-4 part 2 and MPEG-2 have no finer clock than their frame rate.
    tick = 1 / Fraction(rate) if codec in ("mpeg4", "mpeg2video", "mjpeg") else TICK
    stream.codec_context.time_base = tick
    if aspect is not None:
        stream.codec_context.sample_aspect_ratio = aspect
    if colorspace is not None:
        stream.codec_context.colorspace = colorspace
    if rotate or hflip:
        stream.set_display_rotation(rotate, hflip=hflip)
    track = container.add_stream("aac", rate=16000, layout="mono") if sound is not None else None
    for at, image in zip(times, pictures, strict=True):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format=pix_fmt, dst_colorspace=colorspace, dst_color_range=1 if pix_fmt == "yuv420p" else None
        )
        frame.pts = round((at + shift) / tick)
        frame.time_base = tick
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    if track is not None:
        write_sound(container, track, sound or (), seconds_of_sound)
    container.close()
    return path


def write_sound(container, track, tones: Sequence[tuple[float, float]], seconds: float) -> None:
    at = np.arange(int(seconds * 16000)) / 16000
    samples = np.zeros(len(at), np.float32)
    for start, end in tones:
        samples += (0.5 * np.sin(2 * np.pi * 440 * at) * ((at >= start) & (at < end))).astype(np.float32)
    for start in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate = 16000
        frame.pts = start
        container.mux(track.encode(frame))
    container.mux(track.encode(None))


def expected(times: Sequence[Fraction], fps: float, *, slack: Fraction = Fraction(1, 1000)) -> list[tuple[int, int]]:
    """The rule, written out: (grid index, frame number) of the first frame at or after each grid point."""
    slack = min(slack, 1 / Fraction(fps) / 4)
    chosen, last = [], -1
    for number, at in enumerate(times):
        index = int((at - times[0] + slack) * Fraction(fps))
        if index > last:
            last = index
            chosen.append((index, number))
    return chosen
