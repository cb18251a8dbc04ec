"""The door, with real sockets: CURVE, the ZAP handler, refusals that are counted and logged once."""

from __future__ import annotations

import logging
import socket as sockets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from streammem.clock import ManualClock
from streammem.errors import AccessDenied, InsecureAddress, KeyFileError
from streammem.keys import LOCAL, AllowList, KeyPair, load_keys, new_key, revoke
from streammem.security import (
    Authenticator,
    HandshakeMonitor,
    Refusals,
    check_address,
    grant_of,
    is_local,
    secure_client,
    secure_server,
)

LOCAL_ADDRESSES = [
    "ipc:///tmp/x",
    "inproc://x",
    "tcp://127.0.0.1:1",
    "tcp://127.9.9.9:1",
    "tcp://[::1]:1",
    "tcp://localhost:1",
]
OPEN_ADDRESSES = [
    "tcp://0.0.0.0:1",
    "tcp://*:1",
    "tcp://[::]:1",
    "tcp://eth0:1",
    "tcp://192.0.2.1:1",
    "tcp://127.0.0.1.nip.io:1",
]


@pytest.mark.parametrize("address", LOCAL_ADDRESSES)
def test_local_addresses_need_no_keys(address: str) -> None:
    assert is_local(address)
    check_address(address, None)


@pytest.mark.parametrize("address", OPEN_ADDRESSES)
def test_other_addresses_need_keys(address: str) -> None:
    with pytest.raises(InsecureAddress, match="streammem keys new"):
        check_address(address, None)
    check_address(address, KeyPair("server", "p" * 40, "s" * 40))


def test_other_transports_are_refused() -> None:
    with pytest.raises(InsecureAddress, match="isn't an address"):
        check_address("pgm://eth0;239.0.0.1:5555", None)


class Door:
    """A ROUTER behind the real door, on loopback."""

    def __init__(self, directory: Path) -> None:
        new_key(directory, "camera", role="produce", streams=("kitchen*",))
        self.directory = directory
        self.context: zmq.Context[Any] = zmq.Context()
        self.refusals = Refusals()
        self.allow = AllowList(directory / "allow.yaml")
        self.zap = Authenticator(self.context, self.allow, refusals=self.refusals)
        self.router = self.context.socket(zmq.ROUTER)
        self.router.linger = 0
        self.monitor = HandshakeMonitor(self.router, self.refusals)
        secure_server(self.router, load_keys(directory / "server.key_secret"))
        self.port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.sockets: list[zmq.Socket[Any]] = []

    def client(self, keys: KeyPair | None, server: str = "", port: int | None = None) -> zmq.Socket[Any]:
        dealer = self.context.socket(zmq.DEALER)
        dealer.linger = 0
        secure_client(dealer, keys, server)
        dealer.connect(f"tcp://127.0.0.1:{port or self.port}")
        self.sockets.append(dealer)
        dealer.send(b"hello")
        return dealer

    def receive(self, timeout_ms: int = 2000) -> list[zmq.Frame] | None:
        if not self.router.poll(timeout_ms):
            return None
        frames: list[zmq.Frame] = self.router.recv_multipart(copy=False)
        return frames

    def until(self, condition: Callable[[], bool], seconds: float = 5.0) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.monitor.poll()
            if condition():
                return True
            time.sleep(0.02)
        return False

    def close(self) -> None:
        self.monitor.close()
        for socket in (*self.sockets, self.router):
            socket.close(linger=0)
        self.zap.close()
        self.context.term()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path / "keys")
    yield made
    made.close()


def test_a_listed_key_gets_in_and_is_known_at_every_frame(door: Door) -> None:
    keys = load_keys(door.directory / "camera.key_secret")
    door.client(keys)
    frames = door.receive()
    assert frames is not None and bytes(frames[1]) == b"hello"
    assert {grant_of(frame, door.allow).name for frame in frames} == {"camera"}
    assert grant_of(frames[1], door.allow).streams == ("kitchen*",)
    assert door.zap.accepted == 1


def test_loopback_without_keys_is_the_local_user(door: Door) -> None:
    secure_server(door.router, None)
    port = door.router.bind_to_random_port("tcp://127.0.0.1")
    door.client(None, port=port)
    frames = door.receive()
    assert frames is not None and grant_of(frames[1], door.allow) is LOCAL


