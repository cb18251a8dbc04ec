"""RTSP against GStreamer's server, started here on loopback. Skipped, saying so, where it isn't installed."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from perception.sources import open_source
from perception.sources.address import AddressSource
from streammem.config import Config, LiveConfig
from streammem.errors import SourceError

PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("rtsp_server.py")
PASSWORD = "p@ss/w#1"
PACKAGES = "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"


def _installed() -> bool:
    check = 'import gi; gi.require_version("GstRtspServer", "1.0"); from gi.repository import GstRtspServer'
    return (
        os.path.exists(PYTHON)
        and not subprocess.run([PYTHON, "-c", check], capture_output=True, check=False).returncode
    )


pytestmark = pytest.mark.skipif(not _installed(), reason=f"no RTSP server here: apt-get install {PACKAGES}")


class Server:
    def __init__(self, kind: str = "moving", *, port: int = 0, login: tuple[str, str] | None = None) -> None:
        command = [PYTHON, str(SCRIPT), kind, str(port), *(login or ())]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the RTSP server didn't start"
        self.port = int(line)

    def address(self, user: str = "") -> str:
        return f"rtsp://{user}127.0.0.1:{self.port}/camera"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.kill()


def test_pictures_with_capture_times_of_now(server: Server) -> None:
    source = open_source(server.address(), Config())
    assert isinstance(source, AddressSource)
    info = source.info
    assert (info.width, info.height, info.codec, info.clock, info.live) == (160, 120, "mjpeg", "wall", True)
    source.sampling = source.sampling.__class__(5.0)
    frames = []
    for frame in itertools.islice(source.frames(), 15):
        # Seen a moment ago, by the wall clock; never in the future.
        assert -1_000_000 < time.time_ns() - frame.capture_ns < 1_500_000_000
        frames.append(frame)
    assert source.state == "live"
    source.close()
    steps = [(b.capture_ns - a.capture_ns) / 1e9 for a, b in itertools.pairwise(frames)]
    # 20 pictures a second, one of each fifth of a second. The first may be the last of its fifth, and its delay isn't
    # known to be long yet; a busy machine may miss a grid point.
    assert all(0.04 < step < 1.0 for step in steps[2:]) and 0.15 < sum(steps[2:]) / len(steps[2:]) < 0.3, steps
    assert frames[0].media_ns == 0 and all(b.index > a.index for a, b in itertools.pairwise(frames))


def test_a_password_opens_it_and_is_never_shown(server: Server) -> None:
    guarded = Server(login=("admin", PASSWORD))
    try:
        source = AddressSource(guarded.address(f"admin:{PASSWORD}@"), fps=5)
        assert len(list(itertools.islice(source.frames(), 3))) == 3
        shown = [repr(source.info), repr(source.health), source.shown]
        source.close()
        wrong = guarded.address(f"admin:{PASSWORD}wrong@")
        with pytest.raises(SourceError, match="401 Unauthorized") as refused:
            AddressSource(wrong)
        shown += [str(refused.value), "".join(traceback.format_exception(refused.value))]
        for text in shown:
            assert PASSWORD not in text and "p%40ss" not in text and "admin" not in text, text
    finally:
        guarded.kill()


@pytest.mark.slow
def test_fault_15_a_server_that_is_killed_and_comes_back(server: Server) -> None:
    config = LiveConfig(stall_seconds=4.0, backoff_seconds=0.1, backoff_limit_seconds=0.5, reconnect_seconds=30.0)
    source = AddressSource(server.address(), fps=5, config=config)
    frames = source.frames()
    before = [next(frames) for _ in range(5)]
    server.kill()
    back: list[Server] = []
    timer = threading.Timer(1.5, lambda: back.append(Server(port=server.port)))
    timer.start()
    try:
        after = [next(frames) for _ in range(5)]
        # What waited in the queue when the server died comes first; then the gap.
        frames_all = before + after
        gap_s = max(b.capture_ns - a.capture_ns for a, b in itertools.pairwise(frames_all)) / 1e9
        assert gap_s > 1.0 and source.health.reconnects >= 1
        assert all(b.index > a.index for a, b in itertools.pairwise(frames_all))
    finally:
        source.close()
        timer.join()
        for each in back:
            each.kill()


@pytest.mark.slow
def test_fault_15_a_server_that_keeps_the_connection_but_sends_nothing(server: Server) -> None:
    """Half-open: SIGSTOP leaves the TCP connection up."""
    config = LiveConfig(stall_seconds=2.0, backoff_seconds=0.1, backoff_limit_seconds=0.2, reconnect_seconds=1.0)
    source = AddressSource(server.address(), fps=5, config=config)
    frames = source.frames()
    next(frames)
    os.kill(server.process.pid, 19)
    started = time.monotonic()
    states = set()
    with pytest.raises(SourceError, match=r"is gone|hangs"):
        for _ in frames:
            states.add(source.state)
    os.kill(server.process.pid, 18)
    # Noticed by the time-out of a read, not by TCP (which would take minutes).
    assert time.monotonic() - started < 40
    assert source.health.state in ("starved", "gone")


def test_fault_16_a_frozen_camera_behind_rtsp_is_told() -> None:
    frozen = Server("frozen")
    try:
        source = AddressSource(frozen.address(), fps=10, config=LiveConfig(frozen_seconds=1.0))
        for _ in itertools.islice(source.frames(), 20):
            pass
        assert source.state == "frozen" and source.health.frozen_frames >= 10
        source.close()
    finally:
        frozen.kill()


def test_nobody_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(SourceError, match="can't be opened: Connection refused") as refused:
            AddressSource(f"rtsp://admin:hunter2@127.0.0.1:{port}/camera")
    assert "hunter2" not in str(refused.value)
