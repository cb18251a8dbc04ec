"""How the streams of a service are doing: a state for each, rates, lag, drops. Pure: clocks are passed in.

    live     pictures arrive in time
    late     they arrive, but their capture time is more than ``late_s`` behind
    frozen   they arrive, but show the very same picture for ``frozen_s``: a hung camera or driver
    starved  nothing arrived for ``starved_s`` and for five usual intervals
    gone     nothing for ``gone_s``, or the producer said goodbye

Silence is measured on the monotonic clock, so that a wall clock that jumps can't make a stream starve; lag needs the
wall clock, and a capture time from the future is shown as ``clock_ahead_s`` instead of as a negative lag.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import msgspec

from streammem.clock import Clock
from streammem.measure import NS, Lags, Rate
from streammem.model import Observation
from streammem.storage.reports import Status

State = Literal["live", "late", "frozen", "starved", "gone"]
STATES: tuple[State, ...] = get_args(State)

# 1 January 2000 on the wall clock. A capture time before it is media time, which has no lag.
_WALL_BEGINS = 946_684_800 * NS
_REASONS = 64


class HealthLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When a stream is no longer well. A stream of 1 frame a second is starved after 5 s, one of 0.1 after 50 s."""

    late_s: float = 2.0
    frozen_s: float = 10.0
    frozen_pictures: int = 5
    """A picture must repeat at least so often: at 0.1 frames a second 10 s would be a single repetition."""
    starved_s: float = 5.0
    starved_intervals: float = 5.0
    gone_s: float = 60.0
    forget_s: float = 86_400.0
    """A stream that is gone for so long leaves the table; its counters stay in the total."""
    streams: int = 10_000


class StreamHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One stream. ``rate_hz`` and ``bytes_per_s`` over the last ten seconds; lags in seconds over the last one to two
    minutes, None for media time; ``age_s`` since the last arrival; ``for_s`` since the state began."""

    stream: str
    state: State
    for_s: float
    age_s: float
    rate_hz: float
    bytes_per_s: float
    observations: int
    bytes: int
    last_capture_ns: int | None
    lag_p50_s: float | None = None
    lag_p99_s: float | None = None
    lag_max_s: float | None = None
    lag_buckets: tuple[int, ...] = ()
    lag_sum_s: float = 0.0
    clock_ahead_s: float = 0.0
    drops: dict[str, int] = {}
    note: str = ""


class StateChange(msgspec.Struct, frozen=True):
    """A stream went from one state to another. ``before`` is empty for a stream seen for the first time."""

    stream: str
    before: str
    after: State
    t_ns: int


class QueryHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Requests answered. Seconds over the last one to two minutes."""

    answered: int = 0
    failed: int = 0
    running: int = 0
    p50_s: float | None = None
    p99_s: float | None = None
    buckets: tuple[int, ...] = ()
    sum_s: float = 0.0


class HealthSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A service at one moment, ready for JSON. ``drops`` by reason over all streams; ``refused`` connections by
    reason; ``bad_messages`` by error code; ``memory`` is the engine's own status (bytes against caps)."""

    epoch: str
    """Another one after each start of the service."""
    t_ns: int
    uptime_s: float
    streams: tuple[StreamHealth, ...] = ()
    drops: dict[str, int] = {}
    refused: dict[str, int] = {}
    bad_messages: dict[str, int] = {}
    clients: int = 0
    queries: QueryHealth = QueryHealth()
    memory: Status | None = None
    version: str = ""
    notes: tuple[str, ...] = ()


