"""What can be asked of clips: which there are, which fit a question, and what a reasoner is handed of them. Not a bank.

A question reads a snapshot: the clips and the open entry as they were when it was taken. Without one it reads what is
there now, which is the same while the memory is locked for it; a snapshot keeps several questions on one state (when
somebody begins to speak, say), without copying more than the open entries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from streammem.banks.base import Between, Reader
from streammem.banks.clip_policies import Fallback, open_policy
from streammem.banks.compressors import Compressor
from streammem.banks.compressors.grid import side_of
from streammem.errors import QueryError, SpaceMismatch
from streammem.model import Record, show_id

SNAPSHOTS = 8
"""Kept at once; the oldest goes."""
FRAMES = 32
"""Frames in a reasoner's view: what IXC2.5-OL puts on its canvas at most."""
NEWEST = 3
"""Frames of the newest clip that the fallback of a cosine rule shows."""
MOST_CLIPS = 1000
WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box of a whole picture."""


class OpenClip(NamedTuple):
    """The entry of a stream that is still overwritten."""

    stream: str
    record: Record


class Clip(msgspec.Struct, frozen=True, kw_only=True):
    """A clip without its arrays. ``slots`` and ``width`` are the shape of what is kept of it."""

    id: str
    stream: str
    t_start_ns: int
    t_end_ns: int
    frames: int
    slots: int
    width: int
    bytes: int
    open: bool = False
    parents: tuple[str, ...] = ()


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """A clip that a policy took; ``score`` is its cosine, ``rank`` 1 for the best."""

    id: str
    stream: str
    t_start_ns: int
    t_end_ns: int
    score: float
    rank: int
    open: bool = False


class Selected(msgspec.Struct, frozen=True, kw_only=True):
    """Clips in the order of time. ``fallback`` is empty, or says what to look at because nothing passed: ``whole`` or
    ``newest``. ``searched``: clips that were compared."""

    clips: tuple[Chosen, ...]
    fallback: Fallback
    searched: int
    policy: str


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What a reasoner is handed, in IXC2.5-OL's order: the overview (one long-term vector a clip), the slots of every
    chosen clip, then frames. Vectors are there with ``tokens=True``; ``frames`` are (moment's id, time in ns), at most
    32, evenly from the choice, or from the fallback."""

    selected: Selected
    overview_clips: int
    frames: tuple[tuple[str, int], ...]
    overview: list[list[float]] | None = None
    slots: list[list[list[float]]] | None = None


class Snapshot(msgspec.Struct, frozen=True):
    """``until_ns`` by stream: the newest moment that it holds."""

    id: str
    until_ns: dict[str, int]


class _Held(NamedTuple):
    until_ns: dict[str, int]
    open: list[OpenClip]


