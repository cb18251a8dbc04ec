"""One suite for a policy beside its memory and for one behind a service: attend, errors, bounds, isolation."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pcmb_service import FAST, Policy, bank_of, client_of, config, policy, tokens

import streammem.memory
from streammem.banks.pcmb.options import preset
from streammem.banks.pcmb.reader import Projected, TrainingFree
from streammem.banks.pcmb.tokens import TokenBank
from streammem.client import Client, connect
from streammem.errors import AccessDenied, ObservationError, ProtocolError, QueryError, ServiceBusy
from streammem.keys import Grant
from streammem.memory import Memory
from streammem.service import Service

BOTH = pytest.mark.parametrize("where", ["process", "service"])


@pytest.fixture(params=["process", "service"])
def robot(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Policy]:
    with policy(request.param, tmp_path / "memory") as (found, _):
        yield found


def test_a_step_retrieves_fuses_and_writes(robot: Policy) -> None:
    """Against the parts put together by hand."""
    import torch

    bank = TokenBank(preset("openvla_code", length=4), 4, 16)
    reader = TrainingFree()
    projected = Projected(reader, bank)
    for step in range(9):
        given = tokens(step)
        done = robot.attend("cam/1", step, given, tokens(step, 1, 8), attention=True)
        x = torch.from_numpy(given)
        read = reader.read(x, projected, attention=True)
        expected = reader.fuse(x, read)[0] if len(bank) else x
        np.testing.assert_array_equal(done.perceptual, expected.numpy())
        assert done.cognitive.shape == (1, 8) and done.perceptual.dtype == np.float32
        looked = done.summary.streams["perceptual"].attention
        if step:
            assert looked is not None and read.attention is not None
            assert looked.first == [entry.first for entry in bank.entries]
            assert looked.counts == [entry.count for entry in bank.entries]
            assert sum(looked.shares) == pytest.approx(1.0, abs=1e-5)
            newest = looked.shares[-1]
            assert newest == pytest.approx(float(read.attention[bank.slots[-1]]))
        bank.write(step, x)
    assert done.summary.reader == "training-free substitute"
    stream = done.summary.streams["perceptual"]
    assert (stream.length, stream.merges, stream.drops, stream.memory_share) == (4, 5, 0, 0.5)
    (open_one,) = robot.episodes()
    assert (open_one.episode, open_one.step, open_one.lengths) == ("cam/1", 8, {"perceptual": 4, "cognitive": 4})


def test_a_step_sent_again_is_done_once_and_answered_alike(robot: Policy) -> None:
    for step in range(3):
        robot.attend("cam/1", step, tokens(step))
    once = robot.attend("cam/1", 3, tokens(3))
    kept = once.perceptual.copy()
    once.perceptual[:] = 0.0  # the caller's own array
    again = robot.attend("cam/1", 3, tokens(3))
    np.testing.assert_array_equal(again.perceptual, kept)
    assert again.summary == once.summary
    assert robot.episodes()[0].lengths == {"perceptual": 4}


BAD: list[tuple[str, dict[str, Any], str, str]] = [
    ("fewer tokens", {"perceptual": tokens(9, 3)}, "perceptual", r"changed from \(4, 16\) to \(3, 16\)"),
    ("other width", {"perceptual": tokens(9, 4, 8)}, "perceptual", r"changed from \(4, 16\) to \(4, 8\)"),
    ("a stream more", {"perceptual": tokens(9), "cognitive": tokens(9, 1)}, "cognitive", "changed from absent"),
    ("another stream", {"cognitive": tokens(9, 1)}, "perceptual", r"changed from \(4, 16\) to absent"),
    ("no tokens", {}, "perceptual", "is missing"),
    ("NaN", {"perceptual": np.full((4, 16), np.nan, np.float32)}, "perceptual", "NaN or infinity"),
    ("infinity", {"perceptual": np.full((4, 16), np.inf, np.float16)}, "perceptual", "NaN or infinity"),
    ("float64", {"perceptual": tokens(9).astype(np.float64)}, "perceptual", "dtype float64"),
    ("objects", {"perceptual": np.full((4, 16), None)}, "perceptual", "dtype object"),
    ("other byte order", {"perceptual": tokens(9).astype(">f4")}, "perceptual", "expected float32 or float16"),
    ("one dimension", {"perceptual": tokens(9)[0]}, "perceptual", r"shape \(16,\)"),
    ("no rows", {"perceptual": tokens(9)[:0]}, "perceptual", r"shape \(0, 16\)"),
    ("too large", {"perceptual": np.zeros((300, 8192), np.float32)}, "perceptual", "the limit is 16384 channels"),
    ("a list", {"perceptual": [[0.0]]}, "perceptual", "must be a NumPy array, got list"),
    ("backwards", {"step": 1, "perceptual": tokens(9)}, "step", "is 1, the episode 'cam/1' is at 2"),
    ("the same step, other tokens", {"step": 2, "perceptual": tokens(9)}, "step", "steps only grow"),
    ("negative", {"step": -1, "perceptual": tokens(9)}, "step", "expected a whole number from 0"),
    ("half a step", {"step": 3.5, "perceptual": tokens(9)}, "step", "expected a whole number from 0"),
    ("a name of control characters", {"episode": "cam\x00", "perceptual": tokens(9)}, "episode", "unprintable"),
    ("unknown and not at its beginning", {"episode": "cam/9", "perceptual": tokens(9)}, "episode", "isn't known here"),
]


@BOTH
def test_bad_steps_change_nothing(where: str, tmp_path: Path) -> None:
    with policy(where, tmp_path / "memory") as (robot, _):
        for step in range(3):
            robot.attend("cam/1", step, tokens(step))
        before = robot.episodes()
        for name, bad, field, message in BAD:
            arguments = {"episode": "cam/1", "step": 3, **bad}
            with pytest.raises(ObservationError, match=message) as caught:
                robot.attend(**arguments)
            assert caught.value.field == field, name
            assert robot.episodes() == before, name
        with policy("process", tmp_path / "other") as (other, _):
            for step in range(3):
                other.attend("cam/1", step, tokens(step))
            good = other.attend("cam/1", 3, tokens(3))
        np.testing.assert_array_equal(robot.attend("cam/1", 3, tokens(3)).perceptual, good.perceptual)


def test_an_episode_id_is_used_once(robot: Policy) -> None:
    robot.attend("cam/1", 0, tokens(0))
    assert robot.end_episode("cam/1")
    assert not robot.end_episode("cam/1")
    assert robot.episodes() == []
    for step in (0, 1):
        with pytest.raises(ObservationError, match=r"'cam/1' is over \(ended\)") as caught:
            robot.attend("cam/1", step, tokens(step))
        assert caught.value.field == "episode"
    robot.attend("cam/2", 0, tokens(0))


@BOTH
def test_nothing_survives_a_restart_and_the_policy_is_told(where: str, tmp_path: Path) -> None:
    with policy(where, tmp_path / "memory") as (robot, memory):
        robot.attend("cam/1", 0, tokens(0))
        before = memory.digest()
    with policy(where, tmp_path / "memory") as (robot, memory):
        assert memory.digest() == before  # working memory is no part of what is remembered
        with pytest.raises(ObservationError, match="isn't known here and its step is 1"):
            robot.attend("cam/1", 1, tokens(1))


@BOTH
def test_a_bounded_number_of_episodes(where: str, tmp_path: Path) -> None:
    with policy(where, tmp_path / "memory", most_episodes=3) as (robot, _):
        for number in range(3):
            robot.attend(f"cam/{number}", 0, tokens(0))
        with pytest.raises(ServiceBusy, match="3 episodes are open"):
            robot.attend("cam/3", 0, tokens(0))
        robot.attend("cam/1", 1, tokens(1))
        robot.end_episode("cam/0")
        robot.attend("cam/3", 0, tokens(0))


@BOTH
def test_a_bounded_number_of_bytes(where: str, tmp_path: Path) -> None:
    with policy(where, tmp_path / "memory", most_bytes=1 << 20, observe=False) as (robot, memory):
        with pytest.raises(ServiceBusy, match="comes to"):
            robot.attend("cam/0", 0, tokens(0, 256, 256))
        opened = 0
        with pytest.raises(ServiceBusy, match="episodes are open"):
            for number in range(100):
                robot.attend(f"cam/{number}", 0, tokens(0, 64, 64))
                opened += 1
        assert opened == len(robot.episodes()) > 2
        assert bank_of(memory).ram_bytes() <= 1 << 20


@BOTH
def test_idle_episodes_make_room_and_are_over(where: str, tmp_path: Path) -> None:
    with policy(where, tmp_path / "memory", most_episodes=2, idle_seconds=0.0) as (robot, _):
        for number in range(3):
            robot.attend(f"cam/{number}", 0, tokens(0))
        assert [each.episode for each in robot.episodes()] == ["cam/1", "cam/2"]
        with pytest.raises(ObservationError, match="it was idle"):
            robot.attend("cam/0", 1, tokens(1))


def test_10_interleaved_episodes_are_as_if_each_were_alone(robot: Policy) -> None:
    """Acceptance 10: isolation; here with threads, as several robots do."""
    results: dict[str, list[np.ndarray]] = {}

    def live(name: str, seed: int) -> None:
        results[name] = [robot.attend(name, step, tokens(step, seed=seed)).perceptual for step in range(12)]

    workers = [threading.Thread(target=live, args=(f"cam/{seed}", seed)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    robot.end_episode("cam/0")
    for seed in range(1, 4):
        live(f"alone/{seed}", seed)
        for alone, among in zip(results[f"alone/{seed}"], results[f"cam/{seed}"], strict=True):
            np.testing.assert_array_equal(alone, among)
        assert {each.episode: each.step for each in robot.episodes()}[f"cam/{seed}"] == 11


@BOTH
def test_forgetting_a_stream_ends_its_episodes(where: str, tmp_path: Path) -> None:
    from streammem.model import StreamInfo

    with policy(where, tmp_path / "memory") as (robot, memory):
        memory.set_stream(StreamInfo(stream="cam"))
        for name in ("cam/1", "cam", "camera/1"):
            robot.attend(name, 0, tokens(0))
        memory.forget(stream="cam", between=(0, 10))
        assert [each.episode for each in robot.episodes()] == ["camera/1"]
        with pytest.raises(ObservationError, match="forgotten"):
            robot.attend("cam/1", 1, tokens(1))


@BOTH
def test_without_the_bank(where: str, tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path / "memory") as memory:
        if where == "process":
            with pytest.raises(QueryError, match="no bank 'perceptual_cognitive'"):
                memory.bank("perceptual_cognitive")
            return
        service = Service(memory, bind="tcp://127.0.0.1:*")
        with service, client_of(service) as client, pytest.raises(QueryError, match="no bank 'perceptual_cognitive'"):
            client.attend("cam/1", 0, tokens(0))


class TestTheWire:
    """What only a service can be sent."""

    @pytest.fixture
    def client(self, tmp_path: Path) -> Iterator[Client]:
        with policy("service", tmp_path / "memory") as (found, _):
            assert isinstance(found, Client)
            yield found

    @pytest.mark.parametrize(
        ("what", "infos", "buffers", "message"),
        [
            ("a size that lies", [("perceptual", "<f4", (4, 16))], [b"x" * 12], "doesn't fit its description"),
            ("negative sides", [("perceptual", "<f4", (-1, -3))], [b"x" * 12], "doesn't fit its description"),
            ("an endless side", [("perceptual", "<f4", (2**62, 0))], [b""], "doesn't fit its description"),
            ("objects", [("perceptual", "|O", (1, 1))], [b"x" * 8], "doesn't fit its description"),
            ("no buffer", [("perceptual", "<f4", (1, 1))], [], "0 arrays came, 1 are described"),
            ("a buffer too many", [("perceptual", "<f4", (1, 1))], [b"x" * 4] * 2, "2 arrays came"),
            ("three buffers", [], [b""] * 3, "4 at most parts"),
            ("a name twice", [("perceptual", "<f4", (1, 1))] * 2, [b"x" * 4] * 2, "each name once"),
            ("another name", [("depth", "<f4", (1, 1))], [b"x" * 4], "not 'depth'"),
        ],
    )
    def test_malformed_arrays(
        self, client: Client, what: str, infos: list[Any], buffers: list[bytes], message: str
    ) -> None:
        import msgspec

        body = msgspec.msgpack.encode({"episode": "cam/1", "step": 0, "buffers": infos})
        with pytest.raises(ProtocolError, match=message):
            client.link.call("attend", body, *buffers, timeout_s=5.0)
        assert client.episodes() == []
        client.attend("cam/1", 0, tokens(0))

    def test_other_requests_still_take_no_arrays(self, client: Client) -> None:
        with pytest.raises(ProtocolError, match="a request has 2 parts, this one 3"):
            client.link.call("digest", b"\x80", b"x", timeout_s=5.0)


def test_rights(tmp_path: Path) -> None:
    """``attend`` needs the role produce, for the stream that an episode's name begins with."""
    from streammem.calls import AttendArguments, EpisodeArguments, Nothing
    from streammem.service.requests import Requests

    with streammem.memory.open(tmp_path / "memory", config=config()) as memory:
        requests = Requests(memory, workers=1, waiting=4)
        from streammem.calls import encode_arrays

        def attend(grant: Grant, episode: str) -> None:
            infos, buffers = encode_arrays({"perceptual": tokens(0)})
            requests._attend(AttendArguments(episode=episode, step=0, buffers=infos), buffers, grant)

        mine = Grant("arm", "produce", ("kitchen*",))
        attend(mine, "kitchen/1")
        attend(Grant("root", "admin"), "garage/1")
        for grant, episode in ((mine, "garage/2"), (Grant("viewer", "query"), "kitchen/2")):
            with pytest.raises(AccessDenied, match="'attend' on that stream"):
                attend(grant, episode)
        with pytest.raises(AccessDenied):
            requests._end_episode(EpisodeArguments(episode="garage/1"), mine)
        assert [each.episode for each in requests._episodes(Nothing(), mine)] == ["kitchen/1"]
        requests.stop(1.0)


