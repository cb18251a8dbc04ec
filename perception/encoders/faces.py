"""Faces: where they are, never whose. Optional; ImageNet has no class for people, and a face is the surest sign.

BlazeFace in its two forms (short range 128 x 128, full range 192 x 192; Bazarevsky et al. 2019), read as TensorFlow
Lite files by OpenCV. Each alone sees faces in knots of wood; a face counts where both agree, or where one of them is
sure and the face is large. Nothing that could tell two people apart is computed or kept.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.encoders import weights
from perception.encoders.crops import BOXES
from streammem.errors import ModelUnavailable
from streammem.model import Box, Detection

LEAST_SCORE = 0.5
SURE_SCORE = 0.85
SURE_SIDE = 0.08
"""A face that only one model sees must be this large (share of a side) and at least as sure as above."""
LOOKS = 6
"""The whole picture and its five 60 % crops. A face of a tenth of the picture's width is too small for these networks
in one look: one look finds none in 20 s of two children jumping on a bed, six find one in a third of the pictures, and
a false one in 1 of 284 pictures of streets, tables and rooms. Drawn animals count as faces (a cartoon, one in ten)."""
_AGREE = 0.3
_LOGIT_CAP = 30.0
_SMALLEST = 32


@dataclass(frozen=True, slots=True)
class _Shape:
    """Input side in pixels, the names of the two outputs, and ``(grid, anchors a cell)`` for every layer."""

    side: int
    scores: str
    boxes: str
    layers: tuple[tuple[int, int], ...]

    def centres(self) -> np.ndarray:
        """Anchor centres (n, 2) in fractions of the input."""
        rows = []
        for grid, repeat in self.layers:
            axis = (np.arange(grid) + 0.5) / grid
            xy = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
            rows.append(np.repeat(xy, repeat, axis=0))
        return np.concatenate(rows).astype(np.float32)


_SHORT = _Shape(128, "classificators", "regressors", ((16, 2), (8, 6)))
_FULL = _Shape(192, "reshaped_classifier_face_4", "reshaped_regressor_face_4", ((48, 1),))


class FaceFinder:
    """Two small networks; a lock lets one thread in at a time (20 ms a picture)."""

    def __init__(self, *, cache: Path | None = None) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._nets: list[tuple[Any, _Shape, np.ndarray]] = []

    def check(self) -> None:
        """Raise ModelUnavailable where a file is missing or differs. Opens nothing."""
        weights.verified_path(weights.FACE_SHORT, self._cache)
        weights.verified_path(weights.FACE_FULL, self._cache)

    def find(self, image: np.ndarray) -> tuple[Detection, ...]:
        """``image`` (h, w, 3) uint8 RGB -> detections labelled ``face``, largest first. Raises ModelUnavailable."""
        height, width = image.shape[:2]
        rows: list[np.ndarray] = []
        for number, (x0, y0, x1, y1) in enumerate(BOXES[:LOOKS]):
            piece = image[int(y0 * height) : round(y1 * height), int(x0 * width) : round(x1 * width)]
            if min(piece.shape[:2]) < _SMALLEST:
                continue
            for row in self._look(piece, whole=number == 0):
                corners = row[:4] * (x1 - x0, y1 - y0, x1 - x0, y1 - y0) + (x0, y0, x0, y0)
                rows.append(np.append(corners, row[4]))
        kept = _distinct(sorted(rows, key=lambda row: -row[4]))
        found = [Detection("face", round(float(row[4]), 4), _rounded(row)) for row in kept]
        found.sort(key=lambda d: (-(d.box[2] - d.box[0]) * (d.box[3] - d.box[1]), d.box))
        return tuple(found)

    def _look(self, image: np.ndarray, *, whole: bool) -> list[np.ndarray]:
        """Rows (x0, y0, x1, y1, score) in fractions of ``image``."""
        square, scale = _letterbox(image)
        with self._lock:
            if not self._nets:
                self._nets = self._open()
            close, far = self._nets
            short = _run(*close, square)
            # The full range costs 7 ms, the short 2: in a crop it is asked only about what the short one saw.
            full = _run(*far, square) if whole or len(short) else np.empty((0, 5))
        kept: list[np.ndarray] = []
        for boxes, others in ((full, short), (short, full)):
            for row in boxes:
                agreed = any(_overlap(row[:4], other[:4]) >= _AGREE for other in others)
                sure = row[4] >= SURE_SCORE and max(row[2] - row[0], row[3] - row[1]) >= SURE_SIDE
                if agreed or sure:
                    kept.append(row)
        return [np.append(np.clip(row[:4] / (*scale, *scale), 0.0, 1.0), row[4]) for row in _distinct(kept)]

    def _open(self) -> list[tuple[Any, _Shape, np.ndarray]]:
        import cv2

        nets = []
        for weight, shape in ((weights.FACE_SHORT, _SHORT), (weights.FACE_FULL, _FULL)):
            path = weights.verified_path(weight, self._cache)
            try:
                # OpenCV 5's new engine drops the score output of these files; the classic one keeps both.
                net = cv2.dnn.readNetFromTFLite(str(path), cv2.dnn.ENGINE_CLASSIC)
            except cv2.error as error:
                raise ModelUnavailable(
                    f"OpenCV can't read {path}: {error}", hint="set perception.faces: off"
                ) from error
            nets.append((net, shape, shape.centres()))
        return nets


def _letterbox(image: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """A square picture of 192 pixels, padded at the right and the bottom, and the shares that the picture fills."""
    import cv2

    height, width = image.shape[:2]
    longest = max(height, width)
    size = (max(1, round(width * _FULL.side / longest)), max(1, round(height * _FULL.side / longest)))
    square = np.zeros((_FULL.side, _FULL.side, 3), dtype=np.uint8)
    square[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return square, (size[0] / _FULL.side, size[1] / _FULL.side)


def _run(net: Any, shape: _Shape, centres: np.ndarray, square: np.ndarray) -> np.ndarray:
    """Boxes and scores (n, 5) in fractions of the square, best first, without overlaps."""
    import cv2

    if square.shape[0] != shape.side:
        square = cv2.resize(square, (shape.side, shape.side), interpolation=cv2.INTER_AREA)
    net.setInput(cv2.dnn.blobFromImage(square, 1 / 127.5, mean=(127.5, 127.5, 127.5)))
    logits, raw = net.forward([shape.scores, shape.boxes])
    scores = 1 / (1 + np.exp(-np.clip(logits.reshape(-1), -_LOGIT_CAP, _LOGIT_CAP)))
    raw = raw.reshape(len(scores), -1)[:, :4] / shape.side
    keep = np.flatnonzero(scores >= LEAST_SCORE)
    keep = keep[np.argsort(-scores[keep], kind="stable")]
    centre, half = centres[keep] + raw[keep, :2], raw[keep, 2:] / 2
    rows = np.concatenate([centre - half, centre + half, scores[keep, None]], axis=1)
    return np.array(_distinct(list(rows))).reshape(-1, 5)


def _distinct(rows: list[np.ndarray]) -> list[np.ndarray]:
    """Rows that overlap none before them (non-maximum suppression)."""
    out: list[np.ndarray] = []
    for row in rows:
        if all(_overlap(row[:4], other[:4]) < _AGREE for other in out):
            out.append(row)
    return out


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    size = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (size <= 0).any():
        return 0.0
    both = float(size.prod())
    return both / (float((a[2:] - a[:2]).prod()) + float((b[2:] - b[:2]).prod()) - both)


def _rounded(row: np.ndarray) -> Box:
    x0, y0, x1, y1 = (round(float(v), 4) for v in row[:4])
    return x0, y0, x1, y1
