"""The shared development recordings as pictures, for benchmarks that join them to long streams.

``../shared/data`` beside the checkout, or the folder in ``--data``. Nothing of it is part of the project.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streammem.errors import SourceNotFound

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FOLDERS = {
    "bedroom": ("bedroom/*.jpg", 30.0),
    "redkitchen": ("redkitchen/*.color.jpg", 30.0),
    "icl_livingroom": ("icl_livingroom/image/*", 30.0),
    **{
        f"davis/{name}": (f"davis16/{name}/frames/*.jpg", 24.0)
        for name in ("blackswan", "bmx-trees", "car-shadow", "dance-twirl", "dog", "libby")
    },
}
"""Picture folders and the rate that they were taken at."""
FILM = "big_buck_bunny/bbb_first_300s_448x252.mp4"


class Recording(NamedTuple):
    """``times_ns`` from the recording's own start; ``frames`` (h, w, 3) uint8 RGB, at most 480 pixels wide."""

    name: str
    times_ns: list[int]
    frames: list[np.ndarray]


def read(name: str, path: Path, fps: float) -> Recording:
    """A video file at ``fps`` frames a second."""
    from perception.sampling import FixedRate
    from perception.sources.file import VideoFile

    with_times = [
        (frame.media_ns, _small(frame.image)) for frame in VideoFile(str(path), fps=fps).frames(0, FixedRate(fps))
    ]
    return Recording(name, [t for t, _ in with_times], [image for _, image in with_times])


def read_folder(name: str, paths: list[Path], native: float, fps: float) -> Recording:
    """Pictures taken at ``native`` a second, thinned to ``fps``."""
    import cv2

    step = native / fps
    chosen = [round(i * step) for i in range(int(len(paths) / step) + 1) if round(i * step) < len(paths)]
    frames = [_small(np.asarray(cv2.imread(str(paths[at])))[:, :, ::-1]) for at in chosen]
    return Recording(name, [round(at / native * 1e9) for at in chosen], frames)


def everything(data: Path, fps: float, *, film: bool = False) -> Iterator[Recording]:
    """Every recording that is there, in the order of their names; the film only if asked for.

    Raises SourceNotFound where there is none."""
    videos = sorted([*data.glob("robot_clips/*.mp4"), *data.glob("mot/*/*.mp4"), *data.glob("intel/*.mp4")])
    videos += [data / FILM] if film else []
    found = False
    for path in videos:
        if path.is_file():
            found = True
            yield read(path.stem, path, fps)
    for name, (pattern, native) in FOLDERS.items():
        paths = sorted(data.glob(pattern))
        if paths:
            found = True
            yield read_folder(name, paths, native, fps)
    if not found:
        raise SourceNotFound(f"no recording is in {str(data)!r}", hint="give the folder of the shared data with --data")


def _small(image: np.ndarray) -> np.ndarray:
    import cv2

    shrink = min(1.0, 480 / image.shape[1])
    if shrink == 1.0:
        return np.ascontiguousarray(image)
    return cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
