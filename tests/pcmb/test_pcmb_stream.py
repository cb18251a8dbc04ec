"""The bank of a stream: durable through kills, sealed, digested, forgotten, asked."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from pcmb_service import bank_of, config, tokens

import streammem.memory
from streammem.banks.pcmb.trace import MOST_PARENTS, thinned
from streammem.banks.perceptual_cognitive import PerceptualCognitiveBank, entry_tokens
from streammem.config import Config, MemoryConfig, PerceptualCognitiveConfig
from streammem.errors import CorruptData, QueryError
from streammem.memory import Memory
from streammem.model import Observation, Record

SECOND = 10**9


def seen(number: int, stream: str = "cam", session: str = "s1", **changes: object) -> Observation:
    """A moment with 4 tokens of width 8 and a vector of width 8, a second after the last."""
    vector = tokens(number, 1, 8)[0]
    fields: dict[str, object] = {
        "stream": stream,
        "session": session,
        "seq": number,
        "capture_ns": number * SECOND,
        "space": "words@1",
        "embedding": vector / np.linalg.norm(vector),
        "tokens": tokens(number // 3, 4, 8).astype(np.float16),
        **changes,
    }
    return Observation(**fields)  # type: ignore[arg-type]


def settings(seal_bytes: int = 1 << 20, **changes: object) -> Config:
    return replace_memory(config(**changes), seal_bytes)


def replace_memory(found: Config, seal_bytes: int) -> Config:
    return found.model_copy(update={"memory": MemoryConfig(seal_bytes=seal_bytes)})


def kept(memory: Memory) -> list[Record]:
    blocks = memory.blocks("perceptual_cognitive")
    records = [block.record(row) for block in blocks for row in range(len(block))]
    return sorted(records, key=lambda record: (record.session, record.producer.model, record.t_start_ns))


def test_a_session_becomes_a_few_records(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path / "m", config=settings()) as memory:
        memory.write([seen(number) for number in range(30)])
        assert kept(memory) == []
        memory.write(seen(100, session="s2"))
        records = kept(memory)
        assert len(records) == 8 and {record.producer.model for record in records} == {"perceptual", "cognitive"}
        for kind, shape in (("perceptual", (4, 8)), ("cognitive", (1, 8))):
            own = [record for record in records if record.producer.model == kind]
            assert sum(record.count for record in own) == 30
            assert own[0].t_start_ns == 0 and own[-1].t_end_ns == 29 * SECOND
            for before, after in pairwise(own):
                assert after.t_start_ns == before.t_end_ns + SECOND
            for record in own:
                array = entry_tokens(record)
                assert array is not None and array.shape == shape
                parent = memory.record(record.parents[0])
                assert parent is not None and parent.t_start_ns == record.t_start_ns
                assert len(record.parents) == record.count
        # What is alike was merged: the three equal pictures of each group are in one entry.
        first = next(record for record in records if record.producer.model == "perceptual")
        assert first.count % 3 == 0


@pytest.mark.parametrize("seal_bytes", [4096, 20_000, 1 << 20])
def test_the_digest_depends_on_neither_batches_nor_seals_nor_restarts(tmp_path: Path, seal_bytes: int) -> None:
    life = [seen(number, session=f"s{number // 25}") for number in range(60)]
    with streammem.memory.open(tmp_path / "one", config=settings()) as memory:
        memory.write(life)
        digest, records = memory.digest(), [(record.record_id, record.count) for record in kept(memory)]
        held = memory.query("perceptual_cognitive", "held")
    written = 0
    for count in (1, 7, 20, 2, 30):
        with streammem.memory.open(tmp_path / "two", config=settings(seal_bytes)) as memory:
            memory.write(life[written : written + count])
            written += count
    with streammem.memory.open(tmp_path / "two", config=settings(seal_bytes)) as memory:
        assert memory.digest() == digest
        assert [(record.record_id, record.count) for record in kept(memory)] == records
        assert memory.query("perceptual_cognitive", "held") == held


WRITER = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_pcmb_stream import seen, settings
import streammem.memory
with streammem.memory.open(Path(sys.argv[2]), config=settings(4096)) as memory:
    first = memory.observation_count
    for number in range(first, 200):
        memory.write(seen(number, session=f"s{number // 60}"))
        print(number, flush=True)
"""


@pytest.mark.parametrize(
    "moments", [(41, 30), pytest.param((5, 23, 40, 61, 30), marks=pytest.mark.slow)], ids=["two", "five"]
)
def test_a_kill_at_any_moment_changes_nothing(tmp_path: Path, moments: tuple[int, ...]) -> None:
    for after in moments:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(tmp_path / "killed")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout:
            for _, line in zip(range(after), process.stdout, strict=False):
                assert line
            process.send_signal(signal.SIGKILL)
            process.wait(30)
    with (
        streammem.memory.open(tmp_path / "whole", config=settings(4096)) as whole,
        streammem.memory.open(tmp_path / "killed", config=settings(4096)) as killed,
    ):
        whole.write([seen(number, session=f"s{number // 60}") for number in range(killed.observation_count)])
        assert killed.observation_count >= sum(moments) > 60
        assert killed.digest() == whole.digest()
        assert killed.query("perceptual_cognitive", "held") == whole.query("perceptual_cognitive", "held")


def test_late_moments_are_left_out_and_other_streams_unaffected(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path / "m", config=settings()) as memory:
        memory.write([seen(0), seen(5), seen(3), seen(6), seen(0, "door")])
        held = memory.query("perceptual_cognitive", "held", streams=["cam"])
        assert [each["writes"] for each in held] == [3, 3]
        assert memory.observation_count == 5
        assert [each["stream"] for each in memory.query("perceptual_cognitive", "held", streams=["door"])] == [
            "door",
            "door",
        ]


