"""The bank of tracks inside a memory: what it answers, that it is bounded, deterministic, and forgets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import streammem.memory
from streammem.banks.tracks import TracksBank
from streammem.config import Config, MemoryConfig, TracksConfig
from streammem.errors import CorruptData, QueryError
from streammem.model import Detection, Observation
from streammem.storage.open_part import record_from_observation

SECOND = 1_000_000_000
LOOKS = np.random.default_rng(3).normal(size=(4, 16)).astype(np.float16)


def moment(n: int, *names: str, look: int | None = None, session: str = "s", stream: str = "cam") -> Observation:
    """Moment ``n``, half a second after the one before; each named object is seen, its look changes every 20."""
    look = n // 20 % 4 if look is None else look
    return Observation(
        stream=stream,
        session=session,
        seq=n,
        capture_ns=n * SECOND // 2,
        detections=tuple(Detection(f"a {name}", 0.9, (0.1, 0.2, 0.3, 0.4), name) for name in names),
        parts={"track_vectors": np.stack([LOOKS[look]] * len(names))} if names else {},
    )


def story(n: int) -> list[Observation]:
    """A mug that is away every second minute, a dog in the first 40 moments."""
    return [moment(at, *(["mug"] if at // 120 % 2 == 0 else []), *(["dog"] if at < 40 else [])) for at in range(n)]


def small() -> Config:
    return Config(memory=MemoryConfig(seal_bytes=16 * 1024))


def test_what_it_answers(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path) as memory:
        memory.write(story(300))
        mug, dog = memory.query("tracks", "tracks")
        assert (mug["track"], mug["label"], mug["frames"], mug["open"]) == ("mug", "a mug", 180, True)
        assert [(part[0] // SECOND, part[1] // SECOND) for part in mug["intervals"]] == [(0, 59), (120, 149)]
        assert dog["last_ns"] == 39 * SECOND // 2 and not dog["open"]
        assert memory.query("tracks", "tracks", label="A DOG")[0]["track"] == "dog"
        roles = [(frame["role"], frame["t_ns"] // SECOND) for frame in mug["kept"]]
        assert roles == [("first", 0), ("diverse", 10), ("diverse", 20), ("diverse", 30)], "one of each look"
        for frame in mug["kept"]:
            assert memory.record(frame["record_id"]).t_start_ns == frame["t_ns"]  # type: ignore[union-attr]
        seen = memory.query("tracks", "when_seen", label="a dog")
        assert [(name, start, end // SECOND) for _, name, start, end in seen] == [("dog", 0, 19)]
        why = memory.query("tracks", "why", track="dog")
        assert why[0]["reason"] == "prompt" and why[-1]["reason"].startswith("seen again (cosine 1.00")
        assert memory.query("tracks", "track", track="mug")[0]["path"]
        closed = [block.record(row) for block in memory.blocks("tracks") for row in range(len(block))]
        assert sorted((record.detections[0].track, record.count) for record in closed) == [("dog", 40), ("mug", 120)]
        assert all(memory.record(parent) is not None for record in closed for parent in record.parents)
        with pytest.raises(QueryError, match=r"no track 'cat'.*known: dog, mug"):
            memory.query("tracks", "track", track="cat")
        with pytest.raises(QueryError, match="a track or a label"):
            memory.query("tracks", "when_seen")
        assert memory.query("tracks", "tracks", streams=["other"]) == []


@pytest.mark.parametrize("step", [7, 90])
def test_restarts_change_nothing(step: int, tmp_path: Path) -> None:
    told = story(300)
    for start in range(0, 300, step):
        with streammem.memory.open(tmp_path / "a", config=small()) as memory:
            memory.write(told[start : start + step])
    with streammem.memory.open(tmp_path / "b") as whole:
        whole.write(told)
        with streammem.memory.open(tmp_path / "a", mode="read") as memory:
            assert memory.status().segments > 3
            assert memory.query("tracks", "tracks") == whole.query("tracks", "tracks")
            assert memory.query("tracks", "why", track="mug") == whole.query("tracks", "why", track="mug")
            assert memory.digest() == whole.digest()


def test_forgetting_takes_stretches_frames_and_paths(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path) as memory:
        memory.write(story(300))
        memory.forget(stream="cam", between=(0, 25 * SECOND))
        found = memory.query("tracks", "tracks")
        assert [one["track"] for one in found] == ["mug"], "nothing is left of the dog"
        mug = memory.query("tracks", "track", track="mug")[0]
        assert [part[0] // SECOND for part in mug["intervals"]] == [120], "a stretch goes as a whole"
        assert all(frame["t_ns"] > 25 * SECOND for frame in mug["kept"])
        assert all(point[0] > 25 * SECOND for point in mug["path"])
        assert mug["kept"][0]["role"] == "first"
        assert all(line["t_ns"] > 25 * SECOND for line in memory.query("tracks", "why", track="mug"))
        memory.write([moment(300, "mug")])
        assert memory.query("tracks", "tracks")[0]["frames"] == 61
        memory.forget(stream="cam")
        assert memory.query("tracks", "tracks") == []


def bank(**options: int) -> TracksBank:
    return TracksBank(TracksConfig(**options))  # type: ignore[arg-type]


def test_bad_and_odd_input_is_counted_or_survived() -> None:
    tracks = bank(max_objects=3)
    see = tracks.observe
    see(record_from_observation(moment(0, "a", "b")))
    # Rows that don't fit the detections are left out.
    odd = replace(moment(1, "a", "b"), parts={"track_vectors": np.zeros((5, 16), np.float16)})
    see(record_from_observation(odd))
    see(record_from_observation(moment(1, "a")))
    see(record_from_observation(moment(0, "b")))
    (size,) = tracks.questions()["size"](None, streams=None)
    assert (size.objects, size.late) == (2, 2), "duplicated and late sightings are counted"
    for n, name in enumerate(("c", "d", "e"), 2):
        see(record_from_observation(moment(n, name)))
    (size,) = tracks.questions()["size"](None, streams=None)
    assert (size.objects, size.dropped) == (3, 2), "whoever was seen longest ago makes room"
    assert [one.track for one in tracks.questions()["tracks"](None, streams=None)] == ["e", "d", "c"]
    crowd = replace(
        moment(9), detections=tuple(Detection("x", 0.5, (0.1, 0.1, 0.2, 0.2), f"x{at}") for at in range(10_000))
    )
    see(record_from_observation(crowd))
    (size,) = tracks.questions()["size"](None, streams=None)
    assert size.objects == 3
    with pytest.raises(CorruptData, match="tracks of 'cam' can't be read"):
        bank().load("cam", b"nonsense", lambda _: None)


def run_long(frames: int) -> list[int]:
    tracks = bank()
    rng = np.random.default_rng(1)
    sizes = []
    for n in range(frames):
        names = [name for name in ("a", "b", "c") if rng.random() < 0.7] if n // 50 % 3 else []
        record = record_from_observation(moment(n, *names))
        record.arrays["track_vectors"] = rng.normal(size=(len(names), 16)).astype(np.float16)  # type: ignore[index]
        tracks.observe(record)
        if n % (frames // 50) == 0:
            (size,) = tracks.questions()["size"](None, streams=None) or [None]
            sizes.append(size.most_bytes if size else 0)
    return sizes


def test_bytes_of_an_object_are_flat() -> None:
    sizes = run_long(4000)
    assert max(sizes[25:]) <= 1.05 * max(sizes[10:25])
    assert max(sizes) < 60_000


@pytest.mark.slow
def test_bytes_of_an_object_are_flat_over_100_000_frames() -> None:
    sizes = run_long(100_000)
    assert max(sizes[5:]) <= 1.15 * max(sizes[1:5])  # reasons differ in length, frames kept by a few
    assert max(sizes) < 60_000
