"""Perceptual-cognitive memory (MemoryVLA, arXiv 2508.19236): a few entries of tokens that stand for a whole episode.

Two users of one mechanism (``pcmb/``):

* **Streams.** Every stream has a bank of its moments' ``tokens`` (perceptual) and one of their vectors (cognitive), a
  session is an episode. When one entry is too many, the two most similar neighbours become one. When the session
  changes, the entries become records of this bank: at most L a session and kind, each with its span and parents. They
  are durable, like everything made of the journal.
* **Policies.** A robot policy calls ``attend`` with its tokens and gets them back fused with its episode's memory.
  Such an episode is working memory: it isn't written to disk, and nothing of it survives this process.

Off by default: it imports torch when the first tokens arrive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from streammem.banks.base import Question, Reader, Recall
from streammem.banks.pcmb.episodes import Episodes
from streammem.banks.pcmb.options import STREAMS, Options, Streams, preset
from streammem.banks.pcmb.step import Attended, EpisodeInfo, Parts
from streammem.banks.pcmb.trace import MOST_STATE, SavedTrace, Trace
from streammem.clock import Clock
from streammem.config import PerceptualCognitiveConfig
from streammem.errors import CorruptData, QueryError
from streammem.model import Record

if TYPE_CHECKING:
    from torch import Tensor

NAME = "perceptual_cognitive"
STATE_VERSION = 1


class _State(msgspec.Struct):
    version: int
    late: int
    traces: dict[Streams, SavedTrace]


class HeldEntry(msgspec.Struct, frozen=True):
    """One entry: the capture time that it spans, how many moments are in it, and some of their ids."""

    t_start_ns: int
    t_end_ns: int
    moments: int
    record_ids: tuple[int, ...]


class HeldTrace(msgspec.Struct, frozen=True):
    """One bank of one stream. ``tokens`` and ``d`` are the shape of an entry."""

    stream: str
    kind: str
    session: str
    tokens: int
    d: int
    writes: int
    merges: int
    bytes: int
    entries: tuple[HeldEntry, ...]


class RecalledEntry(msgspec.Struct, frozen=True):
    """An entry and its share of the attention (all entries of the bank sum to 1). ``own``: the moment that was asked
    about is in it."""

    share: float
    own: bool
    entry: HeldEntry


class Recalled(msgspec.Struct, frozen=True):
    """What a moment attends to. ``reader`` says by what: without trained weights a substitute, which it names."""

    stream: str
    kind: str
    reader: str
    entries: tuple[RecalledEntry, ...]


class PerceptualCognitiveBank:
    """``config`` is the section ``perceptual_cognitive``. Streams take at most half of ``most_bytes``; a stream that
    finds no room isn't taken up, ``refused`` counts its moments."""

    name = NAME

    def __init__(self, config: PerceptualCognitiveConfig, clock: Clock | None = None) -> None:
        self._config = config
        changes: dict[str, Any] = {"consolidation": config.consolidation, "weighting": config.weighting}
        if config.length:
            changes["length"] = config.length
        self._changes = changes
        self.options: Options = preset(config.preset, **changes)
        self._traces: dict[tuple[str, Streams], Trace] = {}
        self._late: dict[str, int] = {}
        self.refused = 0
        self._episodes = Episodes(
            self._parts,
            most=config.most_episodes,
            most_bytes=config.most_bytes // 2 if config.observe else config.most_bytes,
            idle_s=config.idle_seconds,
            clock=clock,
        )

    # -- streams

    def observe(self, record: Record) -> Sequence[Record]:
        if not self._config.observe:
            return ()
        done: list[Record] = []
        for kind, tokens in tokens_of(record).items():
            key = (record.stream, kind)
            trace = self._traces.get(key)
            if trace is not None and not trace.goes_on(record, tokens.shape):
                done += trace.records(NAME)
                trace = None
                del self._traces[key]
            if trace is None:
                trace = self._begin(record, kind, tokens)
            if trace is not None and not trace.take(record, tokens):
                self._late[record.stream] = self._late.get(record.stream, 0) + 1
        return done

    def _begin(self, record: Record, kind: Streams, tokens: np.ndarray) -> Trace | None:
        size = 4 * tokens.size * self.options.length
        held = sum(trace.nbytes for trace in self._traces.values())
        if size > MOST_STATE or held + size > self._config.most_bytes // 2:
            self.refused += 1
            return None
        trace = self._traces[record.stream, kind] = Trace.begun(record, kind, tokens.shape, self.options)
        return trace

    def state(self, stream: str) -> bytes:
        traces = {kind: trace.save() for (name, kind), trace in self._traces.items() if name == stream}
        late = self._late.get(stream, 0)
        return msgspec.msgpack.encode(_State(STATE_VERSION, late, traces)) if traces or late else b""

    def load(self, stream: str, state: bytes, recall: Recall) -> None:
        if not state:
            return
        try:
            found = msgspec.msgpack.decode(state, type=_State)
        except msgspec.DecodeError as error:
            raise CorruptData(f"the saved tokens of {stream!r} can't be read: {error}") from error
        if found.version > STATE_VERSION:
            raise CorruptData(
                f"the saved tokens of {stream!r} are of version {found.version}, this release reads {STATE_VERSION}",
                hint="upgrade streammem",
            )
        self._late[stream] = found.late
        for kind, saved in found.traces.items():
            self._traces[stream, kind] = Trace.loaded(stream, kind, saved, self.options)

    def ram_bytes(self) -> int:
        return sum(trace.nbytes for trace in self._traces.values()) + self._episodes.ram_bytes()

    def forget(self, stream: str, t_start_ns: int, t_end_ns: int) -> int:
        """Entries that overlap the interval go as a whole: what was averaged can't be taken apart. Policies' episodes
        of the stream have no capture times: they end, whatever the interval."""
        gone = self._episodes.end_of_stream(stream, "its stream was forgotten, in part or whole")
        for kind in STREAMS:
            trace = self._traces.get((stream, kind))
            if trace is not None:
                gone += trace.forget(t_start_ns, t_end_ns)
                if not trace.spans:
                    del self._traces[stream, kind]
        return gone

    def digest(self, stream: str) -> bytes:
        state = self.state(stream)
        return hashlib.sha256(state).digest()[:16] if state else b""

    # -- questions

    def questions(self) -> Mapping[str, Question]:
        return {"held": self._held, "attends_to": self._attends_to}

    def _held(self, reader: Reader, *, streams: Sequence[str] | None) -> list[HeldTrace]:
        """The open sessions' entries of every stream, oldest first."""
        found = [trace for (name, _), trace in sorted(self._traces.items()) if streams is None or name in streams]
        return [
            HeldTrace(
                stream=trace.stream,
                kind=trace.kind,
                session=trace.session,
                tokens=trace.bank.shape[0],
                d=trace.bank.shape[1],
                writes=trace.bank.writes,
                merges=trace.bank.merges,
                bytes=trace.nbytes,
                entries=tuple(HeldEntry(*span) for span in trace.spans),
            )
            for trace in found
        ]

    def _attends_to(
        self, reader: Reader, *, streams: Sequence[str] | None, record_id: int, k: int = 5
    ) -> list[Recalled]:
        """Which entries of its stream's open session a moment attends to, most first: by softmax over cosine, a
        substitute for learned retrieval. One answer a kind of tokens that the moment has."""
        record = reader.record(record_id)
        if record is None or (streams is not None and record.stream not in streams):
            raise QueryError(f"there is no record {record_id}", hint="ids are in the evidence of a search")
        if not 1 <= k <= 4096:
            raise QueryError(f"k is {k}, expected 1 to 4096")
        answers = []
        for kind, tokens in tokens_of(record).items():
            trace = self._traces.get((record.stream, kind))
            if trace is None or trace.bank.shape != tokens.shape:
                continue
            name, shares = trace.attention(tokens)
            found = [
                RecalledEntry(share, span.t_start_ns <= record.t_start_ns <= span.t_end_ns, HeldEntry(*span))
                for share, span in zip(shares, trace.spans, strict=True)
            ]
            found.sort(key=lambda each: (-each.share, each.entry.t_start_ns))
            answers.append(Recalled(record.stream, kind, name, tuple(found[:k])))
        return answers

    # -- policies

    def attend(
        self,
        episode: str,
        step: int,
        perceptual: np.ndarray | Tensor | None = None,
        cognitive: np.ndarray | Tensor | None = None,
        *,
        attention: bool = False,
    ) -> Attended:
        """One step of a policy: retrieve, fuse, write, all or nothing; see ``Episodes.attend`` for arguments and
        errors. An episode is named ``STREAM/ANYTHING``; rights and forgetting go by its stream."""
        return self._episodes.attend(episode, step, perceptual, cognitive, attention=attention)

    def end_episode(self, episode: str) -> bool:
        """The episode is over; False where it wasn't open. Its id can't be used again."""
        return self._episodes.end(episode)

    def episodes(self) -> list[EpisodeInfo]:
        """The open episodes by name."""
        return self._episodes.open()

    def _parts(self) -> Parts:
        """Imports torch, and reads weights where some are configured. Raises ModelUnavailable, ConfigError."""
        from streammem.banks.pcmb.reader import Retrieval, TrainingFree

        device = self._config.device
        if not self._config.weights:
            return Parts(self.options, {}, fallback=TrainingFree(), device=device)
        import torch

        from streammem.banks.pcmb.weights import load_released

        loaded = load_released(self._config.weights, device=device, dtype=torch.float32, **self._changes)
        readers = {stream: Retrieval(weights, loaded.options) for stream, weights in loaded.weights.items()}
        return Parts(loaded.options, readers, trained_merges=loaded.trained_merges, device=device)


def tokens_of(record: Record) -> dict[Streams, np.ndarray]:
    """What of a moment each kind of bank keeps: its tokens (n, d), its vector as one token (1, d)."""
    found: dict[Streams, np.ndarray] = {}
    tokens = record.arrays.get("tokens")
    if tokens is not None and tokens.ndim == 2 and tokens.size:
        found["perceptual"] = tokens
    if record.vector is not None:
        found["cognitive"] = record.vector[None]
    return found


def entry_tokens(record: Record) -> np.ndarray | None:
    """(n, d) float16 tokens of a record of this bank; None where it was demoted to its span."""
    flat = record.arrays.get("tokens")
    return None if flat is None else flat.reshape(int(record.stats["tokens"]), -1)
