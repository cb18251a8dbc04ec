"""Who is connected to a service, and what each may still send. Nothing of a peer stays when it is gone."""

from __future__ import annotations

from streammem.keys import Grant
from streammem.protocol import FIRST_CREDITS

MOST_PEERS = 4096
"""10 KB of RAM each at most; file descriptors run out earlier."""
MOST_STREAMS = 256
"""Streams of one peer that are remembered, to say that they are gone when it goes."""


class Peer:
    """One connection. ``waiting`` packets and bytes were received and not yet answered."""

    __slots__ = (
        "bytes",
        "client",
        "grant",
        "heard_at",
        "identity",
        "name",
        "requests",
        "streams",
        "waiting",
        "welcomed",
    )

    def __init__(self, identity: bytes, grant: Grant, now: float) -> None:
        self.identity = identity
        self.grant = grant
        self.client = ""
        self.name = ""
        self.welcomed = False
        self.waiting = self.bytes = self.requests = 0
        self.streams: set[str] = set()
        self.heard_at = now

    def may_send(self, size: int, credits: int, credit_bytes: int) -> bool:
        """A client that keeps to its credits always may. The first packet may be as large as any packet."""
        most = credits if self.welcomed else FIRST_CREDITS
        return self.waiting < most and (self.waiting == 0 or self.bytes + size <= credit_bytes)


class Peers:
    """By ZeroMQ identity, and by the client's own token, which survives reconnects."""

    def __init__(self, silent_s: float) -> None:
        self._silent_s = silent_s
        self._peers: dict[bytes, Peer] = {}
        self._newest: dict[tuple[str, str], bytes] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def heard(self, identity: bytes, grant: Grant, now: float) -> Peer | None:
        """The peer; a new one where there is room, else None."""
        peer = self._peers.get(identity)
        if peer is None:
            if len(self._peers) >= MOST_PEERS:
                return None
            peer = self._peers[identity] = Peer(identity, grant, now)
        peer.grant = grant
        peer.heard_at = now
        return peer

    def get(self, identity: bytes) -> Peer | None:
        return self._peers.get(identity)

    def introduce(self, peer: Peer, client: str) -> None:
        """The client behind this connection. A token counts together with the key that it came with: another key can't
        take over the answers to it."""
        peer.client = client
        self._newest[peer.grant.key, client] = peer.identity

    def route(self, key: str, client: str, identity: bytes) -> bytes:
        """Where answers to this client go now: its newest connection, else the one that asked."""
        return self._newest.get((key, client), identity)

    def drop(self, identity: bytes) -> Peer | None:
        peer = self._peers.pop(identity, None)
        if peer is not None and self._newest.get((peer.grant.key, peer.client)) == identity:
            del self._newest[peer.grant.key, peer.client]
        return peer

    def silent(self, now: float) -> list[Peer]:
        """Peers that said nothing for long; clients ping every second."""
        return [peer for peer in self._peers.values() if now - peer.heard_at > self._silent_s]

    def all(self) -> list[Peer]:
        return list(self._peers.values())
