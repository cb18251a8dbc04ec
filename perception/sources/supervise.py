"""Keeps a live source alive: a reader thread, connecting again with back-off and jitter, stalls, frozen images.

    connect -> pictures -> (reader thread) capture time, grid -> short queue, newest win -> frames

The reader has a thread of its own because a camera doesn't wait: pictures are taken off the wire at its pace, and when
the encoders are slower than the sampling rate the oldest waiting picture is dropped and counted. Reading blocks inside
native libraries, so a stalled reader is left behind (it ends at its own time-out) and a new one takes its place.
"""

from __future__ import annotations

import queue
import random
import threading
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

import numpy as np

from perception.frames import Frame, Health
from perception.sampling import NS, FixedRate
from perception.sources.live import CaptureClock, LiveGrid, WallClock, monotonic_clock, wall_clock
from streammem.config import LiveConfig
from streammem.errors import SourceError, StreammemError
from streammem.health import HealthLimits, State, StreamMonitor

Picture = tuple[int | None, Callable[[], np.ndarray | None]]
"""A picture's time stamp in ns on any origin (None: it has none), and what converts it to (h, w, 3) uint8 RGB. That
function gives None where the picture turns out to be damaged."""

_POLL_S = 0.05
_STEADY_NS = 5 * NS
_CONNECT_S = 15.0
"""A try to connect may take so long, whatever the stall time: it has a time-out of its own (10 s for addresses)."""
_LEFT_BEHIND = 4
"""Readers that may hang in native code at once. More means that no connection ever ends: give up."""


class Connection(Protocol):
    """One connection to a camera or a server."""

    def pictures(self) -> Generator[Picture, None, None]:
        """Until the stream ends. Raises SourceError where it breaks. Closing the generator ends the connection."""
        ...

    def close(self) -> None:
        """Ask it to end, from another thread: its generator ends as soon as it can."""
        ...


