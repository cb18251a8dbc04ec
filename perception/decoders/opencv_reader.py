"""OpenCV's video reader behind the decoder protocol. PyAV is the default; this is for comparing.

Its documented weaknesses, as measured here: it stops without a word at damage (232 of 668 frames; here the shortfall
becomes a note), its seeks are off by one, so this reader never seeks and decodes from the start, and its times are
float milliseconds. The first frame's time is taken as zero.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from perception.decoders.opening import open_video, pick_video_stream
from perception.decoders.pictures import MAX_SIDE
from perception.frames import Frame, Health
from perception.sampling import NS, FixedRate
from streammem.errors import SourceError


class OpenCVDecoder:
    """One video file through ``cv2.VideoCapture``. It applies rotation itself."""

    name = "opencv"

    def __init__(self, path: str, *, max_side: int = MAX_SIDE) -> None:
        """Raises SourceNotFound, NoVideoStream or SourceError."""
        self.path = path
        self.health = Health()
        self.max_side = max_side
        container = open_video(path)
        try:
            stream = pick_video_stream(container, path)
            self.codec = stream.codec_context.name
            self._aspect = float(stream.sample_aspect_ratio or 1)
        finally:
            container.close()
        capture = self._open()
        try:
            done, image = capture.read()
            if not done:
                raise SourceError(f"OpenCV can decode no picture of {path!r}", hint="use perception.decoder=pyav")
            self.height, self.width = image.shape[:2]
            self.width = round(self.width * self._aspect) if 0.2 < self._aspect < 5 else self.width
            self.rotation = int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360
            self.fps = float(capture.get(cv2.CAP_PROP_FPS))
            self._claimed = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            self.duration_ns = round(self._claimed / self.fps * NS) if self.fps > 0 and self._claimed > 0 else None
        finally:
            capture.release()

    def frames(self, sampling: FixedRate, start_ns: int = 0) -> Iterator[Frame]:
        capture = self._open()
        try:
            first: int | None = None
            last, before = -1, -1
            count = 0
            while capture.grab():
                count += 1
                self.health.packets += 1
                at = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
                first = at if first is None else first
                at -= first
                if at <= before:
                    self.health.missing_pts += 1
                    at = before + (round(NS / self.fps) if self.fps > 0 else NS // 25)
                before = at
                index = sampling.index(at)
                if index <= last:
                    continue
                last = index
                if at >= start_ns:
                    done, image = capture.retrieve()
                    if not done:
                        self.health.bad_packets += 1
                        continue
                    self.health.decoded_frames += 1
                    yield Frame(self._rgb(image), at, at, index)
            if count < self._claimed:
                self.health.note(f"OpenCV stopped after {count} of {self._claimed} frames")
        finally:
            capture.release()

    def close(self) -> None:
        """Nothing is held between calls."""

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self.path, cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise SourceError(f"OpenCV can't open {self.path!r}", hint="use perception.decoder=pyav")
        return capture

    def _rgb(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        wide = round(width * self._aspect) if 0.2 < self._aspect < 5 else width
        shrink = min(1.0, self.max_side / max(wide, height))
        size = max(1, round(wide * shrink)), max(1, round(height * shrink))
        if size != (width, height):
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