def test_the_plain_write_path_needs_no_torch(tmp_path: Path) -> None:
    """Neither with the bank off nor, before the first tokens, with it on."""
    import subprocess
    import sys

    code = (
        "import sys, streammem.memory, streammem.client, streammem.service\n"
        "from streammem.config import Config, PerceptualCognitiveConfig\n"
        "from streammem.model import Observation\n"
        f"with streammem.memory.open({str(tmp_path / 'm')!r},"
        " config=Config(perceptual_cognitive=PerceptualCognitiveConfig(on=True))) as memory:\n"
        "    memory.write(Observation(stream='cam', seq=1, capture_ns=1))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_memory_stays_usable_while_a_policy_steps(tmp_path: Path) -> None:
    """A step doesn't take the memory's lock: one that is under way delays no write."""
    with policy("process", tmp_path / "memory") as (robot, memory):
        assert isinstance(memory, Memory)
        with memory._lock:
            done: list[int] = []

            def step() -> None:
                robot.attend("cam/1", 0, tokens(0))
                done.append(1)

            worker = threading.Thread(target=step)
            worker.start()
            worker.join(20)
            assert done == [1]


@pytest.mark.slow
def test_a_service_that_is_killed_under_a_policy(tmp_path: Path) -> None:
    """SIGKILL between two steps: the client connects again by itself and is told that the episode's memory is lost."""
    import os
    import signal
    import subprocess
    import sys

    def start(bind: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "streammem", "serve", str(tmp_path / "memory"), "--bind", bind, "--json"]
        variables = {**os.environ, "STREAMMEM__PERCEPTUAL_COGNITIVE__ON": "true"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables)
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, f"the service ended with {process.wait()}"
            text += line
        return process, json.loads(text)["address"]

    process, address = start("tcp://127.0.0.1:*")
    try:
        with connect(address, timing=FAST, timeout_s=60) as client:
            for step in range(3):
                client.attend("cam/1", step, tokens(step))
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()
            process, _ = start(address)
            with pytest.raises(ObservationError, match="isn't known here and its step is 3"):
                client.attend("cam/1", 3, tokens(3))
            done = client.attend("cam/2", 0, tokens(0))
            np.testing.assert_array_equal(done.perceptual, tokens(0))
    finally:
        process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
