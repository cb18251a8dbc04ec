"""The door of a service: which addresses need keys, CURVE on sockets, and the ZAP handler that lets clients in.

ZeroMQ asks the handler (RFC 27) once for each connection; the service asks again for each request (``grant_of``), so
that a revoked key is without rights at once, also on a connection that is already open. What fails before ZAP (plain
text to a CURVE port, a wrong service key) is seen by :class:`HandshakeMonitor`. Both tell one :class:`Refusals`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket as sockets
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from streammem.clock import Clock, SystemClock
from streammem.errors import AccessDenied, InsecureAddress, KeyFileError
from streammem.keys import LOCAL, AllowList, Grant, KeyPair, allowed, load_keys, require, visible
from streammem.printable import printable
from streammem.redact import redact

if TYPE_CHECKING:
    import zmq

__all__ = [
    "LOCAL",
    "AllowList",
    "Authenticator",
    "Grant",
    "HandshakeMonitor",
    "KeyPair",
    "Refusals",
    "allowed",
    "check_address",
    "grant_of",
    "is_local",
    "load_keys",
    "redact",
    "require",
    "secure_client",
    "secure_server",
    "visible",
]

log = logging.getLogger("streammem.security")

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
DOMAIN = b"streammem"
_STOP_SECONDS = 2.0


def is_local(address: str) -> bool:
    """Does this ZeroMQ address stay on this machine (ipc, inproc, a loopback address)? ``localhost`` counts; any other
    name doesn't, because what it resolves to can change."""
    if address.startswith(("ipc://", "inproc://")):
        return True
    host = _host(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(address: str, keys: KeyPair | None) -> None:
    """Refuse an address that other machines can reach where there are no keys. Call it before bind and connect.

    Raises InsecureAddress; also for a transport other than tcp, ipc and inproc."""
    if not address.startswith(("tcp://", "ipc://", "inproc://")):
        raise InsecureAddress(
            f"{redact(printable(address))} isn't an address of a service", hint="tcp://HOST:PORT or ipc:///PATH"
        )
    if keys is None and not is_local(address):
        raise InsecureAddress(
            f"{redact(printable(address))} can be reached by other machines, and there are no keys",
            hint="streammem keys new NAME --role ROLE makes them; or use tcp://127.0.0.1:PORT",
        )


def secure_server(socket: zmq.Socket[Any], keys: KeyPair | None) -> None:
    """Make a socket a CURVE server before it is bound; with None, a plain one for loopback and ipc. An
    :class:`Authenticator` must run on the socket's context, or everyone with the service's public key gets in.

    Raises KeyFileError where ``keys`` lacks the secret half."""
    if keys is None:
        socket.curve_server = 0
        return
    if not keys.secret:
        raise KeyFileError(f"the key {keys.name!r} is only the public half", hint="name its .key_secret file")
    socket.curve_server = 1
    socket.curve_secretkey = keys.secret.encode()
    socket.curve_publickey = keys.public.encode()
    socket.zap_domain = DOMAIN
    # Without this libzmq lets every client in as long as no ZAP handler runs.
    socket.zap_enforce_domain = 1


def secure_client(socket: zmq.Socket[Any], keys: KeyPair | None, server: str = "") -> None:
    """Give a socket its client keys before it connects. ``server``: the service's public key (Z85), where it isn't
    in the client's file. Raises KeyFileError where a half is missing."""
    if keys is None:
        return
    server = server or keys.server
    if not keys.secret:
        raise KeyFileError(f"the key {keys.name!r} is only the public half", hint="name its .key_secret file")
    if not server:
        raise KeyFileError(
            f"the key {keys.name!r} doesn't say which service it is for", hint="give the service's server.key too"
        )
    socket.curve_serverkey = server.encode()
    socket.curve_publickey = keys.public.encode()
    socket.curve_secretkey = keys.secret.encode()


def grant_of(frame: zmq.Frame, allow: AllowList | None) -> Grant:
    """Who sent this frame (received with ``copy=False``) and what it may do now.

    A frame without a user came over an address without CURVE, which :func:`check_address` keeps on this machine.
    Raises AccessDenied for a key that is no longer on the list."""
    user = frame_property(frame, "User-Id")
    if not user and _is_local_peer(frame_property(frame, "Peer-Address")):
        return LOCAL
    grant = allow.grant(user) if allow is not None else None
    if grant is None:
        raise AccessDenied("this key isn't let in any more", hint="ask the keeper of the memory for a new one")
    return grant


def frame_property(frame: zmq.Frame, name: str) -> str:
    """``User-Id`` (the client's public key in Z85) or ``Peer-Address`` of a received frame; empty where unknown."""
    import zmq

    try:
        return str(frame.get(name))
    except (zmq.ZMQError, ValueError):
        return ""


class Refusals:
    """Who was refused and why: counted always, logged once per peer, and never more than a few lines a minute.

    A peer is an address without its port (a new port costs an attacker nothing). Memory is bounded: the last 1,024
    peers are remembered. Safe to use from several threads."""

    def __init__(
        self, *, clock: Clock | None = None, quiet_s: float = 3600.0, lines_a_minute: int = 10, peers: int = 1024
    ) -> None:
        self._clock = clock or SystemClock()
        self._quiet_ns = round(quiet_s * 1e9)
        self._lines = lines_a_minute
        self._peers = peers
        self._seen: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._minute = -1
        self._written = 0
        self._unsaid = 0
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        """Attempts by reason: key_unknown, key_wrong, plain_text, address, handshake."""

    def note(self, reason: str, peer: str) -> bool:
        """Count one refused attempt. True if a line was logged for it."""
        with self._lock:
            self.counts[reason] += 1
            now = self._clock.monotonic_ns()
            last = self._seen.pop((reason, peer), None)
            heard = last is not None and now - last < self._quiet_ns
            self._seen[reason, peer] = last if heard and last is not None else now
            if len(self._seen) > self._peers:
                self._seen.popitem(last=False)
            if heard:
                return False
            minute = now // 60_000_000_000
            if minute != self._minute:
                self._minute, self._written = minute, 0
            if self._written >= self._lines:
                self._unsaid += 1
                return False
            self._written += 1
            unsaid, self._unsaid = self._unsaid, 0
        more = f"; {unsaid} other refusals were not logged" if unsaid else ""
        log.warning("refused %s: %s%s", printable(peer, 80) or "a peer", reason, more)
        return True

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self.counts)


