"""Work that other threads leave for the loop, and the socket that wakes it up."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable


class Mailbox:
    """``put`` from any thread, also from a signal handler; ``run`` in the loop, when ``fd`` can be read or any time."""

    def __init__(self) -> None:
        self._work: deque[Callable[[], None]] = deque()
        self._in, self._out = socket.socketpair()
        self._in.setblocking(False)
        self._out.setblocking(False)

    @property
    def fd(self) -> int:
        return self._in.fileno()

    def put(self, work: Callable[[], None]) -> None:
        self._work.append(work)
        self.wake()

    def wake(self) -> None:
        # Full: the loop has a reason to wake up already. Closed: there is no loop any more.
        with contextlib.suppress(BlockingIOError, OSError):
            self._out.send(b"x")

    def run(self) -> None:
        """Do what has been left so far."""
        with contextlib.suppress(BlockingIOError, OSError):
            self._in.recv(4096)
        for _ in range(len(self._work)):
            self._work.popleft()()

    def close(self) -> None:
        self._in.close()
        self._out.close()
