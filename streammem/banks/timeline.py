"""Timeline: what happened, coarse to fine, in lists short enough to read.

VideoLucy (arXiv 2510.12422, sec. 2.2, app. A.1) captions a video in clips whose length grows with the video, so that
the coarse list stays at 20 to 40 entries, and looks more closely only where a question needs it. Here the coarse levels
are a binary pyramid over a fixed grid of capture time: a leaf is ``leaf_seconds`` long, a node of level ``l`` covers
``2**l`` leaves. A node is a record, written once, when the first moment after it arrives; the list for any stretch is
the level that gives 20 to 40 entries. Nothing depends on a question, on the length (unknown in a stream), on restarts.

Deeper levels (fine: an eighth of the coarse scope, ultra-fine: an eighth of that) that lie below the leaf are composed
from the moments when they are asked for. What a question looked at again in the source is no record of this bank: it is
a cache beside the memory (``cli/deepen.py``), because a bank decides by the stream alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from streammem.banks.base import Between, Question, Reader, Recall
from streammem.captions import FACT_WORDS, LEVELS, ComposedCaptioner, Scene, scene_of
from streammem.errors import CorruptData, QueryError
from streammem.model import Label, Producer, Record, record_id

LEAST, MOST = 20, 40
"""Entries of a coarse list (VideoLucy's table: 6.33 h at 800 s are 29). Scopes are powers of two apart, so a list that
would have more than 40 has 20 to 40 at the next scope."""
DEEPER = 8
"""Fine is an eighth of coarse, ultra-fine an eighth of fine: the paper's tenth, on a ladder of powers of two."""
HIGHEST = 24
"""The highest node: 2**23 leaves of 10 s are 2.7 years."""
FINEST_NS = 250_000_000
"""No scope is shorter: four looks a second is the densest that the paper samples."""
PARENTS = 64
"""Moments that a leaf names: the first, the last and an even choice between."""
LIMIT = 512
"""Entries of one answer."""

PRODUCER = Producer("streammem.banks.timeline", "pyramid", "1")


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of a list. Times in ns: the grid's bounds, cut to what was looked at. ``evidence``: record ids."""

    stream: str
    t_start_ns: int
    t_end_ns: int
    scope_ns: int
    level: str
    caption: str
    looks: int
    evidence: tuple[int, ...] = ()


class _Open(msgspec.Struct, array_like=True):
    """A node that is still growing: its place on its level's grid, its scene, and ids below it. A ``broken`` one lost
    something to ``forget``: it is never written, and composed from what is below it instead."""

    index: int
    scene: Scene
    parents: list[int]
    broken: bool = False


class _Stream(msgspec.Struct, array_like=True):
    """Open nodes by level, from the leaf up. ``late``: moments that came after their leaf was finished."""

    open: list[_Open] = []
    late: int = 0


def scope_for(t_start_ns: int, t_end_ns: int, leaf_ns: int, most: int = MOST) -> int:
    """The shortest scope of the ladder (``leaf_ns`` times a power of two) whose grid cuts the closed stretch into at
    most ``most`` entries, never below ``FINEST_NS``."""
    scope = scope_at_least(FINEST_NS, leaf_ns)
    # Any grid cuts a stretch over the instant 0 in two: there the longest scope is the answer to ``most`` = 1.
    while t_end_ns // scope - t_start_ns // scope + 1 > most and scope < 2**63:
        scope *= 2
    return scope


def scopes_for(t_start_ns: int, t_end_ns: int, leaf_ns: int) -> tuple[int, int, int]:
    """(coarse, fine, ultra-fine) for a stretch."""
    coarse, finest = scope_for(t_start_ns, t_end_ns, leaf_ns), scope_at_least(FINEST_NS, leaf_ns)
    fine = max(coarse // DEEPER, finest)
    return coarse, fine, max(fine // DEEPER, finest)


def snapped(t_start_ns: int, t_end_ns: int, scope_ns: int) -> tuple[int, int]:
    """The closed stretch of whole grid clips that a period touches: whatever bounds a model names, (55, 125) at a scope
    of 50 becomes (50, 149). An end before its start counts as the start."""
    first, last = t_start_ns // scope_ns, max(t_start_ns, t_end_ns) // scope_ns
    return first * scope_ns, (last + 1) * scope_ns - 1


class TimelineBank:
    """``leaf_seconds``: the shortest stretch that is kept as a record."""

    name = "timeline"

    def __init__(self, leaf_seconds: float) -> None:
        # A grid on milliseconds keeps the ladder exact: 10 s halves five times down to 312.5 ms.
        self._leaf_ns = round(leaf_seconds * 1000) * 1_000_000
        self._streams: dict[str, _Stream] = {}
        self._captioner = ComposedCaptioner()

    # -- writing

    def observe(self, record: Record) -> Sequence[Record]:
        state = self._streams.setdefault(record.stream, _Stream(open=[]))
        index = record.t_start_ns // self._leaf_ns
        if state.open and index < state.open[0].index:
            state.late += 1  # its leaf is written; the moment itself is kept and found all the same
            return ()
        finished = self._finish(record.stream, state, index) if state.open else []
        if not state.open:
            state.open = [_Open(index, Scene(), [])]
        leaf = state.open[0]
        leaf.scene.add(record)
        if len(leaf.parents) < 4 * PARENTS:
            leaf.parents.append(record.record_id)
        else:
            leaf.parents[-1] = record.record_id
        return finished

    def _finish(self, stream: str, state: _Stream, index: int) -> list[Record]:
        """Close every node that ends before leaf ``index`` begins, from the leaf up, and open the next ones. At any
        time the open node of level ``l`` is the one that holds the newest leaf."""
        finished: list[Record] = []
        level = 0
        while level < len(state.open) and state.open[level].index < index >> level:
            node = state.open[level]
            if not node.broken and node.parents:
                finished.append(self._record(stream, level, node))
            if level + 1 < HIGHEST:
                if level + 1 == len(state.open):
                    state.open.append(_Open(node.index >> 1, Scene(), []))
                above = state.open[level + 1]
                above.broken |= node.broken
                above.scene.merge(node.scene)
                above.parents += [finished[-1].record_id] if not node.broken and node.parents else []
            level += 1
        state.open[:level] = [_Open(index >> number, Scene(), []) for number in range(level)]
        return finished

    def _record(self, stream: str, level: int, node: _Open) -> Record:
        scene = node.scene
        parents = node.parents
        if len(parents) > PARENTS:
            chosen = np.linspace(0, len(parents) - 1, PARENTS).round().astype(int)
            parents = [parents[at] for at in chosen]
        blob = msgspec.msgpack.encode(scene.compact())
        return Record(
            record_id=node_id(stream, level, node.index),
            bank=self.name,
            stream=stream,
            session=f"L{level}",
            seq=node.index,
            t_start_ns=scene.t_start_ns,
            t_end_ns=scene.t_end_ns,
            count=max(scene.looks, 1),
            parents=tuple(parents),
            producer=PRODUCER,
            labels=tuple(Label(name, min(1.0, score)) for name, score in scene.best_labels(3)),
            # Not as texts and speech: those would be found twice by a search for words.
            arrays={"scene": np.frombuffer(blob, np.uint8)},
        )

    # -- the protocol

    def state(self, stream: str) -> bytes:
        found = self._streams.get(stream)
        return b"" if found is None else msgspec.msgpack.encode((self._leaf_ns, found))

    def load(self, stream: str, state: bytes, recall: Recall) -> None:
        if not state:
            return
        try:
            leaf_ns, found = msgspec.msgpack.decode(state, type=tuple[int, _Stream])
        except msgspec.DecodeError as error:
            raise CorruptData(f"the saved timeline of {stream!r} can't be read: {error}") from error
        if leaf_ns == self._leaf_ns:  # else the grid was changed in the settings: a new one begins here
            self._streams[stream] = found

    def ram_bytes(self) -> int:
        # What dictionaries take: 60 bytes a label, 200 a text or utterance; a node has at most 64 and 64 of them.
        return sum(
            64 * len(n.parents) + 60 * len(n.scene.labels) + 200 * (len(n.scene.texts) + len(n.scene.speech))
            for s in self._streams.values()
            for n in s.open
        )

    def forget(self, stream: str, t_start_ns: int, t_end_ns: int) -> int:
        found = self._streams.get(stream)
        if found is None:
            return 0
        if t_start_ns <= -(2**63) and t_end_ns >= 2**63 - 1:
            return len(self._streams.pop(stream).open)  # the stream may be written anew, from its beginning
        gone = 0
        for node in found.open:
            scene = node.scene
            if node.parents and scene.t_start_ns <= t_end_ns and scene.t_end_ns >= t_start_ns:
                node.scene, node.parents, node.broken, gone = Scene(), [], True, gone + 1
        return gone

    def digest(self, stream: str) -> bytes:
        return b""

    # -- asking

    def questions(self) -> Mapping[str, Question]:
        return {"timeline": self._timeline, "at": self._at, "scene": self._scene}

    def _timeline(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        t_start_ns: int | None = None,
        t_end_ns: int | None = None,
        level: str = "coarse",
        scope_s: float | None = None,
    ) -> list[Entry]:
        """What happened, in time order. ``level`` coarse gives 20 to 40 entries over the stretch, fine and ultra-fine
        an eighth of its scope each; ``scope_s`` names a scope instead (the next one on the ladder is taken)."""
        if level not in LEVELS:
            raise QueryError(f"there is no level {level!r}", hint="coarse, fine or ultra-fine")
        entries: list[Entry] = []
        for name in sorted({block.stream for block in reader.blocks("moments", streams, (t_start_ns, t_end_ns))}):
            blocks = [b for b in reader.blocks("moments", [name], (t_start_ns, t_end_ns)) if len(b)]
            lo = min(int(b.t_start_ns[0]) for b in blocks)
            hi = max(int(np.asarray(b.t_end_ns).max()) for b in blocks)
            lo = lo if t_start_ns is None else max(lo, t_start_ns)
            hi = hi if t_end_ns is None else min(hi, t_end_ns)
            if hi < lo:
                continue
            # Below the distance of the looks there is nothing finer to tell.
            rows = sum(len(b) for b in blocks)
            least = scope_at_least((hi - lo) // max(rows, 1), self._leaf_ns)
            scope = max(scopes_for(lo, hi, self._leaf_ns)[LEVELS.index(level)], least)
            if scope_s is not None:
                scope = scope_at_least(round(scope_s * 1e9), self._leaf_ns)
            count = hi // scope - lo // scope + 1
            if count > LIMIT:
                raise QueryError(
                    f"{count} entries, at most {LIMIT} are given", hint="ask for a shorter stretch or a coarser level"
                )
            entries += self._entries(reader, name, lo, hi, scope, level)
        return entries

    def _at(
        self, reader: Reader, *, streams: Sequence[str] | None, t_start_ns: int, t_end_ns: int | None = None
    ) -> list[Entry]:
        """What was there in a stretch, in detail: the finest list that has at most 40 entries."""
        hi = t_start_ns if t_end_ns is None else t_end_ns
        if hi < t_start_ns:
            raise QueryError("the time range ends before it starts", hint="give the earlier time first")
        scope = scope_for(t_start_ns, hi, self._leaf_ns)
        named = sorted({b.stream for b in reader.blocks("moments", streams, (t_start_ns, hi))})
        return [e for n in named for e in self._entries(reader, n, t_start_ns, hi, scope, "fine")][:LIMIT]

    def _scene(self, reader: Reader, *, streams: Sequence[str] | None, t_start_ns: int, t_end_ns: int) -> list[Scene]:
        """What a caption of a closed stretch is made from, one scene a stream (``streammem.captions.Scene``)."""
        between, length = (t_start_ns, t_end_ns), t_end_ns - t_start_ns + 1
        whole = t_start_ns % max(length, 1) == 0 and length == scope_at_least(length, self._leaf_ns)
        scope = length if whole else scope_for(*between, self._leaf_ns, 1)
        found = []
        for name in sorted({b.stream for b in reader.blocks("moments", streams, between)}):
            node = self._nodes(reader, name, *between, scope).get(t_start_ns // scope) if whole else None
            made = node or self._composed(reader, name, between, scope)
            found += [made[0]] if made is not None else []
        return found

    def _entries(self, reader: Reader, stream: str, lo: int, hi: int, scope: int, level: str) -> list[Entry]:
        found: list[Entry] = []
        nodes = self._nodes(reader, stream, lo, hi, scope)
        for index in range(lo // scope, hi // scope + 1):
            start, end = index * scope, (index + 1) * scope - 1
            if start < lo or end > hi or index not in nodes:
                made = self._composed(reader, stream, (max(start, lo), min(end, hi)), scope)
            else:
                made = nodes[index]
            if made is None:
                continue
            scene, evidence = made
            caption = self._captioner.caption(scene, (), level=level, words=FACT_WORDS[level])
            found.append(
                Entry(
                    stream,
                    max(start, lo, min(scene.t_start_ns, end)),
                    min(end, hi, max(scene.t_end_ns, start)),
                    scope,
                    level,
                    caption,
                    scene.looks,
                    evidence,
                )
            )
        return found

    def _nodes(
        self, reader: Reader, stream: str, lo: int, hi: int, scope: int
    ) -> dict[int, tuple[Scene, tuple[int, ...]]]:
        """Finished nodes of a level by their index. Empty below the leaf."""
        if scope < self._leaf_ns:
            return {}
        level = (scope // self._leaf_ns).bit_length() - 1
        wanted = {node_id(stream, level, index): index for index in range(lo // scope, hi // scope + 1)}
        numbers = np.array(sorted(wanted), np.uint64)
        found: dict[int, tuple[Scene, tuple[int, ...]]] = {}
        for block in reader.blocks(self.name, [stream], (lo, hi)):
            for row in np.flatnonzero(np.isin(np.asarray(block.record_ids, np.uint64), numbers)).tolist():
                record = block.record(row)
                scene = read_scene(record)
                if scene is not None:
                    found[wanted[record.record_id]] = (scene, (record.record_id,))
        return found

    def _anything(self, reader: Reader, stream: str, lo: int, hi: int) -> bool:
        """Whether a moment or a node begins in a closed stretch."""
        blocks = (block for bank in ("moments", self.name) for block in reader.blocks(bank, [stream], (lo, hi)))
        for block in blocks:
            first, last = block.rows_between(lo, hi)
            if np.any(np.asarray(block.t_start_ns[first:last]) >= lo):
                return True
        return False

    def _composed(
        self, reader: Reader, stream: str, between: tuple[int, int], scope: int
    ) -> tuple[Scene, tuple[int, ...]] | None:
        """A stretch that no finished node covers: from nodes one level below, and at the bottom from the moments."""
        lo, hi = between
        if not self._anything(reader, stream, lo, hi):
            return None  # or a stretch that ends in a thousand years would be halved down to its seconds
        if scope > self._leaf_ns:
            half = scope // 2
            nodes = self._nodes(reader, stream, lo, hi, half)
            scene = Scene()
            evidence: list[int] = []
            for index in range(lo // half, hi // half + 1):
                start, end = max(lo, index * half), min(hi, (index + 1) * half - 1)
                whole = start == index * half and end == (index + 1) * half - 1
                part = nodes.get(index) if whole else None
                part = part or self._composed(reader, stream, (start, end), half)
                if part is not None:
                    scene.merge(part[0])
                    evidence += part[1]
            return (scene, tuple(evidence[:PARENTS])) if evidence else None
        records = moments_of(reader, stream, between)
        if not records:
            return None
        step = max(1, -(-len(records) // PARENTS))
        return scene_of(records), tuple(record.record_id for record in records[::step])


def node_id(stream: str, level: int, index: int) -> int:
    """The record id of a node: its place says it all."""
    return record_id("timeline", stream, f"L{level}", index)


def read_scene(record: Record) -> Scene | None:
    """The scene that a node of this bank holds; None for one that was demoted to a summary, or is damaged."""
    blob = record.arrays.get("scene")
    if blob is None or not len(blob):
        return None
    try:
        return msgspec.msgpack.decode(np.asarray(blob, np.uint8).tobytes(), type=Scene)
    except msgspec.DecodeError:
        return None


def scope_at_least(length_ns: int, leaf_ns: int) -> int:
    """The shortest scope of the ladder that isn't shorter than ``length_ns``."""
    scope = leaf_ns
    while scope // 2 >= max(length_ns, FINEST_NS):
        scope //= 2
    while scope < length_ns:
        scope *= 2
    return scope


def moments_of(reader: Reader, stream: str, between: Between) -> list[Record]:
    """The moments of one stream that begin inside a closed interval, in time order."""
    lo, hi = between
    found: list[Record] = []
    for block in reader.blocks("moments", [stream], between):
        first, last = block.rows_between(lo, hi)
        starts = np.asarray(block.t_start_ns[first:last])
        inside = (starts >= (lo if lo is not None else starts.min(initial=0))) & (
            starts <= (hi if hi is not None else starts.max(initial=0))
        )
        found += [block.record(first + int(row)) for row in np.flatnonzero(inside)]
    return sorted(found, key=lambda record: (record.t_start_ns, record.record_id))
