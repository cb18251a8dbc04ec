"""From a decoded frame to the picture that encoders see: upright, square pixels, sRGB, not larger than needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import av

MAX_SIDE = 1280
"""Longest side in pixels; larger pictures are shrunk. The smallest crop of the embedded encoder is 40 % of a side and
goes into a 224-pixel network, and text is read at 480: 1280x720 gives that crop 288 rows. More only costs time."""

Orientation = tuple[int, int, int, int]
UPRIGHT: Orientation = (1, 0, 0, 1)
_UNSPECIFIED = 2
_BT709 = 1
_HD_LINES = 720


class PictureMaker:
    """Converts frames of one video. It keeps the scaler between calls: making one costs as much as a conversion."""

    def __init__(self, max_side: int = MAX_SIDE) -> None:
        from av.video.reformatter import VideoReformatter

        self.max_side = max_side
        self._reformatter = VideoReformatter()

    def picture(self, frame: av.VideoFrame, pixel_aspect: float = 1.0) -> np.ndarray:
        """(h, w, 3) uint8 sRGB. ``pixel_aspect`` is a pixel's width over its height."""
        from av.video.reformatter import Interpolation

        width, height = upright_size(frame.width, frame.height, pixel_aspect, UPRIGHT)
        shrink = min(1.0, self.max_side / max(width, height))
        width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
        matrix = int(frame.colorspace)
        if matrix == _UNSPECIFIED:
            # An untagged video is BT.709 from 720 lines on and BT.601 below: the convention of every player.
            matrix = _BT709 if frame.height >= _HD_LINES else 5
        options: dict[str, Any] = {} if "rgb" in frame.format.name else {"src_colorspace": matrix}
        shrunk = width < frame.width
        converted = self._reformatter.reformat(
            frame,
            width,
            height,
            "rgb24",
            interpolation=Interpolation.AREA if shrunk else Interpolation.BILINEAR,
            threads=1,
            **options,
        )
        return turn(converted.to_ndarray(), orientation(frame))


def orientation(frame: av.VideoFrame) -> Orientation:
    """The frame's display matrix as ``(a, b, c, d)`` of -1, 0, 1: ``x' = a x + c y``, ``y' = b x + d y``.

    A phone stores its pictures as the sensor lies and says here how to turn them. Anything but quarter turns and
    mirrors is taken as the nearest of those."""
    sides: Any = frame.side_data
    for side in sides:
        if getattr(side.type, "name", "") == "DISPLAYMATRIX":
            values = np.frombuffer(bytes(side), np.int32)
            if len(values) >= 5:
                a, b, c, d = (int(values[i]) for i in (0, 1, 3, 4))
                if abs(a) + abs(d) >= abs(b) + abs(c):
                    return (-1 if a < 0 else 1, 0, 0, -1 if d < 0 else 1)
                return (0, -1 if b < 0 else 1, -1 if c < 0 else 1, 0)
    return UPRIGHT


def turn(image: np.ndarray, to: Orientation) -> np.ndarray:
    """(h, w, 3) turned and mirrored; contiguous."""
    a, b, c, d = to
    if a == 0:
        image = image.transpose(1, 0, 2)
        a, d = c, b
    image = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(image)


def degrees(to: Orientation) -> int:
    """Clockwise turn in degrees: 0, 90, 180 or 270 (mirrors ignored)."""
    a, b, _, _ = to
    if a == 0:
        return 90 if b > 0 else 270
    return 180 if a < 0 else 0


def upright_size(width: int, height: int, pixel_aspect: float, to: Orientation) -> tuple[int, int]:
    """Width and height in square pixels after turning."""
    if 0.2 < pixel_aspect < 5 and abs(pixel_aspect - 1) > 1e-3:
        width = max(1, round(width * pixel_aspect))
    return (height, width) if to[0] == 0 else (width, height)