def test_tokens_of_another_shape_begin_a_new_bank(tmp_path: Path) -> None:
    """The engine lets the count of tokens vary, and everything with another embedding space."""
    with streammem.memory.open(tmp_path / "m", config=settings()) as memory:
        memory.write([seen(number) for number in range(3)])
        memory.write(seen(3, tokens=tokens(3, 6, 8).astype(np.float16)))
        wide = tokens(4, 1, 12)[0]
        memory.write(
            seen(4, space="other@1", tokens=tokens(4, 6, 5).astype(np.float16), embedding=wide / np.linalg.norm(wide))
        )
        assert memory.seal() > 0
        assert [(record.producer.model, record.count) for record in kept(memory)] == [
            *[("cognitive", 1)] * 3,
            ("cognitive", 1),
            *[("perceptual", 1)] * 4,
        ]
        assert len({record.record_id for record in kept(memory)}) == 8


def test_forgetting_takes_whole_entries(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path / "m", config=settings()) as memory:
        memory.write([seen(number) for number in range(30)])
        bank = bank_of(memory)
        before = memory.query("perceptual_cognitive", "held")
        lo, hi = 4 * SECOND, 5 * SECOND
        memory.forget(stream="cam", between=(lo, hi))
        after = memory.query("perceptual_cognitive", "held")
        for was, now in zip(before, after, strict=True):
            expected = [one for one in was["entries"] if one["t_start_ns"] > hi or one["t_end_ns"] < lo]
            assert list(now["entries"]) == expected and len(expected) < len(was["entries"])
        digest = memory.digest()
        memory.forget(stream="cam")
        assert memory.query("perceptual_cognitive", "held") == [] and bank.digest("cam") == b""
    with streammem.memory.open(tmp_path / "m", config=settings()) as memory:
        assert memory.query("perceptual_cognitive", "held") == [] and memory.digest() != digest


def test_forgetting_survives_a_restart(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path / "m", config=settings()) as memory:
        memory.write([seen(number) for number in range(30)])
        memory.forget(stream="cam", between=(0, 5 * SECOND))
        memory.write(seen(30))
        held, digest = memory.query("perceptual_cognitive", "held"), memory.digest()
    with streammem.memory.open(tmp_path / "m", config=settings()) as memory:
        assert memory.query("perceptual_cognitive", "held") == held
        assert memory.digest() == digest


def test_what_a_moment_attends_to(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path / "m", config=settings(length=8)) as memory:
        memory.write([seen(number) for number in range(12)])
        asked = seen(4)
        (perceptual, cognitive) = memory.query("perceptual_cognitive", "attends_to", record_id=asked.record_id, k=3)
        assert perceptual["reader"] == cognitive["reader"] == "training-free substitute"
        assert [len(each["entries"]) for each in (perceptual, cognitive)] == [3, 3]
        best = perceptual["entries"][0]
        assert best["own"] and asked.record_id in best["entry"]["record_ids"]
        assert best["share"] > 2 * perceptual["entries"][1]["share"]
        for bad, message in (({"record_id": 1}, "no record 1"), ({"record_id": asked.record_id, "k": 0}, "k is 0")):
            with pytest.raises(QueryError, match=message):
                memory.query("perceptual_cognitive", "attends_to", **bad)
        with pytest.raises(QueryError, match="there is no record"):
            memory.query("perceptual_cognitive", "attends_to", streams=["door"], record_id=asked.record_id)


@pytest.mark.parametrize(
    "state", [b"\xff", msgspec.msgpack.encode({"version": 2, "late": 0, "traces": {}}), None], ids=repr
)
def test_a_state_that_cannot_be_read(state: bytes | None) -> None:
    bank = PerceptualCognitiveBank(PerceptualCognitiveConfig(on=True, length=4))
    if state is None:
        long = PerceptualCognitiveBank(PerceptualCognitiveConfig(on=True, length=9))
        observe(long, [record_of(number) for number in range(9)])
        state = long.state("cam")
    with pytest.raises(CorruptData, match=r"can't be read|of version 2|don't fit"):
        bank.load("cam", state, lambda _: None)


def record_of(number: int) -> Record:
    from streammem.storage.open_part import record_from_observation

    return record_from_observation(seen(number))


def observe(bank: PerceptualCognitiveBank, records: Sequence[Record]) -> None:
    for record in records:
        bank.observe(record)


def test_streams_without_room_are_refused_and_counted() -> None:
    """Bounded RAM: 1 MB, half of it for streams, banks of 17 entries of 64 x 64."""
    bank = PerceptualCognitiveBank(PerceptualCognitiveConfig(on=True, most_bytes=1 << 20, length=16))
    for stream in range(20):
        bank.observe(replace(record_of(0), stream=f"cam{stream}", arrays={"tokens": tokens(0, 64, 64)}, vector=None))
    assert bank.refused > 0 and bank.ram_bytes() <= (1 << 19) * 17 // 16 + 4096
    flat = bank.ram_bytes()
    for number in range(1, 300):
        bank.observe(replace(record_of(number), stream="cam0", arrays={"tokens": tokens(number, 64, 64)}, vector=None))
    assert bank.ram_bytes() == flat


def test_parents_are_thinned() -> None:
    ids = tuple(range(1000))
    few = thinned(ids)
    assert len(few) <= MOST_PARENTS and (few[0], few[-1]) == (0, 999) and list(few) == sorted(few)