class StreamMonitor:
    """The state machine of one stream. All times are monotonic ns but ``capture_ns`` and ``wall_ns``."""

    def __init__(self, stream: str, limits: HealthLimits, now_ns: int) -> None:
        self.stream = stream
        self.limits = limits
        self.lags = Lags()
        self.drops: Counter[str] = Counter()
        self.observations = self.bytes = 0
        self.last_capture_ns: int | None = None
        self.last_ns = self.since_ns = now_ns
        self.shown: State | None = None
        self.note = ""
        self._rate, self._bytes = Rate(), Rate()
        self._interval_s = 0.0
        self._lag_s: float | None = None
        self._ahead_s = 0.0
        self._picture: int | None = None
        self._same_since_ns = now_ns
        self.repeats = 0
        """How often the last picture was repeated."""
        self._left = False

    def arrived(self, *, now_ns: int, wall_ns: int, capture_ns: int, size: int = 0, picture: int | None = None) -> None:
        """An observation arrived. ``picture``: a number that is equal for equal pictures, None where unknown."""
        gap_s = (now_ns - self.last_ns) / NS
        if self.observations and gap_s < self.limits.gone_s:
            # Slowly: one late frame in ten doesn't change what is usual. An outage isn't an interval.
            self._interval_s += (gap_s - self._interval_s) * (0.1 if self._interval_s else 1.0)
        self.observations += 1
        self.bytes += size
        self.last_ns, self.last_capture_ns, self._left = now_ns, capture_ns, False
        self._rate.add(1, now_ns)
        self._bytes.add(size, now_ns)
        if capture_ns >= _WALL_BEGINS:
            lag_s = (wall_ns - capture_ns) / NS
            self._lag_s, self._ahead_s = max(0.0, lag_s), max(0.0, -lag_s)
            self.lags.add(lag_s, now_ns)
        if picture is not None:
            if picture == self._picture:
                self.repeats += 1
            else:
                self._picture, self.repeats, self._same_since_ns = picture, 0, now_ns

    def dropped(self, reason: str, count: int = 1) -> None:
        """Something of this stream was not kept."""
        _count(self.drops, reason, count)

    def left(self) -> None:
        """The producer said goodbye, or its connection's heartbeat ended."""
        self._left = True

    def state(self, now_ns: int) -> State:
        age_s = (now_ns - self.last_ns) / NS
        if self._left or age_s > self.limits.gone_s:
            return "gone"
        if self.observations and age_s > max(self.limits.starved_s, self.limits.starved_intervals * self._interval_s):
            return "starved"
        same_s = (self.last_ns - self._same_since_ns) / NS
        if self.repeats >= self.limits.frozen_pictures and same_s >= self.limits.frozen_s:
            return "frozen"
        if self._lag_s is not None and self._lag_s > self.limits.late_s:
            return "late"
        return "live"

    def change(self, now_ns: int, wall_ns: int) -> StateChange | None:
        """The step since the last call, or None."""
        state = self.state(now_ns)
        if state == self.shown:
            return None
        made = StateChange(self.stream, self.shown or "", state, wall_ns)
        self.shown, self.since_ns = state, now_ns
        return made

    def snapshot(self, now_ns: int) -> StreamHealth:
        p50, p99, most = self.lags.quantiles(now_ns, 0.5, 0.99, 1.0)
        return StreamHealth(
            stream=self.stream,
            state=self.state(now_ns),
            for_s=round((now_ns - self.since_ns) / NS, 3),
            age_s=round((now_ns - self.last_ns) / NS, 3),
            rate_hz=round(self._rate.per_second(now_ns), 3),
            bytes_per_s=round(self._bytes.per_second(now_ns), 1),
            observations=self.observations,
            bytes=self.bytes,
            last_capture_ns=self.last_capture_ns,
            lag_p50_s=p50,
            lag_p99_s=p99,
            lag_max_s=most,
            lag_buckets=tuple(self.lags.total) if self.lags.count else (),
            lag_sum_s=self.lags.sum_s,
            clock_ahead_s=round(self._ahead_s, 3),
            drops=dict(self.drops),
            note=self.note,
        )