class Backoff:
    """Waits between tries: they double up to a limit, each between half and all of that (so that a hundred cameras
    behind one switch don't come back in the same moment). ``left`` is False once ``give_up_s`` have passed."""

    def __init__(
        self,
        first_s: float,
        limit_s: float,
        give_up_s: float,
        *,
        monotonic: WallClock = monotonic_clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._first_s, self._limit_s, self._give_up_ns = first_s, limit_s, round(give_up_s * NS)
        self._monotonic, self._chance = monotonic, chance
        self._since_ns: int | None = None
        self.tries = 0

    def wait_s(self) -> float | None:
        """How long to wait before the next try; None: no more tries."""
        now = self._monotonic()
        if self._since_ns is None:
            self._since_ns = now
        left_ns = self._give_up_ns - (now - self._since_ns)
        if left_ns <= 0:
            return None
        # 2**32 x 0.5 s is far beyond any limit; a larger exponent would overflow a float after a month of tries.
        wait = min(self._limit_s, self._first_s * 2 ** min(self.tries, 32)) * (0.5 + 0.5 * self._chance())
        self.tries += 1
        return min(wait, left_ns / NS)

    def worked(self, *, steady: bool) -> None:
        """A picture came: the time to give up starts anew. The waits do only after a ``steady`` connection, or a camera
        that breaks after each first picture would be tried several times a second for ever."""
        self._since_ns = None
        if steady:
            self.tries = 0


class LiveFrames:
    """Frames of a live source as an iterator. One thread iterates; ``state`` and ``close`` may be used from others.

    Raises SourceError when the source stayed away for ``reconnect_seconds``; ends without an error after ``close``."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        shown: str,
        *,
        sampling: FixedRate,
        health: Health,
        config: LiveConfig | None = None,
        wall: WallClock = wall_clock,
        monotonic: WallClock = monotonic_clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``connect`` raises SourceError where nothing answers. ``shown`` is the source's name without secrets."""
        self.health, self.shown = health, shown
        self._connect, self._config = connect, config or LiveConfig()
        self._monotonic = monotonic
        self._clock = CaptureClock(health, wall=wall, monotonic=monotonic)
        self._grid = LiveGrid(sampling)
        self._wall = wall
        self._queue: queue.Queue[Frame | SourceError | None] = queue.Queue(self._config.queue)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._generation = 0
        self._connection: Connection | None = None
        self._due: int | None = None
        """When a sign of life must have come; None while the reader waits between two tries."""
        # One for all readers: a stall must not start the count anew.
        self._backoff = Backoff(
            self._config.backoff_seconds,
            self._config.backoff_limit_seconds,
            self._config.reconnect_seconds,
            monotonic=monotonic,
            chance=chance,
        )
        self._behind: list[threading.Thread] = []
        self._reader: threading.Thread | None = None
        limits = HealthLimits(
            frozen_s=self._config.frozen_seconds,
            starved_s=min(5.0, self._config.stall_seconds),
            gone_s=max(60.0, 2 * self._config.stall_seconds),
        )
        self._monitor = StreamMonitor(shown, limits, monotonic())

    @property
    def state(self) -> State:
        """live, frozen, starved or gone, now."""
        with self._lock:
            return self._monitor.state(self._monotonic())

    def __iter__(self) -> Iterator[Frame]:
        self._start()
        try:
            while not self._closed.is_set():
                try:
                    item = self._queue.get(timeout=_POLL_S)
                except queue.Empty:
                    self._look_after()
                    continue
                if item is None:
                    return
                if isinstance(item, SourceError):
                    raise item
                self._look_after()
                yield item
        finally:
            self.close()

    def close(self) -> None:
        """Stop. The reader ends within its own time-out; it is a daemon and holds nothing but its connection."""
        self._closed.set()
        with self._lock:
            self._generation += 1
            connection = self._connection
        if connection is not None:
            connection.close()
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(1.0)

    def _start(self) -> None:
        with self._lock:
            self._generation += 1
            generation = self._generation
        self._expect(_CONNECT_S)
        self._reader = threading.Thread(target=self._read, args=(generation,), name="live-reader", daemon=True)
        self._reader.start()

    def _look_after(self) -> None:
        """In the iterating thread: the state for people, and a reader that hangs."""
        now = self._monotonic()
        with self._lock:
            change = self._monitor.change(now, self._wall())
            stalled = self._due is not None and now > self._due
        if change is not None:
            self.health.state = change.after
            if change.after != "live" and change.before:
                self.health.note(f"{change.after} after {change.before}")
        if not stalled or self._reader is None:
            return
        self._behind = [thread for thread in self._behind if thread.is_alive()]
        if len(self._behind) >= _LEFT_BEHIND:
            raise SourceError(
                f"{self.shown} hangs: {_LEFT_BEHIND} connections in a row neither gave a picture nor ended",
                hint="check the camera's driver or the server",
            )
        self.health.stalls += 1
        why = f"no picture for {self._config.stall_seconds:.0f} s"
        self.health.note(f"{why}: connecting again")
        self._wait_s(why)
        with self._lock:
            connection, self._connection = self._connection, None
        self._behind.append(self._reader)
        self._start()
        if connection is not None:
            connection.close()

    def _expect(self, at_least_s: float = 0.0) -> None:
        """From now on there must be a picture within the stall time, or within ``at_least_s``."""
        self._due = self._monotonic() + round(max(at_least_s, self._config.stall_seconds) * NS)

    def _wait_s(self, why: str) -> float:
        """How long to wait before the next try. Raises SourceError where there is none."""
        with self._lock:
            wait_s, tries = self._backoff.wait_s(), self._backoff.tries
        if wait_s is None:
            raise SourceError(
                f"{self.shown} is gone: {why} ({tries} tries in {self._config.reconnect_seconds:.0f} s)",
                hint="check the camera and the network; live.reconnect_seconds sets how long it is tried",
            )
        return wait_s

    def _current(self, generation: int) -> bool:
        return generation == self._generation and not self._closed.is_set()

    def _read(self, generation: int) -> None:
        """The reader thread."""
        first = generation == 1
        try:
            while self._current(generation):
                if not first:
                    self.health.reconnects += 1
                first = False
                why = self._one_connection(generation)
                if not self._current(generation):
                    return
                wait_s = self._wait_s(why)
                self.health.note(why)
                self._due = None
                self._closed.wait(wait_s)
                if self._current(generation):
                    self._expect(_CONNECT_S)
        except StreammemError as error:
            if self._current(generation):
                self._put(error if isinstance(error, SourceError) else SourceError(error.message, hint=error.hint))

    def _one_connection(self, generation: int) -> str:
        """Read one connection to its end; gives the reason for it."""
        pictures: Generator[Picture, None, None] | None = None
        try:
            connection = self._connect()
            pictures = connection.pictures()
            with self._lock:
                if not self._current(generation):
                    return "closed"
                self._connection = connection
                self._clock.restart()
            connected_at = self._monotonic()
            self._expect()
            for pts_ns, make in pictures:
                with self._lock:
                    if not self._current(generation):
                        return "closed"
                    self._expect()
                    self._backoff.worked(steady=self._monotonic() - connected_at > _STEADY_NS)
                    captured = self._clock.stamp(pts_ns)
                    wanted = self._grid.wants(captured)
                if wanted:
                    self._take(make(), captured)
        except SourceError as error:
            return error.message
        finally:
            if pictures is not None:
                pictures.close()
        return "the stream ended"

    def _take(self, image: np.ndarray | None, captured: int) -> None:
        if image is None:
            self.health.bad_packets += 1
            return
        # 1 GB/s: 3 ms for a picture of 1280x720, once a sampled frame. A working sensor never repeats it.
        number = zlib.crc32(np.ascontiguousarray(image).data)
        with self._lock:
            if not self._grid.wants(captured):
                return  # this reader was left behind meanwhile
            before = self._monitor.repeats
            self._monitor.arrived(
                now_ns=self._monotonic(), wall_ns=self._wall(), capture_ns=captured, size=image.nbytes, picture=number
            )
            repeated = self._monitor.repeats > before
            self.health.frozen_frames += repeated
            frame = self._grid.frame(image, captured, repeated)
        self._put(frame)

    def _put(self, item: Frame | SourceError) -> None:
        while not self._closed.is_set():
            try:
                self._queue.put_nowait(item)
                return
            except queue.Full:
                # The newest picture matters more than one that waited: it is what happens now.
                try:
                    self._queue.get_nowait()
                except queue.Empty:
                    continue
                self.health.dropped["encoders_busy"] = self.health.dropped.get("encoders_busy", 0) + 1
