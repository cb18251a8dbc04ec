"""What label propagation compares: one unit vector for every 8 x 8 pixels of a picture.

EfficientNet-Lite0's blocks 4 (stride 8, 40 channels: texture and small parts) and 10 (stride 16, 112 channels: what
it is a part of), and the colour. Of five trackers measured on embedded weights only Lite0's stride 8 found an object
again after a full occlusion (engineering.md). Channels are standardised and projected with the statistics of the
first picture: 155 numbers become 48, a third of the cost of every comparison.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import cv2
import numpy as np

from perception.encoders import lite0, lite0_graph
from perception.encoders.lite0 import Precision

STRIDE = 8
LONG_SIDE = 864
"""Pictures are scaled so that the longer side is about this: 480p as it is, 1080p at 45 %."""
DIMENSIONS = 48
COARSE_WEIGHT, COLOUR_WEIGHT = 1.0, 0.3
_LAB_MEAN = np.array([60.0, 0.0, 0.0], np.float32)
_LAB_SCALE = np.array([25.0, 15.0, 15.0], np.float32)
_FLOAT_RECIPE, _INT8_RECIPE = "lite0-maps-1", "lite0-maps-int8-1"


class GridFeatures(Protocol):
    """Pictures -> raw vectors on a grid of ``stride`` pixels."""

    @property
    def stride(self) -> int: ...
    @property
    def groups(self) -> tuple[int, ...]:
        """Channels at which a new group begins; the last three channels are the colour."""
        ...

    def grid(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 RGB -> (rows, columns, c) float32; each group of channels is of unit length."""
        ...


