"""Event logs: read, refused, and asked; every answer against brute force on the raw entries."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import streammem.memory
from streammem.benchmarks.entities import made_up, run
from streammem.errors import SourceError, SourceNotFound
from streammem.eventlog import Movement, observations_of, read_movements, read_narrations

DATA = Path(__file__).parents[3] / "shared" / "data"
LOG = DATA / "text/hdepic/object_movements_P01-P04.json"


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    tracks = [
        {"track_id": "b", "time_segment": [2.5, 3.0]},
        {"track_id": "a", "time_segment": [1.0, 1.25], "masks": []},
    ]
    path.write_text(json.dumps({"v": {"1": {"name": "mug", "tracks": tracks}, "2": {"name": "pan", "tracks": []}}}))
    movements = read_movements(path)
    assert movements == [
        Movement("v", 10**9, 1_250_000_000, "1", "mug", "a"),
        Movement("v", 2_500_000_000, 3 * 10**9, "1", "mug", "b"),
    ]
    assert [one.seq for one in observations_of(movements)] == [0, 1]
    assert observations_of(movements).__next__().states[0].until_ns == 1_250_000_000


REFUSED = {
    "not JSON": b"{",
    "another shape": b'{"v": [1]}',
    "ends before it starts": b'{"v": {"1": {"name": "m", "tracks": [{"track_id": "a", "time_segment": [2, 1]}]}}}',
    "one time only": b'{"v": {"1": {"name": "m", "tracks": [{"track_id": "a", "time_segment": [2]}]}}}',
    "not text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("situation", REFUSED)
def test_what_is_no_log_is_refused(situation: str, tmp_path: Path) -> None:
    (tmp_path / "log.json").write_bytes(REFUSED[situation])
    with pytest.raises(SourceError):
        read_movements(tmp_path / "log.json")
    with pytest.raises(SourceNotFound):
        read_movements(tmp_path / "none.json")


def test_a_made_up_log_is_answered_exactly(tmp_path: Path) -> None:
    result = run(made_up(1)[:1500], 8, 1, tmp_path / "m")
    assert {row["question"]: row["wrong"] for row in result["questions"] if row["wrong"]} == {}
    assert len(result["questions"]) == 10


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not LOG.exists(), reason="the kitchen's movement log isn't here")
def test_the_kitchen_log_is_answered_exactly_and_fast(tmp_path: Path) -> None:
    result = run(read_movements(LOG), 60, 0, tmp_path / "m")
    assert result["things"] > 4000
    for row in result["questions"]:
        assert row["wrong"] == 0, row
        assert row["median_ms"] < 50, row


NARRATIONS = LOG.parents[1] / "epic100" / "narrations_P01-P02.csv"
HEADER = "video_id,start_timestamp,stop_timestamp,narration,verb,noun\n"


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", HEADER + "v,00:00:09.00,00:00:01.00,wash mug,wash,mug\n", HEADER + "v\n"]
)
def test_what_is_no_narration_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text(text)
    with pytest.raises(SourceError):
        read_narrations(tmp_path / "n.csv")


@pytest.mark.data
@pytest.mark.skipif(not NARRATIONS.exists(), reason="the kitchen's narrations aren't here")
def test_narrations_are_answered_exactly(tmp_path: Path) -> None:
    """How often and when last was a thing washed, taken, ...: against the raw CSV."""
    with open(NARRATIONS, newline="") as handle:
        rows = list(csv.DictReader(handle))
    with streammem.memory.open(tmp_path / "m") as memory:
        memory.write(observations_of(read_narrations(NARRATIONS)))
        for noun, verb in sorted({(row["noun"], row["verb"]) for row in rows})[::7]:
            mine = [row for row in rows if (row["noun"], row["verb"]) == (noun, verb)]
            told = memory.query("entities", "how_often", entity=noun, attribute=verb)
            assert told["total"] == len(mine), (noun, verb)
            video = mine[0]["video_id"]
            ends = [row["stop_timestamp"] for row in mine if row["video_id"] == video]
            last = memory.query("entities", "history", entity=noun, attribute=verb, streams=[video], limit=1000)
            h, m, s = max(ends).split(":")
            expected = (int(h) * 3600 + int(m) * 60) * 10**9 + round(float(s) * 1e9)
            assert max(fact["t_last_ns"] for fact in last["facts"]) == expected
