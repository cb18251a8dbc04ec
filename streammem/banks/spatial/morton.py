"""Morton codes: three integers of 21 bits as one of 63, x in bit 0, y in bit 1, z in bit 2 of every triple.

The prefix of a code is the code of its ancestor: ``code >> 3`` is the parent (Morton 1966; the masks are those of the
usual divide-and-conquer bit spread, three steps of shift and mask a doubling).
"""

from __future__ import annotations

import numpy as np

BITS = 21
"""Bits an axis: 3 x 21 = 63 fits an int64."""
_SPREAD = (
    (32, 0x001F00000000FFFF),
    (16, 0x001F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)
_LOW = 0x1FFFFF


def _spread(values: np.ndarray) -> np.ndarray:
    spread = values.astype(np.uint64) & np.uint64(_LOW)
    for shift, mask in _SPREAD:
        spread = (spread | (spread << np.uint64(shift))) & np.uint64(mask)
    return spread


def _gather(codes: np.ndarray) -> np.ndarray:
    gathered = codes & np.uint64(_SPREAD[-1][1])
    for (shift, _), mask in zip(reversed(_SPREAD), (*(mask for _, mask in reversed(_SPREAD[:-1])), _LOW), strict=True):
        gathered = (gathered | (gathered >> np.uint64(shift))) & np.uint64(mask)
    return gathered


def encode(cells: np.ndarray) -> np.ndarray:
    """Cells (n, 3) of integers in [0, 2**21) -> (n,) int64."""
    cells = np.asarray(cells)
    x, y, z = _spread(cells[:, 0]), _spread(cells[:, 1]), _spread(cells[:, 2])
    return (x | (y << np.uint64(1)) | (z << np.uint64(2))).view(np.int64)


def decode(codes: np.ndarray) -> np.ndarray:
    """(n,) int64 -> cells (n, 3) int64."""
    plain = np.ascontiguousarray(codes, np.int64).view(np.uint64)
    return np.stack([_gather(plain >> np.uint64(axis)) for axis in range(3)], axis=1).view(np.int64)


def ancestor(codes: np.ndarray, levels: int) -> np.ndarray:
    """The codes ``levels`` levels further up."""
    return np.asarray(codes, np.int64) >> (3 * levels)
