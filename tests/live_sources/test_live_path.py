"""The whole live path, with faults on the way: RTSP server -> watch -> publisher -> memory service -> status."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_rtsp import Server, pytestmark

import streammem
from perception.encoders.fake import HistogramSuite
from perception.pipeline import WatchReport, watch
from perception.publisher import KeepNewest, Publisher
from perception.sources.address import AddressSource
from streammem.client import Client, connect
from streammem.config import Config, LiveConfig, PerceptionConfig
from streammem.health import HealthLimits, StreamHealth
from streammem.service import Service

__all__ = ["pytestmark"]

FPS = 5.0
LIVE = LiveConfig(
    stall_seconds=4.0, frozen_seconds=1.0, backoff_seconds=0.1, backoff_limit_seconds=0.4, reconnect_seconds=30.0
)


class Rig:
    def __init__(self, folder: Path) -> None:
        self.memory = streammem.open(folder / "memory")
        limits = HealthLimits(starved_s=0.8, frozen_s=1.0, gone_s=20.0)
        self.service = Service(self.memory, bind="tcp://127.0.0.1:*", health=limits)
        self.service.__enter__()
        self.client: Client = connect(self.service.address)
        self.stop = threading.Event()
        self.reports: list[WatchReport] = []
        self.thread: threading.Thread | None = None

    def watch(self, source: AddressSource) -> None:
        def run() -> None:
            config = Config(perception=PerceptionConfig(fps=FPS, threads=1), live=LIVE)
            with Publisher(self.service.address, lane=KeepNewest(), name="camera") as publisher:
                self.reports.append(watch(source, publisher, HistogramSuite(), config, stop=self.stop))

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def until(self, condition: Callable[[StreamHealth], bool], seconds: float = 20.0) -> StreamHealth:
        end = time.monotonic() + seconds
        streams: tuple[StreamHealth, ...] = ()
        while time.monotonic() < end:
            streams = self.client.health().streams
            if streams and condition(streams[0]):
                return streams[0]
            time.sleep(0.1)
        raise AssertionError(streams)

    def close(self) -> None:
        self.stop.set()
        if self.thread is not None:
            self.thread.join(20)
        self.client.close()
        self.service.__exit__(None, None, None)
        self.memory.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_fault_16_a_camera_dies_comes_back_and_freezes_and_the_service_says_so(rig: Rig) -> None:
    server = Server("moving")
    source = AddressSource(server.address(), fps=FPS, config=LIVE)
    rig.watch(source)
    live = rig.until(lambda stream: stream.state == "live" and stream.observations >= 10)
    assert live.lag_p99_s is not None and live.lag_p99_s < 2.0
    server.kill()
    rig.until(lambda stream: stream.state == "starved")
    frozen = Server("frozen", port=server.port)
    rig.until(lambda stream: stream.state == "live")
    rig.until(lambda stream: stream.state == "frozen")
    frozen.kill()
    moving = Server("moving", port=server.port)
    try:
        rig.until(lambda stream: stream.state == "live")
        rig.stop.set()
        assert rig.thread is not None
        rig.thread.join(20)
        source.close()
    finally:
        moving.kill()
    health = rig.client.health()
    (report,) = rig.reports
    assert report.interrupted and source.health.reconnects >= 2
    # Everything that was looked at is there, once, in the order of its capture.
    (stream,) = rig.client.status().streams
    assert stream.observations == report.frames > 20
    rows = sorted(record.t_start_ns for record in rig.memory.recent(source.info.stream))
    assert len(rows) == len(set(rows)) == stream.observations
    assert rows[-1] - rows[0] > 4_000_000_000 and abs(rows[-1] - time.time_ns()) < 30_000_000_000
    assert health.drops.get("duplicate", 0) == 0
