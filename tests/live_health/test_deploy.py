"""The unit files and the container file: what they promise is what the service does."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streammem.client import connect
from streammem.settings import load_settings, validate_file

DEPLOY = Path(__file__).resolve().parents[2] / "tools" / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))


def directives(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in path.read_text().replace("\\\n", " ").splitlines():
        if "=" in line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_stop_time_covers_the_declared_flush_time() -> None:
    unit = directives(DEPLOY / "streammem.service")
    configured = load_settings(file=DEPLOY / "streammem.yaml", environment={}).config.service.flush_seconds
    default = load_settings(environment={}).config.service.flush_seconds
    stop_s = float(unit["TimeoutStopSec"][0])
    assert unit["Type"] == ["notify"] and unit["Restart"] == ["on-failure"]
    assert stop_s >= 2 * max(configured, default)
    from streammem.service.loop import WRITER_HANGS_S

    # A writer that hangs for so long stops feeding the watchdog.
    assert float(unit["WatchdogSec"][0]) >= max(30.0, WRITER_HANGS_S)
    container = (DEPLOY / "Containerfile").read_text()
    assert f"--stop-timeout {round(stop_s)}" in container and "USER streammem" in container


def test_the_example_settings_are_valid() -> None:
    assert validate_file(DEPLOY / "streammem.yaml") == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here: apt-get install systemd")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_finds_nothing_to_complain_about(path: Path, tmp_path: Path) -> None:
    # The program isn't installed where the unit expects it; everything else is judged as it is.
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace("/opt/streammem/bin/streammem", "/bin/true"))
    result = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    lines = [line for line in result.stderr.splitlines() if path.name.split("@")[0].removesuffix(".service") in line]
    assert lines == [] and result.returncode == 0, result.stderr


def test_the_units_command_says_ready_and_stopping_when_it_is(tmp_path: Path) -> None:
    unit = directives(DEPLOY / "streammem.service")
    words = shlex.split(unit["ExecStart"][0])
    assert words[:2] == ["/opt/streammem/bin/streammem", "serve"]
    memory = tmp_path / "memory"
    address = f"ipc://{tmp_path}/service"
    args = [str(memory) if word == "/var/lib/streammem/memory" else word for word in words[1:]]
    for option, value in (("--bind", address), ("--feed", f"ipc://{tmp_path}/feed"), ("--metrics", "127.0.0.1:0")):
        args[args.index(option) + 1] = value
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(tmp_path / "notify"))
    told.settimeout(30)
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
    environment.pop("WATCHDOG_PID", None)
    process = subprocess.Popen([sys.executable, "-m", "streammem", *args], env=environment, stderr=subprocess.PIPE)
    try:
        first = told.recv(4096).decode()
        assert first.startswith("READY=1\n")
        # Ready means that it answers, not that it was started.
        with connect(address) as client:
            assert client.status().observations == 0
        assert told.recv(4096) == b"WATCHDOG=1"
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        heard = b""
        while not heard.startswith(b"STOPPING=1"):
            heard = told.recv(4096)
        assert process.wait(30) == 0
        assert time.monotonic() - started < load_settings(environment={}).config.service.flush_seconds
    finally:
        process.kill()
        process.communicate()
        told.close()


def test_the_container_file_copies_what_the_package_needs() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    root = DEPLOY.parents[1]
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (root / name).exists() or name == "README.md", f"{name} is copied but not there"
    for package in ("streammem", "perception", "nav"):
        assert f"COPY {package} {package}" in text
