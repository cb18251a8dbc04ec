"""``streammem serve`` as a process that tests kill, stop and restart, and a network that they cut."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket as sockets
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


class ServiceProcess:
    def __init__(
        self, memory: Path, bind: str = "tcp://127.0.0.1:*", *options: str, environment: dict[str, str] | None = None
    ) -> None:
        command = [sys.executable, "-m", "streammem", "serve", str(memory), "--bind", bind, "--json", *options]
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables)
        text = ""
        assert self.process.stdout is not None
        while not text.endswith("}\n"):
            line = self.process.stdout.readline()
            assert line, f"the service ended with {self.process.wait()}"
            text += line
        self.told = json.loads(text)
        self.address = self.told["address"]

    def kill(self) -> None:
        if self.process.poll() is None:
            # A stopped process dies of SIGKILL too.
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def __enter__(self) -> ServiceProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Relay:
    """A TCP relay on loopback; ``cut`` closes every connection, ``freeze`` keeps them open and moves nothing."""

    def __init__(self, target: str) -> None:
        host, port = target.removeprefix("tcp://").rsplit(":", 1)
        self.target = (host, int(port))
        self.server = sockets.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.server.getsockname()[1]}"
        self.frozen = threading.Event()
        self.open: list[sockets.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self.server.accept()
            except OSError:
                return
            if self.frozen.is_set():
                self.open.append(inner)
                continue
            try:
                outer = sockets.create_connection(self.target)
            except OSError:  # the service is being restarted
                inner.close()
                continue
            self.open += [inner, outer]
            for one, other in ((inner, outer), (outer, inner)):
                threading.Thread(target=self._move, args=(one, other), daemon=True).start()

    def _move(self, one: sockets.socket, other: sockets.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                while self.frozen.is_set():
                    time.sleep(0.02)
                other.sendall(data)
        for each in (one, other):
            each.close()

    def cut(self) -> None:
        for each in self.open:
            with contextlib.suppress(OSError):  # closed by the other side already
                each.shutdown(sockets.SHUT_RDWR)
            each.close()
        self.open = []

    def close(self) -> None:
        self.server.close()
        self.cut()
