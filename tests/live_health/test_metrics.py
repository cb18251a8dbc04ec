"""Prometheus text, and the HTTP server that hands it out."""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.request

import pytest

from streammem.clock import ManualClock
from streammem.errors import InputError, InsecureAddress
from streammem.health import HealthSnapshot, ServiceHealth
from streammem.measure import BUCKETS_S, NS
from streammem.metrics import MetricsServer, prometheus_text
from streammem.model import Observation
from streammem.storage.reports import BankStatus, Status

T0 = 1_800_000_000 * NS
NASTY = 'a"b\\c\nd'
# The grammar of one line of the exposition format 0.0.4.
SAMPLE = re.compile(
    r"[a-zA-Z_:][a-zA-Z0-9_:]*"
    r"(?:\{[a-zA-Z_][a-zA-Z0-9_]*=\"(?:[^\"\\\n]|\\[\\\"n])*\"(?:,[a-zA-Z_][a-zA-Z0-9_]*=\"(?:[^\"\\\n]|\\[\\\"n])*\")*\})?"
    r" (?:[-+]?[0-9.]+(?:e[-+]?[0-9]+)?|\+Inf|NaN)"
)


def snapshot() -> HealthSnapshot:
    clock = ManualClock(T0)
    health = ServiceHealth(clock)
    for n, lag_s in enumerate((0.001, 0.02, 0.3, 100.0)):
        health.arrived(Observation(stream=NASTY, seq=n, capture_ns=T0 - round(lag_s * NS)), 500)
    health.dropped(NASTY, "queue_full", 2)
    health.dropped(None, "unknown_stream", 5)
    health.answered(0.03)
    health.answered(0.2, failed=True)
    health.refused = {"key_unknown": 7}
    memory = Status(
        directory="/m",
        mode="write",
        format=1,
        observations=4,
        records=4,
        segments=0,
        disk_bytes=10,
        disk_cap_bytes=100,
        ram_bytes=5,
        ram_cap_bytes=50,
        journal_bytes=3,
        journal_unsynced_bytes=1,
        catalog_bytes=1,
        banks=(BankStatus("moments", 4, 10, 5),),
        streams=(),
        spaces=(),
        drops={},
    )
    return health.snapshot(memory)


def test_every_line_is_valid_and_the_promised_names_are_there() -> None:
    text = prometheus_text(snapshot())
    for line in text.splitlines():
        assert line.startswith(("# HELP streammem_", "# TYPE streammem_")) or SAMPLE.fullmatch(line), line
    label = 'stream="a\\"b\\\\c\\nd"'
    for expected in (
        f"streammem_ingest_lag_seconds_count{{{label}}} 4",
        f'streammem_ingest_lag_seconds_bucket{{{label},le="0.025"}} 2',
        f'streammem_ingest_lag_seconds_bucket{{{label},le="+Inf"}} 4',
        f'streammem_dropped_total{{{label},reason="queue_full"}} 2',
        'streammem_dropped_total{stream="",reason="unknown_stream"} 5',
        'streammem_memory_bytes{bank="moments",place="disk"} 10',
        "streammem_query_seconds_count 2",
        "streammem_queries_failed_total 1",
        "streammem_journal_unsynced_bytes 1",
        'streammem_refused_total{reason="key_unknown"} 7',
    ):
        assert expected in text.splitlines(), expected
    assert text.count("# TYPE streammem_ingest_lag_seconds ") == 1
    counts = [int(line.split()[-1]) for line in text.splitlines() if "ingest_lag_seconds_bucket" in line]
    assert counts == sorted(counts) and len(counts) == len(BUCKETS_S) + 1


def get(port: int, path: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_server_answers_two_paths() -> None:
    with MetricsServer("127.0.0.1:0", snapshot) as server:
        assert get(server.port, "/metrics") == (200, prometheus_text(snapshot()))
        assert get(server.port, "/healthz") == (200, "ok\n")
        assert get(server.port, "/../etc/passwd")[0] == 404
        with pytest.raises(InputError, match="another port"):
            MetricsServer(f"127.0.0.1:{server.port}", snapshot)
        # A client that connects and says nothing doesn't keep the others waiting.
        with socket.create_connection(("127.0.0.1", server.port)):
            assert get(server.port, "/healthz")[0] == 200


def test_other_machines_need_a_token() -> None:
    with pytest.raises(InsecureAddress, match="token"):
        MetricsServer("0.0.0.0:0", snapshot)
    for address in ("9464", "host:port", ":9464", "127.0.0.1:99999"):
        with pytest.raises(InputError, match="HOST:PORT"):
            MetricsServer(address, snapshot)
    with MetricsServer("0.0.0.0:0", snapshot, token="s3cret") as server:
        assert get(server.port, "/metrics")[0] == 401
        assert get(server.port, "/metrics", Authorization="Bearer wrong")[0] == 401
        assert get(server.port, "/metrics", Authorization="Bearer s3cret")[0] == 200
