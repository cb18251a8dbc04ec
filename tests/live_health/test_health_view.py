"""What `status ADDRESS` shows: the ill streams first, hostile names harmless, one JSON document."""

from __future__ import annotations

import io
import json

from rich.console import Console

from streammem.cli.health_view import health_document, print_health, watch_health
from streammem.cli.output import Output
from streammem.clock import ManualClock
from streammem.health import HealthSnapshot, ServiceHealth
from streammem.measure import NS
from streammem.model import Observation

T0 = 1_800_000_000 * NS
ADDRESS = "tcp://127.0.0.1:5570"


def snapshot() -> HealthSnapshot:
    clock = ManualClock(T0)
    health = ServiceHealth(clock)
    for n in range(100):
        clock.advance(NS // 2)
        for stream in ("well", "evil\x1b[2J", "quiet") if n < 50 else ("well", "evil\x1b[2J"):
            health.arrived(Observation(stream=stream, seq=n, capture_ns=clock.now_ns() - NS // 20), 46_000)
        health.tick()
    health.dropped("well", "queue_full", 12)
    health.answered(0.02)
    health.refused = {"key_unknown": 3}
    return health.snapshot(notes=["rtsp is shown elsewhere"])


def captured(width: int = 140) -> tuple[Output, io.StringIO]:
    out, text = Output(), io.StringIO()
    out._consoles[False] = Console(file=text, width=width, highlight=False)
    return out, text


def test_the_screen() -> None:
    out, text = captured()
    print_health(snapshot(), ADDRESS, out)
    shown = text.getvalue()
    assert "1 ill" in shown and "\x1b" not in shown
    rows = [line for line in shown.splitlines() if "●" in line]
    assert [row.split()[0] for row in rows] == ["quiet", "evil␛[2J", "well"]
    assert "starved" in rows[0] and " 2." in rows[2]
    assert "dropped    12 queue_full" in shown and "refused    3 key_unknown" in shown


def test_the_document() -> None:
    document = json.loads(json.dumps(health_document(snapshot(), "tcp://user:pw@host:1")))
    assert document["service"] == "tcp://***@host:1"
    assert [stream["stream"] for stream in document["streams"]] == ["evil\x1b[2J", "quiet", "well"]
    assert document["drops"] == {"queue_full": 12} and "lag_buckets" not in document["streams"][0]


def test_watching_fetches_again() -> None:
    out, text = captured()
    fetched = []

    def fetch() -> HealthSnapshot:
        fetched.append(1)
        return snapshot()

    watch_health(fetch, ADDRESS, out, every_s=0.01, times=3)
    assert len(fetched) == 3 and "starved" in text.getvalue()
