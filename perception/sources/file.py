"""A video file."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from perception.decoders import MAX_SIDE, open_decoder
from perception.decoders.opening import check_file
from perception.frames import AudioChunk, Decoder, Frame, Health, SourceInfo
from perception.identity import content_hash, stream_id
from perception.sampling import NS, FixedRate
from perception.sources.audio import has_audio, read_audio

_ANY_FRAME = FixedRate(1000.0)
"""A grid finer than any frame rate: chooses every frame."""


class VideoFile:
    """mp4, mov, mkv, webm, avi, ts, gif... through one of the decoders. Times are the container's own."""

    def __init__(
        self,
        path: str,
        *,
        fps: float = 1.0,
        decoder: str = "pyav",
        max_side: int = MAX_SIDE,
        cache: str | None = None,
        text: str | None = None,
    ) -> None:
        """Opens the file, decodes its first picture and hashes its content. Raises SourceNotFound, NoVideoStream or
        SourceError, each naming the file and what to do."""
        check_file(path)
        self.path = path
        self.sampling = FixedRate(fps)
        self._decoder_name = decoder
        self._max_side = max_side
        self._decoder: Decoder = open_decoder(decoder, path, max_side=max_side)
        self._origin_ns = int(getattr(self._decoder, "origin_ns", 0))
        content = content_hash(path, cache=cache)
        self._info = SourceInfo(
            text=text or path,
            kind="file",
            stream=stream_id(os.path.basename(path), content),
            content_hash=content,
            clock="media",
            width=self._decoder.width,
            height=self._decoder.height,
            fps=self._decoder.fps,
            duration_ns=self._decoder.duration_ns,
            codec=self._decoder.codec,
            rotation=self._decoder.rotation,
            has_audio=has_audio(path),
        )

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def health(self) -> Health:
        return self._decoder.health

    def frames(self, start_ns: int = 0, sampling: FixedRate | None = None) -> Iterator[Frame]:
        return count_frozen(self._decoder.frames(sampling or self.sampling, start_ns), self.health)

    def audio(self, start_ns: int = 0) -> Iterator[AudioChunk] | None:
        if not self._info.has_audio:
            return None
        return read_audio(self.path, self._origin_ns, start_ns)

    def look_again(self, t_start_ns: int, t_end_ns: int, fps: float) -> list[Frame]:
        # A decoder of its own: the running one may be busy in another thread.
        decoder = open_decoder(self._decoder_name, self.path, max_side=self._max_side)
        try:
            found = []
            for frame in decoder.frames(FixedRate(fps), max(0, t_start_ns)):
                if frame.media_ns > t_end_ns:
                    break
                found.append(frame)
            return found or showing_at(decoder, t_start_ns)
        finally:
            decoder.close()

    def close(self) -> None:
        self._decoder.close()


def showing_at(decoder: Decoder, at_ns: int) -> list[Frame]:
    """The picture on the screen at ``at_ns``: the last one at or before it. Looks back 2 s, 20 s, then everywhere."""
    for back_ns in (2 * NS, 20 * NS, max(0, at_ns)):
        last: Frame | None = None
        for frame in decoder.frames(_ANY_FRAME, max(0, at_ns - back_ns)):
            if frame.media_ns > at_ns:
                break
            last = frame
        if last is not None:
            return [last]
    return []


def count_frozen(frames: Iterator[Frame], health: Health) -> Iterator[Frame]:
    """Pass frames on, counting those that equal the one before: a camera that hangs sends the same picture."""
    before: np.ndarray | None = None
    for frame in frames:
        if before is not None and before.shape == frame.image.shape and np.array_equal(before, frame.image):
            health.frozen_frames += 1
        before = frame.image
        yield frame
