"""The producing side of a memory service: what :func:`perception.pipeline.watch` writes into instead of a ``Memory``.

    Lossless    a full buffer makes ``write`` wait (files, recordings: nothing may be missing)
    KeepNewest  a full buffer drops its oldest unsent packet and counts it as ``live_replaced`` (cameras: now matters)

In both lanes what was handed over is held until the service has synced it, and sent again after a reconnect, a restart
of the service or a cut; the buffer's two caps are all that a service that is away can make a producer hold.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from streammem.checks import validate_observation
from streammem.client import Client, packed
from streammem.errors import ObservationError, ServiceUnreachable, StreammemError
from streammem.keys import KeyPair, load_keys
from streammem.link import Link, Timing
from streammem.model import Observation, StreamInfo
from streammem.storage.reports import WriteReceipt
from streammem.window import Packet

REPLACED = "live_replaced"


@dataclass(frozen=True, slots=True)
class Lossless:
    """Wait while the buffer is full; ``patience_s`` None waits for ever, else ServiceUnreachable is raised."""

    packets: int = 512
    bytes: int = 128 << 20
    patience_s: float | None = None


@dataclass(frozen=True, slots=True)
class KeepNewest:
    """Never wait; when the buffer is full, its oldest unsent packet goes (those on the wire can't be taken back)."""

    packets: int = 128
    bytes: int = 64 << 20


class Publisher:
    """Writes observations to the service at ``address``. The service may be away when it is made and at any time."""

    def __init__(
        self,
        address: str,
        *,
        lane: Lossless | KeepNewest | None = None,
        keys: KeyPair | str | None = None,
        server: str = "",
        name: str = "",
        timeout_s: float = 30.0,
        timing: Timing | None = None,
    ) -> None:
        """``timeout_s`` is for requests and ``flush``. Raises InsecureAddress and KeyFileError."""
        self.lane = lane or Lossless()
        self.drops: Counter[str] = Counter()
        """What was not kept, by reason: ``live_replaced``, or the field that the service refused."""
        self.acknowledged = self.duplicates = 0
        pair = load_keys(keys) if isinstance(keys, str) else keys
        self._link = Link(address, keys=pair, server=server, name=name, timing=timing, on_outcome=self._outcome)
        self._client = Client(self._link, timeout_s=timeout_s)
        self._failed: StreammemError | None = None
        self._link.start()

    @property
    def held(self) -> int:
        """Packets that the service hasn't acknowledged."""
        return self._link.held[0]

    @property
    def held_bytes(self) -> int:
        return self._link.held[1]

    @property
    def connected(self) -> bool:
        return self._link.connected

    def write(self, observations: Observation | Iterable[Observation], *, durable: bool = False) -> WriteReceipt:
        """Check, copy and queue observations; with ``durable`` wait for their acknowledgements.

        One bad observation raises ObservationError; in a list the bad ones are left out and counted by field."""
        single = isinstance(observations, Observation)
        refused: dict[str, int] = {}
        sent: list[Packet] = []
        for observation in [observations] if isinstance(observations, Observation) else observations:
            try:
                validate_observation(observation)
            except ObservationError as error:
                self._drop(observation.stream, error.field)
                if single:
                    raise
                refused[error.field] = refused.get(error.field, 0) + 1
                continue
            parts = packed(observation)
            self._make_room(sum(len(part) for part in parts))
            sent.append(self._link.offer(observation.key, parts))
        if not durable:
            return WriteReceipt(len(sent), refused=refused, durable=False)
        self._wait_for(sent)
        duplicates = sum(packet.outcome == "duplicate" for packet in sent)
        return WriteReceipt(sum(packet.outcome == "written" for packet in sent), duplicates, refused)

    def _make_room(self, size: int) -> None:
        def room() -> bool:
            count, held = self._link.held
            return count < self.lane.packets and (count == 0 or held + size <= self.lane.bytes)

        if isinstance(self.lane, Lossless):
            if not self._link.wait(room, self.lane.patience_s):
                raise self._link.no_answer(self.lane.patience_s or 0.0)
            return
        while not room():
            if self._link.replace_oldest() is None and not self._link.wait(room, 0.05):
                # All of it is on the wire: the service has credits for it, so this ends with the service's answer,
                # or when the link gives the packets back because the service is silent.
                continue

    def _wait_for(self, sent: list[Packet]) -> None:
        if not self._link.wait(lambda: all(packet.done for packet in sent), self._client.timeout_s):
            raise self._link.no_answer(self._client.timeout_s)

    def _outcome(self, packet: Packet) -> None:
        """Called by the link, with its lock held."""
        outcome = packet.outcome
        if outcome == "written":
            self.acknowledged += 1
        elif outcome == "duplicate":
            self.duplicates += 1
        elif outcome == "replaced":
            self.drops[REPLACED] += 1
            self._link.count_drop(packet.key[0], REPLACED)
        elif isinstance(outcome, ObservationError):
            self.drops[outcome.field or "observation"] += 1
        elif isinstance(outcome, StreammemError):
            self.drops[type(outcome).__name__] += 1
            self._failed = self._failed or outcome

    def _drop(self, stream: object, reason: str) -> None:
        self.drops[reason] += 1
        self._link.count_drop(stream if isinstance(stream, str) else "", reason)

    def flush(self) -> None:
        """Wait until everything is acknowledged. Raises what the service refused for a reason that isn't a packet's
        own fault (a key that may not write), ServiceUnreachable or DeadlineExceeded after ``timeout_s`` without any
        progress."""
        held, since = self.held, time.monotonic()
        while not self._link.wait(lambda: self._link.held[0] == 0, 1.0):
            if self.held < held:
                held, since = self.held, time.monotonic()
            elif time.monotonic() - since > self._client.timeout_s:
                raise self._link.no_answer(self._client.timeout_s)
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed

    def set_stream(self, info: StreamInfo) -> None:
        self._client.set_stream(info)

    def put_state(self, key: str, value: bytes, *, durable: bool = True) -> None:
        """In order with the observations: a state that is found again was put after everything written before it."""
        self.flush()
        self._client.put_state(key, value, durable=durable)

    def get_state(self, key: str) -> bytes | None:
        return self._client.get_state(key)

    def close(self, *, wait_s: float | None = None) -> int:
        """Wait for acknowledgements (``wait_s``, or ``timeout_s``), then let go. Returns the packets that were not
        acknowledged, 0 if all is well."""
        with contextlib.suppress(ServiceUnreachable):  # closed before
            self._link.wait(lambda: self._link.held[0] == 0, self._client.timeout_s if wait_s is None else wait_s)
        left = self.held
        self._link.close()
        return left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
