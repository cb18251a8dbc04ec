"""A running service and its memory, as the tests of live handle it."""

from __future__ import annotations

from typing import Any

from live_samples import FAST

from streammem.client import Client, connect
from streammem.memory import Memory
from streammem.service import Service


class Running:
    """A service and its memory."""

    def __init__(self, service: Service, memory: Memory) -> None:
        self.service, self.memory = service, memory

    @property
    def address(self) -> str:
        return self.service.address

    def connect(self, **options: Any) -> Client:
        return connect(self.address, timing=FAST, **options)
