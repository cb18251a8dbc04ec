"""Another encoder: the old space answers until the switch, a kill costs one segment, the way back is byte for byte."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streammem.memory
from streammem.config import BudgetConfig, Config, MemoryConfig
from streammem.errors import InputError, SpaceMismatch
from streammem.memory import Memory
from streammem.model import Observation, Record
from streammem.reembedding import Reembedding, check_target, discard, old_segments, roll_back
from streammem.spaces import Calibration, FrameEmbedding, Ragged

cv2 = pytest.importorskip("cv2")
SECOND = 10**9
COUNT = 90


class Corners:
    """A space of a picture's mean colours in a grid of ``side`` x ``side``; ``part`` names what it keeps besides."""

    can_abstain = False
    version = "1"

    def __init__(self, side: int) -> None:
        self.name = f"corners{side}"
        self.dim = 3 * side * side
        self._side = side
        self.embedded = 0

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"

    def embed_frames(self, frames: Sequence[np.ndarray]) -> list[FrameEmbedding]:
        self.embedded += len(frames)
        return [self._one(frame) for frame in frames]

    def _one(self, frame: np.ndarray) -> FrameEmbedding:
        small = cv2.resize(frame, (self._side, self._side), interpolation=cv2.INTER_AREA).astype(np.float32) + 1
        vector = small.reshape(-1) / np.linalg.norm(small)
        return FrameEmbedding(vector, {f"of_{self.name}": vector[None, :3].astype(np.float16)})

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([np.full(self.dim, self.dim**-0.5, np.float32) for _ in texts])

    def score(self, query: str, columns: Mapping[str, Ragged], statistics: np.ndarray | None) -> np.ndarray:
        return np.zeros(len(columns["vector"]), np.float32)

    def signals(
        self, query: str, columns: Mapping[str, Ragged], statistics: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        return {"vision": self.score(query, columns, statistics)}

    def statistics(self, columns: Mapping[str, Ragged]) -> np.ndarray | None:
        return np.array([len(columns["vector"].values)], np.float64)

    def calibration(self) -> Calibration | None:
        return None


OLD, NEW = Corners(2), Corners(3)


def spaces(space_id: str) -> Corners:
    return {"corners2@1": OLD, "corners3@1": NEW}[space_id]


def open_memory(directory: Path, mode: Any = "write") -> Memory:
    config = Config(memory=MemoryConfig(seal_bytes=8192), budget=BudgetConfig())
    return streammem.memory.open(directory, config=config, mode=mode, spaces=spaces)


def image(n: int) -> np.ndarray:
    """Two in three look alike; every 15 another scene."""
    rng = np.random.default_rng(n // 15)
    return rng.integers(0, 255, (2, 2, 3), dtype=np.uint8).repeat(24, 0).repeat(24, 1)


def moments(count: int = COUNT) -> list[Observation]:
    """Two of three are light: a vector without a picture."""
    made = []
    for n in range(count):
        frame = image(n)
        embedding = OLD.embed_frames([frame])[0]
        full = n % 3 == 0
        jpeg = bytes(cv2.imencode(".jpg", frame[:, :, ::-1])[1])
        made.append(
            Observation(
                stream="cam",
                seq=n,
                capture_ns=n * SECOND,
                space=OLD.id,
                embedding=embedding.vector,
                parts={**embedding.parts, "own": np.full((1, 2), n, np.float32)},
                thumbnail=jpeg if full else None,
            )
        )
    return made


def decoded(record: Record) -> np.ndarray | None:
    if record.thumbnail is None:
        return None
    return np.ascontiguousarray(cv2.imdecode(np.frombuffer(record.thumbnail, np.uint8), 1)[:, :, ::-1])


def change(directory: Path, **options: Any) -> Reembedding:
    return Reembedding(directory, NEW, decoded, old_parts=frozenset({"of_corners2"}), **options)


def write(directory: Path) -> None:
    with open_memory(directory) as memory:
        memory.write(moments())


def files_of(directory: Path) -> dict[str, str]:
    root = directory / "segments"
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_staging_changes_nothing_and_the_switch_everything(tmp_path: Path) -> None:
    write(tmp_path)
    with open_memory(tmp_path) as writer:  # it holds the lock and goes on
        before = writer.digest()
        report = change(tmp_path).stage()
        assert report.segments == len(old_segments(tmp_path, NEW.id)) >= 3
        assert writer.digest() == before
        assert {block.space for block in writer.blocks()} == {OLD.id}, "the old space still answers"
        assert writer.search("anything")
    with open_memory(tmp_path) as memory:
        count = memory.observation_count
        report = change(tmp_path).switch(memory)
        assert report.found >= 3, "what was staged isn't made again"
        assert (memory.observation_count, old_segments(tmp_path, NEW.id)) == (count, [])
        records = list(memory)
        assert [record.seq for record in records] == list(range(COUNT))
        for record in records:
            assert record.space == NEW.id and record.vector is not None
            assert sorted(record.arrays) == ["of_corners3", "own"]
            expected = NEW.embed_frames([image(record.seq)])[0].vector
            assert float(expected @ record.vector) > 0.999, record.seq  # JPEG and float16
            assert record.producer.module == "streammem.reembedding"
        assert memory.blocks()[0].statistics() is not None
        others = [segment for segment in memory._engine.store.segments if segment.bank != "moments"]
        children = [segment for segment in others if segment.space == OLD.id]
        assert report.stale == sum(len(segment) for segment in children) > 0, "the bank of events keeps mean vectors"
        assert {segment.record(row).status for segment in children for row in range(len(segment))} == {"stale"}
    with open_memory(tmp_path, "read") as memory:
        assert {block.space for block in memory.blocks()} == {NEW.id}
        assert memory.verify() == []


def test_the_way_back_is_byte_for_byte(tmp_path: Path) -> None:
    """B2: rollback restores byte-equal content."""
    write(tmp_path)
    with open_memory(tmp_path) as memory:
        memory.seal()
        before, digest = files_of(tmp_path), memory.digest()
    with open_memory(tmp_path) as memory:
        change(tmp_path).switch(memory)
        assert memory.digest() != digest
    with open_memory(tmp_path) as memory:
        assert roll_back(memory) >= 3
        assert (files_of(tmp_path), memory.digest()) == (before, digest)
        assert not (tmp_path / "reembed").exists()
        with pytest.raises(InputError):
            roll_back(memory)
    with open_memory(tmp_path) as memory:
        assert memory.digest() == digest and memory.verify() == []


def test_what_has_no_picture_says_so(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        memory.write(moments(30))
        memory.write(
            [Observation(stream="other", seq=0, capture_ns=0, space=OLD.id, embedding=moments(1)[0].embedding)]
        )
        memory.seal()
        report = change(tmp_path).switch(memory)
        assert (report.embedded, report.lent, report.bare, report.kept) == (10, 20, 0, 1)
        assert {block.space for block in memory.blocks(streams=["other"])} == {OLD.id}, (
            "it still answers in the old space"
        )


def test_forgetting_reaches_both_copies(tmp_path: Path) -> None:
    write(tmp_path)
    with open_memory(tmp_path) as memory:
        change(tmp_path).switch(memory)
        assert (tmp_path / "reembed" / "previous").is_dir()
        memory.forget(stream="cam", between=(0, 20 * SECOND))
        assert not (tmp_path / "reembed").exists()
        assert memory.observation_count == COUNT - 21
    change(tmp_path).stage()
    assert discard(tmp_path) == 0


def test_a_space_that_is_missing_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    write(tmp_path)
    with streammem.memory.open(tmp_path, mode="read") as memory:  # corners2 isn't installed
        with pytest.raises(SpaceMismatch, match=r"corners2@1.*streammem reembed"):
            memory.search("a red corner")
        answer = memory.ask("is there a red corner?")
        assert answer.status != "found" and "streammem reembed" in answer.text


def test_two_changes_at_once_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    change(tmp_path).stage()
    check_target(NEW, tmp_path)
    with pytest.raises(SpaceMismatch):
        check_target(Corners(4), tmp_path)
    with pytest.raises(InputError):
        change(tmp_path, cpu=0)


def test_the_share_of_a_core_is_kept(tmp_path: Path) -> None:
    write(tmp_path)
    slept: list[float] = []
    change(tmp_path, cpu=0.25, sleep=slept.append).stage()
    assert len(slept) >= COUNT // 8 - 3 and min(slept) > 0


KILLED = """
import sys
from pathlib import Path
from test_reembed import change, open_memory
if sys.argv[2] == "stage":
    change(Path(sys.argv[1])).stage()
else:
    with open_memory(Path(sys.argv[1])) as memory:
        change(Path(sys.argv[1])).switch(memory)
"""


@pytest.mark.parametrize(
    ("what", "point", "new"),
    [("stage", "before_rename:2", False), ("switch", "after_manifest:2", False), ("switch", "after_catalog:2", True)],
)
def test_a_kill_costs_one_segment_at_most(what: str, point: str, new: bool, tmp_path: Path) -> None:
    for name in ("killed", "whole"):
        write(tmp_path / name)
        with open_memory(tmp_path / name) as memory:
            memory.seal()
            memory.write(moments(COUNT + 1)[-1:])
    folder = Path(__file__).parent
    environment = {**os.environ, "STREAMMEM_CRASH_AT": point, "PYTHONPATH": f"{folder}:{folder.parents[1]}"}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), what]
    done = subprocess.run(command, env=environment, timeout=60, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with open_memory(tmp_path / "killed") as memory:
        assert memory.verify() == []
        assert {block.space for block in memory.blocks() if len(block) > 1} == {NEW.id if new else OLD.id}
    digests = set()
    for name in ("killed", "whole"):
        with open_memory(tmp_path / name) as memory:
            report = change(tmp_path / name).switch(memory)
            assert name != "killed" or what != "stage" or report.found >= 1
            digests.add(memory.digest())
    assert len(digests) == 1
