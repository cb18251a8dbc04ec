"""The signals: one score a row for each way of knowing. Recall fuses them on time (``fuse.py``).

Signals that come with a keyframe only (text in the scene, faces, colours) hold until the next keyframe: the frames
between were left light *because* they looked the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streammem.colours import TERMS
from streammem.model import Record
from streammem.recall.query import Query
from streammem.recall.timeline import Between, Timeline, View
from streammem.recall.words import WordMatch, match_query
from streammem.spaces import EmbeddingSpace, Ragged

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


COLOUR_INDEX = {name: i for i, name in enumerate(TERMS)}


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


def share_words(groups: Sequence[Signals]) -> None:
    """Rows that hold words and no picture (speech) support the pictures seen meanwhile.

    A row that some picture covers gives its words away, so that one moment isn't found twice; one that no picture
    covers (a black screen, a sound recording) keeps them and can be found by itself."""
    for giver in groups:
        vision = giver.scores.get("vision")
        for name, matches in giver.matches.items():
            for index in [i for i in matches if vision is None or not np.isfinite(vision[i])]:
                lent = [
                    _lend(giver, index, name, taker)
                    for taker in groups
                    if taker.timeline.stream == giver.timeline.stream and "vision" in taker.scores
                ]
                if any(lent):
                    giver.scores[name][index] = np.nan
                    del matches[index]


def _lend(giver: Signals, index: int, name: str, taker: Signals) -> bool:
    """Give the words of one row to the pictures that were seen within half a step of it; whether there were any."""
    timeline, match = taker.timeline, giver.matches[name][index]
    reach = timeline.step_ns // 2
    lo = int(np.searchsorted(timeline.t_start_ns, giver.timeline.t_start_ns[index] - reach, side="left"))
    hi = int(np.searchsorted(timeline.t_start_ns, giver.timeline.t_end_ns[index] + reach, side="right"))
    rows = [row for row in range(lo, hi) if np.isfinite(taker.scores["vision"][row])]
    if not rows:
        return False
    scores = taker.scores.setdefault(name, np.full(len(timeline), np.nan, np.float32))
    for row in rows:
        if not scores[row] >= match.coverage:
            scores[row] = match.coverage
            taker.matches.setdefault(name, {})[row] = match
    return True


def describe(record: Record, limit: int = 3) -> str:
    """The best labels of a record as people read them."""
    best = sorted(record.labels, key=lambda label: (-label.score, label.name))[:limit]
    return ", ".join(f"{label.name} {label.score:.2f}" for label in best)