def test_fault_17_an_unknown_key_is_refused_counted_and_logged_once(
    door: Door, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = new_key(tmp_path / "other", "stranger", role="admin")
    server = load_keys(door.directory / "server.key").public
    with caplog.at_level(logging.WARNING, "streammem.security"):
        for _ in range(3):
            door.client(stranger, server)
        assert door.until(lambda: door.refusals.counts["key_unknown"] >= 3)
        assert door.receive(200) is None
    assert [line for line in caplog.messages if "key_unknown" in line] == ["refused 127.0.0.1: key_unknown"]


def test_fault_17_a_wrong_service_key_is_refused(door: Door, tmp_path: Path) -> None:
    keys = load_keys(door.directory / "camera.key_secret")
    other_service = new_key(tmp_path / "other", "x", role="query").server
    dealer = door.client(keys, other_service)
    assert door.until(lambda: door.refusals.counts["key_wrong"] >= 1), door.refusals.counts
    assert door.receive(200) is None
    assert dealer.poll(0) == 0


def test_fault_17_plain_text_to_a_curve_port_is_refused(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "streammem.security"):
        door.client(None)
        assert door.until(lambda: door.refusals.counts["plain_text"] >= 1), door.refusals.counts
        for _ in range(20):
            with sockets.create_connection(("127.0.0.1", door.port)) as raw:
                raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(64))
        assert door.receive(200) is None
        door.until(lambda: door.refusals.counts["handshake"] >= 1, 2.0)
    # One line for each peer and reason, however often it tries.
    assert len(caplog.messages) == len(set(caplog.messages)) <= 3
    # The door still opens for the right key.
    door.client(load_keys(door.directory / "camera.key_secret"))
    assert door.receive() is not None


def test_fault_17_a_revoked_key_loses_its_rights_on_an_open_connection(door: Door) -> None:
    keys = load_keys(door.directory / "camera.key_secret")
    dealer = door.client(keys)
    frames = door.receive()
    assert frames is not None
    revoke(door.directory, "camera")
    dealer.send(b"again")
    frames = door.receive()
    assert frames is not None
    with pytest.raises(AccessDenied, match="any more"):
        grant_of(frames[1], door.allow)
    # ... and a new connection doesn't come about.
    door.client(keys)
    assert door.until(lambda: door.refusals.counts["key_unknown"] >= 1)
    assert door.receive(200) is None


def test_a_client_can_tell_a_refused_key_from_a_service_that_is_away(door: Door, tmp_path: Path) -> None:
    stranger = new_key(tmp_path / "other", "stranger", role="admin")
    server = load_keys(door.directory / "server.key").public
    for keys, key, expected in (
        (stranger, server, "refused"),
        (load_keys(door.directory / "camera.key_secret"), "", ""),
    ):
        dealer = door.context.socket(zmq.DEALER)
        dealer.linger = 0
        door.sockets.append(dealer)
        monitor = HandshakeMonitor(dealer)
        secure_client(dealer, keys, key)
        dealer.connect(f"tcp://127.0.0.1:{door.port}")
        end = time.monotonic() + 5
        while time.monotonic() < end and not (monitor.failed or monitor.connections):
            monitor.poll()
            time.sleep(0.02)
        assert monitor.failed == expected
        monitor.close()


def test_refusals_are_rate_limited_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    refusals = Refusals(clock=clock, lines_a_minute=3, quiet_s=100, peers=8)
    with caplog.at_level(logging.WARNING, "streammem.security"):
        said = [refusals.note("key_unknown", f"192.0.2.{n}") for n in range(50)]
        assert said == [True] * 3 + [False] * 47
        clock.advance(61_000_000_000)
        assert refusals.note("plain_text", "198.51.100.1\x1b[2J")
    assert refusals.snapshot() == {"key_unknown": 50, "plain_text": 1}
    assert "47 other refusals were not logged" in caplog.messages[-1]
    assert "\x1b" not in caplog.text


def test_malformed_zap_requests_are_answered_not_raised(door: Door) -> None:
    zap = door.zap
    for request in (
        [],
        [b"1.0"],
        [b"2.0", b"1", b"", b"", b"", b"CURVE"],
        [b"1.0", b"7", b"d", b"\xff", b"", b"GSSAPI"],
    ):
        assert zap.answer(request)[2] in (b"400", b"500")
    assert zap.answer([b"1.0", b"7", b"streammem", b"127.0.0.1", b"", b"CURVE", b"short"])[1:3] == [b"7", b"400"]
    # Plain text from another machine, whatever the socket was bound to.
    assert zap.answer([b"1.0", b"7", b"streammem", b"192.0.2.1", b"", b"NULL"])[2] == b"400"
    assert zap.answer([b"1.0", b"7", b"other", b"127.0.0.1", b"", b"CURVE", bytes(32)])[2] == b"400"


def test_nobody_gets_in_while_no_handler_runs(door: Door) -> None:
    door.zap.close()
    door.client(load_keys(door.directory / "camera.key_secret"))
    assert door.receive(500) is None


def test_half_keys_are_refused_before_anything_is_sent(door: Door) -> None:
    public_only = load_keys(door.directory / "camera.key")
    with pytest.raises(KeyFileError, match="public half"):
        door.client(public_only)
    with pytest.raises(KeyFileError, match="public half"):
        secure_server(door.router, load_keys(door.directory / "server.key"))
    with pytest.raises(KeyFileError, match="which service"):
        secure_client(door.router, load_keys(door.directory / "server.key_secret"))
