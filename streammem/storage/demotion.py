"""The demotion ladder: what becomes of a segment's rows when room is needed.

    0 full detail
    1 without thumbnails, patch tokens and depth; vectors, parts, words stay
    2 eight neighbours become one: mean vector (normalised again), the parts of the one nearest to it, all words
    3 ten minutes become one: how often each label was there, words; no vector
    4 tombstone: from when to when, how many

Every row of a level names its parents, and its digest depends on theirs alone: the same rows give the same result.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from streammem.model import Label, Record, Speech, StateFact, TextSpan, record_id
from streammem.storage.segment_writer import Row

LAST_LEVEL = 4
MERGE_ROWS = 8
MERGE_GAP_NS = 60 * 10**9
"""Rows further apart than this aren't neighbours."""
SUMMARY_NS = 600 * 10**9
KEPT_LABELS, KEPT_WORDS, KEPT_PARENTS = 32, 64, 64
"""Caps of a summary. The best score or the first comer wins; parents are thinned evenly."""
HEAVY_ARRAYS = frozenset({"tokens", "depth_m"})
TOMBSTONE_ROWS = 256
"""Tombstones of one stream; beyond that neighbours melt in pairs."""


def mix(digests: Iterable[int], level: int) -> int:
    """Digest of a demoted row: 64 bits from those it stands for."""
    packed = struct.pack("<QB", sum(digests) % 2**64, level)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


def demote(rows: Sequence[Row], level: int) -> list[Row]:
    """Rows of the level below as rows of ``level``, sorted by (t_start_ns, record_id)."""
    if level == 1:
        result = [_without_pictures(row) for row in rows]
    elif level == 2:
        result = [_merge(group) for group in _groups(rows, MERGE_GAP_NS, MERGE_ROWS)]
    elif level == 3:
        result = [_summary(group) for group in _windows(rows, SUMMARY_NS)]
    elif level == LAST_LEVEL:
        result = [_tombstone(rows)] if rows else []
    else:
        raise ValueError(f"there is no demotion level {level}")
    return sorted(result, key=lambda row: (row.record.t_start_ns, row.record.record_id))


def join_tombstones(rows: Sequence[Row]) -> list[Row]:
    """The tombstones of two segments as those of one."""
    ordered = sorted(rows, key=lambda row: (row.record.t_start_ns, row.record.record_id))
    while len(ordered) > TOMBSTONE_ROWS:
        ordered = [_tombstone(ordered[at : at + 2]) for at in range(0, len(ordered), 2)]
    return ordered


def _groups(rows: Sequence[Row], gap_ns: int, most: int) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        if group and (len(group) == most or row.record.t_start_ns - group[-1].record.t_start_ns > gap_ns):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _windows(rows: Sequence[Row], length_ns: int) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        if group and row.record.t_start_ns - group[0].record.t_start_ns >= length_ns:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _without_pictures(row: Row) -> Row:
    arrays = {name: array for name, array in row.record.arrays.items() if name not in HEAVY_ARRAYS}
    return Row(replace(row.record, level=1, thumbnail=None, arrays=arrays), mix((row.digest,), 1))


def _demoted(group: Sequence[Row], level: int, fill: Callable[[list[Record]], dict[str, object]]) -> Row:
    records = [row.record for row in group]
    first = records[0]
    parents = tuple(record.record_id for record in records)
    fields: dict[str, object] = {
        "record_id": record_id(f"{first.bank}/{level}", first.stream, first.session, first.seq),
        "t_end_ns": max(record.t_end_ns for record in records),
        "level": level,
        "count": sum(record.count for record in records),
        "confidence": min(record.confidence for record in records),
        "parents": parents,
        "labels": (),
        "detections": (),
        "texts": (),
        "speech": (),
        "states": (),
        "intrinsics": first.intrinsics,
        "stats": {},
        "vector": None,
        "arrays": {},
        "thumbnail": None,
    }
    fields.update(fill(records))
    return Row(replace(first, **fields), mix((row.digest for row in group), level))  # type: ignore[arg-type]


