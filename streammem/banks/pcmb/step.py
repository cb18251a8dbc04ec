"""One step of one episode: retrieve from the bank as it was before, fuse, then write; all of it or nothing."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from streammem.banks.pcmb.options import STREAMS, Options, Streams
from streammem.banks.pcmb.reader import Given, Projected, Reader, by_entry
from streammem.banks.pcmb.tokens import TokenBank
from streammem.checks import LIMITS, check_name, refuse

if TYPE_CHECKING:
    from torch import Tensor

LAST_STEP = 2**53
"""Steps become float64 in merged entries: whole numbers are exact up to here."""
MOST_BYTES = 8 << 20
"""Of one stream's tokens in one call: 256 tokens of 4,096 channels in float32 are 4 MB, the paper's are 0.26."""


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """What one stream looked at. Lists are by entry, oldest first: the ``first`` and ``last`` step that an entry stands
    for, how many writes (``counts``), and its share of the attention (sums to 1)."""

    first: list[int]
    last: list[int]
    counts: list[int]
    shares: list[float]


class StreamStep(msgspec.Struct, frozen=True, kw_only=True):
    """One stream after the step: ``length`` entries, ``merges`` and ``drops`` so far, and the mean of the gate, as the
    share of the memory in the fused tokens. ``attention`` is of the bank before the step, where it was asked for."""

    length: int
    merges: int
    drops: int
    memory_share: float
    attention: Attention | None = None


class StepSummary(msgspec.Struct, frozen=True, kw_only=True):
    """``reader`` says what retrieved: ``learned`` weights or the ``training-free substitute``."""

    episode: str
    step: int
    reader: str
    streams: dict[str, StreamStep]


@dataclass(frozen=True, slots=True)
class Attended:
    """``tokens`` has the fused (n, d) tokens of each stream that was given, float32: NumPy arrays for NumPy arrays,
    tensors on the bank's device for tensors."""

    tokens: Mapping[str, Any]
    summary: StepSummary

    @property
    def perceptual(self) -> Any:
        return self.tokens.get("perceptual")

    @property
    def cognitive(self) -> Any:
        return self.tokens.get("cognitive")


class EpisodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An open episode. ``bytes`` is what it may come to, which is what the cap counts."""

    episode: str
    step: int
    bytes: int
    lengths: dict[str, int]
    merges: dict[str, int]


class Parts(NamedTuple):
    """What every episode is made with: options, a reader for each stream that there are weights for (other streams get
    ``fallback``), and whether training ever merged (None: not known)."""

    options: Options
    readers: Mapping[Streams, Reader]
    fallback: Reader | None = None
    trained_merges: bool | None = None
    device: str = "cpu"

    def reader(self, stream: Streams) -> Reader | None:
        return self.readers.get(stream, self.fallback)


@dataclass(slots=True)
class Episode:
    """Whoever calls ``attend`` or ``close`` holds ``lock``. ``reserved`` is what it may come to in bytes."""

    name: str
    reserved: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    step: int = -1
    used_ns: int = 0
    ended: str = ""
    banks: dict[Streams, TokenBank] = field(default_factory=dict)
    projected: dict[Streams, Projected] = field(default_factory=dict)
    inputs: dict[Streams, Tensor] = field(default_factory=dict)
    fused: dict[Streams, Tensor] = field(default_factory=dict)
    summary: StepSummary | None = None

    def close(self, why: str) -> None:
        """Free everything. ``ended`` tells a step that waited for the lock."""
        self.ended = why
        self.banks, self.projected, self.inputs, self.fused, self.summary = {}, {}, {}, {}, None

    def attend(self, step: int, tokens: dict[Streams, Tensor], parts: Parts, attention: bool) -> Attended:
        """``tokens`` are checked and private. The same step with the same tokens gives the same answer again.
        Raises ObservationError; the episode is then as it was."""
        import torch

        if step == self.step and self.summary is not None and _same(self.inputs, tokens):
            return self._answer(self.summary)
        if step <= self.step:
            raise refuse("step", f"is {step}, the episode {self.name!r} is at {self.step}", "steps only grow")
        if self.inputs:
            _check_same_shapes(self.inputs, tokens)
        with torch.no_grad():
            self._begin(tokens, parts)
            fused: dict[Streams, Tensor] = {}
            told: dict[Streams, tuple[float, Attention | None]] = {}
            for stream, each in tokens.items():
                fused[stream], share, looked = self._retrieve(stream, each, step, parts, attention)
                told[stream] = (share, looked)
            # Nothing above has changed an entry, nothing below needs memory: both streams are written, or neither.
            for stream, each in tokens.items():
                self.banks[stream].write(step, fused[stream] if parts.options.stored == "fused" else each)
        streams = {
            str(stream): StreamStep(
                length=len(bank),
                merges=bank.merges,
                drops=bank.drops,
                memory_share=told[stream][0],
                attention=told[stream][1],
            )
            for stream, bank in self.banks.items()
        }
        names = {reader.name for stream in tokens if (reader := parts.reader(stream)) is not None}
        self.step, self.inputs, self.fused = step, tokens, fused
        self.summary = StepSummary(episode=self.name, step=step, reader=", ".join(sorted(names)), streams=streams)
        return self._answer(self.summary)

    def _answer(self, summary: StepSummary) -> Attended:
        # Copies: what the caller does with its answer doesn't change the one that a repeated step gets.
        return Attended({stream: each.clone() for stream, each in self.fused.items()}, summary)

    @property
    def merges(self) -> int:
        return sum(bank.merges for bank in self.banks.values())

    def _begin(self, tokens: Mapping[Streams, Tensor], parts: Parts) -> None:
        for stream, each in tokens.items():
            if stream not in self.banks:
                reader = parts.reader(stream)
                assert reader is not None
                bank = TokenBank(parts.options, each.shape[0], each.shape[1], device=parts.device)
                self.banks[stream], self.projected[stream] = bank, Projected(reader, bank)

    def _retrieve(
        self, stream: Streams, tokens: Tensor, step: int, parts: Parts, attention: bool
    ) -> tuple[Tensor, float, Attention | None]:
        """(fused, mean share of the memory, attention)."""
        import torch

        bank, reader = self.banks[stream], parts.reader(stream)
        assert reader is not None
        if not len(bank) and parts.options.empty == "skip":
            return tokens.clone(), 0.0, None
        if len(bank):
            read = reader.read(tokens, self.projected[stream], attention=attention)
        else:
            alone = torch.tensor([step], dtype=torch.float64, device=tokens.device)
            read = reader.read(tokens, Given(reader, tokens[None], alone))
        fused, gate = reader.fuse(tokens, read)
        share = float(gate.mean())
        if parts.options.gate_weighs == "current" and reader.name == "learned":
            share = 1.0 - share
        if not attention or read.attention is None or not len(bank):
            return fused, share, None
        looked = Attention(
            first=[each.first for each in bank.entries],
            last=[each.last for each in bank.entries],
            counts=[each.count for each in bank.entries],
            shares=by_entry(read.attention.tolist(), bank.slots),
        )
        return fused, share, looked


def reserve(parts: Parts, stream: Streams, tokens: Tensor) -> int:
    """Bytes that an episode's stream may come to: its slots and their norms, projected keys and values of every layer,
    the last input and the last answer; float32."""
    n, d = tokens.shape
    slots = parts.options.length + 1
    layers = parts.options.layers if stream in parts.readers else 1
    return 4 * n * (slots * (d + 1) + 2 * layers * parts.options.length * d + 2 * d)


def check_step(episode: object, step: object) -> int:
    """The step as a Python number. Raises ObservationError for a name or a step that none can have."""
    check_name(episode, "episode")
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or not 0 <= step < LAST_STEP:
        raise refuse("step", f"is {step!r}, expected a whole number from 0")
    return int(step)


def check_tokens(tokens: Any, stream: Streams) -> np.ndarray:
    """The array itself, if it can be a step's tokens, whatever the episode. Raises ObservationError."""
    if not isinstance(tokens, np.ndarray):
        raise refuse(stream, f"must be a NumPy array, got {type(tokens).__name__}")
    # NumPy calls a byte-swapped float32 another dtype; torch knows no such thing.
    _check_form(tokens.dtype.str in ("<f2", "<f4"), tokens, stream)
    return tokens


