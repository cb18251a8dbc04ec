"""Write, see, seal, reopen: the engine's promises on a healthy disk."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from sample_moments import SECOND, SPACE, observation, small_config

import streammem.memory
from streammem.clock import ManualClock
from streammem.errors import (
    ConfigError,
    FormatVersion,
    MemoryClosed,
    MemoryLocked,
    MemoryNotFound,
    ObservationError,
    StorageError,
)
from streammem.memory import Memory
from streammem.model import Observation, StreamInfo
from streammem.spaces import Ragged


def open_memory(directory: Path, **options: object) -> Memory:
    options.setdefault("config", small_config())
    return streammem.memory.open(directory, **options)  # type: ignore[arg-type]


def seqs(memory: Memory, stream: str = "cam") -> list[int]:
    return sorted(
        block.record(row).seq for block in memory.blocks(streams=[stream]) for row in range(len(block))
    )  # fmt: skip


def test_written_means_visible_and_kept(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        receipt = memory.write([observation(n) for n in range(100)])
        assert (receipt.written, receipt.duplicates, receipt.refused, receipt.durable) == (100, 0, {}, True)
        assert seqs(memory) == list(range(100))
        assert memory.status().segments > 2
        digest = memory.digest()
        wanted = observation(42)
        record = memory.record(wanted.record_id)
        assert record is not None and record.labels == wanted.labels and record.pose == wanted.pose
        assert memory.thumbnail(wanted.record_id) == wanted.thumbnail
        assert memory.record(12345) is None and memory.thumbnail(12345) is None
    with open_memory(tmp_path) as memory:
        assert memory.digest() == digest
        assert memory.observation_count == 100
        assert (memory.has("cam", "s", 99), memory.has("cam", "s", 100), memory.last_seq("cam", "s")) == (
            True,
            False,
            99,
        )


def test_digest_doesnt_depend_on_pieces(tmp_path: Path) -> None:
    """One call, single calls, reopened in between, sealed by hand, another order: the same memory."""

    def once(name: str, seal: int) -> str:
        with open_memory(tmp_path / name, config=small_config(seal)) as memory:
            memory.write([observation(n, stream) for n in range(60) for stream in ("a", "b")])
            return memory.digest()

    first = once("one", 16384)
    assert once("two", 1 << 20) == first
    for number in range(60):
        with open_memory(tmp_path / "three") as memory:
            memory.write(observation(number, "b"))
            memory.write(observation(number, "a"), durable=False)
            if number % 20 == 0:
                memory.seal()
    with open_memory(tmp_path / "three", mode="read") as memory:
        assert memory.digest() == first
    with open_memory(tmp_path / "four") as memory:
        memory.write([observation(n, stream) for n in range(59) for stream in ("a", "b")])
        assert memory.digest() != first


def test_segment_borders_dont_depend_on_restarts(tmp_path: Path) -> None:
    borders = []
    for name, step in (("whole", 200), ("pieces", 7)):
        for start in range(0, 200, step):
            with open_memory(tmp_path / name) as memory:
                memory.write([observation(n) for n in range(start, min(200, start + step))])
        with open_memory(tmp_path / name, mode="read") as memory:
            borders.append([block.t_start_ns[0] for block in memory.blocks()])
    assert borders[0] == borders[1]
    assert len(borders[0]) > 5


def test_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        memory.write([observation(n) for n in range(80)])
        assert memory.write([observation(5), observation(80), observation(80)]).duplicates == 2
        memory.write(observation(81), durable=False)
        assert memory.write(observation(81), durable=False).duplicates == 1
    with open_memory(tmp_path) as memory:
        receipt = memory.write([observation(n) for n in range(83)])
        assert (receipt.written, receipt.duplicates) == (1, 82)
        assert seqs(memory) == list(range(83))
        assert memory.status().drops["duplicate"] == 85
        memory.write(observation(5, session="another"))
        assert memory.observation_count == 84
    with open_memory(tmp_path, mode="read") as memory:
        assert memory.status().drops["duplicate"] == 85


def test_refused_observations(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        memory.write(observation(0))
        with pytest.raises(ObservationError, match="seq is -1"):
            memory.write(observation(1, seq=-1))
        bad = [observation(1), observation(2, stream="\x00"), observation(3, embedding=np.zeros(32, np.float32))]
        receipt = memory.write(bad)
        assert (receipt.written, receipt.refused) == (1, {"stream": 1, "embedding": 1})
        assert seqs(memory) == [0, 1]
        status = memory.status()
        assert status.drops == {"seq": 1, "stream": 1, "embedding": 1}
        assert {stream.stream: stream.drops for stream in status.streams} == {"cam": {"seq": 1, "embedding": 1}}


def test_counters_stay_few_whatever_is_sent(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        for number in range(50):
            bad = observation(number, f"stranger {number}", parts={f"part {number}": np.array([np.nan], np.float32)})
            assert memory.write([bad]).refused == {"parts": 1}
        assert memory.status().drops == {"parts": 50}
        assert memory.streams() == []


def test_shapes_may_not_change_within_a_stream(tmp_path: Path) -> None:
    for _ in range(2):  # the second time against what is sealed
        with open_memory(tmp_path) as memory:
            memory.write([observation(n) for n in range(60)])
            with pytest.raises(ObservationError, match="'scores' changed from <f4"):
                memory.write(observation(100, parts={"scores": np.zeros((2, 5), np.float32)}))
            with pytest.raises(ObservationError, match="'embedding' changed"):
                memory.write(observation(101, dim=16))
            memory.seal()
            assert memory.observation_count == 60


def test_another_space_begins_another_block(tmp_path: Path) -> None:
    with open_memory(tmp_path, config=small_config(1 << 20)) as memory:
        memory.write([observation(n) for n in range(5)])
        memory.write([observation(n, dim=8, space="other@2") for n in range(5, 10)])
        assert [(block.space, len(block)) for block in memory.blocks()] == [(SPACE, 5), ("other@2", 5)]
        assert memory.status().spaces == ("other@2", SPACE)


def test_hostile_stream_names(tmp_path: Path) -> None:
    names = ["'", '"; DROP TABLE segments; --', "../../escape", "相机 1", "a" * 200, ".", "CON", "%s{}"]
    with open_memory(tmp_path / "memory") as memory:
        for name in names:
            memory.write([observation(n, name, texts=()) for n in range(40)])
        memory.seal()
    with open_memory(tmp_path / "memory", mode="read") as memory:
        assert [info.stream for info in memory.streams()] == sorted(names)
        assert all(seqs(memory, name) == list(range(40)) for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["memory"]


def test_queued_writes_wait_for_the_group(tmp_path: Path) -> None:
    clock = ManualClock()
    with open_memory(tmp_path, config=small_config(sync_every=10, sync_ms=50.0), clock=clock) as memory:
        assert memory.write(observation(0), durable=False).durable is False
        assert memory.observation_count == 0
        assert memory.status().journal_unsynced_bytes > 0
        assert memory.write([observation(n) for n in range(1, 10)], durable=False).durable is True
        assert memory.observation_count == 10
        memory.write(observation(10), durable=False)
        clock.advance(60_000_000)
        assert memory.write(observation(11), durable=False).durable is True
        memory.write(observation(12), durable=False)
    with open_memory(tmp_path, mode="read") as memory:
        assert memory.observation_count == 13, "close flushes"


def test_states_are_ordered_with_observations(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        memory.write([observation(n) for n in range(50)], durable=False)
        memory.put_state("cursor", b"50")
        memory.put_state("other", b"x" * 100_000)
        memory.write([observation(n) for n in range(50, 120)])
        memory.put_state("cursor", b"120")
        assert memory.get_state("cursor") == b"120"
        with pytest.raises(ObservationError, match="the limit is"):
            memory.put_state("huge", bytes(5 << 20))
    for mode in ("read", "write"):
        with open_memory(tmp_path, mode=mode) as memory:
            assert (memory.get_state("cursor"), memory.get_state("none")) == (b"120", None)
            assert memory.get_state("other") == b"x" * 100_000


def test_stream_infos(tmp_path: Path) -> None:
    info = StreamInfo(stream="cam", source="/x.mp4", clock="media", fps=29.97)
    with open_memory(tmp_path) as memory:
        memory.set_stream(info)
        memory.write([observation(n, "undescribed") for n in range(50)])
        assert memory.streams() == [info, StreamInfo(stream="undescribed")]
    with open_memory(tmp_path, mode="read") as memory:
        assert memory.streams() == [info, StreamInfo(stream="undescribed")]


def test_filters(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        memory.write([observation(n, stream) for n in range(100) for stream in ("a", "b")])
        blocks = memory.blocks(streams=["a"], between=(20 * SECOND, 30 * SECOND))
        found = set()
        for block in blocks:
            lo, hi = block.rows_between(20 * SECOND, 30 * SECOND)
            # A slice may hold rows that end before the interval: the caller checks (storage/blocks.py).
            found |= {block.record(row).seq for row in range(lo, hi) if block.t_end_ns[row] >= 20 * SECOND}
        assert found == set(range(20, 31))
        assert len(blocks) < len(memory.blocks(streams=["a"]))
        assert memory.blocks(streams=["nobody"]) == memory.blocks(bank="nothing") == []


def test_text_search_sealed_and_open(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        memory.write([observation(n) for n in range(100)])
        assert memory.search_text("gate 33")[0].text == "GATE 33"
        assert memory.search_text("GATE 99")[0].text == "GATE 99"  # still open
        words = memory.search_text("number 40", limit=1000)
        assert words[0].text == "word number 40" and words[0].kind == "speech"
        assert {hit.stream for hit in words} == {"cam"}
        only = memory.search_text("gate", between=(10 * SECOND, 20 * SECOND), limit=1000)
        assert {hit.text for hit in only} == {"GATE 12", "GATE 15", "GATE 18"}
        assert memory.search_text("gate", streams=["other"]) == []
        for hostile in (
            '"',
            "'; DROP TABLE words; --",
            "NEAR(",
            "a OR",
            "*",
            "",
            "   ",
            "\x00",
            "x" * 10_000,
            "( ) ^ -",
        ):
            memory.search_text(hostile)
        assert memory.search_words(["gate"], None, None, 1000) is not None


class CountingSpace:
    """A space whose statistics are: rows, and the sum of the first component."""

    name, version, dim, can_abstain, id = "test-space", "1", 32, False, SPACE

    def statistics(self, columns: dict[str, Ragged]) -> np.ndarray:
        vectors = columns["vector"].values.astype(np.float64)
        return np.array([len(vectors), vectors[:, 0].sum()])


def test_statistics_are_additive(tmp_path: Path) -> None:
    with open_memory(tmp_path, spaces=lambda _: CountingSpace()) as memory:
        memory.write([observation(n) for n in range(90)])
        parts = [block.statistics() for block in memory.blocks()]
        total = np.sum([part for part in parts if part is not None], axis=0)
        expected = CountingSpace().statistics({"vector": Ragged(np.concatenate([_vectors(memory)]), np.arange(91))})
        np.testing.assert_allclose(total, expected)
        memory.forget(between=(0, 10 * SECOND))
        kept = [block.statistics() for block in memory.blocks()]
        assert np.sum([part for part in kept if part is not None], axis=0)[0] == 79


def _vectors(memory: Memory) -> np.ndarray:
    return np.concatenate([block.columns(0, len(block))["vector"].values for block in memory.blocks()])


def test_a_missing_space_is_no_error(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        memory.write([observation(n) for n in range(60)])
        assert memory.blocks()[0].statistics() is None
        assert "no statistics for the space test-space@1" in memory.status().notes[0]


def test_short_term_memory(tmp_path: Path) -> None:
    config = small_config(short_term_seconds=10.0)
    with open_memory(tmp_path, config=config) as memory:
        memory.write([observation(n) for n in range(100)])
        assert [record.seq for record in memory.recent("cam")] == list(range(89, 100))
        assert memory.recent("cam")[0].thumbnail == observation(89).thumbnail
        memory.seal()
    with open_memory(tmp_path, config=config) as memory:
        assert [record.seq for record in memory.recent("cam")] == list(range(89, 100))
        memory.write(observation(100))
        assert [record.seq for record in memory.recent("cam")] == list(range(90, 101))
        memory.forget(stream="cam", between=(95 * SECOND, None))
        assert [record.seq for record in memory.recent("cam")] == list(range(90, 95))


def test_clock_jumps_dont_make_tiny_segments(tmp_path: Path) -> None:
    with open_memory(tmp_path, config=small_config(1 << 20, seal_seconds=10.0)) as memory:
        for number in range(200):
            jump = 10**18 if number % 2 else 0
            memory.write(observation(number, capture_ns=number + jump, speech=()), durable=False)
        memory.flush()
        assert memory.status().segments <= 200 // 64


def test_caller_may_reuse_its_buffers(tmp_path: Path) -> None:
    vector = np.zeros(32, np.float32)
    vector[0] = 1
    with open_memory(tmp_path) as memory:
        memory.write(observation(1, embedding=vector))
        vector[:] = 7
        record = memory.record(observation(1).record_id)
        assert record is not None and record.vector is not None and record.vector[0] == 1


def test_one_writer_many_readers(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        memory.write([observation(n) for n in range(50)])
        with pytest.raises(MemoryLocked, match=rf"process {os.getpid()} writes") as caught:
            open_memory(tmp_path)
        assert caught.value.pid == os.getpid()
        code = (
            "import streammem.memory as m, sys; from sample_moments import small_config\n"
            "try:\n    m.open(sys.argv[1])\nexcept Exception as e:\n    print(type(e).__name__, e.pid)\n"
            "r = m.open(sys.argv[1], mode='read', config=small_config()); print(r.observation_count, r.digest())"
        )
        root = Path(__file__).parents[2]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(root / "tests" / "storage")))}
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment, check=True
        )
        assert done.stdout.split("\n")[:2] == [f"MemoryLocked {os.getpid()}", f"50 {memory.digest()}"]
    open_memory(tmp_path).close()


def test_reader_follows_a_writer(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        memory.write(observation(0))
        with open_memory(tmp_path, mode="read") as reader:
            for number in range(1, 150):
                memory.write(observation(number))
                if number % 9 == 0:
                    assert reader.observation_count == number + 1
                    assert reader.digest() == memory.digest()
            memory.forget(stream="cam", between=(0, 50 * SECOND))
            assert reader.digest() == memory.digest()
            assert seqs(reader) == list(range(51, 150))
            with pytest.raises(StorageError, match="open for reading"):
                reader.write(observation(1000))


def test_reader_beside_a_busy_writer(tmp_path: Path) -> None:
    """A reader always sees a prefix, without holes, while another thread writes, seals and truncates."""
    done = threading.Event()
    problems: list[str] = []
    with open_memory(tmp_path) as memory:
        memory.write(observation(0))

        def read() -> None:
            with open_memory(tmp_path, mode="read") as reader:
                while not done.is_set():
                    found = seqs(reader)
                    if found != list(range(len(found))):
                        problems.append(f"{len(found)} of {found[-1]}")

        thread = threading.Thread(target=read)
        thread.start()
        for start in range(1, 600, 6):
            memory.write([observation(n) for n in range(start, start + 6)])
        done.set()
        thread.join()
    assert problems == []


def test_many_threads_may_write(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:

        def write(stream: str) -> None:
            for number in range(40):
                memory.write(observation(number, stream))

        threads = [threading.Thread(target=write, args=(f"cam {index}",)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert memory.observation_count == 160


def test_opening_what_is_no_memory(tmp_path: Path) -> None:
    with pytest.raises(MemoryNotFound, match="there is no memory in"):
        open_memory(tmp_path / "nothing", mode="read")
    with pytest.raises(MemoryNotFound):
        open_memory(tmp_path / "nothing", create=False)
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(StorageError, match=r"holds other files \('a\.jpg'\)"):
        open_memory(tmp_path / "photos")
    with pytest.raises(StorageError, match="is a file"):
        open_memory(tmp_path / "photos" / "a.jpg")
    with pytest.raises(ConfigError, match="at least 4194304"):
        open_memory(tmp_path / "new", config=small_config(disk_bytes=1000))


def test_newer_format_is_refused(tmp_path: Path) -> None:
    open_memory(tmp_path).close()
    (tmp_path / "FORMAT").write_text('{"format": 2}')
    for mode in ("read", "write"):
        with pytest.raises(FormatVersion, match="memory format 2, this release reads up to 1"):
            open_memory(tmp_path, mode=mode)


def test_closed(tmp_path: Path) -> None:
    memory = open_memory(tmp_path)
    memory.close()
    memory.close()
    for call in (memory.status, memory.blocks, memory.flush, lambda: memory.write(observation(1))):
        with pytest.raises(MemoryClosed):
            call()


def test_generators_of_any_length(tmp_path: Path) -> None:
    with open_memory(tmp_path, config=small_config(1 << 20)) as memory:
        assert memory.write(Observation(stream="x", seq=n, capture_ns=n) for n in range(1000)).written == 1000
