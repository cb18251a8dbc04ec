"""The demotion ladder: what each level keeps, and that any record can be walked down to frames."""

from __future__ import annotations

import numpy as np
import pytest
from sample_moments import SECOND, observation

from streammem.storage.demotion import MERGE_ROWS, TOMBSTONE_ROWS, demote, join_tombstones
from streammem.storage.open_part import record_from_observation
from streammem.storage.segment_writer import Row


def rows(count: int, step: int = 1) -> list[Row]:
    made = [
        record_from_observation(
            observation(number, capture_ns=number * step * SECOND, tokens=np.ones((2, 3), np.float16))
        )
        for number in range(count)
    ]
    return [Row(record, number + 1) for number, record in enumerate(made)]


def test_level_1_drops_pictures_only() -> None:
    full = rows(10)
    for before, after in zip(full, demote(full, 1), strict=True):
        assert after.record.thumbnail is None
        assert set(before.record.arrays) - set(after.record.arrays) == {"tokens"}
        assert after.record.vector is before.record.vector
        assert after.record.record_id == before.record.record_id
        assert after.record.texts == before.record.texts


def test_level_2_merges_neighbours() -> None:
    full = rows(20)
    merged = demote(demote(full, 1), 2)
    assert [row.record.count for row in merged] == [8, 8, 4]
    first = merged[0].record
    assert first.parents == tuple(row.record.record_id for row in full[:MERGE_ROWS])
    assert (first.t_start_ns, first.t_end_ns) == (0, 7 * SECOND)
    mean = np.mean([np.asarray(row.record.vector, np.float32) for row in full[:8]], axis=0)
    np.testing.assert_allclose(first.vector, mean / np.linalg.norm(mean), atol=1e-6)
    assert {span.text for span in first.texts} == {"GATE 0", "GATE 3", "GATE 6"}
    assert {label.name for label in first.labels} == {*(f"thing {n}" for n in range(7)), "cup"}
    assert len(first.arrays["scores"]) <= 4  # of the medoid


def test_level_2_doesnt_merge_across_a_pause() -> None:
    assert [row.record.count for row in demote(rows(5, step=100), 2)] == [1] * 5


def test_opposite_vectors_have_no_mean() -> None:
    pair = [
        Row(record_from_observation(observation(n, embedding=np.array([1 - 2 * n, 0], np.float32), parts={})), n)
        for n in (0, 1)
    ]
    vector = demote(pair, 2)[0].record.vector
    assert vector is not None and np.linalg.norm(vector) == pytest.approx(1)


def test_level_3_keeps_counts_and_words() -> None:
    summary = demote(demote(rows(1300), 2), 3)
    assert [row.record.count for row in summary] == [600, 600, 100]
    record = summary[0].record
    assert record.vector is None and not record.arrays
    assert record.stats["count:thing 0"] >= 600 / 8  # a merged row has it if any of its eight had it
    assert record.texts and record.speech
    assert 0 < len(record.parents) <= 64


def test_level_4_is_a_tombstone() -> None:
    (tomb,) = demote(rows(50), 4)
    assert (tomb.record.t_start_ns, tomb.record.t_end_ns, tomb.record.count) == (0, 49 * SECOND, 50)
    assert not (tomb.record.labels or tomb.record.texts or tomb.record.speech or tomb.record.parents)


def test_tombstones_are_bounded() -> None:
    many = [row for n in range(2000) for row in demote([rows(n % 3 + 1)[-1]], 4)]
    few = join_tombstones(many)
    assert len(few) <= TOMBSTONE_ROWS
    assert sum(row.record.count for row in few) == 2000


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_deterministic(level: int) -> None:
    one, two = demote(rows(30), level), demote(rows(30), level)
    assert [row.digest for row in one] == [row.digest for row in two]
    assert [row.record.record_id for row in one] == [row.record.record_id for row in two]
    assert sum(row.record.count for row in one) == 30
    changed = rows(30)
    changed[3] = Row(changed[3].record, 999)
    assert [row.digest for row in demote(changed, level)] != [row.digest for row in one]
