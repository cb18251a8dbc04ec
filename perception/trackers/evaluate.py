"""Running the tracker on clips with known masks: DAVIS-like folders and the occlusion suite."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from perception.trackers import occlusion
from perception.trackers.features import GridFeatures, Lite0Maps
from perception.trackers.metrics import j_and_f, jaccard
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


@dataclass(frozen=True, slots=True)
class OcclusionScore:
    """Means over seeds: J before the absence, J after it, and the share of the picture that is claimed during it."""

    kind: str
    policy: str
    before: float
    after: float
    false_area: float
    seeds: int


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


def score_sequence(
    sequence: MaskedClip,
    policy: str,
    *,
    settings: PropagationSettings | None = None,
    features: GridFeatures | None = None,
    most: int | None = None,
) -> ClipScore:
    """J and F as DAVIS counts them: mean over objects and frames, without the first frame and the last one."""
    chosen = replace(settings or PropagationSettings(), policy="first" if policy == COPY else policy)
    paths = sequence.frames[:most]
    start = read_labels(sequence.masks[0])
    if not start:
        raise InputError(f"{sequence.masks[0]}: the first mask is empty", hint="the first frame starts the objects")
    tracker = PropagationTracker(chosen, features=features or Lite0Maps())
    cpu = wall = 0.0
    sizes: list[int] = []
    found: list[np.ndarray] = []
    truth: list[np.ndarray] = []
    for t, path in enumerate(paths):
        image = read_picture(path)
        masks = start
        if policy != COPY:
            clocks = time.process_time(), time.perf_counter()
            masks = tracker.step(image, t=t, prompts=start if t == 0 else None).masks
            cpu += time.process_time() - clocks[0]
            wall += time.perf_counter() - clocks[1]
            sizes.append(tracker.ram_bytes())
        if 0 < t < len(paths) - 1 and t in sequence.masks:
            labels = read_labels(sequence.masks[t])
            empty = np.zeros(image.shape[:2], bool)
            for name in start:
                found.append(masks.get(name, empty))
                truth.append(labels.get(name, empty))
    j, f = j_and_f(found, truth)
    n = max(len(paths), 1)
    marks = tuple(sizes[min(len(sizes) - 1, len(sizes) * part // 4)] for part in (1, 2, 4)) if sizes else ()
    return ClipScore(sequence.name, policy, j, f, len(paths), cpu / n, wall / n, marks)


def score_occlusion(
    policy: str,
    *,
    kinds: Sequence[str] = occlusion.KINDS,
    seeds: int = 10,
    settings: PropagationSettings | None = None,
    features: GridFeatures | None = None,
) -> Iterator[OcclusionScore]:
    """The occlusion suite with one policy, kind by kind."""
    shared = features or Lite0Maps(long_side=occlusion.WIDTH)
    chosen = replace(settings or PropagationSettings(), policy="first" if policy == COPY else policy)
    for kind in kinds:
        scores: dict[str, list[float]] = {"before": [], "after": [], "absent": []}
        for seed in range(seeds):
            tracker = PropagationTracker(chosen, features=shared)
            start: np.ndarray | None = None
            for t, frame in enumerate(occlusion.clip(kind, seed)):
                if start is None:
                    start = frame.mask
                mask = start
                if policy != COPY:
                    tracked = tracker.step(frame.image, t=t, prompts={"target": start} if t == 0 else None)
                    mask = tracked.masks.get("target", np.zeros_like(frame.mask))
                if frame.phase == "absent":
                    scores["absent"].append(float(mask.mean()))
                elif t and frame.phase in scores:
                    scores[frame.phase].append(jaccard(mask, frame.mask))
        means = {name: float(np.mean(values)) if values else 0.0 for name, values in scores.items()}
        yield OcclusionScore(kind, policy, means["before"], means["after"], means["absent"], seeds)
