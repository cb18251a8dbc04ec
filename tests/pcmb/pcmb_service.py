"""A memory with the bank switched on, in the process or behind a real service on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import streammem.memory
from streammem.banks.pcmb.step import Attended, EpisodeInfo
from streammem.banks.perceptual_cognitive import PerceptualCognitiveBank
from streammem.client import Client, connect
from streammem.config import Config, PerceptualCognitiveConfig
from streammem.link import Timing
from streammem.memory import Memory
from streammem.service import Service

FAST = Timing(ping_s=0.2, dead_s=1.0, resend_s=1.0, hello_s=0.2)


class Policy(Protocol):
    """What a policy calls, wherever the memory is."""

    def attend(
        self, episode: str, step: int, perceptual: Any = None, cognitive: Any = None, *, attention: bool = False
    ) -> Attended: ...

    def end_episode(self, episode: str) -> bool: ...

    def episodes(self) -> list[EpisodeInfo]: ...


def config(**changes: Any) -> Config:
    return Config(perceptual_cognitive=PerceptualCognitiveConfig(on=True, **{"length": 4, **changes}))


@contextmanager
def policy(where: str, directory: Path, **changes: Any) -> Iterator[tuple[Policy, Memory]]:
    """The interface in ``process`` or through a ``service``, and the memory itself."""
    settings = config(**changes)
    with streammem.memory.open(directory, config=settings) as memory:
        if where == "process":
            yield bank_of(memory), memory
            return
        service = Service(memory, config=settings.service, bind="tcp://127.0.0.1:*")
        with service, connect(service.address, timing=FAST) as client:
            yield client, memory


def bank_of(memory: Memory) -> PerceptualCognitiveBank:
    bank = memory.bank("perceptual_cognitive")
    assert isinstance(bank, PerceptualCognitiveBank)
    return bank


def client_of(service: Service, **options: Any) -> Client:
    return connect(service.address, timing=FAST, **options)


def tokens(step: int, n: int = 4, d: int = 16, *, seed: int = 0) -> np.ndarray:
    """(n, d) float32 that depend on the arguments alone."""
    return np.random.default_rng([step, n, d, seed]).standard_normal((n, d)).astype(np.float32)
