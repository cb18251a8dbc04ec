"""The command as people run it: in a process of its own, with a home of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from cli_run import Done, Run, command, environment, write_clip


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the whole session: the models are converted once. ``$STREAMMEM_CACHE`` is used where CI sets it."""
    return Path(os.environ.get("STREAMMEM_CACHE") or tmp_path_factory.mktemp("cache"))


@pytest.fixture
def run(cache: Path, tmp_path: Path) -> Run:
    """``run("ask", video, "a red card")`` -> exit code, stdout, stderr."""

    def call(*args: str | Path, env: Mapping[str, str] | None = None, timeout: float = 120, stdin: str = "") -> Done:
        done = subprocess.run(
            [*command(), *map(str, args)],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            input=stdin,
            cwd=tmp_path,
            env=environment(STREAMMEM_CACHE=str(cache), **(env or {})),
            timeout=timeout,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip of :func:`write_clip`, made once."""
    return write_clip(tmp_path_factory.mktemp("clips") / "shop sign.mp4")
