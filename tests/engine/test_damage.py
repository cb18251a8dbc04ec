"""Power cuts, full disks, flipped bits, a lost catalogue: named, counted, and the rest still answers."""

from __future__ import annotations

import random
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from faulty_files import BrokenSync, PowerCut, SmallDisk
from sample_moments import observation, small_config

import streammem.memory
from streammem.errors import CorruptData, StorageError, StorageFull
from streammem.memory import Memory
from streammem.model import StreamInfo


def seqs(memory: Memory, stream: str = "cam") -> list[int]:
    found: list[int] = []
    for block in memory.blocks(streams=[stream]):
        found += [block.record(row).seq for row in range(len(block))]
    return sorted(found)


def filled(directory: Path, count: int = 150) -> str:
    with streammem.memory.open(directory, config=small_config()) as memory:
        memory.set_stream(StreamInfo(stream="cam", source="/film.mp4"))
        memory.write([observation(n) for n in range(count)])
        memory.put_state("cursor", b"here")
        return memory.digest()


@pytest.mark.parametrize("seed", range(30))
def test_power_cut(seed: int, tmp_path: Path) -> None:
    """Writes that were not synced are lost, torn or reordered. What was acknowledged is there."""
    rng = random.Random(seed)
    acknowledged = -1
    for life in range(3):
        files = PowerCut()
        memory = streammem.memory.open(tmp_path, config=small_config(9000), files=files)
        found = seqs(memory)
        assert found[: acknowledged + 1] == list(range(acknowledged + 1)), f"life {life}"
        assert len(found) == len(set(found))
        number = acknowledged + 1
        for _ in range(rng.randint(1, 25)):
            size = rng.randint(1, 9)
            durable = rng.random() < 0.7
            receipt = memory.write([observation(n) for n in range(number, number + size)], durable=durable)
            number += size
            if receipt.durable:
                acknowledged = number - 1
        # The power goes: nothing of this process is flushed, SQLite's own syncs are taken at their word.
        memory._engine.journal.close()
        memory._engine.catalog.close()
        assert memory._engine._lock is not None
        memory._engine._lock.release()
        files.cut(seed * 100 + life)
    with streammem.memory.open(tmp_path, config=small_config(9000)) as memory:
        assert seqs(memory)[: acknowledged + 1] == list(range(acknowledged + 1))
        assert [error for error in memory.verify() if "segments" in error.path] == []


def test_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    disk = SmallDisk()
    with streammem.memory.open(tmp_path, config=small_config(1 << 20), files=disk) as memory:
        memory.write([observation(n) for n in range(20)])
        disk.free = 1000
        with pytest.raises(StorageFull, match="no space left for the journal") as caught:
            memory.write([observation(n) for n in range(20, 40)])
        assert "what was acknowledged is kept" in caught.value.hint
        assert seqs(memory) == list(range(20)), "queries still answer"
        disk.free = None
        assert memory.write([observation(n) for n in range(20, 40)]).written == 20
        digest = memory.digest()
    with streammem.memory.open(tmp_path, mode="read", config=small_config()) as memory:
        assert memory.digest() == digest
        assert seqs(memory) == list(range(40))


def test_no_space_for_a_segment_loses_nothing(tmp_path: Path) -> None:
    """Sealing fails, writing goes on into the journal, and the part is sealed when there is space again."""
    disk = SmallDisk()
    with streammem.memory.open(tmp_path, config=small_config(), files=disk) as memory:
        memory.write([observation(n) for n in range(10)])
        disk.free = 25_000  # room for the journal, not for the segment beside it
        number = 10
        with pytest.raises(StorageFull):
            while number < 500:
                memory.write(observation(number))
                number += 1
        assert any("sealing failed and will be tried again" in note for note in memory.status().notes)
        assert seqs(memory) == list(range(number))
        disk.free = None
        memory.write([observation(n) for n in range(number, 200)])
        assert memory.status().segments > 0
        assert seqs(memory) == list(range(200))
    with streammem.memory.open(tmp_path, config=small_config()) as memory:
        assert seqs(memory) == list(range(200))
        assert not list((tmp_path / "segments").glob(".tmp*"))