class ServiceHealth:
    """All streams of a service. One thread uses it; a snapshot may go anywhere."""

    def __init__(self, clock: Clock, limits: HealthLimits | None = None, *, epoch: str = "", version: str = "") -> None:
        self.clock = clock
        self.limits = limits or HealthLimits()
        self.epoch = epoch or f"{clock.now_ns():x}"
        self.version = version
        self.queries = Lags()
        self.queries_failed = self.queries_running = self.clients = 0
        self.refused: Mapping[str, int] = {}
        self.bad_messages: Counter[str] = Counter()
        self.drops: Counter[str] = Counter()
        """Drops of streams that left the table, and of no stream in particular."""
        self._started_ns = clock.monotonic_ns()
        self._streams: dict[str, StreamMonitor] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def arrived(self, observation: Observation, size: int = 0) -> None:
        """An observation came in; ``size`` in bytes on the wire."""
        self._monitor(observation.stream).arrived(
            now_ns=self.clock.monotonic_ns(),
            wall_ns=self.clock.now_ns(),
            capture_ns=observation.capture_ns,
            size=size,
            picture=picture_number(observation),
        )

    def dropped(self, stream: str | None, reason: str, count: int = 1) -> None:
        """Something was not kept, and why. An unknown stream isn't added to the table by its drops."""
        monitor = self._streams.get(stream) if stream is not None else None
        if monitor is not None:
            monitor.dropped(reason, count)
        else:
            _count(self.drops, reason, count)

    def left(self, stream: str) -> None:
        """The producer of this stream went away and said so."""
        if stream in self._streams:
            self._streams[stream].left()

    def bad_message(self, code: str) -> None:
        """A message that failed its checks."""
        _count(self.bad_messages, code, 1)

    def answered(self, seconds: float, *, failed: bool = False) -> None:
        """A request was answered after so long."""
        self.queries.add(seconds, self.clock.monotonic_ns())
        self.queries_failed += failed

    def forget(self, stream: str) -> None:
        """The stream was forgotten: it leaves the table, its drops stay in the total without its name."""
        monitor = self._streams.pop(stream, None)
        if monitor is not None:
            for reason, count in monitor.drops.items():
                _count(self.drops, reason, count)

    def tick(self) -> list[StateChange]:
        """The steps since the last call; call it about once a second. Streams long gone leave the table."""
        now, wall = self.clock.monotonic_ns(), self.clock.now_ns()
        changes = [change for monitor in self._streams.values() if (change := monitor.change(now, wall)) is not None]
        for name in [n for n, m in self._streams.items() if now - m.last_ns > self.limits.forget_s * NS]:
            self.forget(name)
        return changes

    def snapshot(self, memory: Status | None = None, notes: Sequence[str] = ()) -> HealthSnapshot:
        now = self.clock.monotonic_ns()
        streams = tuple(self._streams[name].snapshot(now) for name in sorted(self._streams))
        drops = self.drops.copy()
        for stream in streams:
            drops.update(stream.drops)
        p50, p99 = self.queries.quantiles(now, 0.5, 0.99)
        return HealthSnapshot(
            epoch=self.epoch,
            t_ns=self.clock.now_ns(),
            uptime_s=round((now - self._started_ns) / NS, 3),
            streams=streams,
            drops=dict(drops),
            refused=dict(self.refused),
            bad_messages=dict(self.bad_messages),
            clients=self.clients,
            queries=QueryHealth(
                answered=self.queries.count,
                failed=self.queries_failed,
                running=self.queries_running,
                p50_s=p50,
                p99_s=p99,
                buckets=tuple(self.queries.total),
                sum_s=self.queries.sum_s,
            ),
            memory=memory,
            version=self.version,
            notes=tuple(notes),
        )

    def _monitor(self, stream: str) -> StreamMonitor:
        found = self._streams.get(stream)
        if found is None:
            if len(self._streams) >= self.limits.streams:
                self.forget(min(self._streams, key=lambda name: self._streams[name].last_ns))
            found = self._streams[stream] = StreamMonitor(stream, self.limits, self.clock.monotonic_ns())
        return found


def _count(counter: Counter[str], reason: str, count: int) -> None:
    # Reasons come from our own code, but also from producers: what they invent must not grow without bound.
    counter[reason if reason in counter or len(counter) < _REASONS else "other"] += count


def picture_number(observation: Observation) -> int | None:
    """Equal for equal pictures; None where nothing of a picture came along. Two pictures of a working sensor are never
    equal, because of its noise: equal embeddings over seconds mean that the camera or its driver hangs.

    ``stats["frozen"]`` (perception compared every pixel) wins; then the embedding, then the thumbnail."""
    frozen = observation.stats.get("frozen")
    if frozen is not None:
        return 0 if frozen else hash((observation.session, observation.seq)) | 1
    data: bytes | None = None
    if observation.embedding is not None:
        data = observation.embedding.tobytes()
    elif observation.thumbnail:
        data = observation.thumbnail
    elif observation.depth_m is not None:
        data = observation.depth_m.tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") if data else None
