"""A stream's tracks are numbered on: after a kill, in a second session, and from a saved state."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streammem.memory
from perception.sources import open_source
from perception.trackers.association import AssociationSettings, AssociationTracker
from perception.trackers.boxes import Boxes, boxes
from perception.trackers.detecting import follow_detections
from perception.trackers.numbers import RESERVED, SESSIONS, TrackNumbers
from streammem.config import Config
from streammem.errors import CorruptData
from streammem.memory import Memory

SIZE = (120, 200)


class BlobDetector:
    """A real detector of a made-up world: bright blobs on black."""

    def __init__(self, name: str = "blobs", *, until: int = 10**9) -> None:
        self.name = name
        self.left = until

    def detect(self, image: np.ndarray) -> Boxes:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        count, _, stats, _ = cv2.connectedComponentsWithStats((image[:, :, 0] > 100).astype(np.uint8))
        rows = [[x, y, x + w, y + h] for x, y, w, h, area in stats[1:count] if area > 20]
        return boxes(np.array(rows, np.float32).reshape(-1, 4), [0.9] * len(rows), "blob")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds: one thing crosses, another comes after it, and so on; never the same one twice."""
    folder = tmp_path_factory.mktemp("pictures")
    for t in range(80):
        picture = np.zeros((*SIZE, 3), np.uint8)
        for start in (0, 25, 50):
            x = 5 + 8 * (t - start)
            if start <= t < start + 22:
                cv2.rectangle(picture, (x, 40), (x + 14, 70), (200, 200, 200), -1)
        cv2.imwrite(str(folder / f"{t:04d}.png"), picture)
    return folder


def follow(memory: Memory, folder: Path, detector: BlobDetector, **options: object) -> set[str]:
    source = open_source(str(folder), Config())
    try:
        return set(follow_detections(source, memory, detector, fps=30, **options).seen)  # type: ignore[arg-type]
    finally:
        source.close()


def names(memory: Memory) -> set[str]:
    return {one["track"] for one in memory.query("tracks", "tracks")}


def test_a_second_session_goes_on_after_the_first(tmp_path: Path, pictures: Path) -> None:
    with streammem.memory.open(tmp_path / "m", config=Config(), mode="write") as memory:
        first = follow(memory, pictures, BlobDetector())
        assert first and first == {str(n) for n in range(1, len(first) + 1)}
        digest = memory.digest()
        assert follow(memory, pictures, BlobDetector()) == first and memory.digest() == digest
    with streammem.memory.open(tmp_path / "m", config=Config(), mode="write") as memory:
        second = follow(memory, pictures, BlobDetector("other"))
        assert not first & second and len(second) == len(first)
        # The bank of tracks knows what both saw: with names given twice the second would have come too late.
        assert names(memory) == first | second


def test_killed_and_made_again_it_has_the_same_numbers(tmp_path: Path, pictures: Path) -> None:
    with streammem.memory.open(tmp_path / "whole", config=Config(), mode="write") as memory:
        whole, digest = follow(memory, pictures, BlobDetector()), memory.digest()
    killed = streammem.memory.open(tmp_path / "m", config=Config(), mode="write")
    with killed, pytest.raises(KeyboardInterrupt):
        follow(killed, pictures, BlobDetector(until=60))
    with streammem.memory.open(tmp_path / "m", config=Config(), mode="write") as memory:
        assert follow(memory, pictures, BlobDetector()) == whole
        assert memory.digest() == digest


def test_a_session_that_was_killed_keeps_room_for_being_made_again(tmp_path: Path, pictures: Path) -> None:
    with streammem.memory.open(tmp_path / "m", config=Config(), mode="write") as memory:
        with pytest.raises(KeyboardInterrupt):
            follow(memory, pictures, BlobDetector(until=60))
        between = follow(memory, pictures, BlobDetector("other"))
        again = follow(memory, pictures, BlobDetector())
        assert min(int(name) for name in between) > RESERVED and not between & again
        assert again == {str(n) for n in range(1, len(again) + 1)}


class Shelf:
    """What a memory's small state is, in a dict."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}

    def put_state(self, key: str, value: bytes) -> None:
        self.states[key] = value

    def get_state(self, key: str) -> bytes | None:
        return self.states.get(key)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 40)), max_size=30))
def test_no_number_is_given_twice(runs: list[tuple[int, int]]) -> None:
    """Sessions in any order, killed somewhere or not, made again or not: no two share a number. What a session would
    name in all is always the same (5 for each of its number)."""
    shelf, taken = Shelf(), dict[str, set[int]]()
    for session, cut in runs:
        numbers = TrackNumbers(shelf, "s", str(session))
        count = min(cut, 5 * session)
        numbers.keep(numbers.first + count, done=cut >= 5 * session)
        mine = set(range(numbers.first + 1, numbers.first + count + 1))
        for name, others in taken.items():
            assert name == str(session) or not mine & others
        taken.setdefault(str(session), set()).update(mine)


def test_many_sessions_stay_small_and_damage_is_told() -> None:
    shelf = Shelf()
    for session in range(3 * SESSIONS):
        numbers = TrackNumbers(shelf, "s", str(session))
        assert numbers.first == 2 * session
        numbers.keep(numbers.first + 2, done=True)
    assert len(shelf.states["tracks/s"]) < 20 * SESSIONS
    shelf.states["tracks/s"] = b"\xc1"
    with pytest.raises(CorruptData, match="numbers of tracks of 's'"):
        TrackNumbers(shelf, "s", "0")


def test_a_saved_state_goes_on_as_if_nothing_had_happened() -> None:
    rng = np.random.default_rng(3)
    vectors = np.linalg.qr(rng.normal(size=(16, 16)))[0][:4].astype(np.float32)

    def frame(t: int) -> Boxes:
        seen = [at for at in range(4) if (t // 12 + at) % 3]  # each is away for 12 frames of 36
        rows = [[20 + 60 * at + 2 * (t % 36), 50, 50 + 60 * at + 2 * (t % 36), 120] for at in seen]
        return boxes(np.array(rows, np.float32), [0.9] * len(rows), "person", vectors[seen])

    whole = AssociationTracker()
    steps = [whole.step(frame(t), t=t, size=(240, 400)) for t in range(100)]
    for cut in (1, 13, 50):
        first, second = AssociationTracker(), AssociationTracker()
        for t in range(cut):
            first.step(frame(t), t=t, size=(240, 400))
        second.load(first.state())
        rest = [second.step(frame(t), t=t, size=(240, 400)) for t in range(cut, 100)]
        assert [(one.tracks, one.refound, one.retired) for one in rest] == [
            (one.tracks, one.refound, one.retired) for one in steps[cut:]
        ]
        assert second.state() == whole.state() and second.made == whole.made
    assert whole.made >= 4 and any(step.refound for step in steps)
    with pytest.raises(CorruptData, match="other settings"):
        AssociationTracker(AssociationSettings(alike=0.5)).load(whole.state())
    for bad in (b"", b"\x00", whole.state()[:-9]):
        with pytest.raises(CorruptData):
            second.load(bad)
    assert second.state() == whole.state()
