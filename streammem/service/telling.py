"""What a service tells of itself: stream states, counters, the feed, metrics. Used by the loop's thread alone, but for
``latest``, which any thread may read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streammem import protocol as p
from streammem.clock import Clock
from streammem.errors import StreammemError
from streammem.feed import StatusFeed
from streammem.health import HealthLimits, HealthSnapshot, ServiceHealth
from streammem.keys import AllowList, KeyPair
from streammem.metrics import MetricsServer
from streammem.security import Refusals
from streammem.service.ingest import Written
from streammem.storage.reports import Status

if TYPE_CHECKING:
    import zmq

LATE_NS = 2_000_000_000
"""A packet older than its stream's newest by more than this counts as late. It is kept, in its place in time."""
STATUS_S = 2.0
MOST_STREAMS = 10_000
AskStatus = Callable[[Callable[[Status | None], None]], None]


class Telling:
    """Counts what happens and publishes it. ``counts`` by name: written, duplicates, refused, late, over_credit, busy,
    answers_dropped, and ``bad_CODE`` for each code of a refused message."""

    def __init__(self, clock: Clock, epoch: str, limits: HealthLimits | None) -> None:
        self.health = ServiceHealth(clock, limits, epoch=epoch)
        self.refusals = Refusals(clock=clock)
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._newest: dict[str, int] = {}
        self._feed: StatusFeed | None = None
        self._metrics: MetricsServer | None = None
        self._latest: HealthSnapshot | None = None
        self._asking = False
        self._ticked_at = self._published_at = 0.0

    def open(
        self,
        context: zmq.Context[Any],
        feed: str,
        metrics: str,
        token: str,
        keys: KeyPair | None,
        allow: AllowList | None,
    ) -> None:
        """Bind the feed and the metrics port, each where it has an address."""
        if feed:
            self._feed = StatusFeed(context, feed, epoch=self.health.epoch, clock=self._clock, keys=keys, allow=allow)
        if metrics:
            self._metrics = MetricsServer(metrics, self.latest, token=token)

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
        if self._feed is not None:
            self._feed.close()

    @property
    def feed_address(self) -> str:
        """Where the feed is, a free port filled in; empty without one."""
        return self._feed.address if self._feed is not None else ""

    @property
    def metrics_port(self) -> int:
        return self._metrics.port if self._metrics is not None else 0

    # -- counting

    def bad_message(self, code: str) -> None:
        self.counts[f"bad_{code}"] += 1
        self.health.bad_message(code)

    def written(self, written: Written) -> None:
        """What became of one packet."""
        observation = written.arrival.observation
        stream = observation.stream
        if written.outcome == "written":
            self.counts["written"] += 1
            self.health.arrived(observation, written.arrival.size)
            newest = self._newest.get(stream)
            if newest is not None and observation.capture_ns < newest - LATE_NS:
                self.counts["late"] += 1
            if newest is None or observation.capture_ns > newest:
                if newest is None and len(self._newest) >= MOST_STREAMS:
                    self._newest.pop(next(iter(self._newest)))
                self._newest[stream] = observation.capture_ns
        elif isinstance(written.outcome, StreammemError):
            self.counts["refused"] += 1
            self.health.dropped(stream, p.code_of(written.outcome))
        else:
            self.counts["duplicates"] += 1
            self.health.dropped(stream, "duplicate")

    def forgotten(self, stream: str) -> None:
        """No trace of a forgotten stream stays in the table."""
        self.health.forget(stream)
        self._newest.pop(stream, None)

    # -- telling

    def latest(self) -> HealthSnapshot:
        """The last snapshot (made every two seconds where there is a feed or metrics). Safe from any thread."""
        return self._latest or HealthSnapshot(epoch=self.health.epoch, t_ns=self._clock.now_ns(), uptime_s=0.0)

    def snapshot(self, status: Status | None, clients: int, running: int) -> HealthSnapshot:
        self.health.clients = clients
        self.health.queries_running = running
        self.health.refused = self.refusals.snapshot()
        names = ("late", "over_credit", "busy", "answers_dropped")
        notes = [f"{self.counts[name]} {name}" for name in names if self.counts[name]]
        self._latest = self.health.snapshot(memory=status, notes=notes)
        return self._latest

    def tend(self, now: float, ask: AskStatus, make: Callable[[Status | None], HealthSnapshot]) -> bool:
        """Publish what is due. ``ask`` looks the memory's status up elsewhere and calls back. True once a second."""
        wanted = self._feed.poll() if self._feed is not None else False
        second = now - self._ticked_at >= 1.0
        if second:
            self._ticked_at = now
            changes = self.health.tick()
            if changes and self._feed is not None:
                self._feed.publish(changes=changes)
        due = now - self._published_at >= STATUS_S and (self._feed is not None or self._metrics is not None)
        if (wanted or due) and not self._asking:
            self._asking = True
            self._published_at = now if due else self._published_at
            ask(lambda status: self._publish(make(status), whole=due))
        return second

    def _publish(self, snapshot: HealthSnapshot, *, whole: bool) -> None:
        self._asking = False
        if self._feed is not None:
            self._feed.publish(snapshot, whole=whole)