class Lite0Maps:
    """Lite0 up to block 10: what comes after it isn't computed (a third of the network).

    ``int8`` takes 27 ms where ``float32`` takes 59 (480p, one core with VNNI), its vectors have a cosine of .992 with
    float32's, and the masks are as good (docs/tracking.md)."""

    stride = STRIDE
    groups = (40,)
    """Where block 10's channels begin."""

    def __init__(self, precision: Precision = "int8", *, cache: Path | None = None, long_side: int = LONG_SIDE) -> None:
        self._maps = lite0.Graph(lambda: _trunk(precision), cache=cache)
        self._long = long_side

    def grid(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 RGB -> (rows, columns, 155) float32. Raises ModelUnavailable."""
        height, width = grid_size(image.shape[0], image.shape[1], self._long)
        pixels = cv2.resize(image, (width * STRIDE, height * STRIDE), interpolation=cv2.INTER_AREA)
        fine, coarse = self._maps.run(pixels[None], "stride8", "stride16")
        fine = np.ascontiguousarray(fine[0].transpose(1, 2, 0))
        coarse = cv2.resize(coarse[0].transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_LINEAR)
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        colour = (cv2.cvtColor(small, cv2.COLOR_RGB2LAB) - _LAB_MEAN) / _LAB_SCALE
        return np.concatenate([fine, coarse, colour], axis=2)


def _trunk(precision: Precision) -> tuple[str, Callable[[], bytes]]:
    """Recipe and builder of the graph up to block 10."""
    ranges = lite0_graph.load_ranges()

    def build() -> bytes:
        import onnx
        from onnx.utils import Extractor

        state = lite0.load_state()
        whole = lite0_graph.float32(state) if precision == "float32" else lite0_graph.int8(state, ranges, maps=True)
        trunk = Extractor(onnx.load_model_from_string(whole)).extract_model(["pixels"], ["stride8", "stride16"])
        return cast(bytes, trunk.SerializeToString())

    return _FLOAT_RECIPE if precision == "float32" else f"{_INT8_RECIPE}-{lite0.ranges_digest(ranges)}", build


class ColourGradients:
    """Where no weights are: colour, and oriented gradients in 8 directions at two scales. Weak, but real."""

    stride = STRIDE
    groups = (8,)

    def __init__(self, *, long_side: int = LONG_SIDE) -> None:
        self._long = long_side

    def grid(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 RGB -> (rows, columns, 19) float32."""
        height, width = grid_size(image.shape[0], image.shape[1], self._long)
        pixels = cv2.resize(image, (width * STRIDE, height * STRIDE), interpolation=cv2.INTER_AREA)
        gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        dx, dy = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
        strength = np.hypot(dx, dy)
        octant = ((np.arctan2(dy, dx) + np.pi) / (2 * np.pi) * 8).astype(int) % 8
        planes = np.stack([strength * (octant == at) for at in range(8)], axis=2)
        fine = cv2.resize(planes, (width, height), interpolation=cv2.INTER_AREA)
        wide = cv2.blur(fine, (5, 5))
        small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        colour = (cv2.cvtColor(small, cv2.COLOR_RGB2LAB) - _LAB_MEAN) / _LAB_SCALE
        return np.concatenate([fine, wide, colour], axis=2)


def grid_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Rows and columns of the grid: multiples of 4 cells (the network halves the picture five times)."""
    scale = min(1.0, long_side / max(height, width))
    rows, columns = (max(4, 4 * round(side * scale / (4 * STRIDE))) for side in (height, width))
    return rows, columns


class Projection:
    """Raw grid -> unit vectors, with the statistics of one picture (the first): standardised by channel, each group of
    channels scaled to its weight, and the strongest ``dimensions`` directions kept."""

    def __init__(self, groups: tuple[int, ...] = (), dimensions: int = DIMENSIONS) -> None:
        self._groups = groups
        self._dimensions = dimensions
        self._mean: np.ndarray | None = None
        self._scale: np.ndarray | None = None
        self._basis: np.ndarray | None = None

    def cells(self, raw: np.ndarray) -> np.ndarray:
        """(rows, columns, c) -> (rows * columns, d) float32 of unit length; the first call fits."""
        flat = raw.reshape(-1, raw.shape[2]).astype(np.float32)
        if self._mean is None or self._scale is None:
            self._mean, self._scale = flat.mean(axis=0), 1.0 / (flat.std(axis=0) + 1e-6)
            # The colour has a scale of its own: standardised, a gray room's noise would weigh as much as a red mug.
            self._mean[-3:], self._scale[-3:] = 0.0, 1.0
        flat -= self._mean
        flat *= self._scale
        weights = self._weights(flat)
        if self._basis is None:
            grouped = np.concatenate([flat[:, part] * weight for part, weight in weights], axis=1)
            _, vectors = np.linalg.eigh(grouped.T.astype(np.float64) @ grouped)
            self._basis = np.ascontiguousarray(vectors[:, ::-1][:, : self._dimensions].astype(np.float32))
        # A group's weight is one number a cell: it may follow the product, on a third of the numbers.
        cells = sum((flat[:, part] @ self._basis[part]) * weight for part, weight in weights)
        return cells / (np.sqrt(np.einsum("ij,ij->i", cells, cells))[:, None] + 1e-9)

    def _weights(self, flat: np.ndarray) -> list[tuple[slice, np.ndarray | float]]:
        """Each group of channels and what its cells (n, 1) are multiplied by: to unit length, times the group's weight;
        the last three channels are the colour."""
        count = flat.shape[1]
        borders = (0, *self._groups, count - 3) if self._groups else (0, count - 3)
        found: list[tuple[slice, np.ndarray | float]] = []
        for at, (start, end) in enumerate(itertools.pairwise(borders)):
            part = flat[:, start:end]
            length = np.sqrt(np.einsum("ij,ij->i", part, part))[:, None] + 1e-6
            found.append((slice(start, end), (1.0 if at == 0 else COARSE_WEIGHT) / length))
        return [*found, (slice(count - 3, count), COLOUR_WEIGHT)]

    def arrays(self) -> tuple[np.ndarray, ...]:
        """What was fitted, to be saved; empty before the first picture."""
        if self._mean is None or self._scale is None or self._basis is None:
            return ()
        return (self._mean, self._scale, self._basis)

    def load(self, arrays: tuple[np.ndarray, ...]) -> None:
        """Take up what was fitted before."""
        if arrays:
            self._mean, self._scale, self._basis = arrays