def _merge(group: Sequence[Row]) -> Row:
    return _demoted(group, 2, _merged_fields)


def _merged_fields(records: list[Record]) -> dict[str, object]:
    fields: dict[str, object] = {
        "labels": _best_labels(records),
        "texts": _texts(records),
        "speech": _speech(records),
        "states": _states(records),
        "stats": _mean_stats(records),
    }
    space = next((record.space for record in records if record.vector is not None), None)
    vectors = [record for record in records if record.vector is not None and record.space == space]
    if vectors:
        stack = np.stack([np.asarray(record.vector, np.float32) for record in vectors])
        mean = stack.mean(axis=0)
        norm = float(np.linalg.norm(mean))
        medoid = int(np.argmax(stack @ mean))
        # Opposite vectors cancel: then the mean has no direction, and the medoid speaks for the group.
        fields["vector"] = mean / norm if norm > 1e-3 else stack[medoid]
        fields["space"] = space
        fields["arrays"] = dict(vectors[medoid].arrays)
        fields["pose"] = vectors[medoid].pose
    else:
        middle = records[len(records) // 2]
        fields["arrays"] = dict(middle.arrays)
        fields["pose"] = middle.pose
    return fields


def _summary(group: Sequence[Row]) -> Row:
    return _demoted(group, 3, _summary_fields)


def _summary_fields(records: list[Record]) -> dict[str, object]:
    counts: dict[str, int] = {}
    for record in records:
        for name in {*(label.name for label in record.labels), *(found.label for found in record.detections)}:
            counts[name] = counts.get(name, 0) + record.count
    labels = sorted(_best_labels(records, most=None), key=lambda label: (-counts[label.name], label.name))[:KEPT_LABELS]
    parents = [parent for record in records for parent in (record.parents or (record.record_id,))]
    step = max(1, -(-len(parents) // KEPT_PARENTS))
    return {
        "labels": tuple(labels),
        "stats": {f"count:{label.name}": float(counts[label.name]) for label in labels},
        "texts": _texts(records),
        "speech": _speech(records),
        "parents": tuple(parents[::step]),
    }


def _tombstone(rows: Sequence[Row]) -> Row:
    def fields(records: list[Record]) -> dict[str, object]:
        return {"parents": (), "space": None, "pose": None, "intrinsics": None, "media_ns": None}

    return _demoted(rows, LAST_LEVEL, fields)


def _best_labels(records: list[Record], most: int | None = KEPT_LABELS) -> tuple[Label, ...]:
    """Every name once with its highest score: labels and detections alike."""
    best: dict[str, float] = {}
    for record in records:
        for name, score in [(label.name, label.score) for label in record.labels] + [
            (found.label, found.score) for found in record.detections
        ]:
            best[name] = max(score, best.get(name, 0.0))
    ordered = sorted(best.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Label(name, score) for name, score in ordered[:most])


def _texts(records: list[Record]) -> tuple[TextSpan, ...]:
    best: dict[str, TextSpan] = {}
    for record in records:
        for span in record.texts:
            if span.text not in best or span.score > best[span.text].score:
                best[span.text] = span
    return tuple(list(best.values())[:KEPT_WORDS])


def _speech(records: list[Record]) -> tuple[Speech, ...]:
    spoken = {(said.t_start_ns, said.t_end_ns, said.text): said for record in records for said in record.speech}
    return tuple(spoken[key] for key in sorted(spoken))[:KEPT_WORDS]


def _states(records: list[Record]) -> tuple[StateFact, ...]:
    """The latest statement about each attribute of each thing; the bank ``entities`` keeps the history."""
    latest = {(fact.entity, fact.attribute): fact for record in records for fact in record.states}
    return tuple(latest[key] for key in sorted(latest))[:KEPT_WORDS]


def _mean_stats(records: list[Record]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for record in records:
        for name, value in record.stats.items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in sorted(values.items())}