class Authenticator:
    """The ZAP handler of one ZeroMQ context, in its own thread. CURVE keys on the list get in; all else is refused.

    There can be one for a context (its address is fixed by RFC 27). Use it as a context manager, or ``close()`` it
    before the context ends."""

    def __init__(self, context: zmq.Context[Any], allow: AllowList, *, refusals: Refusals | None = None) -> None:
        """Starts answering at once. Raises zmq.ZMQError where the context has a ZAP handler already."""
        import zmq

        self.allow = allow
        self.refusals = refusals or Refusals()
        self.accepted = 0
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        try:
            self._socket.bind(ZAP_ENDPOINT)
        except zmq.ZMQError:
            self._socket.close()
            raise
        self._stopping = threading.Event()
        # A thread of its own: ZAP must answer also while the service's loop writes to a slow disk, or a reconnect
        # storm would wait in line behind it.
        self._thread = threading.Thread(target=self._run, name="streammem-zap", daemon=True)
        self._thread.start()

    def __enter__(self) -> Authenticator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering; connections that are let in stay."""
        self._stopping.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        import zmq

        try:
            while not self._stopping.is_set():
                if self._socket.poll(100):
                    self._socket.send_multipart(self.answer(self._socket.recv_multipart()))
        except zmq.ContextTerminated:
            pass
        finally:
            self._socket.close(linger=0)

    def answer(self, request: Sequence[bytes]) -> list[bytes]:
        """The reply to one ZAP request: version, request id, status, text, user id, metadata.

        The user id of a client that is let in is its public key; every refusal has the same text."""
        if len(request) < 6 or request[0] != b"1.0":
            return [b"1.0", request[1] if len(request) > 1 else b"", b"500", b"not a ZAP 1.0 request", b"", b""]
        _, request_id, domain, address, _, mechanism, *proof = request
        peer = address.decode("ascii", "replace") or "ipc"
        key = ""
        if mechanism == b"CURVE" and domain == DOMAIN and len(proof) == 1 and len(proof[0]) == 32:
            from zmq.utils import z85

            key = z85.encode(proof[0]).decode()
            if self.allow.grant(key) is not None:
                self.accepted += 1
                return [b"1.0", request_id, b"200", b"OK", key.encode(), b""]
            self.refusals.note("key_unknown", peer)
        elif mechanism == b"NULL" and _is_local_peer(peer):
            # A socket that has a secure address and a plain one on ipc or loopback asks here for the plain one too.
            # No user id: `grant_of` takes it for the local user.
            return [b"1.0", request_id, b"200", b"OK", b"", b""]
        else:
            self.refusals.note("plain_text" if mechanism != b"CURVE" else "handshake", peer)
        return [b"1.0", request_id, b"400", b"refused", b"", b""]


class HandshakeMonitor:
    """Handshakes of one socket that failed before ZAP was asked. Make it before ``bind`` or ``connect``, then let the
    socket's own loop call :meth:`poll` (it never blocks).

    On a service it names the peer; on a client ``failed`` tells a refused key from a service that is away."""

    def __init__(self, socket: zmq.Socket[Any], refusals: Refusals | None = None) -> None:
        import zmq

        self.refusals = refusals
        self.failed = ""
        """The last failure: ``refused`` (the service doesn't know this key), ``protocol`` (a wrong service key, or one
        side without CURVE), ``handshake``; empty after a handshake that succeeded."""
        self.connections = 0
        self._owner = socket
        self._peers: OrderedDict[int, str] = OrderedDict()
        self._pending = ""
        self.socket = socket.get_monitor_socket(
            zmq.EVENT_ACCEPTED
            | zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_DISCONNECTED
        )

    def poll(self) -> int:
        """Read what happened since the last call; gives the number of failed handshakes."""
        import zmq
        from zmq.utils.monitor import recv_monitor_message

        failed = 0
        while self.socket.poll(0, zmq.POLLIN):
            event = recv_monitor_message(self.socket, zmq.NOBLOCK)
            kind, value = int(event["event"]), int(event["value"])
            if kind == zmq.EVENT_ACCEPTED:
                self._peers[value] = _peer(value)
                if len(self._peers) > 4096:
                    self._peers.popitem(last=False)
            elif kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.failed = ""
                self.connections += 1
            elif kind == zmq.EVENT_DISCONNECTED:
                # libzmq reports a failure and then, from the same thread, the end of that connection: only the
                # second event carries the descriptor that names the peer.
                peer = self._peers.pop(value, "")
                if self._pending and self.refusals is not None:
                    self.refusals.note(self._pending, peer)
                self._pending = ""
            else:
                failed += 1
                if kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                    self.failed, self._pending = "refused", ""
                else:
                    protocol = kind == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
                    self.failed = "protocol" if protocol else "handshake"
                    self._pending = self._reason(value) if protocol else "handshake"
        return failed

    def close(self) -> None:
        import zmq

        # The watched socket may be closed already; then its monitor is as well.
        with contextlib.suppress(zmq.ZMQError):
            self._owner.disable_monitor()
        # pyzmq lets go of its end without closing it while we hold it, and the context would wait for it for ever.
        self.socket.close(linger=0)

    @staticmethod
    def _reason(code: int) -> str:
        import zmq

        if code == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            return "plain_text"
        if code == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC:
            return "key_wrong"
        return "handshake"


def _host(address: str) -> str:
    try:
        # urlsplit takes the brackets off an IPv6 address.
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _is_local_peer(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return True  # ipc has no IP address


def _peer(descriptor: int) -> str:
    # The descriptor belongs to libzmq and may be closed by now; a copy is asked, so that it can't be closed by us.
    try:
        with sockets.socket(fileno=os.dup(descriptor)) as copy:
            name = copy.getpeername()
    except OSError:
        return ""
    return str(name[0]) if isinstance(name, tuple) else "ipc"
