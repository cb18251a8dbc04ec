"""Boxes of things for the evidence: a small detector looks at kept frames, where one is configured.

ImageNet has no class for people, books or knives; a detector of COCO's 80 kinds knows them. No installed package
carries such weights under a free licence, so the file is the user's (``perception.detector``, docs/quality.md).
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from perception.encoders import weights
from perception.encoders.claim import COCO
from streammem.errors import ConfigError, ModelUnavailable
from streammem.model import Label

if TYPE_CHECKING:
    from perception.trackers.detectors import OnnxDetector

LEAST_SCORE = 0.1
TOLD_SCORE = 0.5
"""From here on a box is told as a label. YOLOX-nano's false boxes on the development recordings: half lie below .25."""
MOST = 40
"""Boxes kept of a picture, the surest: 480 bytes at most."""
LOOKED = (-1.0, 0.0, 0.0, 0.0, 1.0, 1.0)
"""First row of every look: without it, a picture without things could not be told from one that nobody looked at."""


class ThingFinder:
    """An ONNX detector with COCO's labels, opened at the first picture. Thread-safe."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).expanduser()
        self._lock = threading.Lock()
        self._detector: OnnxDetector | None = None

    def check(self) -> None:
        """Raise ModelUnavailable where there is no such file. Opens nothing."""
        if not self._path.is_file():
            raise ModelUnavailable(
                f"there is no detector at {self._path}", hint="set perception.detector to an ONNX file, or to nothing"
            )

    @property
    def identity(self) -> tuple[str, float, int]:
        """What changes with everything that changes the boxes."""
        return (weights.sha256_of(self._path), LEAST_SCORE, MOST)

    def find(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 RGB -> (n + 1, 6) float16: number in ``COCO``, score and box in fractions of the picture,
        the surest first, after the row ``LOOKED``. Raises ModelUnavailable, ConfigError for a network that knows none
        of COCO's kinds."""
        found = self._open().detect(image)
        height, width = image.shape[:2]
        rows = [
            (COCO.index(label), score, *(np.asarray(box, np.float64) / (width, height, width, height)))
            for box, score, label in zip(found.xyxy, found.scores, found.labels, strict=True)
            if label in _NUMBERS
        ]
        rows.sort(key=lambda row: (-row[1], row))
        return np.array([LOOKED, *rows[:MOST]], dtype=np.float16)

    def _open(self) -> OnnxDetector:
        with self._lock:
            if self._detector is None:
                self.check()
                from perception.trackers.detectors import OnnxDetector

                opened = OnnxDetector(self._path, least_score=LEAST_SCORE)
                if not _NUMBERS.intersection(opened.names):
                    raise ConfigError(
                        f"{self._path} knows none of COCO's 80 kinds of things",
                        hint="perception.detector takes a detector trained on COCO, YOLOX-nano for example",
                    )
                self._detector = opened
            return self._detector


_NUMBERS = frozenset(COCO)


def labels_of(things: np.ndarray) -> tuple[Label, ...]:
    """The surest score of each kind as a label, from ``TOLD_SCORE`` on."""
    best: dict[int, float] = {}
    for number, score in things[:, :2].astype(np.float64):
        if score >= TOLD_SCORE:
            best[int(number)] = max(best.get(int(number), 0.0), float(score))
    return tuple(Label(COCO[n], round(score, 4)) for n, score in sorted(best.items(), key=lambda item: -item[1]))
