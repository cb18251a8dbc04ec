"""``pool``: every frame's grid of tokens is cut into P cells, each becomes its mean. No training, no state.

These are the initial slots of IXC2.5-OL before its language model sees them. 16 frames with P = 4 give 64 slots and one
summary, whatever the number of tokens. With equal cells the mean of the slots is the summary.
"""

from __future__ import annotations

import hashlib

import numpy as np

from streammem.banks.compressors.base import Compressed, TrainingFree
from streammem.banks.compressors.grid import cells


class PoolCompressor(TrainingFree):
    """``slots``: P, slots a frame: a square number for square grids."""

    name = "pool"

    @property
    def identity(self) -> str:
        return hashlib.blake2b(f"pool 1 {self.slots}".encode(), digest_size=8).hexdigest()

    def compress(self, tokens: np.ndarray, t_start_s: float, t_end_s: float) -> Compressed:
        frames, count, width = tokens.shape
        cell = cells(count, self.slots)
        amounts = np.bincount(cell)
        values = tokens.astype(np.float32)
        order = np.argsort(cell, kind="stable")
        starts = np.concatenate(([0], np.cumsum(amounts)[:-1]))
        sums = np.add.reduceat(values[:, order], starts, axis=1)
        slots = (sums / amounts[None, :, None]).reshape(-1, width)
        frame = np.repeat(np.arange(frames), len(amounts))
        return Compressed(
            slots,
            values.reshape(-1, width).mean(axis=0),
            np.tile(amounts, frames).astype(np.uint16),
            np.stack([frame, frame], axis=1).astype(np.uint8),
        )
