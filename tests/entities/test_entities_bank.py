"""The bank in a real memory: what feeds it, questions, restarts, kills, forgetting, bounds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import streammem.memory
from streammem.banks.entities import EntitiesBank
from streammem.config import Config, EntitiesConfig, MemoryConfig
from streammem.errors import CorruptData, QueryError
from streammem.memory import Memory
from streammem.model import Detection, Observation, StateFact, TextSpan
from streammem.storage.demotion import demote
from streammem.storage.open_part import record_from_observation
from streammem.storage.segment_writer import Row, RowMeta

SECOND = 10**9
BOX = (0.1, 0.1, 0.5, 0.5)


def said(seq: int, t: float, *facts: StateFact, stream: str = "cam", **fields: Any) -> Observation:
    return Observation(stream=stream, seq=seq, capture_ns=int(t * SECOND), states=facts, **fields)


def seen(seq: int, t: float, *found: Detection, session: str = "") -> Observation:
    return Observation(stream="cam", session=session, seq=seq, capture_ns=int(t * SECOND), detections=found)


def at(thing: str, place: str, confidence: float = 1.0, **fields: Any) -> StateFact:
    return StateFact(thing, "place", place, confidence, **fields)


def small() -> Config:
    return Config(memory=MemoryConfig(seal_bytes=8192))


def ask(memory: Memory, question: str, **given: Any) -> dict[str, Any]:
    return memory.query("entities", question, **given)


def values(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(fact["entity"], fact["value"]) for fact in told["facts"]]


@pytest.fixture
def memory(tmp_path: Path) -> Any:
    with streammem.memory.open(tmp_path / "m", config=small()) as opened:
        yield opened


def test_where_is_it_now_and_where_was_it_before(memory: Memory) -> None:
    memory.write([said(0, 1, at("mug-1", "table", kind="Mug", relation="on")), said(1, 60, at("mug-1", "sink"))])
    now = ask(memory, "latest", entity="mug")
    assert (now["status"], values(now)) == ("found", [("mug-1", "sink")])
    before = ask(memory, "was_at", entity="mug-1", t_ns=59 * SECOND)
    assert values(before) == [("mug-1", "table")]
    assert before["facts"][0]["status"] == "superseded"
    assert before["facts"][0]["t_end_ns"] == 60 * SECOND
    assert memory.record(before["facts"][0]["record_ids"][0]).seq == 0  # type: ignore[union-attr]
    assert ask(memory, "was_at", entity="mug-1", t_ns=0)["status"] == "not_seen"
    assert values(ask(memory, "changes_between", t_start_ns=2 * SECOND, t_end_ns=60 * SECOND)) == [("mug-1", "sink")]


def test_a_contradiction_makes_the_answer_unsure(memory: Memory) -> None:
    memory.write([said(0, 1, at("mug", "table", 0.9)), said(1, 20, at("mug", "shelf", 0.4))])
    told = ask(memory, "latest", entity="mug")
    assert told["status"] == "unsure"
    assert {(fact["value"], fact["status"]) for fact in told["facts"]} == {("table", "active"), ("shelf", "disputed")}


def test_a_place_beside_a_state(memory: Memory) -> None:
    memory.write(said(0, 1, StateFact("lamp", "light", "on", place="hall")))
    assert values(ask(memory, "latest", entity="lamp", attribute="light")) == [("lamp", "on")]
    assert values(ask(memory, "latest", entity="lamp")) == [("lamp", "hall")]


def test_detections_tracks_and_text(memory: Memory) -> None:
    memory.write([seen(n, n, Detection("cup", 0.9, BOX, "7"), Detection("dog", 0.9, BOX)) for n in range(5)])
    memory.write([seen(n, 95 + n, Detection("cup", 0.9, BOX, "7"), Detection("dog", 0.2, BOX)) for n in range(5, 8)])
    memory.write(seen(0, 110, Detection("cup", 0.9, BOX, "7"), session="b"))
    memory.write(Observation(stream="cam", seq=9, capture_ns=120 * SECOND, texts=(TextSpan("  GATE   4 ", 0.9),)))
    assert ask(memory, "how_often", entity="cup")["total"] == 3
    assert ask(memory, "how_often", entity="dog")["total"] == 1
    assert ask(memory, "count", entity="cup")["total"] == 2, "a tracker counts anew in every session"
    assert ask(memory, "last_seen", entity="cup")["facts"][0]["entity"] == "#7@b"
    assert ask(memory, "last_seen", entity="GATE 4")["facts"][0]["t_last_ns"] == 120 * SECOND
    order = ask(memory, "order", entities=["GATE 4", "dog", "#7@b"], attribute="seen")
    assert [fact["entity"] for fact in order["facts"]] == ["dog", "#7@b", "“GATE 4”"]


def test_a_sign_that_names_a_thing_is_not_that_thing(memory: Memory) -> None:
    """Read first, and read last: neither makes the mug be seen when the sign was."""
    memory.write(Observation(stream="cam", seq=0, capture_ns=0, texts=(TextSpan("mug", 0.9),)))
    memory.write(seen(1, 50, Detection("mug", 0.9, BOX)))
    memory.write(Observation(stream="cam", seq=2, capture_ns=90 * SECOND, texts=(TextSpan("mug", 0.9),)))
    facts = ask(memory, "named", names=["mug"])["facts"]
    assert [(f["entity"], f["t_start_ns"], f["t_last_ns"]) for f in facts] == [("mug", 50 * SECOND, 50 * SECOND)]
    told = {f["entity"]: f["t_last_ns"] for f in ask(memory, "last_seen", entity="mug")["facts"]}
    assert told == {"mug": 50 * SECOND, "“mug”": 90 * SECOND}


def test_a_label_that_flickers_is_one_thing_of_one_kind(memory: Memory) -> None:
    """Hysteresis: a tracker that says "bowl" now and then."""
    labels = ["cup"] * 3 + ["bowl"] + ["cup"] * 4 + ["bowl"] + ["cup"] * 3
    memory.write([seen(n, n / 30, Detection(label, 0.8, BOX, "t")) for n, label in enumerate(labels)])
    assert ask(memory, "count", entity="cup")["total"] == 1
    assert ask(memory, "count", entity="bowl")["total"] == 0
    history = ask(memory, "history", entity="#t", attribute="label")
    assert {(fact["value"], fact["status"]) for fact in history["facts"]} == {("cup", "active"), ("bowl", "disputed")}


def test_two_names_of_one_thing(memory: Memory) -> None:
    """B5: id remap. A tracker lost it and found it again under a new number."""
    memory.write([said(0, 1, at("#1", "table")), said(1, 50, at("#9", "sink")), said(2, 90, at("#1", "bin"))])
    memory.write(said(3, 100, StateFact("#9", "same_as", "#1")))
    memory.write(said(4, 120, at("#9", "shelf")))
    assert [v for _, v in values(ask(memory, "history", entity="#9"))] == ["table", "sink", "bin", "shelf"]
    assert ask(memory, "latest", entity="#1")["facts"][0]["value"] == "shelf"
    assert ask(memory, "entities")["total"] == 1


def test_nothing_where_nothing_matches(memory: Memory) -> None:
    memory.write(said(0, 1, at("red mug", "table", kind="mug")))
    for told in (
        ask(memory, "latest", entity="mu"),
        ask(memory, "history", entity="red mug", value="roof"),
        ask(memory, "count", entity="piano"),
        ask(memory, "last_seen", entity="red mug", streams=["other"]),
    ):
        assert (told["status"], told["total"], told["facts"], told["frames"]) == ("not_seen", 0, (), ())
    assert ask(memory, "latest", entity="mu")["closest"] == ("mug", "red mug")
    partly = ask(memory, "order", entities=["red mug", "piano"])
    assert (partly["status"], partly["closest"]) == ("unsure", ("piano",))


BAD = {
    "empty name": ("latest", {"entity": " "}),
    "no such argument": ("latest", {"thing": "mug"}),
    "range turned around": ("history", {"entity": "mug", "between": (5, 1)}),
    "limit 0": ("history", {"entity": "mug", "limit": 0}),
    "limit of a million": ("entities", {"limit": 1_000_000}),
    "no such question": ("where", {"entity": "mug"}),
}


@pytest.mark.parametrize("situation", BAD)
def test_bad_questions(situation: str, memory: Memory) -> None:
    question, given = BAD[situation]
    with pytest.raises(QueryError):
        ask(memory, question, **given)


def test_frames_exist_also_after_the_moments_were_merged(memory: Memory) -> None:
    cv2 = pytest.importorskip("cv2")
    np = pytest.importorskip("numpy")
    jpeg = bytes(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1])
    memory.write([said(n, n, at("mug", "table" if n < 50 else "sink"), thumbnail=jpeg) for n in range(100)])
    told = ask(memory, "was_at", entity="mug", t_ns=10 * SECOND)
    assert [memory.thumbnail(frame["record_id"]) for frame in told["frames"]] == [jpeg, jpeg]
    memory.seal()
    for segment in list(memory._engine.store.segments):
        memory._engine.budget.demote_one(segment)
        for fresh in [one for one in memory._engine.store.segments if one.manifest.level == 1][:1]:
            memory._engine.budget.demote_one(fresh)
    after = ask(memory, "was_at", entity="mug", t_ns=10 * SECOND)
    assert after["facts"] == told["facts"], "the history doesn't depend on the detail of moments"


def life(directory: Path, steps: int) -> str:
    """A few hundred mixed moments, some late, reopened every ``steps``; gives the digest."""
    every = [
        said(n, n * 3 - (7 if n % 11 == 0 else 0), at(f"thing-{n % 9}", f"place {n * n % 5}", (1.0, 0.6)[n % 2]),
             detections=(Detection("cup", 0.8, BOX, f"t{n % 4}"),))
        for n in range(1, 240)
    ]  # fmt: skip
    for start in range(0, len(every), steps):
        with streammem.memory.open(directory, config=small()) as memory:
            memory.write(every[start : start + steps])
            memory.write(every[max(0, start - 3) : start + 3])  # an event log read twice is written once
    with streammem.memory.open(directory, config=small(), mode="read") as memory:
        assert memory.status().segments >= 3
        return memory.digest() + str(ask(memory, "history", entity="thing-1"))


def test_restarts_and_replays_change_nothing(tmp_path: Path) -> None:
    assert len({life(tmp_path / str(steps), steps) for steps in (40, 1000)}) == 1


KILLED = """
import os, sys
import streammem.memory
from test_entities_bank import said, at, small
memory = streammem.memory.open(sys.argv[1], config=small())
for n in range(400):
    memory.write(said(n, n, at(f"thing-{n % 7}", f"place {n % 3}")))
    if n == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
