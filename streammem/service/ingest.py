"""Packets on their way into the memory: a queue that is fair to every stream, and the thread that writes groups.

While one group is synced the next one gathers, so that groups grow with the load by themselves: a single packet waits
for nothing, a flood shares each sync among up to ``group`` packets.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from streammem.errors import ObservationError, StorageError, StreammemError
from streammem.memory import Memory
from streammem.model import Observation
from streammem.storage.budget import caps_of
from streammem.storage.queue import Group, Outcome

log = logging.getLogger("streammem.service")

GROUP_BYTES = 8 << 20
"""A group is cut here too: 8 MB take 20-80 ms to write, and everyone's acknowledgement waits so long."""
YIELD_S = 0.0005
"""Time for a request that waits for the memory's lock: Python's locks aren't fair to a thread that waits."""


@dataclass(slots=True, eq=False)
class Arrival:
    """A packet that passed the checks of the wire. ``at`` is monotonic seconds."""

    identity: bytes
    id: int
    observation: Observation
    size: int
    at: float


@dataclass(slots=True, eq=False)
class Written:
    """What became of an arrival: an ``Outcome`` of the memory, or an error of the whole group that may pass."""

    arrival: Arrival
    outcome: Outcome | StreammemError
    later: bool = False


class Lanes:
    """One lane a stream, served in turn: a stream that floods waits behind itself only. Safe to use from threads."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[Arrival]] = {}
        self._turns: deque[str] = deque()
        self._condition = threading.Condition()
        self._stopped = False
        self.bytes = self.count = 0

    def put(self, arrival: Arrival) -> None:
        stream = arrival.observation.stream
        with self._condition:
            lane = self._lanes.get(stream)
            if lane is None:
                lane = self._lanes[stream] = deque()
                self._turns.append(stream)
            lane.append(arrival)
            self.bytes += arrival.size
            self.count += 1
            self._condition.notify()

    def take(self, most: int, most_bytes: int, timeout_s: float | None = None) -> list[Arrival] | None:
        """Up to so many, one stream after the other; waits for the first. None: nothing came in time, or stopped and
        nothing is left."""
        with self._condition:
            while not self._turns:
                if self._stopped or not self._condition.wait(timeout_s):
                    return None
            taken: list[Arrival] = []
            size = 0
            while self._turns and len(taken) < most and size < most_bytes:
                stream = self._turns.popleft()
                lane = self._lanes[stream]
                arrival = lane.popleft()
                taken.append(arrival)
                size += arrival.size
                if lane:
                    self._turns.append(stream)
                else:
                    del self._lanes[stream]
            self.bytes -= size
            self.count -= len(taken)
            return taken

    def stop(self) -> None:
        """No more waiting: ``take`` gives what is left and then None."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()


class Writer:
    """The one thread that writes observations. ``report`` is called there after every group."""

    def __init__(
        self,
        memory: Memory,
        lanes: Lanes,
        report: Callable[[list[Written]], None],
        *,
        group: int,
        asked: Callable[[], bool] = lambda: False,
    ) -> None:
        """``asked``: does a request wait for the memory? Then it gets a turn between two groups."""
        self._memory, self._lanes, self._report, self._group, self._asked = memory, lanes, report, group, asked
        self._thread = threading.Thread(target=self._run, name="streammem-writer", daemon=True)
        # A group is journalled whole: under a small disk budget it must fit beside the open part.
        self._bytes = min(GROUP_BYTES, caps_of(memory.config).seal)
        self._defect: tuple[list[Arrival], Exception] | None = None
        self.groups = 0
        self.busy_since: float | None = None
        """Monotonic seconds when the group in hand was begun: a disk that hangs shows here."""

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """True when everything that was queued is written. Call ``Lanes.stop`` before."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (taken := self._lanes.take(self._group, self._bytes)) is not None:
            self.busy_since = time.monotonic()
            self._write(taken)
            if self._defect is not None:
                (found, error), self._defect = self._defect, None
                self._one_by_one(found, error)
            self.busy_since = None
            self.groups += 1
            if self._asked():
                time.sleep(YIELD_S)

    def _write(self, taken: list[Arrival]) -> None:
        told = False

        def durable(outcomes: list[Outcome]) -> None:
            nonlocal told
            told = True
            self._report([Written(arrival, outcome) for arrival, outcome in zip(taken, outcomes, strict=True)])

        try:
            self._memory.write_each([arrival.observation for arrival in taken], durable, self._more)
        except StorageError as error:
            log.error("writing failed: %s", error)
            if not told:
                # A full disk passes when there is space again: the producers keep the packets and come back.
                self._report([Written(arrival, error, later=True) for arrival in taken])
        except Exception as error:  # a defect that one packet finds must not end the service
            log.exception("writing %d packets failed", len(taken))
            if not told:
                self._one_by_one(taken, error)

    def _more(self, seconds: float) -> Group | None:
        """The next group, while the memory is busy with the last one. Between its steps (no seconds to wait) nobody is
        taken in while a request waits for the memory: it waits until all that is durable is applied."""
        if self._defect is not None or (seconds == 0.0 and self._asked()):
            return None
        taken = self._lanes.take(self._group, self._bytes, seconds)
        if not taken:
            return None

        def durable(outcomes: list[Outcome]) -> None:
            self._report([Written(arrival, outcome) for arrival, outcome in zip(taken, outcomes, strict=True)])

        def failed(error: Exception) -> None:
            if isinstance(error, StorageError):
                self._report([Written(arrival, error, later=True) for arrival in taken])
            else:
                self._defect = (taken, error)

        return Group([arrival.observation for arrival in taken], durable, failed)

    def _one_by_one(self, taken: list[Arrival], error: Exception) -> None:
        """Find the packet that can't be written; the others are."""
        if len(taken) > 1:
            for arrival in taken:
                self._write([arrival])
            return
        what = f"observation refused: writing it failed ({type(error).__name__})"
        refused = ObservationError(what, field="defect", hint="please report this")
        self._report([Written(taken[0], refused)])
