"""Search: a question in words, moments with evidence out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from streammem.errors import QueryError, SpaceMismatch
from streammem.model import Evidence, Record, Why
from streammem.numeric import distinct
from streammem.recall import signals as signal_module
from streammem.recall.fuse import score_fusion
from streammem.recall.moments import Moment, pick_moments
from streammem.recall.query import Query, parse_query
from streammem.recall.signals import Signals
from streammem.recall.timeline import Between, Timeline, View, lay_out
from streammem.spaces import EmbeddingSpace, Explains
from streammem.storage.blocks import Block
from streammem.storage.segments import Segment

Fusion = Callable[[Query, Sequence[Signals]], list[np.ndarray]]

# Frames shown for one moment: its best and its borders say more than ten alike.
FRAMES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Hit:
    """A moment with everything that was known about it when it was ranked."""

    evidence: Evidence
    signals: Signals
    moment: Moment


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The result of one search: hits best first, and what was looked at."""

    query: Query
    hits: tuple[Hit, ...]
    rows: int
    spaces: tuple[str, ...]
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Spaces of what was searched that can't be opened here."""


def search(
    view: View,
    query: str,
    *,
    k: int | None = None,
    between: Between | None = None,
    streams: Sequence[str] | None = None,
    exact: bool = False,
) -> list[Evidence]:
    """The ``k`` best moments for ``query``, best first; with ``exact`` no approximate index is used.

    Raises QueryError for a question that can't be asked,
    SpaceMismatch where nothing could be looked at: no space of the memory's pictures opens, and no words match."""
    found = find(view, query, k=k, between=between, streams=streams, exact=exact)
    if not found.hits and found.missing and len(found.missing) == len(found.spaces):
        raise SpaceMismatch(
            f"the memory's pictures are of the space {', '.join(found.missing)}, which can't be opened here, and no"
            " words match",
            hint="`streammem reembed MEMORY` makes vectors of the space that is configured here",
        )
    moments = [hit.evidence for hit in found.hits]
    from streammem.recall.facts import moments_for

    wanted = view.recall_config.k if k is None else k
    known = moments_for(view, query, streams, between, moments[0].score if moments else 0.0, wanted)
    return [*known, *moments][:wanted]


def find(
    view: View,
    query: str,
    *,
    k: int | None = None,
    between: Between | None = None,
    streams: Sequence[str] | None = None,
    fuse: Fusion = score_fusion,
    exact: bool = False,
) -> Found:
    """Search, keeping what an answer needs besides the moments. ``fuse`` makes one score a row out of the signals."""
    config = view.recall_config
    wanted = config.k if k is None else k
    if wanted < 1:
        raise QueryError(f"k is {wanted}, it must be at least 1")
    if between is not None and None not in between and between[0] > between[1]:  # type: ignore[operator]
        raise QueryError("the time range ends before it starts", hint="give the earlier time first")
    parsed = parse_query(query, limit=config.max_question)
    if streams is not None:
        known = {info.stream for info in view.streams()}
        unknown = sorted(set(streams) - known)
        if unknown:
            raise QueryError(
                f"no stream is called {unknown[0]!r}", hint=f"known: {', '.join(sorted(known)[:10]) or 'none yet'}"
            )
    blocks = [b for b in view.blocks("moments", streams, between) if len(b)]
    spaces: dict[str, EmbeddingSpace | None] = {b.space: view.space(b.space) for b in blocks if b.space}
    missing = tuple(sorted(name for name, s in spaces.items() if s is None))
    notes = tuple(
        f"the space {name} can't be opened here: its pictures are not searched (`streammem reembed` gives them another)"
        for name in missing
    )
    timelines = lay_out(blocks, between, _candidates(blocks, between, parsed, spaces, config.candidates, exact))
    words = (
        signal_module.word_candidates(view, parsed, streams, between) if signal_module.needs_index(timelines) else None
    )
    statistics = {(t.stream, t.space): _statistics(view, t) for t in timelines}
    groups = [
        signal_module.gather(
            parsed, t, spaces.get(t.space) if t.space else None, statistics[(t.stream, t.space)], words
        )
        for t in timelines
    ]
    signal_module.share_words(groups)
    fused = fuse(parsed, groups)
    ranked: list[tuple[float, str, int, tuple[Signals, Moment]]] = []
    for group, score in zip(groups, fused, strict=True):
        timeline = group.timeline
        for moment in pick_moments(
            timeline.t_start_ns,
            score,
            k=wanted,
            merge_ns=_merge_ns(timeline, config.merge_seconds),
            step_ns=timeline.step_ns,
        ):
            ranked.append((-moment.score, timeline.stream, int(timeline.t_start_ns[moment.peak]), (group, moment)))
    ranked.sort(key=lambda item: item[:3])
    chosen = [item[3] for item in ranked[:wanted]]
    return Found(
        parsed,
        tuple(
            Hit(_evidence(view, parsed, group, moment, spaces.get(group.timeline.space or "")), group, moment)
            for group, moment in chosen
        ),
        rows=sum(len(t) for t in timelines),
        spaces=tuple(sorted(spaces)),
        notes=notes,
        missing=missing,
    )