class ClipQuestions(ABC):
    """The reading half of the bank."""

    name = "clips"

    def __init__(self, compressor: Compressor) -> None:
        self.compressor = compressor
        self._snapshots: OrderedDict[str, _Held] = OrderedDict()
        self._taken = 0

    @abstractmethod
    def open_clips(self, streams: Sequence[str] | None, until_ns: int | None = None) -> list[OpenClip]:
        """The open clips as they would be if they ended now (or at ``until_ns``)."""

    # snapshots

    def _snapshot(self, reader: Reader, *, streams: Sequence[str] | None, until_ns: int | None = None) -> Snapshot:
        """Freeze what is there now, or what was there at ``until_ns`` (frames after it are left out; a clip that was
        finished since and reaches beyond it, too). Questions take its ``id`` as ``snapshot``. The newest eight are
        kept, in RAM."""
        until: dict[str, int] = {}
        held = self.open_clips(streams, until_ns)
        for name in _names(reader, streams):
            ends = [int(block.t_end_ns.max()) for block in reader.blocks(self.name, [name]) if len(block)]
            ends += [clip.record.t_end_ns for clip in held if clip.stream == name]
            if ends:
                until[name] = max(ends) if until_ns is None else min(max(ends), until_ns)
        self._taken += 1
        number = f"snapshot-{self._taken}"
        self._snapshots[number] = _Held(until, held)
        while len(self._snapshots) > SNAPSHOTS:
            self._snapshots.popitem(last=False)
        return Snapshot(number, until)

    def snapshot_bytes(self) -> int:
        return sum(_size(clip.record) for held in self._snapshots.values() for clip in held.open)

    def forget_snapshots(self, stream: str, t_start_ns: int, t_end_ns: int) -> None:
        """What is forgotten leaves the snapshots too; finished clips are looked up anew by every question."""
        for number, held in self._snapshots.items():
            kept = [
                clip
                for clip in held.open
                if clip.stream != stream or clip.record.t_start_ns > t_end_ns or clip.record.t_end_ns < t_start_ns
            ]
            self._snapshots[number] = _Held(held.until_ns, kept)

    # reading

    def gather(
        self, reader: Reader, streams: Sequence[str] | None, between: Between = (None, None), snapshot: str = ""
    ) -> list[OpenClip]:
        """All clips in scope with their arrays, by stream and time, the open entry last. Raises QueryError."""
        low, high = between
        held = self._snapshots.get(snapshot)
        if snapshot and held is None:
            raise QueryError(
                f"there is no snapshot {snapshot!r}", hint=f"the newest {SNAPSHOTS} are kept: take another"
            )
        entries = [c for c in held.open if streams is None or c.stream in streams] if held else self.open_clips(streams)
        ids = {clip.record.record_id for clip in entries}
        found = []
        for block in reader.blocks(self.name, streams, between):
            limit = None if held is None else held.until_ns.get(block.stream, -(2**63))
            lo, hi = block.rows_between(low, high)
            for row in range(lo, hi):
                if block.levels[row] or (limit is not None and block.t_end_ns[row] > limit):
                    continue  # demoted clips have no slots of their own any more
                if int(block.record_ids[row]) not in ids:
                    found.append(OpenClip(block.stream, block.record(row)))
        found += entries
        found = [
            clip
            for clip in found
            if "slots" in clip.record.arrays
            and (low is None or clip.record.t_end_ns >= low)
            and (high is None or clip.record.t_start_ns <= high)
        ]
        return sorted(found, key=lambda clip: (clip.stream, clip.record.t_start_ns, clip.record.record_id))

    def _open_ids(self, snapshot: str) -> set[int]:
        held = self._snapshots.get(snapshot)
        return {clip.record.record_id for clip in (held.open if held else self.open_clips(None))}

    def _clips(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        t_start_ns: int | None = None,
        t_end_ns: int | None = None,
        snapshot: str = "",
        limit: int = 100,
    ) -> list[Clip]:
        """Clips that overlap the closed interval, by stream and time, the open ones included; the newest ``limit``."""
        if not 1 <= limit <= MOST_CLIPS:
            raise QueryError(f"limit is {limit}", hint=f"1 to {MOST_CLIPS}")
        found = self.gather(reader, streams, (t_start_ns, t_end_ns), snapshot)
        unfinished = self._open_ids(snapshot)
        return [_clip(clip.record, clip.record.record_id in unfinished) for clip in found[-limit:]]

    def _select(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        query: str = "",
        vector: Sequence[float] | None = None,
        like: str = "",
        box: Sequence[float] = WHOLE,
        policy: str = "top_k",
        options: Mapping[str, float] | None = None,
        snapshot: str = "",
        t_start_ns: int | None = None,
        t_end_ns: int | None = None,
    ) -> Selected:
        """The clips that a policy takes for a question.

        ``query``: words (``qwen`` only), or ``vector``: of token space, or ``like``: a moment's id, with ``box``
        (x0, y0, x1, y1 in fractions): what is seen there, less the mean of its picture. ``policy``:
        ``top_k`` (``k``), ``cosine_threshold`` (``threshold``, ``most``), ``softmax_threshold`` (``temperature``,
        ``threshold``), its settings in ``options``. ``snapshot``, ``t_start_ns``, ``t_end_ns`` narrow what is read."""
        asked = _asked(query, vector, like, box, policy, options, snapshot, t_start_ns, t_end_ns)
        return self._choose(reader, streams, asked)[0]

    def _view(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        query: str = "",
        vector: Sequence[float] | None = None,
        like: str = "",
        box: Sequence[float] = WHOLE,
        policy: str = "top_k",
        options: Mapping[str, float] | None = None,
        snapshot: str = "",
        t_start_ns: int | None = None,
        t_end_ns: int | None = None,
        tokens: bool = False,
    ) -> View:
        """What a reasoner is handed for a question: as ``select``, with the frames, and the vectors if ``tokens``."""
        asked = _asked(query, vector, like, box, policy, options, snapshot, t_start_ns, t_end_ns)
        selected, found, long_term = self._choose(reader, streams, asked, overview=tokens)
        by_id = {show_id(clip.record.record_id): clip.record for clip in found}
        chosen = [by_id[clip.id] for clip in selected.clips]
        if selected.fallback == "newest":
            newest = max((clip.record for clip in found), key=lambda record: record.t_end_ns, default=None)
            frames = _frames(reader, [newest] if newest else [])[-NEWEST:]
        else:
            frames = _frames(reader, chosen if chosen else [clip.record for clip in found])
        return View(
            selected=selected,
            overview_clips=min(len(found), self.compressor.longest),
            frames=tuple(frames[at] for at in _evenly(len(frames), FRAMES)),
            overview=long_term.tolist() if tokens else None,
            slots=[record.arrays["slots"].astype(np.float32).tolist() for record in chosen] if tokens else None,
        )

    def _choose(
        self, reader: Reader, streams: Sequence[str] | None, asked: _Asked, overview: bool = False
    ) -> tuple[Selected, list[OpenClip], np.ndarray]:
        policy = open_policy(asked.policy, asked.options or {})
        found = self.gather(reader, streams, (asked.t_start_ns, asked.t_end_ns), asked.snapshot)
        query = _question(reader, streams, asked)
        slots = [clip.record.arrays["slots"].astype(np.float32) for clip in found]
        summaries = [clip.record.arrays["summary"][0].astype(np.float32) for clip in found]
        widths = {own.shape[1] for own in slots}
        if len(widths) > 1 or (not isinstance(query, str) and widths and query.shape != (widths.pop(),)):
            raise SpaceMismatch(
                "the question and the clips, or clips of two encoders, differ in width",
                hint="narrow it to one stream, or ask with a vector of the same encoder's tokens",
            )
        long_term = np.empty((0, 0), np.float32)
        newest = self.compressor.longest
        if slots and (overview or isinstance(query, str)):
            long_term = self.compressor.integrate(slots[-newest:], np.stack(summaries[-newest:]))
        scores = np.empty(0)
        if slots:
            scores = self.compressor.score(self.compressor.question(long_term, query), slots, np.stack(summaries))
        selection = policy.select(scores)
        ranks = {at: rank for rank, at in enumerate(np.lexsort((np.arange(len(scores)), -scores)).tolist(), 1)}
        unfinished = self._open_ids(asked.snapshot)
        chosen = [
            Chosen(
                id=show_id(found[at].record.record_id),
                stream=found[at].stream,
                t_start_ns=found[at].record.t_start_ns,
                t_end_ns=found[at].record.t_end_ns,
                score=float(scores[at]),
                rank=ranks[at],
                open=found[at].record.record_id in unfinished,
            )
            for at in selection.chosen
        ]
        chosen.sort(key=lambda clip: (clip.t_start_ns, clip.stream))
        result = Selected(clips=tuple(chosen), fallback=selection.fallback, searched=len(found), policy=asked.policy)
        return result, found, long_term