def test_a_real_full_disk(tmp_path: Path) -> None:
    """The same on a 3 MB tmpfs, with SQLite and everything else on it."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine doesn't let the test mount a tmpfs")
    try:
        with streammem.memory.open(mount / "memory", config=small_config(200_000)) as memory:
            kept = 0
            with pytest.raises(StorageFull):
                while kept < 20_000:
                    memory.write([observation(n) for n in range(kept, kept + 20)])
                    kept += 20
            assert kept > 100
            assert seqs(memory)[:kept] == list(range(kept))
            before = seqs(memory)
            with suppress(StorageFull):  # there may be no room to write what remains: a typed error then
                memory.forget(stream="cam", between=(0, (kept // 2) * 10**9))
            assert set(before[kept // 2 + 1 :]) <= set(seqs(memory))
            subprocess.run(["mount", "-o", "remount,size=12m", str(mount)], check=True)
            memory.forget(stream="cam", between=(0, (kept // 2) * 10**9))
            memory.write(observation(10**6))
            after = seqs(memory)
            assert after == [*before[kept // 2 + 1 :], 10**6]
        with streammem.memory.open(mount / "memory", mode="read", config=small_config()) as memory:
            assert seqs(memory) == after
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_failing_disk_is_an_error_not_a_lie(tmp_path: Path) -> None:
    files = BrokenSync()
    memory = streammem.memory.open(tmp_path, config=small_config(), files=files)
    memory.write([observation(n) for n in range(5)])
    files.broken = True
    with pytest.raises(StorageError, match="can't be written"):
        memory.write(observation(5))
    files.broken = False
    assert seqs(memory) == list(range(5))
    with pytest.raises(StorageError, match="the journal failed"):
        memory.write(observation(6))
    memory.close()
    with streammem.memory.open(tmp_path, config=small_config()) as again:
        assert seqs(again) == list(range(5))
        again.write(observation(5))


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits_in_segments(seed: int, tmp_path: Path) -> None:
    filled(tmp_path)
    rng = random.Random(seed)
    victim = rng.choice(sorted((tmp_path / "segments").glob("*/*.*")))
    data = bytearray(victim.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    victim.write_bytes(data)
    with streammem.memory.open(tmp_path, config=small_config()) as memory:
        damage = memory.verify()
        if victim.name == "manifest.json":
            assert damage == []  # the catalogue has its own copy; this one is only for rebuilding
            return
        assert {error.path for error in damage} == {str(victim)}
        status = memory.status()
        assert status.quarantined_segments == 1
        assert status.corruption[0].path == str(victim)
        left = seqs(memory)
        assert 0 < len(left) == memory.observation_count < 150
        assert memory.write(observation(1000)).written == 1
        assert memory.write([observation(n) for n in range(150)]).written == 0, "what was seen stays known"


def test_a_damaged_row_leaves_the_others(tmp_path: Path) -> None:
    filled(tmp_path)
    with streammem.memory.open(tmp_path, config=small_config()) as memory:
        block = memory.blocks()[0]
        path = next(iter((tmp_path / "segments").glob(f"{block.manifest.name}/meta.bin")))  # type: ignore[attr-defined]
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with streammem.memory.open(tmp_path, config=small_config()) as memory:
        with pytest.raises(CorruptData, match=r"row 0 failed its checksum in .*meta\.bin at byte 0"):
            memory.record(observation(0).record_id)
        assert memory.record(observation(1).record_id) is not None
        assert next(report.what for report in memory.status().corruption).startswith("row 0 failed")


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits_in_the_journal(seed: int, tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path, config=small_config(1 << 20)) as memory:
        for number in range(30):
            memory.write(observation(number))
    (path,) = (tmp_path / "journal").iterdir()
    data = bytearray(path.read_bytes())
    at = random.Random(seed).randrange(40, len(data))
    data[at] ^= 1
    path.write_bytes(data)
    with streammem.memory.open(tmp_path, config=small_config(1 << 20)) as memory:
        assert len(seqs(memory)) == 29
        (report,) = memory.status().corruption
        assert report.path == str(path)
        assert report.offset <= at
        assert list((tmp_path / "quarantine").iterdir())
        lost = set(range(30)) - set(seqs(memory))
        assert memory.write([observation(n) for n in lost]).written == 1, "the producer can send it again"


@pytest.mark.parametrize("fate", ["missing", "empty", "garbage", "flipped", "missing with checkpoint"])
def test_the_catalogue_is_rebuilt(fate: str, tmp_path: Path) -> None:
    digest = filled(tmp_path)
    path = tmp_path / "catalog.sqlite"
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    if fate == "flipped":
        data = bytearray(path.read_bytes())
        data[: 4096 * 3] = bytes(4096 * 3)
        path.write_bytes(data)
    elif fate == "garbage":
        path.write_bytes(b"garbage" * 5000)
    elif fate == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    if fate == "missing":
        (tmp_path / "checkpoint.bin").unlink()
    if fate != "empty":  # an empty file is a valid, empty SQLite database: only a writer can tell
        with pytest.raises(CorruptData, match="open the memory once for writing"):
            streammem.memory.open(tmp_path, mode="read", config=small_config())
    with streammem.memory.open(tmp_path, config=small_config()) as memory:
        assert "it was rebuilt from" in memory.status().notes[0]
        assert memory.digest() == digest
        assert seqs(memory) == list(range(150))
        assert memory.write([observation(n) for n in range(151)]).written == 1
        assert memory.search_text("GATE 33")[0].text == "GATE 33"
        if fate != "missing":
            assert memory.streams()[0].source == "/film.mp4"
            assert memory.get_state("cursor") == b"here"


def test_rebuilding_after_demotion_and_forgetting(tmp_path: Path) -> None:
    """Replaced and forgotten segments don't come back, also if their directories were still there."""
    filled(tmp_path)
    before = tmp_path.with_name("before")
    shutil.copytree(tmp_path / "segments", before)
    with streammem.memory.open(tmp_path, config=small_config()) as memory:
        memory.seal()
        memory._engine.budget.demote_one(memory._engine.store.segments[0])
        digest = memory.digest()
    replaced = {path.name for path in before.iterdir()} - {path.name for path in (tmp_path / "segments").iterdir()}
    for name in replaced:
        shutil.copytree(before / name, tmp_path / "segments" / name)
    (tmp_path / "catalog.sqlite").unlink()
    with streammem.memory.open(tmp_path, config=small_config()) as memory:
        assert replaced
        assert memory.digest() == digest


def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    digest = filled(tmp_path)
    (tmp_path / "segments" / ".tmp-half").mkdir()
    (tmp_path / "segments" / "moments-000000000000-0000-0").mkdir()
    with streammem.memory.open(tmp_path, config=small_config()) as memory:
        assert memory.digest() == digest
    assert not (tmp_path / "segments" / ".tmp-half").exists()
    assert not (tmp_path / "segments" / "moments-000000000000-0000-0").exists()
