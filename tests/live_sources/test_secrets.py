"""A camera's password, through the real command: not on a screen, not in a log, not in the memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_rtsp import Server, pytestmark

from perception.sources import open_source
from streammem.config import Config
from streammem.errors import SourceError

__all__ = ["pytestmark"]

SECRET = "hunter2hunter2"


def run(tmp_path: Path, *args: str, stop_after_s: float | None = None, **variables: str) -> tuple[int, str]:
    environment = {**os.environ, **variables, "STREAMMEM_CACHE": str(tmp_path / "cache"), "STREAMMEM_DEBUG": "1"}
    command = [sys.executable, "-m", "streammem", *args]
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if stop_after_s is not None:
        end = time.monotonic() + stop_after_s
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def test_a_password_is_nowhere_after_a_watch(tmp_path: Path) -> None:
    server = Server(login=("admin", SECRET))
    try:
        address = server.address(f"admin:{SECRET}@")
        code, output = run(
            tmp_path, "watch", "env:CAMERA", "--memory", "m", "--fps", "4", "--set", "perception.ocr=false",
            stop_after_s=15, CAMERA=address,
        )  # fmt: skip
        assert code == 130, output
        told = [output]
        told += [
            run(tmp_path, "status", "m", "--json")[1],
            run(tmp_path, "watch", f"{address}wrong", "--memory", "m")[1],
        ]
        assert json.loads(told[1])["observations"] > 5
        # A wrong password, with the traceback that STREAMMEM_DEBUG shows.
        bad = address.replace(SECRET, SECRET + "x")
        code, refused = run(tmp_path, "watch", bad, "--memory", "n")
        assert code == 2 and "401" in refused
        told.append(refused)
    finally:
        server.kill()
    for text in told:
        assert SECRET not in text, text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


def test_env_names_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA", "synthetic:shapes")
    source = open_source("env:CAMERA", Config())
    assert source.info.kind == "synthetic"
    source.close()
    monkeypatch.setenv("LOOP", "env:LOOP")
    for name in ("LOOP", "NOT_SET", ""):
        with pytest.raises(SourceError, match="names no source"):
            open_source(f"env:{name}", Config())