class _Asked(msgspec.Struct, array_like=True):
    """What came as arguments, checked: they may have come over a wire."""

    query: str
    vector: list[float] | None
    like: str
    box: tuple[float, float, float, float]
    policy: str
    options: dict[str, float] | None
    snapshot: str
    t_start_ns: int | None
    t_end_ns: int | None


def _asked(*arguments: Any) -> _Asked:
    try:
        return msgspec.convert(arguments, _Asked)
    except msgspec.ValidationError as error:
        raise QueryError(f"clips: {error}", hint=f"in this order: {', '.join(_Asked.__struct_fields__)}") from None


def _question(reader: Reader, streams: Sequence[str] | None, asked: _Asked) -> str | np.ndarray:
    if (asked.query != "") + (asked.vector is not None) + (asked.like != "") != 1:
        raise QueryError("ask with one of query, vector, like", hint="like=<a moment's id>, box=[x0, y0, x1, y1]")
    if asked.query:
        return asked.query
    if asked.vector is not None:
        values = np.asarray(asked.vector, np.float32)
        if not np.isfinite(values).all() or not values.any():
            raise QueryError("the vector must be finite and not zero")
        return values
    try:
        number = int(asked.like, 16)
    except ValueError:
        raise QueryError(f"{asked.like!r} is no record id", hint="16 hexadecimal digits") from None
    record = reader.record(number)
    if record is None or (streams is not None and record.stream not in streams):
        raise QueryError(f"there is no moment {asked.like!r}", hint="list clips: their parents are moments")
    tokens = record.arrays.get("tokens")
    if tokens is None:
        raise QueryError(f"the moment {asked.like!r} has no tokens (any more)", hint="take a newer one")
    return tokens_in_box(tokens.astype(np.float32), asked.box)


