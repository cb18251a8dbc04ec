"""``ReversibleTokenStore``: the published long-term memory, made honest. Needs torch; off unless asked for.

A stack of additive couplings (NICE, Dinh et al. 2015; RevNet, Gomez et al. 2017) maps (state, observation) to a token
of the same width and back, exactly up to rounding, whatever the weights are. It compresses nothing: a bijection of
R^2d takes one pair in and gives one pair out. So there are three modes, and each says what it can give back:

    slot    the last token only                 exact for the last observation
    chain   a state and one residual a write     exact for all N, N * d numbers, N inverses to read the oldest
    fold    the last token, older residuals gone lossy for all but the last; ``lossless`` is False

Every write is decoded once and compared: what the weights would lose is kept raw, or refused. Tokens carry the version
of the weights: after any change of them an old token is undecodable, and says so.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from streammem.banks.spatial.long_term import Found, Key, Read, VectorIndex, check_key
from streammem.errors import QueryError, SpaceMismatch

if TYPE_CHECKING:
    import torch

Mode = Literal["slot", "chain", "fold"]
BLOCKS, HIDDEN = 6, 4
"""Six blocks, MLPs four times as wide: the published size."""
TOLERANCE = {"float32": 1e-3, "float64": 1e-9}
SPILL = 64
"""Writes after which a chain begins anew: the error of unrolling grows with its length (2.4e-4 at 100, float32)."""


def reversible_stack(dim: int, blocks: int = BLOCKS, *, seed: int = 0, dtype: str = "float32") -> torch.nn.Module:
    """``y1 = x1 + F(LN(x2)); y2 = x2 + G(LN(y1))``, six times. F is an affine map: self-attention over a sequence of
    one token is nothing else. G is an MLP with GELU. Weights are drawn from ``seed``."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    wanted = getattr(torch, dtype)

    def linear(rows: int, columns: int) -> torch.nn.Linear:
        made = torch.nn.Linear(rows, columns, dtype=torch.float64)
        with torch.no_grad():
            made.weight.uniform_(-1, 1, generator=generator).mul_(rows**-0.5)
            made.bias.zero_()
        return made

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm_f, self.norm_g = (torch.nn.LayerNorm(dim, dtype=torch.float64) for _ in range(2))
            self.f = torch.nn.Sequential(linear(dim, dim), linear(dim, dim))
            self.g = torch.nn.Sequential(linear(dim, HIDDEN * dim), torch.nn.GELU(), linear(HIDDEN * dim, dim))

        def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y1 = x1 + self.f(self.norm_f(x2))
            return y1, x2 + self.g(self.norm_g(y1))

        def inverse(self, y1: torch.Tensor, y2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x2 = y2 - self.g(self.norm_g(y1))
            return y1 - self.f(self.norm_f(x2)), x2

    return torch.nn.ModuleList([Block() for _ in range(blocks)]).to(wanted)


@dataclass(slots=True)
class _Kept:
    """``state`` (d,), ``residuals`` one (d,) a write since the chain began, ``spilled`` what earlier chains and refused
    writes held, raw and in order, ``newest`` the decoded last vector."""

    version: str
    state: np.ndarray
    residuals: list[np.ndarray] = field(default_factory=list)
    spilled: list[np.ndarray] = field(default_factory=list)
    written: int = 0
    slots: list[int] = field(default_factory=list)
    records: list[int] = field(default_factory=list)


class ReversibleTokenStore:
    """A :class:`~streammem.banks.spatial.long_term.LongTermMemory` of tokens."""

    def __init__(
        self,
        dim: int,
        mode: Mode = "chain",
        *,
        dtype: Literal["float32", "float64"] = "float32",
        blocks: int = BLOCKS,
        seed: int = 0,
        tolerance: float | None = None,
        on_loss: Literal["raw", "refuse"] = "raw",
        spill: int = SPILL,
    ) -> None:
        """``tolerance``: largest error of a coordinate at write time. ``on_loss``: a write above it is kept raw, or
        raises QueryError. Raises QueryError for an unknown mode or dtype (tokens in 16 bits lose 1e-2)."""
        if mode not in ("slot", "chain", "fold") or dtype not in TOLERANCE:
            raise QueryError(
                f"no token store of mode {mode!r} in {dtype!r}", hint="slot, chain, fold; float32, float64"
            )
        self.dim, self.mode, self.dtype = dim, mode, dtype
        self.stack = reversible_stack(dim, blocks, seed=seed, dtype=dtype)
        self.tolerance = TOLERANCE[dtype] if tolerance is None else tolerance
        self.refused = 0
        self._on_loss, self._spill = on_loss, spill
        self._kept: dict[Key, _Kept] = {}
        self._index = VectorIndex()
        self._of_slot: dict[int, tuple[Key, int]] = {}
        self._version: tuple[object, str] | None = None

    @property
    def lossless(self) -> bool:
        """Whether every write can be read back: of ``chain`` alone (``slot`` forgets all but the last)."""
        return self.mode == "chain"

    def version(self) -> str:
        """Hash of the weights, made anew when one of them was written to."""
        parameters = list(self.stack.parameters())
        # Sums besides torch's counters: writing through ``.data`` doesn't count.
        sums = tuple(float(each.detach().double().square().sum()) for each in parameters)
        stamp = (tuple(number for each in parameters for number in (each._version, each.data_ptr())), sums)
        if self._version is None or self._version[0] != stamp:
            state = hashlib.blake2b(digest_size=8)
            for each in parameters:
                state.update(each.detach().cpu().numpy().tobytes())
            self._version = (stamp, state.hexdigest())
        return self._version[1]

    def _through(self, first: np.ndarray, second: np.ndarray, *, back: bool) -> tuple[np.ndarray, np.ndarray]:
        """The stack or its inverse, without dropout in either direction, whatever mode the module is in."""
        import torch

        with torch.inference_mode():
            a, b = (torch.from_numpy(np.ascontiguousarray(each, self.dtype)) for each in (first, second))
            blocks = list(self.stack.children())
            for block in reversed(blocks) if back else blocks:
                step = block.inverse if back else block.forward
                a, b = step(a, b)  # type: ignore[operator]
        return a.numpy(), b.numpy()

    def write(self, key: Key, vector: np.ndarray, record_id: int = 0) -> None:
        """Raises QueryError for a vector of another length or not finite, and where ``on_loss`` is "refuse";
        SpaceMismatch where the key's token was written with other weights."""
        check_key(key)
        vector = np.asarray(vector, self.dtype)
        if vector.shape != (self.dim,) or not np.isfinite(vector).all():
            raise QueryError(
                f"a vector must be {self.dim} finite numbers, got {vector.shape}", hint="check the encoder"
            )
        kept = self._kept.get(key)
        if kept is None:
            kept = _Kept(self.version(), np.zeros(self.dim, self.dtype))
        self._check_version(key, kept)
        before = kept.state if self.mode != "slot" else np.zeros(self.dim, self.dtype)
        state, residual = self._through(before, vector, back=False)
        decoded = self._through(state, residual, back=True)
        error = float(max(np.abs(decoded[0] - before).max(), np.abs(decoded[1] - vector).max()))
        good = error <= self.tolerance  # NaN isn't
        if not good:
            self.refused += 1
            if self._on_loss == "refuse":
                raise QueryError(
                    f"these weights would lose {error:.2g} of a coordinate, more than {self.tolerance:g}",
                    hint="smaller weights, float64, or on_loss='raw'",
                )
        self._kept[key] = kept
        self._store(key, kept, vector, state, residual, good)
        kept.written += 1
        if self.mode != "chain":
            for slot in kept.slots:
                self._index.remove(slot)
                del self._of_slot[slot]
            kept.slots, kept.records = [], []
        slot = self._index.add(vector)
        self._of_slot[slot] = (key, kept.written - 1)
        kept.slots.append(slot)
        kept.records.append(record_id)

    def _store(
        self, key: Key, kept: _Kept, vector: np.ndarray, state: np.ndarray, residual: np.ndarray, good: bool
    ) -> None:
        if self.mode == "slot":
            kept.state, kept.residuals, kept.spilled = state, [residual], []
            if not good:
                kept.residuals, kept.spilled = [], [vector]
            return
        if self.mode == "fold":
            kept.state, kept.residuals = (state, [residual]) if good else (kept.state, kept.residuals)
            return
        if not good or len(kept.residuals) >= self._spill:
            # What a long chain would lose is kept as it was read; the chain begins anew.
            kept.spilled = list(self.read(key).vectors.astype(self.dtype))
            kept.residuals, kept.state = [], np.zeros(self.dim, self.dtype)
            if not good:
                kept.spilled.append(vector)
                return
            state, residual = self._through(kept.state, vector, back=False)
        kept.state = state
        kept.residuals.append(residual)

    def read(self, key: Key) -> Read:
        """``chain``: all vectors, oldest first. ``slot``: the last one. ``fold``: as many as were written, the older
        ones guessed with residuals of zero. Raises SpaceMismatch for a token of other weights."""
        check_key(key)
        kept = self._kept.get(key)
        if kept is None:
            return Read(np.empty((0, self.dim), np.float32), 0, True)
        self._check_version(key, kept)
        residuals = kept.residuals
        if self.mode == "fold":
            residuals = [np.zeros(self.dim, self.dtype)] * (kept.written - len(residuals)) + residuals
        state, found = kept.state, []
        for residual in reversed(residuals):
            state, vector = self._through(state, residual, back=True)
            found.append(vector)
        vectors = [*kept.spilled, *reversed(found)]
        complete = self.mode == "chain" or (self.mode == "slot" and kept.written == 1)
        return Read(np.stack(vectors) if vectors else np.empty((0, self.dim), np.float32), kept.written, complete)

    def _check_version(self, key: Key, kept: _Kept) -> None:
        if kept.version != self.version():
            raise SpaceMismatch(
                f"the token of {key} was written with weights {kept.version}, these are {self.version()}",
                hint="write the observations anew, or load the old weights",
            )

    def search(self, vector: np.ndarray, k: int = 3) -> list[Found]:
        slots, scores = self._index.search(vector, k)
        found = []
        for slot, score in zip(slots.tolist(), scores.tolist(), strict=True):
            key, number = self._of_slot[slot]
            kept = self._kept[key]
            found.append(Found(key, number, score, kept.records[kept.slots.index(slot)]))
        return found

    def token_bytes(self, key: Key) -> int:
        """Bytes of what is stored under a key, the index left out."""
        kept = self._kept[key]
        return kept.state.nbytes + sum(each.nbytes for each in (*kept.residuals, *kept.spilled))

    def ram_bytes(self) -> int:
        return self._index.nbytes + sum(self.token_bytes(key) + 200 for key in self._kept)


def round_trip_error(dim: int, blocks: int, dtype: str, *, seed: int = 0, scale: float = 1.0) -> float:
    """Largest error of a coordinate after once through the stack and back, of a (state, observation) of unit normal
    numbers; all weights times ``scale``. 16-bit types too: it shows why tokens can't be kept in them."""
    import torch

    stack = reversible_stack(dim, blocks, seed=seed, dtype=dtype)
    generator = torch.Generator().manual_seed(seed + 1)
    pair = torch.randn(2, dim, generator=generator, dtype=torch.float64).to(getattr(torch, dtype))
    with torch.inference_mode():
        for parameter in stack.parameters():
            if parameter.ndim == 2:
                parameter.mul_(scale)
        a, b = pair[0], pair[1]
        made = list(stack.children())
        for block in made:
            a, b = block(a, b)
        for block in reversed(made):
            a, b = block.inverse(a, b)  # type: ignore[operator]
    return float((torch.stack((a, b)).double() - pair.double()).abs().max())
