"""Patch tokens on their grid: space-to-depth and the cells that slots are pooled from."""

from __future__ import annotations

import math

import numpy as np

from streammem.errors import ObservationError


def side_of(count: int) -> int | None:
    """Side of a square grid of ``count`` tokens, None where it is no square."""
    side = math.isqrt(count)
    return side if side * side == count else None


def space_to_depth(tokens: np.ndarray) -> np.ndarray:
    """(..., N, C) -> (..., N/4, 4C): every 2x2 block of neighbours becomes one token, channels in the order top left,
    top right, bottom left, bottom right. Nothing is averaged; :func:`depth_to_space` gives the input back bit by bit.
    Raises ObservationError where N is not a square of an even side."""
    *lead, count, channels = tokens.shape
    side = side_of(count)
    if side is None or side % 2:
        raise ObservationError(
            f"tokens: {count} tokens are no square grid with an even side", field="tokens", hint="64, 144, 196, 256 ..."
        )
    half = side // 2
    grid = tokens.reshape(*lead, half, 2, half, 2, channels)
    order = [*range(len(lead)), *(len(lead) + axis for axis in (0, 2, 1, 3, 4))]
    return grid.transpose(order).reshape(*lead, half * half, 4 * channels)


def depth_to_space(tokens: np.ndarray) -> np.ndarray:
    """(..., N/4, 4C) -> (..., N, C), the inverse of :func:`space_to_depth`."""
    *lead, count, wide = tokens.shape
    half = side_of(count)
    if half is None or wide % 4:
        raise ObservationError(f"tokens: shape {tokens.shape} is not that of space-to-depth", field="tokens")
    grid = tokens.reshape(*lead, half, half, 2, 2, wide // 4)
    order = [*range(len(lead)), *(len(lead) + axis for axis in (0, 2, 1, 3, 4))]
    return grid.transpose(order).reshape(*lead, 4 * half * half, wide // 4)


def cells(count: int, slots: int) -> np.ndarray:
    """The cell of each of ``count`` tokens, (count,) int64. A square grid is cut into g x g cells, g = sqrt(slots),
    whose sides differ by at most one token; any other list into ``slots`` runs of neighbours."""
    side, g = side_of(count), math.isqrt(slots)
    if side is None or g * g != slots:
        return np.arange(count) * min(slots, count) // count
    g = min(g, side)
    along = np.arange(side) * g // side
    return (along[:, None] * g + along[None, :]).ravel()