"""


def test_a_kill_changes_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), "301"]
    done = subprocess.run(command, env=environment, timeout=60, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    digests = set()
    for name in ("killed", "whole"):
        with streammem.memory.open(tmp_path / name, config=small()) as memory:
            memory.write([said(n, n, at(f"thing-{n % 7}", f"place {n % 3}")) for n in range(400)])
            digests.add(memory.digest())
            assert ask(memory, "history", entity="thing-0", limit=1000)["total"] == 58
    assert len(digests) == 1


def test_forgetting(tmp_path: Path) -> None:
    secret = StateFact("diary", "place", "drawer", kind="book", until_ns=50 * SECOND)
    with streammem.memory.open(tmp_path, config=small()) as memory:
        memory.write([said(n, n, at("mug", f"place {n // 10}")) for n in range(100)])
        memory.write(said(100, 30, secret))
        memory.forget(stream="cam", between=(45 * SECOND, 64 * SECOND))
        assert ask(memory, "latest", entity="diary")["status"] == "not_seen", "it lasted into what was forgotten"
        told = [value for _, value in values(ask(memory, "history", entity="mug"))]
        assert "place 5" not in told
        assert told == [
            "place 0",
            "place 1",
            "place 2",
            "place 3",
            "place 4",
            "place 6",
            "place 7",
            "place 8",
            "place 9",
        ]
    with streammem.memory.open(tmp_path, config=small()) as memory:
        assert ask(memory, "changes_between", t_start_ns=45 * SECOND, t_end_ns=64 * SECOND)["total"] == 0
        memory.forget(stream="cam")
        assert ask(memory, "entities")["total"] == 0
        assert memory.bank("entities").ram_bytes() == 0
        assert memory.bank("entities").state("cam") == b""
    assert b"diary" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_the_cap_holds_and_counts_survive() -> None:
    cap = 64 * 1024
    bank = EntitiesBank(EntitiesConfig(stream_bytes=cap))
    for n in range(6000):
        moved = StateFact(f"box-{n % 5}", "moved", "", kind="box", until_ns=(n * 20 + 5) * SECOND)
        bank.observe(record_from_observation(said(n, n * 20, at(f"box-{n % 5}", f"place {n % 3}"), moved)))
        assert bank.ram_bytes() <= cap
    question = bank.questions()

    class NoFrames:
        def blocks(self, *given: object) -> list[object]:
            return []

    told = question["how_often"](NoFrames(), streams=None, entity="box", attribute="moved")
    assert told.total == 6000, "what was demoted is still counted"
    assert told.demoted > 5000
    assert (told.t_first_ns, told.t_last_ns) == (0, (5999 * 20 + 5) * SECOND)
    past = question["was_at"](NoFrames(), streams=None, entity="box-1", t_ns=40 * SECOND)
    assert (past.status, past.facts) == ("unsure", ()), "the detail is gone, and it says so"
    assert {fact.value for fact in question["latest"](NoFrames(), streams=None, entity="box").facts}
    for n in range(6000, 7000):
        bank.observe(record_from_observation(said(n, n * 20, at(f"new thing {n}", "hall"))))
        assert bank.ram_bytes() <= cap
    again = EntitiesBank(EntitiesConfig(stream_bytes=cap))
    again.load("cam", bank.state("cam"), lambda number: None)
    assert again.digest("cam") == bank.digest("cam")
    with pytest.raises(CorruptData):
        again.load("cam", b"\xc1", lambda number: None)


def test_a_flood_of_names_is_bounded() -> None:
    bank = EntitiesBank(EntitiesConfig(stream_bytes=64 * 1024))
    for n in range(0, 20_000, 100):
        facts = tuple(StateFact(f"name {n + i}", "same_as", "thing") for i in range(100))
        bank.observe(record_from_observation(said(n, n, *facts)))
    assert len(bank.state("cam")) < 200_000
    bank.observe(record_from_observation(said(20_000, 20_000, *(at(f"#{i}", "x", kind=f"k{i}") for i in range(4096)))))
    assert bank.ram_bytes() <= 64 * 1024


def test_rows_of_older_segments_have_no_states() -> None:
    """Segments written before 1.1 hold 13 fields a row; a release of then reads rows of today too."""
    older = msgspec.msgpack.encode(["s", None, 0, 1.0, "active", [], [], [], [], [], None, None, {"gray": 0.5}])
    row = msgspec.msgpack.decode(older, type=RowMeta)
    assert (row.session, row.stats, row.states) == ("s", {"gray": 0.5}, ())


def test_merged_moments_keep_the_latest_statements() -> None:
    records = [record_from_observation(said(n, n, at("mug", f"place {n}"), at(f"pen {n}", "desk"))) for n in range(8)]
    merged = demote([Row(record, n) for n, record in enumerate(records)], 2)
    assert len(merged) == 1
    assert merged[0].record.states == (at("mug", "place 7"), *(at(f"pen {n}", "desk") for n in range(8)))
    assert demote(merged, 3)[0].record.states == (), "the bank has the history"


def test_an_event_log_read_twice_is_written_once(memory: Memory) -> None:
    log = [said(n, n * 5, StateFact("door", "opened", "", until_ns=(n * 5 + 2) * SECOND)) for n in range(50)]
    memory.write(log)
    digest = memory.digest()
    receipt = memory.write(log)
    assert (receipt.written, receipt.duplicates) == (0, 50)
    memory.flush()
    assert memory.digest() == digest
    assert ask(memory, "how_often", entity="door", attribute="opened")["total"] == 50
    inside = ask(memory, "was_at", entity="door", t_ns=11 * SECOND, attribute="opened")
    assert [fact["t_start_ns"] for fact in inside["facts"]] == [10 * SECOND]
    assert ask(memory, "was_at", entity="door", t_ns=13 * SECOND, attribute="opened")["status"] == "not_seen"
