"""A relay: producers here, the memory elsewhere. It looks like a service and keeps nothing.

    producers -> [Service around Upstream] -> the service that has the memory

An observation is acknowledged to its producer when the far service has synced it, so "acknowledged means durable" holds
across the relay; while the far service is away the producers hold their packets and are told to come back. Questions
pass through, too. What a client may do is what its key here and the relay's key there both allow.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from streammem.client import Client, packed
from streammem.config import Config
from streammem.errors import ObservationError, StorageError, StreammemError
from streammem.keys import AllowList, KeyPair, load_keys
from streammem.link import Link
from streammem.model import Observation
from streammem.redact import redact
from streammem.service import Service
from streammem.window import Key, Packet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streammem.config import ServiceConfig
    from streammem.memory import Memory, Outcome

SCHEME = "zmq+"
PATIENCE_S = 5.0
"""A group waits so long for the far service; then its producers are told to send it again."""


class Upstream(Client):
    """The far service in the place of a ``Memory``: the methods that a ``Service`` needs."""

    def __init__(self, link: Link, *, timeout_s: float = 30.0, patience_s: float = PATIENCE_S) -> None:
        super().__init__(link, timeout_s=timeout_s)
        self.patience_s = patience_s
        # Packets that no answer came for. They are still held by the link: offering them a second time would let the
        # queue grow for as long as the far service is away.
        self._pending: dict[Key, Packet] = {}

    @property
    def config(self) -> Config:
        """The defaults: how a far memory bounds its groups is its own affair."""
        return Config()

    @property
    def directory(self) -> str:
        """Where the memory is, for people."""
        return redact(self.address)

    def write_each(
        self,
        observations: list[Observation],
        durable: Callable[[list[Outcome]], None],
        more: Callable[[float], object] | None = None,
    ) -> None:
        """As ``Memory.write_each``; ``more`` isn't asked, because nothing is sealed here.

        Raises StorageError where the far service doesn't answer in time, or refuses the relay's key: then nothing of
        the group is acknowledged."""
        packets = []
        for observation in observations:
            packet = self._pending.get(observation.key)
            if packet is None:
                packet = self._pending[observation.key] = self.link.offer(observation.key, packed(observation))
            packets.append(packet)
        try:
            answered = self.link.wait(lambda: all(packet.done for packet in packets), self.patience_s)
        except StreammemError as error:
            raise StorageError(f"the far service: {error.message}", hint=error.hint) from error
        for packet in packets:
            if packet.done:
                self._pending.pop(packet.key, None)
        if not answered:
            raise StorageError(f"{self.directory} doesn't answer", hint="its producers hold what they have")
        outcomes: list[Outcome] = []
        for packet in packets:
            outcome = packet.outcome
            if isinstance(outcome, StreammemError) and not isinstance(outcome, ObservationError):
                raise StorageError(f"the far service refused: {outcome.message}", hint=outcome.hint)
            outcomes.append(cast("Outcome", outcome))
        durable(outcomes)


@contextmanager
def open_relay(
    bind: str,
    to: str,
    *,
    key: KeyPair | str | None = None,
    keys: KeyPair | None = None,
    allow: AllowList | None = None,
    config: ServiceConfig | None = None,
    patience_s: float = PATIENCE_S,
) -> Iterator[Service]:
    """A service at ``bind`` that hands everything on ``to`` the far service; call its ``run``. The far service may be
    away now and later. ``key`` is the relay's own for the far service; ``keys`` and ``allow`` let producers in here.

    Raises InsecureAddress, KeyFileError, InputError."""
    pair = load_keys(key) if isinstance(key, str) else key
    upstream = Upstream(Link(to, keys=pair, name=f"relay {bind}"[:200]), patience_s=patience_s)
    upstream.link.start()
    try:
        # Whatever a Service calls on a Memory, a Client has as well; `write_each` and `directory` are above.
        memory = cast("Memory", cast(Any, upstream))
        yield Service(memory, bind=bind, keys=keys, allow=allow, config=config)
    finally:
        upstream.close()
