"""Pictures as a video: a folder, a pattern, or one picture."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from perception.decoders.pictures import MAX_SIDE
from perception.frames import AudioChunk, Frame, Health, SourceInfo
from perception.identity import files_hash, stream_id
from perception.sampling import NS, FixedRate
from perception.sources.file import count_frozen
from streammem.errors import NoVideoStream, SourceError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"})
TIMESTAMP_FILES = ("timestamps.txt", "times.txt", "timestamps.csv")
# Depth maps and masks lie beside the pictures in RGB-D and segmentation sets; they aren't what the camera saw.
_NOT_A_PICTURE = re.compile(r"(^|[._-])(depth|mask|masks|seg|segmentation|disparity|flow)([._-]|\d|$)", re.IGNORECASE)


def is_image(path: str) -> bool:
    """By its suffix (an animated GIF is a video)."""
    return os.path.splitext(path)[1].lower() in SUFFIXES


def natural_order(path: str) -> list[tuple[int, int, str]]:
    """Sort key: ``frame2`` comes before ``frame10``."""
    parts = re.split(r"([0-9]+)", path)
    return [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts if part]


def pictures_in(folder: str) -> list[str]:
    """The pictures directly in ``folder``, in natural order. Raises SourceError, saying where pictures are if not
    here."""
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise SourceError(
            f"the folder {folder!r} can't be read: {error.strerror}", hint="check its permissions"
        ) from error
    images = [name for name in names if is_image(name) and not name.startswith(".")]
    kept = [name for name in images if not _NOT_A_PICTURE.search(os.path.splitext(name)[0])] or images
    if kept:
        return [os.path.join(folder, name) for name in sorted(kept, key=natural_order)]
    below = [name for name in sorted(names) if not _NOT_A_PICTURE.search(name)]
    for name in below:
        try:
            found = any(is_image(each) for each in os.listdir(os.path.join(folder, name)))
        except OSError:  # not a folder, or not ours to read: then it isn't the hint
            continue
        if found:
            raise NoVideoStream(
                f"the folder {folder!r} holds no pictures", hint=f"{os.path.join(folder, name)!r} does: give that"
            )
    raise NoVideoStream(
        f"the folder {folder!r} holds no pictures", hint=f"looked for {', '.join(sorted(SUFFIXES))} directly in it"
    )


class ImageSequence:
    """Pictures in a given order. A ``timestamps.txt`` in the folder gives their times (seconds, one a line in the order
    of the pictures, or ``name seconds`` pairs); without it they are taken as ``1 / fps`` seconds apart, so that every
    picture is looked at. EXIF orientation is applied."""

    def __init__(
        self,
        paths: Sequence[str],
        *,
        text: str,
        folder: str | None = None,
        fps: float = 1.0,
        max_side: int = MAX_SIDE,
        cache: str | None = None,
    ) -> None:
        """Raises SourceError where a picture can't be opened at all or the times can't be read."""
        self.paths = list(paths)
        self.sampling = FixedRate(fps)
        self.health = Health()
        self._max_side = max_side
        self.times = self._times(folder)
        first = self._first()
        try:
            content = files_hash(self.paths, root=folder or "", cache=cache)
        except OSError as error:
            raise SourceError(
                f"{error.filename!r} can't be read: {error.strerror}", hint="check its permissions"
            ) from error
        name = folder or (self.paths[0] if len(self.paths) == 1 else os.path.dirname(self.paths[0]) or "pictures")
        self._info = SourceInfo(
            text=text,
            kind="images",
            stream=stream_id(os.path.abspath(name), content),
            content_hash=content,
            clock="media",
            width=first.shape[1],
            height=first.shape[0],
            fps=len(self.times) * NS / (self.times[-1] + self.sampling.period_ns),
            duration_ns=self.times[-1] + self.sampling.period_ns,
            codec=os.path.splitext(self.paths[0])[1].lstrip(".").lower(),
        )

    @property
    def info(self) -> SourceInfo:
        return self._info

    def frames(self, start_ns: int = 0, sampling: FixedRate | None = None) -> Iterator[Frame]:
        return count_frozen(self._frames(start_ns, sampling or self.sampling, self.health), self.health)

    def audio(self, start_ns: int = 0) -> Iterator[AudioChunk] | None:
        return None

    def look_again(self, t_start_ns: int, t_end_ns: int, fps: float) -> list[Frame]:
        found = []
        for frame in self._frames(t_start_ns, FixedRate(fps), Health()):
            if frame.media_ns > t_end_ns:
                break
            found.append(frame)
        if found:
            return found
        for number in reversed(range(len(self.times))):
            if (
                self.times[number] <= t_start_ns
                and (image := read_picture(self.paths[number], self._max_side)) is not None
            ):
                return [Frame(image, self.times[number], self.times[number], number)]
        return []

    def close(self) -> None:
        """Nothing is held open."""

    def _frames(self, start_ns: int, sampling: FixedRate, health: Health) -> Iterator[Frame]:
        last = -1
        for path, at in zip(self.paths, self.times, strict=True):
            index = sampling.index(at)
            if index <= last:
                continue
            image = None
            if at >= start_ns:
                health.packets += 1
                image = read_picture(path, self._max_side)
                if image is None:
                    health.bad_packets += 1
                    health.note(f"{os.path.basename(path)!r} can't be decoded")
                    continue
                health.decoded_frames += 1
            last = index
            if image is not None:
                yield Frame(image, at, at, index)

    def _first(self) -> np.ndarray:
        for path in self.paths:
            image = read_picture(path, self._max_side)
            if image is not None:
                return image
        raise SourceError(
            f"none of the {len(self.paths)} pictures can be decoded, the first is {self.paths[0]!r}",
            hint="check that they are complete and readable",
        )

    def _times(self, folder: str | None) -> list[int]:
        for name in TIMESTAMP_FILES:
            path = os.path.join(folder, name) if folder else ""
            if path and os.path.isfile(path):
                return read_times(path, self.paths)
        spacing = self.sampling.period_ns
        if len(self.paths) > 1:
            self.health.note(f"no time stamps: the pictures are taken as {spacing / NS:g} s apart")
        return [number * spacing for number in range(len(self.paths))]


def read_times(path: str, pictures: Sequence[str]) -> list[int]:
    """Times of ``pictures`` in ns, zero at the first. Raises SourceError that names the line."""
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file.read(64 * 1024 * 1024).splitlines()]
    rows = [
        (number, re.split(r"[\s,;]+", line)) for number, line in enumerate(lines, 1) if line and line[0] not in "#%"
    ]
    by_name: dict[str, int] = {}
    in_order: list[int] = []
    for number, cells in rows:
        values = [_seconds_ns(cell) for cell in cells]
        named = [os.path.basename(cell) for cell in cells if is_image(cell)]
        times = [value for value in values if value is not None]
        if not times and number == rows[0][0]:
            continue  # a heading
        if not times:
            raise SourceError(f"line {number} of {path!r} holds no time", hint="write seconds, one a line")
        if named:
            by_name[named[0]] = times[0]
        in_order.append(times[-1] if not named and len(times) > 1 else times[0])
    if by_name:
        missing = [os.path.basename(each) for each in pictures if os.path.basename(each) not in by_name]
        if missing:
            raise SourceError(f"{path!r} has no time for {missing[0]!r}", hint="add it, or remove the file of times")
        found = [by_name[os.path.basename(each)] for each in pictures]
    else:
        found = in_order
    if len(found) != len(pictures):
        raise SourceError(
            f"{path!r} holds {len(found)} times for {len(pictures)} pictures", hint="write one time a picture"
        )
    if any(b <= a for a, b in pairwise(found)):
        raise SourceError(f"the times in {path!r} don't rise", hint="sort the pictures and their times")
    return [value - found[0] for value in found]


def read_picture(path: str, max_side: int) -> np.ndarray | None:
    """(h, w, 3) uint8 RGB, upright by its EXIF orientation, or None where it can't be decoded."""
    import cv2

    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
    except (OSError, cv2.error):
        return None
    if image is None:
        return None
    height, width = image.shape[:2]
    shrink = max_side / max(height, width)
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image)


def _seconds_ns(cell: str) -> int | None:
    """Decimal seconds, exactly: a float would lose the nanoseconds of a Unix time."""
    if not re.fullmatch(r"[+-]?\d{1,12}(\.\d*)?", cell):
        return None
    whole, _, fraction = cell.lstrip("+-").partition(".")
    value = int(whole) * NS + int((fraction + "000000000")[:9])
    return -value if cell.startswith("-") else value
