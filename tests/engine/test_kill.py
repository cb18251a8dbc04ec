"""kill -9 at seeded moments and at every named crash point: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from kill_writer import STREAMS, main
from sample_moments import small_config

import streammem.memory
from streammem.storage.files import CRASH_POINTS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Killed:
    """What a writer said before it died. ``point`` arms a crash point; else it dies ``after`` so many acks."""

    def __init__(self, directory: Path, last: int, seed: int, *, point: str = "", after: int = 0, wait: float = 0.0):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "STREAMMEM_CRASH_AT": point}
        command = [sys.executable, str(HERE / "kill_writer.py"), str(directory), str(last), str(seed)]
        self.acknowledged = -1
        self.cursor = 0
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            acks = 0
            timer: threading.Timer | None = None
            for line in process.stdout:
                word, _, value = line.partition(" ")
                if word == "ack":
                    self.acknowledged = int(value)
                    acks += 1
                elif word == "state":
                    self.cursor = int(value)
                if after and acks == after and timer is None:
                    timer = threading.Timer(wait, process.kill)
                    timer.start()
            self.errors = process.stderr.read()
            self.code = process.wait()
            if timer is not None:
                timer.cancel()


def check(directory: Path, killed: Killed, tag: str) -> None:
    """Every acknowledged observation is there once, in every stream; the state isn't ahead of the observations."""
    with streammem.memory.open(directory, config=small_config(seal_bytes=12000)) as memory:
        for stream in STREAMS:
            seqs = sorted(
                record.seq
                for block in memory.blocks(streams=[stream])
                for record in (block.record(row) for row in range(len(block)))
            )
            assert len(seqs) == len(set(seqs)), f"{tag}: duplicates in {stream}"
            missing = set(range(killed.acknowledged + 1)) - set(seqs)
            assert not missing, f"{tag}: acknowledged {killed.acknowledged}, missing {sorted(missing)[:5]} of {stream}"
            cursor = int(memory.get_state("cursor") or b"0")
            assert cursor >= killed.cursor, f"{tag}: state lost"
            assert set(range(min(cursor, LAST + 1))) <= set(seqs), f"{tag}: the state is ahead of the observations"
        assert not memory.verify(), tag
        assert not memory.status().corruption, tag


LAST = 400


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("undisturbed")
    main(str(directory), LAST, 0)
    with streammem.memory.open(directory, mode="read", config=small_config()) as memory:
        assert memory.status().segments > 10
        return memory.digest()


def finish(directory: Path, undisturbed: str, tag: str) -> None:
    killed = Killed(directory, LAST, 99)
    assert killed.code == 0, killed.errors
    check(directory, killed, tag)
    with streammem.memory.open(directory, mode="read", config=small_config()) as memory:
        assert memory.digest() == undisturbed, tag


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_crash_at_named_point(point: str, tmp_path: Path, undisturbed: str) -> None:
    for nth in (1, 3):
        killed = Killed(tmp_path, LAST, nth, point=f"{point}:{nth}")
        assert killed.code == -signal.SIGKILL, killed.errors
        check(tmp_path, killed, f"{point}:{nth}")
    finish(tmp_path, undisturbed, point)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kill_at_random_moments(seed: int, tmp_path: Path, undisturbed: str) -> None:
    rng = random.Random(seed)
    killed_for_real = 0
    for cycle in range(8):
        killed = Killed(tmp_path, LAST, cycle, after=rng.randint(1, 3), wait=rng.random() * 0.02)
        killed_for_real += killed.code == -signal.SIGKILL
        check(tmp_path, killed, f"seed {seed}, cycle {cycle}")
    assert killed_for_real >= 4, "the writer finished before it could be killed: make it longer"
    finish(tmp_path, undisturbed, f"seed {seed}")


def test_kill_without_any_acknowledgement(tmp_path: Path) -> None:
    """Dying while the memory is being made leaves something that opens."""
    killed = Killed(tmp_path, LAST, 1, point="after_append:1")
    assert killed.acknowledged == -1
    with streammem.memory.open(tmp_path, config=small_config()) as memory:
        assert memory.observation_count >= 0
