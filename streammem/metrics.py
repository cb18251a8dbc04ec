"""A service's health as Prometheus text, and the small HTTP server that hands it out. Off unless an address is given.

Only ``GET /metrics`` and ``GET /healthz`` are answered. Stream names are in the text, so the server stays on loopback
unless a token is set; Prometheus sends one with ``authorization: {credentials_file: ...}``.
"""

from __future__ import annotations

import hmac
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from streammem.errors import InputError, InsecureAddress
from streammem.health import STATES, HealthSnapshot
from streammem.measure import BUCKETS_S
from streammem.security import is_local

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_READ_S = 5.0
Labels = Sequence[tuple[str, str]]


def prometheus_text(snapshot: HealthSnapshot) -> str:
    """The exposition text (format 0.0.4) of one snapshot."""
    out = _Text()
    out.head("up_seconds", "gauge", "Seconds since the service started")
    out.put("up_seconds", (), snapshot.uptime_s)
    out.head("ingest_lag_seconds", "histogram", "Arrival minus capture time")
    for stream in snapshot.streams:
        out.histogram("ingest_lag_seconds", (("stream", stream.stream),), stream.lag_buckets, stream.lag_sum_s)
    out.head("observations_total", "counter", "Observations that arrived")
    out.put_all("observations_total", (((("stream", s.stream),), s.observations) for s in snapshot.streams))
    out.head("received_bytes_total", "counter", "Bytes that arrived")
    out.put_all("received_bytes_total", (((("stream", s.stream),), s.bytes) for s in snapshot.streams))
    out.head("stream_age_seconds", "gauge", "Seconds since the last arrival")
    out.put_all("stream_age_seconds", (((("stream", s.stream),), s.age_s) for s in snapshot.streams))
    out.head("stream_state", "gauge", "1 for the state that the stream is in")
    for stream in snapshot.streams:
        for state in STATES:
            out.put("stream_state", (("stream", stream.stream), ("state", state)), int(stream.state == state))
    out.head("dropped_total", "counter", "Observations that were not kept, by reason")
    nameless = dict(snapshot.drops)
    for stream in snapshot.streams:
        for reason, count in sorted(stream.drops.items()):
            nameless[reason] = nameless.get(reason, 0) - count
            out.put("dropped_total", (("stream", stream.stream), ("reason", reason)), count)
    for reason, count in sorted(nameless.items()):
        if count > 0:
            out.put("dropped_total", (("stream", ""), ("reason", reason)), count)
    out.head("refused_total", "counter", "Connections that were refused, by reason")
    out.put_all("refused_total", (((("reason", name),), n) for name, n in sorted(snapshot.refused.items())))
    out.head("bad_messages_total", "counter", "Messages that failed their checks, by error code")
    out.put_all("bad_messages_total", (((("code", name),), n) for name, n in sorted(snapshot.bad_messages.items())))
    out.head("clients", "gauge", "Connected clients")
    out.put("clients", (), snapshot.clients)
    out.head("query_seconds", "histogram", "Time to answer a request")
    out.histogram("query_seconds", (), snapshot.queries.buckets, snapshot.queries.sum_s)
    out.head("queries_failed_total", "counter", "Requests that ended in an error")
    out.put("queries_failed_total", (), snapshot.queries.failed)
    memory = snapshot.memory
    if memory is not None:
        out.head("memory_bytes", "gauge", "Bytes of each bank, by place")
        for bank in memory.banks:
            for place, size in (("disk", bank.disk_bytes), ("ram", bank.ram_bytes)):
                out.put("memory_bytes", (("bank", bank.bank), ("place", place)), size)
        out.head("memory_cap_bytes", "gauge", "The budget, by place; 0 is no cap")
        out.put("memory_cap_bytes", (("place", "disk"),), memory.disk_cap_bytes)
        out.put("memory_cap_bytes", (("place", "ram"),), memory.ram_cap_bytes)
        out.head("disk_bytes", "gauge", "Everything that the memory has on disk")
        out.put("disk_bytes", (), memory.disk_bytes)
        out.head("journal_bytes", "gauge", "The journal on disk")
        out.put("journal_bytes", (), memory.journal_bytes)
        out.head("journal_unsynced_bytes", "gauge", "Written, not yet acknowledged")
        out.put("journal_unsynced_bytes", (), memory.journal_unsynced_bytes)
        out.head("corrupt_parts", "gauge", "Damage found by checksums")
        out.put("corrupt_parts", (), len(memory.corruption))
    return out.text()


class _Text:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def head(self, name: str, kind: str, help_: str) -> None:
        self._lines += [f"# HELP streammem_{name} {help_}.", f"# TYPE streammem_{name} {kind}"]

    def put(self, name: str, labels: Labels, value: float) -> None:
        self._lines.append(f"streammem_{name}{_labels(labels)} {_number(value)}")

    def put_all(self, name: str, rows: Iterable[tuple[Labels, float]]) -> None:
        for labels, value in rows:
            self.put(name, labels, value)

    def histogram(self, name: str, labels: Labels, counts: Sequence[int], total: float) -> None:
        if not counts:
            return
        seen = 0
        for end, count in zip((*(_number(end) for end in BUCKETS_S), "+Inf"), counts, strict=True):
            seen += count
            self.put(f"{name}_bucket", (*labels, ("le", end)), seen)
        self.put(f"{name}_sum", labels, total)
        self.put(f"{name}_count", labels, seen)

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


class MetricsServer:
    """Serves ``snapshot()`` on ``host:port`` from threads of its own, which call it: it must be
    safe to call from there.
    Use it as a context manager or ``close()`` it."""

    def __init__(self, address: str, snapshot: Callable[[], HealthSnapshot], *, token: str = "") -> None:
        """``address``: ``127.0.0.1:9464``, ``[::1]:9464``; port 0 takes a free one (``port`` tells it).

        Raises InsecureAddress for an address that other machines reach without ``token``, InputError where it can't be
        bound."""
        host, port = _split(address)
        if not token and not is_local(f"tcp://{address}"):
            raise InsecureAddress(
                f"metrics on {address} can be read by other machines, and there is no token",
                hint="use 127.0.0.1, or set a token (docs/live.md)",
            )
        expected = f"Bearer {token}".encode() if token else b""

        class Handler(BaseHTTPRequestHandler):
            timeout = _READ_S
            server_version = "streammem"
            sys_version = ""

            def do_GET(self) -> None:
                if self.path == "/healthz":
                    self._answer(200, "text/plain; charset=utf-8", "ok\n")
                elif self.path != "/metrics":
                    self._answer(404, "text/plain; charset=utf-8", "there are /metrics and /healthz\n")
                elif expected and not self._knows():
                    self._answer(401, "text/plain; charset=utf-8", "a token is needed\n")
                else:
                    self._answer(200, CONTENT_TYPE, prometheus_text(snapshot()))

            def _knows(self) -> bool:
                # latin-1 is what http.server read it as; compare_digest takes as long for every wrong token.
                given = self.headers.get("Authorization", "").encode("latin-1", "replace")
                return hmac.compare_digest(given, expected)

            def _answer(self, code: int, kind: str, text: str) -> None:
                body = text.encode()
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: a scrape each 15 s would fill the log."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        try:
            self._server = Server((host, port), Handler)
        except OSError as error:
            raise InputError(f"metrics on {address}: {error.strerror or error}", hint="choose another port") from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="streammem-metrics", daemon=True)
        self._thread.start()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError(f"{address!r} isn't HOST:PORT", hint="127.0.0.1:9464")
    return host, int(port)
