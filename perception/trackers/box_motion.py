"""Where boxes will be next: a constant-velocity Kalman filter for centre, width and height of many boxes at once.

The four numbers are filtered apart (in SORT's and DeepSORT's filters they don't mix either, but for the aspect), so
that 1,000 tracks are one array operation. Noise is relative to the box's height, as in DeepSORT (Wojke et al. 2017).
"""

from __future__ import annotations

import numpy as np

POSITION, VELOCITY = 1 / 20, 1 / 160
"""Standard deviations a frame, in heights of the box (DeepSORT's numbers)."""


class BoxMotion:
    """``boxes()`` are (n, 4) float64 corners in pixels, in the order of :meth:`add`."""

    def __init__(self) -> None:
        self._mean = np.zeros((0, 4, 2))
        self._covariance = np.zeros((0, 4, 2, 2))

    @property
    def nbytes(self) -> int:
        return self._mean.nbytes + self._covariance.nbytes

    def boxes(self) -> np.ndarray:
        """The boxes as they are expected now."""
        cx, cy, w, h = self._mean[:, :, 0].T
        w, h = np.maximum(w, 1.0), np.maximum(h, 1.0)
        return np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)

    def add(self, box: np.ndarray) -> None:
        """One more, at rest."""
        mean = np.zeros((1, 4, 2))
        mean[0, :, 0] = _measured(box)
        height = mean[0, 3, 0]
        covariance = np.zeros((1, 4, 2, 2))
        covariance[..., 0, 0] = (2 * POSITION * height) ** 2
        covariance[..., 1, 1] = (10 * VELOCITY * height) ** 2
        self._mean = np.concatenate([self._mean, mean])
        self._covariance = np.concatenate([self._covariance, covariance])

    def ahead(self, frames: int = 1) -> None:
        """So many frames on; a size stops changing while it isn't seen (growing boxes would swallow others)."""
        step = np.array([[1.0, 1.0], [0.0, 1.0]])
        # After 100 frames nothing is known of where it is: more steps would only cost time.
        for _ in range(min(frames, 100)):
            self._mean[:, :, 0] += self._mean[:, :, 1]
            self._mean[:, 2:, 1] *= 0.8
            height = np.maximum(self._mean[:, 3, 0], 1.0)[:, None]
            self._covariance = step @ self._covariance @ step.T
            self._covariance[..., 0, 0] += (POSITION * height) ** 2
            self._covariance[..., 1, 1] += (VELOCITY * height) ** 2

    def update(self, row: int, box: np.ndarray, score: float = 1.0) -> None:
        """Box ``row`` was seen; the less sure the detector, the less it weighs (StrongSORT's NSA rule)."""
        height = max(float(self._mean[row, 3, 0]), 1.0)
        noise = (POSITION * height) ** 2 * max(1.0 - score, 0.05) * 4
        spread = self._covariance[row, :, :, 0]
        gain = spread / (spread[:, :1] + noise)
        off = _measured(box) - self._mean[row, :, 0]
        self._mean[row] += gain * off[:, None]
        self._covariance[row] -= gain[:, :, None] * spread[:, None, :]

    def scale(self, x: float, y: float) -> None:
        """The picture has another size now."""
        by = np.array([x, y, x, y])
        self._mean *= by[None, :, None]
        self._covariance *= (by**2)[None, :, None, None]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Means (n, 4, 2) and covariances (n, 4, 2, 2) float64, to be saved."""
        return self._mean, self._covariance

    def load(self, mean: np.ndarray, covariance: np.ndarray) -> None:
        """Take up what :meth:`arrays` gave."""
        self._mean, self._covariance = mean, covariance

    def drop(self, rows: list[int]) -> None:
        if rows:
            self._mean = np.delete(self._mean, rows, axis=0)
            self._covariance = np.delete(self._covariance, rows, axis=0)


def _measured(box: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = (float(value) for value in box)
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
