"""A real service on a free loopback port or an ipc socket, in a thread of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from live_samples import fake_space
from live_serve import Running

import streammem.memory
from streammem.client import Client
from streammem.config import Config
from streammem.service import Service


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """``serve(directory=..., config=..., **Service options)``: everything is closed at the end of the test."""
    with ExitStack() as stack:

        def start(directory: Path | None = None, config: Config | None = None, **options: Any) -> Running:
            config = config or Config()
            memory = stack.enter_context(
                streammem.memory.open(directory or tmp_path / "memory", config=config, spaces=fake_space)
            )
            options.setdefault("bind", "tcp://127.0.0.1:*")
            service = stack.enter_context(Service(memory, config=config.service, **options))
            return Running(service, memory)

        yield start


@pytest.fixture
def running(serve: Callable[..., Running]) -> Running:
    return serve()


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with running.connect() as client:
        yield client
