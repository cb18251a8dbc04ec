"""``merge``: the most alike tokens of a clip become one, until T*P are left. What is rare stays as it is.

Token merging (ToMe, Bolya et al. 2023): tokens are dealt to two sides by turns, each of the first side looks for its
nearest on the second, the closest pairs become their mean weighted by how many tokens they stand for already. First
inside every frame, down to four times the budget, then over the whole clip. So sum(count * slot) stays the sum of all
tokens, and a still background costs a handful of slots.
"""

from __future__ import annotations

import hashlib

import numpy as np

from streammem.banks.compressors.base import Compressed, TrainingFree, unit

SPARE = 4
"""Tokens a frame keeps for the second stage, as a multiple of the budget: matching costs their square."""


class MergeCompressor(TrainingFree):
    """``slots``: P, slots a frame on average; a clip distributes them as it needs."""

    name = "merge"

    @property
    def identity(self) -> str:
        return hashlib.blake2b(f"merge 1 {self.slots} {SPARE}".encode(), digest_size=8).hexdigest()

    def compress(self, tokens: np.ndarray, t_start_s: float, t_end_s: float) -> Compressed:
        frames, count, width = tokens.shape
        values = tokens.astype(np.float32)
        pieces = [
            _reduce(values[at], np.ones(count), np.full((count, 2), at), SPARE * self.slots) for at in range(frames)
        ]
        joined = [np.concatenate([piece[part] for piece in pieces]) for part in range(3)]
        slots, counts, spans = _reduce(joined[0], joined[1], joined[2], frames * self.slots)
        return Compressed(
            slots,
            values.reshape(-1, width).mean(axis=0),
            np.minimum(counts, 65535).astype(np.uint16),
            spans.astype(np.uint8),
        )


def _reduce(
    values: np.ndarray, counts: np.ndarray, spans: np.ndarray, target: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge (n, d) tokens that stand for ``counts`` until ``target`` are left, in the order of their first frame."""
    while len(values) > target:
        first, second = np.arange(0, len(values), 2), np.arange(1, len(values), 2)
        units = unit(values)
        near = units[first] @ units[second].T
        best = near.argmax(axis=1)
        amount = min(len(values) - target, len(first))
        chosen = np.argsort(-near[np.arange(len(first)), best], kind="stable")[:amount]
        gone, into = first[chosen], second[best[chosen]]
        sums = values * counts[:, None].astype(np.float32)
        np.add.at(sums, into, sums[gone])
        counts = counts.copy()
        np.add.at(counts, into, counts[gone])
        spans = spans.copy()
        np.minimum.at(spans[:, 0], into, spans[gone, 0])
        np.maximum.at(spans[:, 1], into, spans[gone, 1])
        kept = np.setdiff1d(np.arange(len(values)), gone)
        touched = np.unique(into)
        values = values.copy()
        values[touched] = sums[touched] / counts[touched, None].astype(np.float32)
        values, counts, spans = values[kept], counts[kept], spans[kept]
    return values, counts, spans
