"""What a client has handed over and the service hasn't acknowledged: unsent and in flight, in order. Pure; no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from streammem.errors import StreammemError
from streammem.wire import Buffer

Key = tuple[str, str, int]


class Packet:
    """An observation on its way. ``outcome``: None while it waits; then ``written``, ``duplicate``, ``replaced`` or the
    error."""

    __slots__ = ("id", "key", "outcome", "parts", "sent_at", "size", "tries", "wait_until")

    def __init__(self, id: int, key: Key, parts: Sequence[Buffer]) -> None:
        self.id = id
        self.key = key
        self.parts: Sequence[Buffer] = parts
        self.size = sum(len(part) for part in parts)
        self.outcome: str | StreammemError | None = None
        self.sent_at = 0.0
        self.wait_until = 0.0
        self.tries = 0

    @property
    def done(self) -> bool:
        return self.outcome is not None


class Window:
    """Not thread-safe: its owner serialises."""

    def __init__(self) -> None:
        self._unsent: deque[Packet] = deque()
        self._flight: dict[int, Packet] = {}
        self._flight_bytes = 0
        self.bytes = 0
        self.sent = self.resent = 0

    def __len__(self) -> int:
        return len(self._unsent) + len(self._flight)

    @property
    def idle(self) -> bool:
        """Nothing waits to be sent."""
        return not self._unsent

    def add(self, packet: Packet) -> None:
        self._unsent.append(packet)
        self.bytes += packet.size

    def next(self, credits: int, credit_bytes: int, now: float) -> Packet | None:
        """The packet to send now, as far as the credits go. The first in flight may be of any size."""
        if not self._unsent or len(self._flight) >= credits:
            return None
        packet = self._unsent[0]
        if packet.wait_until > now or (self._flight and self._flight_bytes + packet.size > credit_bytes):
            return None
        return packet

    def mark_sent(self, packet: Packet, now: float) -> None:
        """``packet`` is the one that ``next`` gave."""
        self._unsent.popleft()
        packet.tries += 1
        packet.sent_at = now
        self.sent += 1
        self.resent += packet.tries > 1
        self._flight[packet.id] = packet
        self._flight_bytes += packet.size

    def in_flight(self, id: int) -> Packet | None:
        return self._flight.get(id)

    def land(self, packet: Packet) -> None:
        """It is done with: acknowledged, or refused for good."""
        self._unflight(packet)
        self._let_go(packet)

    def replace_oldest(self, stream: str | None = None) -> Packet | None:
        """Take out the oldest packet that was never sent (of one stream); None where there is none."""
        for packet in self._unsent:
            if packet.tries == 0 and (stream is None or packet.key[0] == stream):
                self._unsent.remove(packet)
                self._let_go(packet)
                return packet
        return None

    def put_back(self, packets: Sequence[Packet] | None = None) -> None:
        """These (default: all in flight) will be sent again, in order, before what was never sent."""
        again = list(self._flight.values()) if packets is None else list(packets)
        for packet in again:
            self._unflight(packet)
        if again:
            self._unsent = deque(sorted([*again, *self._unsent], key=lambda packet: packet.id))

    def overdue(self, now: float, heard_at: float, resend_s: float) -> list[Packet]:
        """In flight for ``resend_s`` although the service was heard after that: an acknowledgement was lost."""
        return [
            packet
            for packet in self._flight.values()
            if now - packet.sent_at > resend_s and heard_at > packet.sent_at + resend_s
        ]

    def _unflight(self, packet: Packet) -> None:
        del self._flight[packet.id]
        self._flight_bytes -= packet.size

    def _let_go(self, packet: Packet) -> None:
        self.bytes -= packet.size
        packet.parts = ()