def _merge_ns(timeline: Timeline, seconds: float) -> int:
    """How close two moments may be. Five seconds are half of a ten-second clip: never more than a twentieth of what is
    searched, and never less than two looks."""
    length = int(timeline.t_start_ns[-1] - timeline.t_start_ns[0])
    return min(int(seconds * 1e9), max(length // 20, 2 * timeline.step_ns))


def _candidates(
    blocks: Sequence[Block],
    between: Between | None,
    query: Query,
    spaces: dict[str, EmbeddingSpace | None],
    limit: int,
    exact: bool,
) -> dict[int, np.ndarray] | None:
    """The rows worth the full score: all of them (None) while they are few, else the best of an exact scan of the
    index vectors, and every row that has words."""
    lo_ns, hi_ns = between or (None, None)
    ranges = [b.rows_between(lo_ns, hi_ns) for b in blocks]
    if sum(hi - lo for lo, hi in ranges) <= limit:
        return None
    vectors = {name: s.embed_text([query.phrase])[0] for name, s in spaces.items() if s is not None}
    chosen: dict[int, list[np.ndarray]] = {}
    scored: list[tuple[np.ndarray, np.ndarray, int]] = []
    for number, (block, (lo, hi)) in enumerate(zip(blocks, ranges, strict=True)):
        if block.space in vectors:
            # An index gives few rows at a time: of several blocks each gives its share, and as much again.
            approximate = isinstance(block, Segment) and block.approximate and not exact
            wanted = max(64, 2 * limit // len(blocks)) if approximate else limit
            if isinstance(block, Segment):
                scores, rows = block.search(vectors[block.space], wanted, lo, hi, exact=exact)
            else:
                scores, rows = block.search(vectors[block.space], wanted, lo, hi)
            scored.append((scores, rows, number))
        words = np.flatnonzero(np.asarray(block.has_words[lo:hi])) + lo
        chosen.setdefault(number, []).append(words)
    if scored:
        every = np.concatenate([s for s, _, _ in scored])
        cut = np.partition(every, -limit)[-limit] if len(every) > limit else -np.inf
        for scores, rows, number in scored:
            chosen[number].append(rows[scores >= cut])
    return {number: distinct(np.concatenate(parts)) for number, parts in chosen.items()}


def _statistics(view: View, timeline: Timeline) -> np.ndarray | None:
    """The stream's statistics: the sum over all its blocks of that space, whatever the time range asked for."""
    parts = [
        s
        for b in view.blocks("moments", [timeline.stream], None)
        if b.space == timeline.space and (s := b.statistics()) is not None
    ]
    return np.sum(parts, axis=0) if parts else None


def _evidence(view: View, query: Query, group: Signals, moment: Moment, space: EmbeddingSpace | None) -> Evidence:
    timeline = group.timeline
    rows = list(range(moment.lo, moment.hi + 1))
    shown = _spread(rows, moment.peak, timeline)
    records: list[Record] = [timeline.record(i) for i in shown]
    last = moment.hi
    end = int(timeline.t_end_ns[last])
    following = int(timeline.t_start_ns[last + 1]) if last + 1 < len(timeline) else None
    if end == int(timeline.t_start_ns[last]):
        # A sampled frame stands for the time until the next one.
        end += min(timeline.step_ns, following - end) if following is not None and following > end else timeline.step_ns
    return Evidence(
        stream=timeline.stream,
        t_start_ns=int(timeline.t_start_ns[moment.lo]),
        t_end_ns=end,
        frames=tuple(view.frame_refs(timeline.stream, records)),
        record_ids=tuple(int(timeline.ids[i]) for i in rows[:256]),
        score=round(moment.score, 6),
        why=_why(group, moment, _resemblance(query, group, moment, records[shown.index(moment.peak)], space)),
        pose=records[shown.index(moment.peak)].pose,
    )


def _spread(rows: list[int], peak: int, timeline: Timeline) -> list[int]:
    """The peak first, then the borders of the moment: up to ``FRAMES`` rows, in order of importance."""
    wanted = [peak, rows[0], rows[-1]]
    keys = [i for i in rows if timeline.is_key[i]]
    return list(dict.fromkeys(wanted + keys))[:FRAMES]


def _resemblance(query: Query, group: Signals, moment: Moment, peak: Record, space: EmbeddingSpace | None) -> str:
    """What in the picture resembles the question; where the space can't tell, what the picture looks like at all."""
    if isinstance(space, Explains):
        columns = group.timeline.pick(moment.peak)
        if columns and (told := space.explain(query.phrase, columns)[0]):
            return told
    return signal_module.describe(peak)


def _why(group: Signals, moment: Moment, resemblance: str) -> tuple[Why, ...]:
    """One entry a signal that supports the moment, strongest reason first."""
    reasons: list[Why] = []
    inside = range(moment.lo, moment.hi + 1)
    for name in ("text", "speech"):
        matches = group.matches.get(name, {})
        rows = [i for i in inside if i in matches]
        if not rows:
            # A held value: the keyframe that was read lies just before the moment.
            before = [i for i in matches if i < moment.lo]
            held = group.scores.get(name)
            rows = [max(before)] if before and held is not None and held[moment.peak] > 0 else []
        if rows:
            best = max(rows, key=lambda i: (matches[i].coverage, -i))
            reasons.append(Why(name, round(matches[best].coverage, 4), matches[best].detail))
    evidence = group.scores.get("evidence")
    if evidence is not None and np.isfinite(evidence[moment.lo : moment.hi + 1]).any():
        reasons.append(Why("evidence", round(float(np.fmax.reduce(evidence[moment.lo : moment.hi + 1])), 4)))
    for name in ("vision", "face", "colour"):
        value = group.scores.get(name)
        if value is not None and np.isfinite(value[moment.peak]) and (name == "vision" or value[moment.peak] > 0):
            detail = resemblance if name == "vision" else ""
            reasons.append(Why(name, round(float(value[moment.peak]), 4), detail))
    return tuple(reasons)
