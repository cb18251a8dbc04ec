"""One stream of a perceptual-cognitive bank: at most L entries of (n, d) tokens, in the order of their steps.

When one is too many, the adjacent pair with the highest mean cosine over token positions becomes its mean (MemoryVLA,
section 3.4), or the oldest entry goes (``fifo``, the paper's baseline).

The released code computes all L cosines again for every write, one Python call and one device synchronisation each. A
merge changes only the two next to it, so here the others are kept: a write into a full bank computes three, with one
synchronisation, whatever L is. Entries lie in fixed slots and never move: attention doesn't ask for their order,
because the keys carry their time code, so retrieval reads the slots as one contiguous view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from streammem.banks.pcmb.options import Options

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What stands behind one entry. ``step`` is its time code's argument; ``first`` and ``last`` are the steps of the
    oldest and newest write in it, ``count`` how many there are."""

    step: float
    first: int
    last: int
    count: int


class Change(msgspec.Struct, frozen=True):
    """What a write did to make room: entries ``index`` and ``index + 1`` were merged into ``index``, or the entry at
    ``index`` was dropped."""

    kind: Literal["merged", "dropped"]
    index: int


class TokenBank:
    """Not thread-safe: its episode's lock serialises. ``slots[i]`` is where entry i lies in ``data``."""

    def __init__(
        self, options: Options, tokens: int, d: int, *, dtype: torch.dtype | None = None, device: str = "cpu"
    ) -> None:
        """Allocates L + 1 entries of (tokens, d) at once, so that no later write can fail for want of memory."""
        import torch

        self.options = options
        self.shape = (tokens, d)
        self.data = torch.zeros((options.length + 1, tokens, d), dtype=dtype or torch.float32, device=device)
        self._norms = torch.zeros((options.length + 1, tokens), dtype=torch.float32, device=device)
        self.slots: list[int] = []
        self.entries: list[Entry] = []
        self._near: list[float | None] = []
        """Cosine of entries i and i + 1; None where it has to be computed before it is needed."""
        self.changed: set[int] = set()
        """Slots written since whoever caches something about them looked last."""
        self.writes = self.merges = self.drops = self.cosines = 0

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + self._norms.nbytes

    @property
    def live(self) -> Tensor:
        """(len, n, d): a view of the entries in the order of their slots, which goes with ``live_steps``."""
        return self.data[: len(self.slots)]

    @property
    def live_steps(self) -> list[float]:
        """The steps in the order of ``live``."""
        steps = [0.0] * len(self.slots)
        for slot, entry in zip(self.slots, self.entries, strict=True):
            steps[slot] = entry.step
        return steps

    def ordered(self) -> Tensor:
        """(len, n, d): a copy of the entries in the order of their steps."""
        import torch

        return self.data[torch.tensor(self.slots, dtype=torch.long, device=self.data.device)]

    def write(self, step: int, tokens: Tensor) -> Change | None:
        """Append a copy of (n, d) tokens, detached, at a step after all others; make room if there is none."""
        slot = len(self.slots)
        self._put(slot, tokens.detach())
        if self.slots:
            self._near.append(None)
        self.slots.append(slot)
        self.entries.append(Entry(float(step), step, step, 1))
        self.writes += 1
        return self._make_room() if slot == self.options.length else None

    def load(self, entries: Sequence[Entry], tokens: Tensor) -> None:
        """Take up what ``entries`` and ``ordered`` gave. The bank must be empty."""
        for slot, entry in enumerate(entries):
            self._put(slot, tokens[slot])
            self.slots.append(slot)
            self.entries.append(entry)
        self._near = [None] * max(0, len(self.slots) - 1)

    def remove(self, keep: Sequence[int]) -> None:
        """Forget all entries but those at these indices (ascending); what is removed is overwritten."""
        kept = [self.entries[index] for index in keep]
        tokens = self.ordered()[list(keep)]
        self.data.zero_()
        self._norms.zero_()
        self.slots, self.entries, self._near = [], [], []
        self.load(kept, tokens)

    # -- making room

    def _make_room(self) -> Change:
        extra = self.options.length
        if self.options.consolidation == "fifo":
            change = Change("dropped", 0)
            freed = self.slots.pop(0)
            del self.entries[0], self._near[:1]
            self.drops += 1
        else:
            index = self._most_similar()
            change = Change("merged", index)
            freed = self._merge(index)
            self.merges += 1
        if freed != extra:
            # The new entry moves from the extra slot into the one that became free.
            self.data[freed] = self.data[extra]
            self._norms[freed] = self._norms[extra]
            self.slots[-1] = freed
            self.changed.add(freed)
        self.changed.discard(extra)
        return change

    def _most_similar(self) -> int:
        """The first of the adjacent pairs with the highest cosine."""
        stale = [at for at, known in enumerate(self._near) if known is None]
        for at, value in zip(stale, self._cosines(stale), strict=True):
            self._near[at] = value
        near = [value for value in self._near if value is not None]
        return near.index(max(near))

    def _cosines(self, pairs: Sequence[int]) -> list[float]:
        """Mean over positions of the cosine of entries i and i + 1, for each i; the numbers are fetched in one go."""
        import torch

        if not pairs:
            return []
        self.cosines += len(pairs)
        found = []
        for at in pairs:
            left, right = self.slots[at], self.slots[at + 1]
            # vecdot copies nothing: 92 us for three pairs of 256 x 256 on one core, a gather of all of them 297.
            dots = torch.linalg.vecdot(self.data[left].float(), self.data[right].float())
            # A token of zeros has no direction: its cosine is 0, as in torch's own cosine_similarity.
            found.append((dots / (self._norms[left] * self._norms[right]).clamp_min(1e-8)).mean())
        # Below the sixth digit is float32's own rounding: pairs of equal tokens tie, as they should; the first wins.
        return [round(float(value), 6) for value in torch.stack(found).tolist()]

    def _merge(self, index: int) -> int:
        """Entry ``index`` becomes the mean of itself and its successor. Returns the successor's slot, free now."""
        slot, freed = self.slots[index], self.slots.pop(index + 1)
        one, two = self.entries[index], self.entries.pop(index + 1)
        a, b = self.data[slot], self.data[freed]
        share = one.count / (one.count + two.count) if self.options.weighting == "count" else 0.5
        merged = (a + b) * 0.5 if share == 0.5 else a * share + b * (1.0 - share)
        self._put(slot, merged)
        step = one.step if self.options.merged_step == "earlier" else one.step * share + two.step * (1.0 - share)
        self.entries[index] = Entry(step, one.first, two.last, one.count + two.count)
        del self._near[index]
        for at in (index - 1, index):
            if 0 <= at < len(self._near):
                self._near[at] = None
        return freed

    def _put(self, slot: int, tokens: Tensor) -> None:
        self.data[slot] = tokens
        self._norms[slot] = self.data[slot].float().norm(dim=-1)
        self.changed.add(slot)