def tokens_in_box(tokens: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """The mean of the tokens whose cell's middle is in the box (at least the nearest one), less the mean of all.
    ``tokens`` (N, d), a square grid; ``box`` in fractions of the picture. Raises QueryError."""
    side = side_of(len(tokens))
    if side is None:
        raise QueryError(f"{len(tokens)} tokens are no square grid: a box has no meaning", hint="ask with a vector")
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise QueryError(f"the box {box} is none", hint="0 <= x0 < x1 <= 1, the same for y")
    middle = (np.arange(side) + 0.5) / side
    across, down = (middle >= x0) & (middle <= x1), (middle >= y0) & (middle <= y1)
    across[int(np.argmin(np.abs(middle - (x0 + x1) / 2)))] = True
    down[int(np.argmin(np.abs(middle - (y0 + y1) / 2)))] = True
    inside = tokens.reshape(side, side, -1)[np.ix_(down, across)].reshape(-1, tokens.shape[1])
    return inside.mean(axis=0) - tokens.mean(axis=0)


def _names(reader: Reader, streams: Sequence[str] | None) -> list[str]:
    names = {info.stream for info in reader.streams()}
    return sorted(names if streams is None else names & set(streams))


def _frames(reader: Reader, records: Sequence[Record]) -> list[tuple[str, int]]:
    """(id, time) of the clips' moments that still exist, in the order of time."""
    wanted = {parent for record in records for parent in record.parents}
    found: list[tuple[int, str]] = []
    for record in records:
        for block in reader.blocks("moments", [record.stream], (record.t_start_ns, record.t_end_ns)):
            lo, hi = block.rows_between(record.t_start_ns, record.t_end_ns)
            ids = block.record_ids[lo:hi].tolist()
            found += [(int(t), show_id(n)) for n, t in zip(ids, block.t_start_ns[lo:hi], strict=True) if n in wanted]
    return [(number, t) for t, number in sorted(set(found))]


def _evenly(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return [round(at) for at in np.linspace(0, count - 1, most)]


def _size(record: Record) -> int:
    return sum(array.nbytes for array in record.arrays.values())


def _clip(record: Record, unfinished: bool) -> Clip:
    slots = record.arrays["slots"]
    return Clip(
        id=show_id(record.record_id),
        stream=record.stream,
        t_start_ns=record.t_start_ns,
        t_end_ns=record.t_end_ns,
        frames=record.count,
        slots=len(slots),
        width=slots.shape[1],
        bytes=_size(record),
        open=unfinished,
        parents=tuple(show_id(parent) for parent in record.parents),
    )
