"""Segments: what goes in comes out, from disk as from RAM; every flipped bit is named; newer formats are refused."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_moments import SECOND, observation

from streammem.errors import CorruptData, FormatVersion
from streammem.model import Record
from streammem.storage.files import Files
from streammem.storage.open_part import OpenPart, RamBlock, record_from_observation
from streammem.storage.segment_writer import Row, write_segment
from streammem.storage.segments import Segment, read_manifest


def part_of(numbers: list[int], **changes: object) -> OpenPart:
    part = OpenPart("moments", "cam", lambda _: None)
    for lsn, number in enumerate(numbers, 1):
        own = dict(changes)
        if number % 6 == 5:
            own.update(embedding=None, parts={})
        if number % 4 == 1:
            own.update(thumbnail=None)
        part.add(Row(record_from_observation(observation(number, **own)), number * 977), lsn, 100)
    return part


def sealed(root: Path, part: OpenPart, **options: object) -> Segment:
    manifest = write_segment(
        root, part.sorted_rows(), files=Files(), bank="moments", stream="cam", lsn_first=1, lsn=len(part), **options
    )
    return Segment(root / manifest.name, read_manifest(root / manifest.name))


def plain(record: Record) -> dict[str, object]:
    fields = {name: getattr(record, name) for name in Record.__slots__}
    vector = fields.pop("vector")
    arrays = fields.pop("arrays")
    fields["stats"] = dict(record.stats)
    fields["vector"] = None if vector is None else (vector.dtype.str, vector.tobytes())
    fields["arrays"] = {
        name: (array.dtype.str, array.shape, array.tobytes()) for name, array in sorted(arrays.items()) if len(array)
    }
    return fields


def assert_blocks_agree(one: Segment | RamBlock, two: Segment | RamBlock) -> None:
    assert len(one) == len(two)
    assert one.space == two.space
    for name in ("record_ids", "t_start_ns", "t_end_ns", "levels", "has_thumbnail", "has_words"):
        left, right = getattr(one, name), getattr(two, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    for row in range(len(one)):
        assert plain(one.record(row)) == plain(two.record(row))
        assert one.thumbnail(row) == two.thumbnail(row)
    lo, hi = len(one) // 4, len(one) - len(one) // 5
    query = np.random.default_rng(0).normal(size=32).astype(np.float32)
    for a, b in ((0, len(one)), (lo, hi), (hi, hi)):
        left, right = one.columns(a, b), two.columns(a, b)
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name].offsets, right[name].offsets)
            np.testing.assert_array_equal(left[name].values, right[name].values)
        for k in (1, 5, 1000):
            for mine, other in zip(one.search(query, k, a, b), two.search(query, k, a, b), strict=True):
                np.testing.assert_array_equal(mine, other)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 300), unique=True, min_size=1, max_size=60))
def test_disk_and_ram_agree(tmp_path_factory: pytest.TempPathFactory, numbers: list[int]) -> None:
    """Whatever the order of arrival: a sealed block answers as the open one did."""
    part = part_of(numbers)
    segment = sealed(tmp_path_factory.mktemp("segment"), part)
    assert_blocks_agree(segment, part.block())
    assert segment.verify() == []
    assert segment.manifest.digest == f"{part.digest:016x}"
    spans = segment.manifest.sequences["s"]
    assert {seq for start, end in spans for seq in range(start, end + 1)} == set(numbers)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=30),
    st.none() | st.integers(-5, 80),
    st.none() | st.integers(-5, 80),
)
def test_time_filter_against_brute_force(
    spans: list[tuple[int, int]], t_start_ns: int | None, t_end_ns: int | None
) -> None:
    part = OpenPart("moments", "cam", lambda _: None)
    for number, (start, length) in enumerate(spans):
        fields = {name: getattr(record_from_observation(observation(number)), name) for name in Record.__slots__}
        fields.update(t_start_ns=start, t_end_ns=start + length)
        part.add(Row(Record(**fields), number), number + 1, 10)
    block = part.block()
    lo, hi = block.rows_between(t_start_ns, t_end_ns)
    inside = {
        row
        for row in range(len(block))
        if (t_end_ns is None or block.t_start_ns[row] <= t_end_ns)
        and (t_start_ns is None or block.t_end_ns[row] >= t_start_ns)
    }
    assert inside <= set(range(lo, hi))
    if t_end_ns is not None:
        assert all(block.t_start_ns[row] <= t_end_ns for row in range(lo, hi))


def test_filters_at_the_ends_of_time(tmp_path: Path) -> None:
    segment = sealed(tmp_path, part_of(list(range(10))))
    assert segment.rows_between(-(2**63), 2**63 - 1) == (0, 10)
    assert segment.rows_between(None, -1) == (0, 0)
    assert segment.rows_between(10 * SECOND, None) == (10, 10)
    assert segment.rows_between(3 * SECOND, 5 * SECOND) == (3, 6)


def test_a_block_doesnt_see_later_rows() -> None:
    part = part_of(list(range(100)))
    block = part.block()
    part.add(Row(record_from_observation(observation(500)), 1), 500, 10)
    assert len(block) == 100
    assert len(part.block()) == 101


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """verify() names the file and the megabyte; reading a row says so at once for metas and thumbnails."""
    segment = sealed(tmp_path, part_of(list(range(40))), statistics=np.ones((3, 2)))
    names = sorted(path.name for path in segment.directory.iterdir() if path.name != "manifest.json")
    assert names == [
        "a0.npy", "a0.offsets.npy", "columns.npy", "crcs.npy", "marks.npy", "meta.bin", "statistics.npy", "thumbs.bin",
        "vectors.bin",
    ]  # fmt: skip
    rng = random.Random(0)
    for name in names:
        path = segment.directory / name
        whole = path.read_bytes()
        for _ in range(6):
            at = rng.randrange(len(whole))
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :])
            damage = Segment(segment.directory, segment.manifest).verify()
            assert [(error.path, error.offset) for error in damage] == [(str(path), 0)]
            assert str(path) in str(damage[0]) and "doctor" in damage[0].hint
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["meta.bin", "thumbs.bin"])
def test_a_damaged_row_is_named_and_the_others_are_read(name: str, tmp_path: Path) -> None:
    segment = sealed(tmp_path, part_of(list(range(40))))
    path = segment.directory / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    damaged = Segment(segment.directory, segment.manifest)
    failed = []
    for row in range(len(damaged)):
        try:
            damaged.record(row)
            damaged.thumbnail(row)
        except CorruptData as error:
            failed.append((row, error))
    assert len(failed) == 1
    assert failed[0][1].path == str(path)
    assert failed[0][1].offset is not None and failed[0][1].offset <= len(data) // 2


@pytest.mark.parametrize("name", ["columns.npy", "vectors.bin", "meta.bin", "a0.npy"])
@pytest.mark.parametrize("fate", ["missing", "shorter", "longer"])
def test_a_file_of_the_wrong_size_is_seen_when_opened(name: str, fate: str, tmp_path: Path) -> None:
    segment = sealed(tmp_path, part_of(list(range(20))))
    path = segment.directory / name
    data = path.read_bytes()
    if fate == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if fate == "shorter" else data + b"x")
    with pytest.raises(CorruptData, match=r"missing|expected .* bytes"):
        Segment(segment.directory, segment.manifest).open()


def test_newer_segments_are_refused(tmp_path: Path) -> None:
    segment = sealed(tmp_path, part_of([1]))
    path = segment.directory / "manifest.json"
    fields = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**fields, "format": 2}))
    with pytest.raises(FormatVersion, match="segment format 2, this release reads up to 1"):
        read_manifest(segment.directory)
    path.write_bytes(b"{")
    with pytest.raises(CorruptData, match="manifest"):
        read_manifest(segment.directory)


def test_no_pickle_is_ever_read(tmp_path: Path) -> None:
    segment = sealed(tmp_path, part_of([1, 2]))
    path = segment.directory / "marks.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    size = path.stat().st_size
    files = tuple(
        msgspec.structs.replace(entry, size=size, crcs=()) if entry.name == "marks.npy" else entry
        for entry in segment.manifest.files
    )
    with pytest.raises(CorruptData, match="can't be read"):
        _ = Segment(segment.directory, msgspec.structs.replace(segment.manifest, files=files)).levels


def test_names_are_data_not_paths(tmp_path: Path) -> None:
    part = OpenPart("moments", "../../escape", lambda _: None)
    part.add(Row(record_from_observation(observation(1, "../../escape")), 1), 1, 10)
    manifest = write_segment(
        tmp_path / "segments",
        part.sorted_rows(),
        files=Files(),
        bank="moments",
        stream="../../escape",
        lsn_first=1,
        lsn=1,
    )
    assert (tmp_path / "segments" / manifest.name).is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["segments"]
