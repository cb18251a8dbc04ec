"""The signals: one score a row for each way of knowing. Recall fuses them on time (``fuse.py``).

Signals that come with a keyframe only (text in the scene, faces, colours) hold until the next keyframe: the frames
between were left light *because* they looked the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streammem.model import Record
from streammem.recall.query import COLOURS, Query
from streammem.recall.timeline import Between, Timeline, View
from streammem.recall.words import WordMatch, match_query
from streammem.spaces import EmbeddingSpace, Ragged

SIGNALS = ("vision", "evidence", "text", "speech", "face", "colour")
"""``vision`` ranks; ``evidence``, ``text`` and ``speech`` can say no (``calibrate.py``)."""

# Above this many rows with words the full-text index chooses which are read; below, reading them all is quicker.
SCAN_WORDS = 5_000


@dataclass(slots=True, eq=False)
class Signals:
    """``scores[name]`` (n,) float32 for the rows of ``timeline``; NaN where the signal knows nothing.
    ``matches[name][row]`` says what was matched."""

    timeline: Timeline
    scores: dict[str, np.ndarray]
    matches: dict[str, dict[int, WordMatch]] = field(default_factory=dict)


def gather(
    query: Query,
    timeline: Timeline,
    space: EmbeddingSpace | None,
    statistics: np.ndarray | None,
    word_ids: set[int] | None,
) -> Signals:
    """Every signal that has something to say about ``query`` on this timeline. ``word_ids`` restricts which rows'
    words are read (None: all)."""
    signals = Signals(timeline, {})
    columns = timeline.columns()
    embedded = columns.get("vector")
    if space is not None and embedded is not None and len(embedded.values):
        for name, score in space.signals(query.phrase, columns, statistics).items():
            known = np.isfinite(score)
            if known.any():
                signals.scores[name] = np.where(known, score, np.nan).astype(np.float32)
    _add_words(query, timeline, word_ids, signals)
    if query.people and "faces" in columns:
        signals.scores["face"] = hold(_largest(columns["faces"], 0), timeline.is_key)
    if query.colours and "colours" in columns:
        shares = np.minimum.reduce([_largest(columns["colours"], COLOUR_INDEX[c]) for c in query.colours])
        signals.scores["colour"] = hold(shares, timeline.is_key)
    return signals


# Order of the columns of the part "colours": share of a region's pixels that has each basic colour term.
COLOUR_TERMS = tuple(sorted(COLOURS))
COLOUR_INDEX = {name: i for i, name in enumerate(COLOUR_TERMS)}


def _largest(column: Ragged, index: int) -> np.ndarray:
    """Largest value a row of one feature of a ragged column; NaN for rows without entries."""
    values = np.asarray(column.values, np.float32)
    if values.ndim > 1:
        values = values.reshape(len(values), -1)[:, index]
    out = np.full(len(column), np.nan, np.float32)
    counts = np.diff(column.offsets)
    filled = np.flatnonzero(counts > 0)
    if len(filled):
        out[filled] = np.maximum.reduceat(values, column.offsets[:-1][filled])
    return out


def hold(values: np.ndarray, is_key: np.ndarray) -> np.ndarray:
    """Each row takes the value of the last keyframe at or before it (its own where it has one)."""
    known = is_key | np.isfinite(values)
    last = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    return np.where(last >= 0, values[np.maximum(last, 0)], np.float32(np.nan)).astype(np.float32)


def _add_words(query: Query, timeline: Timeline, word_ids: set[int] | None, signals: Signals) -> None:
    n = len(timeline)
    text, speech = np.full(n, np.nan, np.float32), np.full(n, np.nan, np.float32)
    seen: dict[int, WordMatch] = {}
    heard: dict[int, WordMatch] = {}
    rows = np.flatnonzero(timeline.has_words)
    for index in rows:
        if word_ids is not None and int(timeline.ids[index]) not in word_ids:
            continue
        record = timeline.record(int(index))
        for spans, out, matches in (
            ([(t.text, t.score) for t in record.texts], text, seen),
            ([(s.text, s.score) for s in record.speech], speech, heard),
        ):
            if not spans:
                continue
            match = match_query(query, [words for words, _ in spans])
            out[index] = match.coverage
            if match.coverage > 0:
                matches[int(index)] = match
    if len(rows):
        if seen:
            signals.scores["text"] = hold(text, timeline.is_key)
            signals.matches["text"] = seen
        if heard:
            signals.scores["speech"] = speech
            signals.matches["speech"] = heard


def needs_index(timelines: Sequence[Timeline]) -> bool:
    """Whether there are too many rows with words to read them one by one."""
    return sum(int(t.has_words.sum()) for t in timelines) > SCAN_WORDS


def word_candidates(
    view: View, query: Query, streams: Sequence[str] | None, between: Between | None
) -> set[int] | None:
    """Rows that the full-text index offers for the query's words, or None when everything must be read."""
    asked = [w for q in query.quoted for w in q.split()] or list(query.words)
    return view.search_words(asked, streams, between, 20_000)


def share_words(groups: Sequence[Signals]) -> list[Signals]:
    """Words on a timeline without pictures (speech) support the pictures seen meanwhile.

    Rows of such a timeline that some picture covers are taken out, so that one moment isn't found twice; rows that no
    picture covers (a black screen, a sound recording) stay and can be found by themselves."""
    pictured = [g for g in groups if g.timeline.space is not None]
    kept: list[Signals] = list(pictured)
    for group in groups:
        if group.timeline.space is not None:
            continue
        covered = np.zeros(len(group.timeline), bool)
        for target in pictured:
            if target.timeline.stream == group.timeline.stream:
                covered |= _lend(group, target)
        for name in group.scores:
            group.scores[name] = np.where(covered, np.float32(np.nan), group.scores[name])
        kept.append(group)
    return kept


def _lend(giver: Signals, taker: Signals) -> np.ndarray:
    """Give each row of ``taker`` the words that were heard or read while it was seen; says which rows were given."""
    reach = taker.timeline.step_ns
    start = giver.timeline.t_start_ns - reach // 2
    end = giver.timeline.t_end_ns + reach // 2
    lo = np.searchsorted(taker.timeline.t_start_ns, start, side="left")
    hi = np.searchsorted(taker.timeline.t_start_ns, end, side="right")
    for name, matches in giver.matches.items():
        lent = taker.scores.get(name, np.full(len(taker.timeline), np.nan, np.float32)).copy()
        for index, match in matches.items():
            for row in range(lo[index], hi[index]):
                if not lent[row] >= match.coverage:
                    lent[row] = match.coverage
                    taker.matches.setdefault(name, {})[row] = match
        if np.isfinite(lent).any():
            taker.scores[name] = lent
    return hi > lo


def describe(record: Record, limit: int = 3) -> str:
    """The best labels of a record as people read them."""
    best = sorted(record.labels, key=lambda label: (-label.score, label.name))[:limit]
    return ", ".join(f"{label.name} {label.score:.2f}" for label in best)
