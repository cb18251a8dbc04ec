"""HOTA, IDF1 and MOTA: hand-made golden numbers, brute force, and a kept library where one is installed."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.trackers.box_metrics import Frame, overlaps, score_boxes
from perception.trackers.mot import find_mot
from streammem.errors import InputError, SourceError

A, B = [0.0, 0, 10, 10], [100.0, 0, 110, 10]


def frame(*pairs: tuple[int, list[float]]) -> Frame:
    return (
        np.array([name for name, _ in pairs], np.int64),
        np.array([place for _, place in pairs], float).reshape(-1, 4),
    )


def test_perfect_and_nothing() -> None:
    truth = [frame((1, A), (2, B))] * 4
    best = score_boxes(truth, truth)
    assert (best.hota, best.idf1, best.mota, best.switches) == (1.0, 1.0, 1.0, 0)
    worst = score_boxes(truth, [frame()] * 4)
    assert (worst.hota, worst.idf1, worst.mota, worst.missed) == (0.0, 0.0, 0.0, 8)


def test_golden_one_switch() -> None:
    # One thing for 4 frames; the tracker calls it 7, 7, 8, 8. By hand: DetA 1; each match has an association
    # accuracy of 2 / (4 + 2 - 2) = 1/2, so HOTA = sqrt(1/2); IDF1 = 2 * 2 / (4 + 4); MOTA = (4 - 0 - 1) / 4.
    truth = [frame((1, A))] * 4
    score = score_boxes(truth, [frame((7, A))] * 2 + [frame((8, A))] * 2)
    assert score.hota == pytest.approx(0.5**0.5) and score.det == 1.0 and score.ass == pytest.approx(0.5)
    assert score.idf1 == 0.5 and score.mota == 0.75 and (score.switches, score.tracks) == (1, 2)


def test_golden_half_and_false() -> None:
    # Found in 2 of 4 frames, with one false box: DetA = 2 / (4 + 3 - 2) = 0.4; the identity's AssA = 2 / (4 + 2 - 2)
    # = 0.5; IDF1 = 2 * 2 / (4 + 3); MOTA = (2 - 1 - 0) / 4.
    truth = [frame((1, A))] * 4
    score = score_boxes(truth, [frame((7, A), (9, B)), frame((7, A)), frame(), frame()])
    assert score.hota == pytest.approx(0.2**0.5) and score.idf1 == pytest.approx(4 / 7) and score.mota == 0.25


def test_golden_overlap_thresholds() -> None:
    # Overlap 0.6 counts for the 12 thresholds from 0.05 to 0.6 of 19: HOTA = 12 / 19.
    score = score_boxes([frame((1, [0, 0, 10, 10]))], [frame((1, [0, 0, 6, 10]))])
    assert score.hota == pytest.approx(12 / 19) and score.mota == 1.0 and score.idf1 == 1.0


def test_bad_input() -> None:
    with pytest.raises(InputError, match="1 frames for 2"):
        score_boxes([frame((1, A))] * 2, [frame()])
    with pytest.raises(InputError, match="identity twice"):
        score_boxes([frame((1, A), (1, B))], [frame()])
    with pytest.raises(InputError, match="no true box"):
        score_boxes([frame()], [frame((1, A))])


scenes = st.lists(
    st.tuples(
        st.lists(st.sampled_from([1, 2, 3]), unique=True, max_size=3),
        st.lists(st.sampled_from([1, 2, 3]), unique=True, max_size=3),
        st.integers(0, 2**32 - 1),
    ),
    min_size=1,
    max_size=6,
)


def sequence(scene: list[tuple[list[int], list[int], int]]) -> tuple[list[Frame], list[Frame]]:
    truth, found = [], []
    for a, b, seed in scene:
        random = np.random.default_rng(seed)
        for names, out in ((a, truth), (b, found)):
            low = random.integers(0, 8, (len(names), 2)).astype(float)
            out.append((np.array(names, np.int64), np.concatenate([low, low + random.integers(4, 9, low.shape)], 1)))
    return truth, found


@given(scenes)
@settings(max_examples=60, deadline=None)
def test_idf1_is_the_best_of_all_pairings(scene: list[tuple[list[int], list[int], int]]) -> None:
    truth, found = sequence(scene)
    total = sum(len(a[0]) for a in truth)
    if not total:
        return
    best = 0
    for order in itertools.permutations([1, 2, 3]):
        pairing = dict(zip([1, 2, 3], order, strict=True))
        hits = 0
        for (ids, boxes_a), (names, boxes_b) in zip(truth, found, strict=True):
            like = overlaps(boxes_a, boxes_b)
            hits += sum(
                like[i, j] >= 0.5
                for i, one in enumerate(ids)
                for j, other in enumerate(names)
                if pairing[int(one)] == int(other)
            )
        best = max(best, hits)
    expected = 2 * best / (total + sum(len(b[0]) for b in found))
    assert score_boxes(truth, found).idf1 == pytest.approx(expected)


@given(scenes)
@settings(max_examples=40, deadline=None)
def test_the_same_as_trackeval(scene: list[tuple[list[int], list[int], int]]) -> None:
    trackeval = pytest.importorskip("trackeval", reason="trackeval isn't installed (a check of the metrics)")
    truth, found = sequence(scene)
    counts = [sum(len(one[0]) for one in frames) for frames in (truth, found)]
    if not all(counts):
        return
    numbers = [
        {name: at for at, name in enumerate(sorted({int(i) for one in frames for i in one[0]}))}
        for frames in (truth, found)
    ]
    data = {
        "num_timesteps": len(truth),
        "gt_ids": [np.array([numbers[0][int(i)] for i in one[0]], int) for one in truth],
        "tracker_ids": [np.array([numbers[1][int(i)] for i in one[0]], int) for one in found],
        "similarity_scores": [overlaps(a[1], b[1]) for a, b in zip(truth, found, strict=True)],
        "num_gt_dets": counts[0],
        "num_tracker_dets": counts[1],
        "num_gt_ids": len(numbers[0]),
        "num_tracker_ids": len(numbers[1]),
    }
    ours = score_boxes(truth, found)
    hota = trackeval.metrics.HOTA().eval_sequence(data)
    clear = trackeval.metrics.CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)
    identity = trackeval.metrics.Identity({"PRINT_CONFIG": False}).eval_sequence(data)
    assert ours.hota == pytest.approx(float(hota["HOTA"].mean()))
    assert (ours.det, ours.ass) == pytest.approx((float(hota["DetA"].mean()), float(hota["AssA"].mean())))
    assert ours.idf1 == pytest.approx(float(identity["IDF1"]))
    assert ours.mota == pytest.approx(float(clear["MOTA"])) and ours.switches == clear["IDSW"]


def test_reading_motchallenge(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    (folder / "gt").mkdir(parents=True)
    (folder / "det").mkdir()
    (folder / "gt" / "gt.txt").write_text("1,5,11,21,10,20,1,-1,-1,-1\n3,5,1,1,10,20,0,-1,-1,-1\n")
    (folder / "det" / "det.txt").write_text("2,-1,1,1,5,5,0.5,-1,-1,-1\n")
    (folder / "seqinfo.ini").write_text("[Sequence]\nseqLength=3\nimWidth=64\nimHeight=48\nframeRate=10\n")
    (found,) = find_mot(tmp_path)
    assert len(found) == 3 and found.size == (48, 64) and found.fps == 10 and found.video is None
    assert found.truth[0][1].tolist() == [[10, 20, 20, 40]] and len(found.truth[2][0]) == 0
    assert found.boxes[1].tolist() == [[0, 0, 5, 5]] and found.scores[1].tolist() == [0.5]
    (folder / "gt" / "gt.txt").write_text("1,5,nan,21,10,20,1\n")
    with pytest.raises(SourceError, match=r"gt\.txt"):
        find_mot(tmp_path)
    (folder / "gt" / "gt.txt").write_text("hello\n")
    with pytest.raises(SourceError, match="MOTChallenge"):
        find_mot(tmp_path)