def _check_form(dtype_fits: bool, tokens: Any, stream: Streams) -> None:
    shape = tuple(tokens.shape)
    if not dtype_fits or len(shape) != 2 or 0 in shape:
        raise refuse(stream, f"has dtype {tokens.dtype} and shape {shape}, expected float32 or float16 (n, d)")
    if shape[1] > LIMITS.embedding_dim or 4 * shape[0] * shape[1] > MOST_BYTES:
        raise refuse(stream, f"has shape {shape}, the limit is {LIMITS.embedding_dim} channels and {MOST_BYTES} bytes")


def checked(tokens: Any, stream: Streams, parts: Parts) -> Tensor:
    """A private float32 copy on the bank's device. Raises ObservationError."""
    import torch

    if isinstance(tokens, torch.Tensor):
        _check_form(tokens.dtype in (torch.float16, torch.bfloat16, torch.float32), tokens, stream)
    else:
        check_tokens(tokens, stream)
    reader = parts.reader(stream)
    if reader is None:
        raise refuse(stream, "has no reader: the weights hold none for it", "leave it out, or load weights that do")
    wanted = getattr(reader, "d", tokens.shape[1])
    if tokens.shape[1] != wanted:
        raise refuse(stream, f"has {tokens.shape[1]} channels, the weights were made for {wanted}")
    if isinstance(tokens, torch.Tensor):
        copy = tokens.detach().to(device=parts.device, dtype=torch.float32, copy=True)
    else:
        copy = torch.from_numpy(np.array(tokens, dtype=np.float32)).to(parts.device)
    if not bool(torch.isfinite(copy).all()):
        raise refuse(stream, "holds NaN or infinity", "nothing of the step was written; send it again without")
    return copy


def _same(before: Mapping[Streams, Tensor], now: Mapping[Streams, Tensor]) -> bool:
    import torch

    return before.keys() == now.keys() and all(torch.equal(before[stream], now[stream]) for stream in now)


def _check_same_shapes(before: Mapping[Streams, Tensor], now: Mapping[Streams, Tensor]) -> None:
    for stream in STREAMS:
        was = tuple(before[stream].shape) if stream in before else None
        has = tuple(now[stream].shape) if stream in now else None
        if was != has:
            raise refuse(
                stream,
                f"changed from {was or 'absent'} to {has or 'absent'} within the episode",
                "another camera or model is another episode",
            )
