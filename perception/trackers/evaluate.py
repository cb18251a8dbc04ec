"""Running the tracker on clips with known masks: folders as DAVIS has them, and one policy on any clip."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from perception.trackers.features import GridFeatures, Lite0Maps
from perception.trackers.metrics import f_measure, jaccard
from perception.trackers.propagation import PropagationSettings, PropagationTracker
from streammem.errors import InputError, SourceError, SourceNotFound

COPY = "copy-first"
"""The simplest baseline: the first mask, in every frame."""
PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True)
class MaskedClip:
    """A clip on disk: pictures and masks in order. Frames without a mask aren't scored."""

    name: str
    frames: tuple[Path, ...]
    masks: dict[int, Path]


@dataclass(frozen=True, slots=True)
class ClipScore:
    """Means over scored frames. ``cpu_s`` and ``wall_s`` are per frame; ``bytes`` the memory at a quarter, half and
    the end of the clip."""

    clip: str
    policy: str
    j: float
    f: float
    frames: int
    cpu_s: float = 0.0
    wall_s: float = 0.0
    bytes: tuple[int, ...] = ()

    @property
    def jf(self) -> float:
        return (self.j + self.f) / 2


def find_sequences(folder: Path) -> list[MaskedClip]:
    """``folder/NAME/{frames,masks}`` or DAVIS's own ``JPEGImages/*/NAME`` and ``Annotations/*/NAME``.

    Raises SourceNotFound, and SourceError where neither is there."""
    if not folder.is_dir():
        raise SourceNotFound(f"{folder}: no folder is here", hint="name a folder of sequences")
    pairs = [(path.parent.name, path, path.with_name("masks")) for path in sorted(folder.glob("*/frames"))]
    if (folder / "frames").is_dir():
        pairs = [(folder.name, folder / "frames", folder / "masks")]
    for images in sorted(folder.glob("JPEGImages/*/*")):
        pairs.append((images.name, images, folder / "Annotations" / images.parent.name / images.name))
    found = []
    for name, images, masks in pairs:
        frames = tuple(sorted(path for path in images.iterdir() if path.suffix.lower() in PICTURES))
        known = {path.stem: path for path in masks.glob("*.png")}
        labelled = {at: known[path.stem] for at, path in enumerate(frames) if path.stem in known}
        if 0 in labelled:
            found.append(MaskedClip(name, frames, labelled))
    if not found:
        raise SourceError(
            f"{folder}: no sequence with a mask for its first frame",
            hint="NAME/frames/*.jpg with NAME/masks/*.png, or DAVIS's JPEGImages and Annotations",
        )
    return found


def read_picture(path: Path) -> np.ndarray:
    """(h, w, 3) uint8 RGB. Raises SourceError."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise SourceError(f"{path}: not a picture", hint="remove it or download it again")
    return np.ascontiguousarray(picture[:, :, ::-1])


def read_labels(path: Path) -> dict[str, np.ndarray]:
    """Masks by object. A mask of 0 and 255 is one object; palette PNGs have an index for each (255 is "ignore"
    there only where other indices are used)."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            index = np.array(picture if picture.mode in ("P", "L") else picture.convert("L"))
    except OSError as error:
        raise SourceError(f"{path}: not a picture: {error}", hint="remove it or download it again") from error
    values = [int(value) for value in np.unique(index) if value]
    if max(values, default=0) > 127 and set(values) <= set(range(128, 256)):
        return {"1": index > 127}
    return {str(value): index == value for value in values if value != 255}


class Remembered:
    """Features of one clip, computed once for all policies. ``cost`` is what each frame took: (CPU s, wall s)."""

    def __init__(self, features: GridFeatures) -> None:
        self._features = features
        self.stride, self.groups = features.stride, features.groups
        self.cost: list[tuple[float, float]] = []
        self._grids: list[np.ndarray] = []
        self.at = 0

    def grid(self, image: np.ndarray) -> np.ndarray:
        """Of frame ``at``."""
        if self.at == len(self._grids):
            clocks = time.process_time(), time.perf_counter()
            grid = self._features.grid(image)
            self.cost.append((time.process_time() - clocks[0], time.perf_counter() - clocks[1]))
            self._grids.append(grid.astype(np.float16))  # 2 MB a frame at 480p
        return self._grids[self.at].astype(np.float32)


def score_sequence(
    sequence: MaskedClip,
    policies: Sequence[str],
    *,
    settings: PropagationSettings | None = None,
    features: GridFeatures | None = None,
    most: int | None = None,
) -> list[ClipScore]:
    """J and F as DAVIS counts them: mean over objects and frames, without the first frame and the last one. Features
    are computed once; their time counts for every policy."""
    paths = sequence.frames[:most]
    start = read_labels(sequence.masks[0])
    if not start:
        raise InputError(f"{sequence.masks[0]}: the first mask is empty", hint="the first frame starts the objects")
    shared = Remembered(features or Lite0Maps())
    runs = [PolicyRun(policy, settings or PropagationSettings(), shared) for policy in policies]
    for t, path in enumerate(paths):
        image = read_picture(path)
        shared.at = t
        scored = 0 < t < len(paths) - 1 and t in sequence.masks
        labels = read_labels(sequence.masks[t]) if scored else {}
        for run in runs:
            masks = run.step(image, t, start)
            if scored:
                empty = np.zeros(image.shape[:2], bool)
                run.scores += [
                    (
                        jaccard(masks.get(name, empty), labels.get(name, empty)),
                        f_measure(masks.get(name, empty), labels.get(name, empty)),
                    )
                    for name in start
                ]
    return [run.score(sequence.name, len(paths)) for run in runs]


class PolicyRun:
    """One policy on one clip."""

    def __init__(self, policy: str, settings: PropagationSettings, features: Remembered) -> None:
        self.policy = policy
        self._features = features
        chosen = replace(settings, policy="first" if policy == COPY else policy)
        self.tracker = PropagationTracker(chosen, features=features)
        self.scores: list[tuple[float, float]] = []
        self._cpu = self._wall = 0.0
        self._sizes: list[int] = []

    def step(self, image: np.ndarray, t: int, start: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.policy == COPY:
            return start
        fresh = len(self._features.cost) <= t
        clocks = time.process_time(), time.perf_counter()
        masks = self.tracker.step(image, t=t, prompts=start if t == 0 else None).masks
        self._cpu += time.process_time() - clocks[0]
        self._wall += time.perf_counter() - clocks[1]
        if not fresh:
            self._cpu += self._features.cost[t][0]
            self._wall += self._features.cost[t][1]
        self._sizes.append(self.tracker.ram_bytes())
        return masks

    def score(self, clip: str, frames: int) -> ClipScore:
        if not self.scores:
            raise InputError(f"{clip}: no frame between the first and the last has a mask", hint="add masks")
        j, f = (float(value) for value in np.mean(self.scores, axis=0))
        last = len(self._sizes) - 1
        marks = tuple(self._sizes[last * part // 4] for part in (1, 2, 4)) if self._sizes else ()
        n = max(frames, 1)
        return ClipScore(clip, self.policy, j, f, frames, self._cpu / n, self._wall / n, marks)
