"""The write-ahead log: torn tails, damage in the middle, forged frames, full disks, shortening."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import pytest
from faulty_files import BrokenSync, PowerCut, SmallDisk

from streammem.errors import FormatVersion, StorageError, StorageFull
from streammem.storage.files import Files
from streammem.storage.journal import FRAME_MAGIC, Frame, Journal


def journal(directory: Path, files: Files | None = None, **options: object) -> Journal:
    made = Journal(directory / "journal", files or Files(), **options)  # type: ignore[arg-type]
    made.found = [(frame.kind, frame.lsn, bytes(frame.payload)) for frame in made.replay()]  # type: ignore[attr-defined]
    return made


def filled(directory: Path, count: int = 20, **options: object) -> list[tuple[int, int, bytes]]:
    log = journal(directory, **options)
    payloads = [bytes([at]) * (at * 7 % 50) for at in range(count)]
    for at, payload in enumerate(payloads):
        log.append([(1 + at % 3, payload)])
    log.sync()
    log.close()
    return [(1 + at % 3, at + 1, payload) for at, payload in enumerate(payloads)]


def test_round_trip_and_going_on(tmp_path: Path) -> None:
    expected = filled(tmp_path)
    log = journal(tmp_path)
    assert log.found == expected
    assert log.append([(9, b"more"), (9, b"again")]) == 21
    log.sync()
    log.close()
    assert journal(tmp_path).found == [*expected, (9, 21, b"more"), (9, 22, b"again")]


def test_torn_at_every_byte(tmp_path: Path) -> None:
    """Whatever prefix of the last write is on the disk: what came before is there, and writing goes on."""
    expected = filled(tmp_path, 6)
    path = tmp_path / "journal" / "00000001.log"
    whole = path.read_bytes()
    before_last = len(whole) - 24 - len(expected[-1][2])
    for size in range(before_last, len(whole)):
        path.write_bytes(whole[:size])
        log = journal(tmp_path)
        assert log.found == expected[:-1]
        assert not log.damage
        assert log.torn_bytes == size - before_last
        log.append([(1, b"new")])
        log.sync()
        log.close()
        assert journal(tmp_path).found == [*expected[:-1], (1, 6, b"new")]


def test_bit_flips_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    expected = filled(tmp_path)
    path = tmp_path / "journal" / "00000001.log"
    whole = path.read_bytes()
    rng = random.Random(1)
    for _ in range(60):
        at = rng.randrange(40, len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :])
        log = Journal(tmp_path / "journal", Files(), write=False)
        found = [(frame.kind, frame.lsn, bytes(frame.payload)) for frame in log.replay()]
        lost = [frame for frame in expected if frame not in found]
        assert len(lost) == 1
        assert [frame for frame in expected if frame in found] == found
        if lost[0] is not expected[-1]:
            assert [entry.path for entry in log.damage] == [str(path)]
            assert log.damage[0].offset <= at < log.damage[0].offset + log.damage[0].length
            assert path.read_bytes()[at] != whole[at], "a reader changes nothing"


def test_damage_is_copied_aside(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / "journal" / "00000001.log"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    log = journal(tmp_path)
    aside = list((tmp_path / "quarantine").iterdir())
    assert [copy.name for copy in aside] == [f"00000001-{log.damage[0].offset}.journal"]
    assert len(aside[0].read_bytes()) == log.damage[0].length


def test_a_forged_frame_in_a_payload_is_not_believed(tmp_path: Path) -> None:
    """After damage the reader looks for the next frame; bytes that a camera chose must not pass for one."""
    donor = tmp_path / "donor"
    log = journal(donor)
    log.append([(1, b"x")] * 4 + [(1, b"forged")])
    log.sync()
    log.close()
    raw = (donor / "journal" / "00000001.log").read_bytes()
    forged = raw[raw.rindex(FRAME_MAGIC) :]
    victim = journal(tmp_path)
    victim.append([(1, forged), (1, b"honest")])
    victim.sync()
    victim.close()
    path = tmp_path / "journal" / "00000001.log"
    data = bytearray(path.read_bytes())
    data[41] ^= 255  # the frame that carries the forgery
    path.write_bytes(data)
    assert journal(tmp_path).found == [(1, 2, b"honest")]


def test_full_disk_keeps_what_was_written_and_recovers(tmp_path: Path) -> None:
    disk = SmallDisk()
    log = journal(tmp_path, disk)
    log.append([(1, b"first")])
    log.sync()
    disk.free = 30
    with pytest.raises(StorageFull, match="no space left for the journal"):
        log.append([(1, b"too much for this disk"), (1, b"...")])
    assert log.unsynced_bytes == 0
    disk.free = None
    assert log.append([(1, b"second")]) == 2
    log.sync()
    log.close()
    assert journal(tmp_path).found == [(1, 1, b"first"), (1, 2, b"second")]


def test_full_disk_at_the_first_byte(tmp_path: Path) -> None:
    disk = SmallDisk(free=0)
    log = journal(tmp_path, disk)
    with pytest.raises(StorageFull):
        log.append([(1, b"first")])
    disk.free = None
    log.append([(1, b"first")])
    log.sync()
    log.close()
    assert [frame[2] for frame in journal(tmp_path).found] == [b"first"]


def test_a_failed_sync_is_not_tried_again(tmp_path: Path) -> None:
    """After a failed fsync the kernel may have dropped the pages: a second one would succeed and mean nothing."""
    files = BrokenSync()
    log = journal(tmp_path, files)
    log.append([(1, b"first")])
    log.sync()
    log.append([(1, b"second")])
    files.broken = True
    with pytest.raises(StorageError, match="can't be written"):
        log.sync()
    files.broken = False
    with pytest.raises(StorageError, match="the journal failed"):
        log.append([(1, b"third")])
    log.close()
    assert [frame[2] for frame in journal(tmp_path).found] == [b"first"]


def test_files_and_truncation(tmp_path: Path) -> None:
    log = journal(tmp_path, file_bytes=300)
    for _ in range(30):
        log.append([(1, bytes(50))])
        log.sync()
    names = sorted(path.name for path in (tmp_path / "journal").iterdir())
    assert len(names) > 5
    before = log.bytes
    assert log.truncate_before(15) == before - log.bytes > 0
    log.close()
    found = journal(tmp_path, file_bytes=300).found
    assert found[0][1] <= 15
    assert [frame[1] for frame in found] == list(range(found[0][1], 31))


def test_lsns_go_on_after_everything_was_truncated(tmp_path: Path) -> None:
    log = journal(tmp_path)
    log.append([(1, b"x")] * 5)
    log.sync()
    log.truncate_before(6)
    log.close()
    log = journal(tmp_path)
    assert log.found == []
    assert log.append([(1, b"y")]) == 6


def test_rewrite_keeps_lsns_and_survives_a_stop_at_every_step(tmp_path: Path) -> None:
    filled(tmp_path, 10, file_bytes=200)
    log = journal(tmp_path, file_bytes=200)
    kept = [frame for frame in log.found if frame[1] in (3, 8)]
    old = {path.name: path.read_bytes() for path in (tmp_path / "journal").iterdir()}
    log.rewrite(Frame(*frame) for frame in kept)
    log.append([(1, b"after")])
    log.sync()
    log.close()
    for name, data in old.items():  # a crash before the old files were removed
        (tmp_path / "journal" / name).write_bytes(data)
    assert journal(tmp_path, file_bytes=200).found == [*kept, (1, 11, b"after")]
    assert len(list((tmp_path / "journal").iterdir())) == 1


def test_rewrite_without_space_changes_nothing(tmp_path: Path) -> None:
    disk = SmallDisk()
    log = journal(tmp_path, disk)
    log.append([(1, bytes(100))] * 5)
    log.sync()
    disk.free = 60
    with pytest.raises(StorageFull):
        log.rewrite([Frame(1, 1, bytes(100))])
    disk.free = None
    log.append([(1, b"on")])
    log.sync()
    log.close()
    assert [frame[1] for frame in journal(tmp_path).found] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("seed", range(60))
def test_power_cuts(seed: int, tmp_path: Path) -> None:
    """Unsynced writes may be lost, torn or reordered: what was synced is there, in order; the rest is cut or found."""
    rng = random.Random(seed)
    files = PowerCut()
    synced = 0
    log = journal(tmp_path, files, file_bytes=3000)
    for _ in range(rng.randint(1, 20)):
        log.append([(1, rng.randbytes(rng.randint(0, 900))) for _ in range(rng.randint(1, 4))])
        if rng.random() < 0.6:
            log.sync()
            synced = log.last_lsn
    log.close()
    files.cut(seed)
    found = [frame[1] for frame in journal(tmp_path, file_bytes=3000).found]
    assert set(range(1, synced + 1)) <= set(found)
    assert found == sorted(set(found))


@pytest.mark.parametrize("version", [0, 2])
def test_another_version_is_refused_by_name(tmp_path: Path, version: int) -> None:
    """Its header checks: it is no damage, and nothing of it is touched."""
    filled(tmp_path)
    path = tmp_path / "journal" / "00000001.log"
    data = bytearray(path.read_bytes())
    data[8:12] = version.to_bytes(4, "little")
    data[36:40] = zlib.crc32(data[:36]).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(
        FormatVersion, match=f"00000001.log has journal format {version}, this release reads 1"
    ) as caught:
        journal(tmp_path)
    assert ("pip install --upgrade streammem" if version else "the release that wrote it") in caught.value.hint
    assert path.read_bytes() == data and not (tmp_path / "quarantine").exists()


def test_a_later_layout_is_refused_by_its_magic(tmp_path: Path) -> None:
    """The header of a later layout may be longer: only its magic can be read."""
    filled(tmp_path)
    path = tmp_path / "journal" / "00000001.log"
    path.write_bytes(b"SMJRNL2\n" + bytes(100))
    with pytest.raises(FormatVersion, match="has journal format 2"):
        journal(tmp_path)


def test_a_flipped_bit_in_the_magic_is_damage(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / "journal" / "00000001.log"
    path.write_bytes(path.read_bytes().replace(b"SMJRNL1", b"SMJRNL3"))
    assert "header is damaged" in journal(tmp_path).damage[0].what
