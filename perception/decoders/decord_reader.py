"""decord 0.6.0 behind the decoder protocol. PyAV is the default; this is for comparing and for GPU builds of decord.

Its documented weaknesses, as measured here: it aborts at the first damaged packet (PyAV gives 661 of 668 frames), takes
about 1 GB for what PyAV does in 100 MB because it indexes and buffers whole groups, gives times as 32-bit float seconds
(2 microseconds off after 40 s, up to 0.1 ms after an hour), takes a mirrored picture for one that is half turned and
ignores the pixels' aspect (mended here).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from perception.decoders.opening import open_video, pick_video_stream
from perception.decoders.packets import read_packets
from perception.decoders.pictures import MAX_SIDE, degrees, orientation, upright_size
from perception.frames import Frame, Health
from perception.sampling import NS, FixedRate
from streammem.errors import SourceError


class DecordDecoder:
    """One video file through decord. Never import ``decord2`` beside it: it has the same import name."""

    name = "decord"

    def __init__(self, path: str, *, max_side: int = MAX_SIDE, threads: int | None = None) -> None:
        """Raises SourceNotFound, NoVideoStream or SourceError (also where decord isn't installed)."""
        self.path = path
        self.health = Health()
        self.max_side = max_side
        self._threads = threads or 1
        container = open_video(path)
        try:
            stream = pick_video_stream(container, path)
            self.codec = stream.codec_context.name
            self._aspect = float(stream.sample_aspect_ratio or 1)
            self._turned = (1, 0, 0, 1)
            for packet in read_packets(container, stream, Health()):
                frames = packet.decode()
                if frames:
                    self._turned = orientation(frames[0])
                    break
            size = stream.codec_context.width, stream.codec_context.height
            self.width, self.height = upright_size(*size, self._aspect, self._turned)
            self.rotation = degrees(self._turned)
            self.fps = float(stream.average_rate or 0)
        finally:
            container.close()
        reader = self._open()
        times = self._times(reader)
        self.duration_ns = int(times[-1] + (NS / self.fps if self.fps else 0)) if len(times) else None

    def frames(self, sampling: FixedRate, start_ns: int = 0) -> Iterator[Frame]:
        reader = self._open()
        last = -1
        for number, at in enumerate(self._times(reader).tolist()):
            index = sampling.index(at)
            if index <= last:
                continue
            last = index
            if at < start_ns:
                continue
            try:
                image = reader[number].asnumpy()
            except _errors() as error:
                raise SourceError(
                    f"decord stopped at frame {number} ({at / NS:.3f} s) of {self.path!r}: {_first_line(error)}",
                    hint="the pyav decoder reads on past damage: perception.decoder=pyav",
                ) from error
            self.health.decoded_frames += 1
            yield Frame(self._upright(image), at, at, index)

    def close(self) -> None:
        """Nothing is held between calls."""

    def _open(self) -> Any:
        try:
            import decord
        except ImportError as error:
            raise SourceError("decord isn't installed", hint="pip install 'decord>=0.6,<0.7', or use pyav") from error
        try:
            return decord.VideoReader(self.path, ctx=decord.cpu(0), num_threads=self._threads)
        except _errors() as error:
            raise SourceError(
                f"decord can't open {self.path!r}: {_first_line(error)}", hint="use perception.decoder=pyav"
            ) from error

    def _times(self, reader: Any) -> np.ndarray:
        seconds = np.asarray(reader.get_frame_timestamp(range(len(reader))), np.float64)[:, 0]
        return np.rint((seconds - seconds[0]) * NS).astype(np.int64)

    def _upright(self, image: np.ndarray) -> np.ndarray:
        import cv2

        height, width = image.shape[:2]
        wide, high = self.width, self.height
        shrink = min(1.0, self.max_side / max(wide, high))
        size = max(1, round(wide * shrink)), max(1, round(high * shrink))
        if size != (width, height):
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(image)


def _errors() -> tuple[type[Exception], ...]:
    import decord

    return (decord.DECORDError, RuntimeError, ValueError, IndexError, OSError)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
