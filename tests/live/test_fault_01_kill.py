"""Fault 1 over three processes: producers, service and asker are killed, stopped and cut off at seeded moments.

The history checker: every acknowledged observation is there exactly once, every stream is in order, and when the
producers have finished, the memory has the digest of a run in which nothing happened.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from kill_worker import acknowledged
from live_process import ROOT, Relay, ServiceProcess
from live_samples import fake_space, moment

import streammem.memory

CYCLES = 60
STREAMS = ("north", "south", "relayed")
COUNT = 5000
SEED = 7


def worker(*arguments: str) -> subprocess.Popen[bytes]:
    here = Path(__file__).parent
    variables = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{here}"}
    return subprocess.Popen([sys.executable, str(here / "kill_worker.py"), *arguments], env=variables)


class Harness:
    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.service = ServiceProcess(folder / "memory", "tcp://127.0.0.1:*", *small())
        self.address = self.service.address
        self.relay = Relay(self.address)
        self.producers = {stream: self.producer(stream) for stream in STREAMS}
        self.asker = worker("ask", self.address)
        self.done: Counter[str] = Counter()

    def log(self, stream: str) -> Path:
        return self.folder / f"{stream}.acks"

    def producer(self, stream: str) -> subprocess.Popen[bytes]:
        address = self.relay.address if stream == "relayed" else self.address
        return worker("produce", address, stream, str(self.log(stream)), str(COUNT))

    def cycle(self) -> None:
        time.sleep(self.rng.uniform(0.05, 0.6))
        action = self.rng.choice(
            ("kill service", "kill service", "stop service", "kill producer", "stop producer", "cut", "kill asker")
        )
        self.done[action] += 1
        self.done["while producing"] += any(process.poll() is None for process in self.producers.values())
        stream = self.rng.choice(STREAMS)
        if action == "kill service":
            self.service.kill()
            self.service = ServiceProcess(self.folder / "memory", self.address, *small())
        elif action == "stop service":
            self.pause(self.service.process)
        elif action == "kill producer":
            self.producers[stream].kill()
            self.producers[stream].wait()
            self.producers[stream] = self.producer(stream)
        elif action == "stop producer":
            self.pause(self.producers[stream])
        elif action == "cut":
            self.relay.cut()
        else:
            assert self.asker.poll() is None, "the asker met an error that it shouldn't"
            self.asker.kill()
            self.asker.wait()
            self.asker = worker("ask", self.address)

    def pause(self, process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGSTOP)
            # Sometimes longer than the second after which a silent service counts as dead.
            time.sleep(self.rng.choice((0.05, 0.3, 1.6)))
            process.send_signal(signal.SIGCONT)

    def finish(self) -> None:
        for stream, process in self.producers.items():
            assert process.wait(120) == 0, stream

    def close(self) -> None:
        for process in (*self.producers.values(), self.asker):
            if process.poll() is None:
                process.kill()
            process.wait()
        self.service.kill()
        self.relay.close()


def small() -> list[str]:
    """Segments of 256 KB, so that kills hit sealing too."""
    return ["--set", "memory.seal_bytes=256KB"]


@pytest.mark.slow
def test_fault_01_kill_stop_and_cut(tmp_path: Path) -> None:
    harness = Harness(tmp_path, random.Random(SEED))
    try:
        for _ in range(CYCLES):
            harness.cycle()
        harness.finish()
        harness.service.process.send_signal(signal.SIGTERM)
        assert harness.service.process.wait(30) == 0
    finally:
        harness.close()
    assert harness.done["kill service"] >= 10
    assert harness.done["while producing"] >= 50
    with streammem.memory.open(tmp_path / "memory", spaces=fake_space) as memory:
        assert memory.verify() == []
        for stream in STREAMS:
            found = [
                record for block in memory.blocks(streams=[stream]) for record in map(block.record, range(len(block)))
            ]
            seqs = Counter(record.seq for record in found)
            assert [seq for seq in acknowledged(harness.log(stream)) if seqs[seq] != 1] == []
            assert sorted(seqs) == list(range(COUNT)), "everything was produced in the end, and nothing twice"
            for block in memory.blocks(streams=[stream]):
                times = block.t_start_ns.tolist()
                assert times == sorted(times)
        digest = memory.digest()
    with streammem.memory.open(tmp_path / "quiet", spaces=fake_space) as quiet:
        for stream in STREAMS:
            quiet.write(moment(number, stream, full=number % 10 == 0) for number in range(COUNT))
        assert quiet.digest() == digest
