"""A constant-velocity Kalman filter of a box: centre, aspect and height, as SORT, DeepSORT and SAMURAI use it."""

from __future__ import annotations

from typing import Any

import numpy as np

from streammem.model import Box

_POSITION, _VELOCITY = 1 / 20, 1 / 160
"""Standard deviations relative to the box's height (DeepSORT)."""
_STEP = np.eye(8)
_STEP[:4, 4:] = np.eye(4)
_LOOK = np.eye(4, 8)


class BoxFilter:
    """State (cx, cy, width / height, height and their changes a frame), in fractions of the picture."""

    def __init__(self) -> None:
        self._mean = np.zeros(8)
        self._covariance = np.zeros((8, 8))
        self.started = False

    def start(self, box: Box) -> None:
        """Begin at a box, at rest."""
        self._mean = np.concatenate([_measured(box), np.zeros(4)])
        height = self._mean[3]
        deviations = [2 * _POSITION * height] * 2 + [1e-2, 2 * _POSITION * height]
        deviations += [10 * _VELOCITY * height] * 2 + [1e-5, 10 * _VELOCITY * height]
        self._covariance = np.diag(np.square(deviations))
        self.started = True

    def step(self) -> None:
        """One frame on."""
        self._mean, self._covariance = self._ahead()

    def update(self, box: Box) -> None:
        """Take in a box seen in this frame."""
        height = self._mean[3]
        noise = np.diag(np.square([_POSITION * height, _POSITION * height, 1e-1, _POSITION * height]))
        seen = _LOOK @ self._covariance @ _LOOK.T + noise
        gain = np.linalg.solve(seen, _LOOK @ self._covariance).T
        self._mean = self._mean + gain @ (_measured(box) - _LOOK @ self._mean)
        self._covariance = self._covariance - gain @ seen @ gain.T

    def predicted(self) -> Box:
        """The box expected in the next frame."""
        mean, _ = self._ahead()
        return _box(mean)

    @property
    def box(self) -> Box:
        """The box as it is believed to be now."""
        return _box(self._mean)

    def _ahead(self) -> tuple[np.ndarray, np.ndarray]:
        height = max(self._mean[3], 1e-6)
        noise = [_POSITION * height] * 2 + [1e-2, _POSITION * height]
        noise += [_VELOCITY * height] * 2 + [1e-5, _VELOCITY * height]
        return _STEP @ self._mean, _STEP @ self._covariance @ _STEP.T + np.diag(np.square(noise))

    def plain(self) -> list[Any]:
        """As plain values, to be saved."""
        return [self.started, self._mean.tolist(), self._covariance.ravel().tolist()]

    def load(self, plain: list[Any] | None) -> None:
        """Take up saved values; None: not started."""
        if plain is None:
            self.started = False
            return
        self.started = bool(plain[0])
        self._mean, self._covariance = np.array(plain[1]), np.array(plain[2]).reshape(8, 8)


def _measured(box: Box) -> np.ndarray:
    height = max(box[3] - box[1], 1e-6)
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, (box[2] - box[0]) / height, height])


def _box(mean: np.ndarray) -> Box:
    cx, cy, aspect, height = mean[:4]
    half_height = max(height, 1e-6) / 2
    half_width = max(aspect, 1e-3) * half_height
    return (float(cx - half_width), float(cy - half_height), float(cx + half_width), float(cy + half_height))
