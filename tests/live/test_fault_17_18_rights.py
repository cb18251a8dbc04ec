"""Faults 17, 18 and 26 through a whole service: keys, roles, scopes, another tenant's stream, forgetting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from live_samples import FAST, moment, until
from live_serve import Running

from perception.publisher import Publisher
from streammem.client import Client, connect
from streammem.errors import AccessDenied, InsecureAddress, QueryError, ServiceUnreachable
from streammem.keys import AllowList, load_keys, new_key, revoke


class Secured:
    """A service with CURVE keys and three clients."""

    def __init__(self, folder: Path, serve: Callable[..., Running]) -> None:
        self.keys = folder / "keys"
        new_key(self.keys, "boss", role="admin")
        new_key(self.keys, "camera", role="produce", streams=["kitchen*"])
        new_key(self.keys, "guest", role="query", streams=["kitchen*"])
        server = load_keys(self.keys / "server.key_secret")
        self.running = serve(keys=server, allow=AllowList(self.keys / "allow.yaml"))

    def connect(self, name: str) -> Client:
        return connect(self.running.address, keys=str(self.keys / f"{name}.key_secret"), timing=FAST, connect_s=2)


@pytest.fixture
def secured(tmp_path: Path, serve: Callable[..., Running]) -> Secured:
    secured = Secured(tmp_path, serve)
    with secured.connect("boss") as boss:
        boss.write([moment(i) for i in range(10)] + [moment(i, "bedroom") for i in range(1000, 1010)])
    return secured


def test_fault_17_no_key(secured: Secured) -> None:
    with pytest.raises(ServiceUnreachable, match="answers, but not in this way"):
        connect(secured.running.address, timing=FAST, connect_s=1.5)
    # Which of the two libzmq reports depends on who notices first.
    seen = secured.running.service.telling.refusals.snapshot
    until(lambda: seen().get("plain_text", 0) + seen().get("handshake", 0) >= 1)


def test_fault_17_an_unknown_key(secured: Secured, tmp_path: Path) -> None:
    stranger = new_key(tmp_path / "elsewhere", "stranger", role="admin")
    server = load_keys(secured.keys / "server.key").public
    with pytest.raises(ServiceUnreachable, match="refused this key"):
        connect(secured.running.address, keys=stranger, server=server, timing=FAST, connect_s=1.5)
    until(lambda: secured.running.service.telling.refusals.snapshot().get("key_unknown", 0) >= 1)


def test_fault_17_a_revoked_key_ends_at_once(secured: Secured) -> None:
    with secured.connect("guest") as guest:
        assert guest.search("mug")
        revoke(secured.keys, "guest")
        with pytest.raises(AccessDenied, match="isn't let in any more"):
            guest.search("mug")


def test_fault_17_an_open_address_needs_keys(serve: Callable[..., Running]) -> None:
    with pytest.raises(InsecureAddress):
        serve(bind="tcp://0.0.0.0:*")
    with pytest.raises(InsecureAddress):
        Publisher("tcp://192.0.2.1:5570")


def test_roles(secured: Secured) -> None:
    with secured.connect("camera") as camera:
        assert camera.link.role == "produce"
        assert camera.write(moment(50)).written == 1
        camera.put_state("watch/kitchen/s1", b"1")
        assert camera.get_state("watch/kitchen/s1") == b"1"
        for refused in (lambda: camera.search("mug"), camera.digest, lambda: camera.forget(stream="kitchen")):
            with pytest.raises(AccessDenied):
                refused()
    with secured.connect("guest") as guest:
        assert guest.search("mug")
        for refused in (lambda: guest.write(moment(60)), lambda: guest.forget(stream="kitchen"), guest.seal):
            with pytest.raises(AccessDenied):
                refused()
    assert not secured.running.memory.has("kitchen", "s1", 60)


def test_fault_18_another_tenants_stream_is_denied_and_not_told(secured: Secured) -> None:
    """The same words for a stream that exists and one that doesn't; nothing of it in any answer."""
    with secured.connect("camera") as camera:
        said = []
        for stream in ("bedroom", "cellar"):
            with pytest.raises(AccessDenied) as caught:
                camera.write(moment(1, stream))
            said.append(str(caught.value))
            with pytest.raises(AccessDenied):
                camera.last_seq(stream, "s1")
        assert said[0] == said[1]
        with pytest.raises(AccessDenied):
            camera.get_state("watch/bedroom/s1")
    with secured.connect("guest") as guest:
        assert [info.stream for info in guest.streams()] == ["kitchen"]
        assert {item.stream for item in guest.status().streams} == {"kitchen"}
        assert guest.observation_count == 10
        assert {stream.stream for stream in guest.health().streams} == {"kitchen"}
        assert {found.stream for found in guest.search("EXIT", k=20)} == {"kitchen"}
        said = []
        for stream in ("bedroom", "cellar"):
            with pytest.raises(QueryError) as refused:
                guest.search("mug", streams=[stream])
            said.append(str(refused.value).replace(stream, "?"))
        assert said[0] == said[1] == "no stream is called '?' (known: kitchen)"
        assert guest.record(moment(1003, "bedroom").record_id) is None
        assert guest.thumbnail(moment(1003, "bedroom").record_id) is None
        assert guest.record(moment(3).record_id) is not None
        with pytest.raises(AccessDenied):
            guest.recent("bedroom")


def test_fault_26_forgetting_over_the_wire(secured: Secured) -> None:
    gone = [moment(i, "bedroom") for i in range(1000, 1010)]
    with secured.connect("boss") as boss:
        boss.put_state("watch/bedroom/s1", b"state")
        boss.seal()
        report = boss.forget(stream="bedroom")
        assert (report.observations, report.thumbnails, report.streams) == (10, 10, ("bedroom",))
        assert [info.stream for info in boss.streams()] == ["kitchen"]
        assert {found.stream for found in boss.search("EXIT", k=20)} == {"kitchen"}
        assert [boss.record(each.record_id) for each in gone] == [None] * 10
        assert boss.get_state("watch/bedroom/s1") is None
        until(lambda: {stream.stream for stream in boss.health().streams} == {"kitchen"})
    directory = secured.running.memory.directory
    left = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
    assert b"bedroom" not in left
    assert gone[3].thumbnail is not None and gone[3].thumbnail[-64:] not in left


def test_a_token_of_another_key_takes_over_nothing(secured: Secured) -> None:
    """Answers go to the newest connection of a client's token, together with its key."""
    with secured.connect("boss") as boss, secured.connect("guest") as guest:
        guest.link.client = boss.link.client
        guest.link._new_epoch("another")  # says hello again, under the other's token
        until(lambda: guest.link._welcomed)
        assert boss.digest() == secured.running.memory.digest()
