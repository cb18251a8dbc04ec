"""The status feed over real sockets: sequences, snapshots for late joiners, gaps, and who sees what."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from streammem.clock import ManualClock
from streammem.errors import InsecureAddress
from streammem.feed import FeedReader, StatusFeed, scoped
from streammem.health import HealthSnapshot, ServiceHealth, StateChange
from streammem.keys import AllowList, Grant, load_keys, new_key, revoke
from streammem.measure import NS
from streammem.model import Observation
from streammem.security import Authenticator

T0 = 1_800_000_000 * NS


def health_of(*streams: str) -> ServiceHealth:
    health = ServiceHealth(ManualClock(T0), epoch="run-1")
    for stream in streams:
        health.arrived(Observation(stream=stream, seq=0, capture_ns=T0))
        health.dropped(stream, "queue_full")
    return health


def turn(feed: StatusFeed, health: ServiceHealth, reader: FeedReader, seconds: float = 5.0) -> None:
    """Let the service serve until the reader has something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if feed.poll():
            feed.publish(health.snapshot())
        if reader.read(0.02) is not None:
            return
    raise AssertionError("nothing arrived")


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made: zmq.Context[Any] = zmq.Context()
    yield made
    made.destroy(linger=0)


def test_a_late_joiner_gets_a_snapshot_and_then_the_changes(context: zmq.Context[Any]) -> None:
    health = health_of("kitchen")
    feed = StatusFeed(context, "tcp://127.0.0.1:*", epoch="run-1", clock=health.clock)
    feed.publish(health.snapshot(), health.tick(), whole=True)  # nobody listens yet
    reader = FeedReader(context, feed.address)
    turn(feed, health, reader)
    assert reader.fresh and reader.snapshot is not None and reader.snapshot.streams[0].state == "live"
    health.left("kitchen")
    feed.publish(changes=health.tick())
    message = reader.read(2.0)
    assert message is not None and [change.after for change in message.changes] == ["gone"]
    assert reader.snapshot.streams[0].state == "gone" and reader.missed == 0
    second = FeedReader(context, feed.address)
    turn(feed, health, second)
    assert second.fresh and second.missed == 0
    for socket in (reader, second, feed):
        socket.close()


def test_a_gap_is_counted_and_mended(context: zmq.Context[Any]) -> None:
    health = health_of("kitchen")
    feed = StatusFeed(context, "tcp://127.0.0.1:*", epoch="run-1", clock=health.clock)
    reader = FeedReader(context, feed.address)
    turn(feed, health, reader)
    # A reader that stops: its queue and the service's are bounded, the rest is lost.
    late = StateChange("kitchen", "live", "late", T0)
    for _ in range(20_000):
        feed.publish(changes=[late])
    read = 0
    while reader.read(0.3) is not None:
        read += 1
    feed.publish(changes=[late])
    assert reader.read(2.0) is not None
    assert reader.missed == 20_000 - read > 0
    assert not reader.fresh
    turn(feed, health, reader)
    assert reader.fresh
    reader.close()
    feed.close()


def test_a_restart_of_the_service_is_noticed(context: zmq.Context[Any]) -> None:
    health = health_of("kitchen")
    feed = StatusFeed(context, "tcp://127.0.0.1:*", epoch="run-1", clock=health.clock)
    reader = FeedReader(context, feed.address)
    turn(feed, health, reader)
    address = feed.address
    feed.close()
    time.sleep(0.1)
    again = StatusFeed(context, address, epoch="run-2", clock=health.clock)
    turn(again, health, reader)
    assert reader.restarts == 1 and reader.missed == 0 and reader.fresh
    reader.close()
    again.close()


def test_garbage_on_the_feed_is_counted_not_raised(context: zmq.Context[Any]) -> None:
    publisher = context.socket(zmq.PUB)
    port = publisher.bind_to_random_port("tcp://127.0.0.1")
    reader = FeedReader(context, f"tcp://127.0.0.1:{port}")
    time.sleep(0.2)
    for data in (b"", b"\xff" * 50, msgspec.msgpack.encode({"epoch": 3}), msgspec.msgpack.encode("x")):
        publisher.send_multipart([b"local", data])
    assert reader.read(1.0) is None and reader.bad == 4
    reader.close()
    publisher.close()


def test_an_open_address_without_keys_is_refused_before_it_is_bound(context: zmq.Context[Any]) -> None:
    with pytest.raises(InsecureAddress):
        StatusFeed(context, "tcp://0.0.0.0:*", epoch="x", clock=ManualClock())


def test_fault_18_a_scoped_key_sees_its_streams_only(context: zmq.Context[Any], tmp_path: Path) -> None:
    new_key(tmp_path, "tenant-a", role="query", streams=("a/*",))
    new_key(tmp_path, "boss", role="admin")
    new_key(tmp_path, "stranger", role="query")
    stranger = load_keys(tmp_path / "stranger.key_secret")
    revoke(tmp_path, "stranger")
    allow = AllowList(tmp_path / "allow.yaml")
    health = health_of("a/1", "b/secret")
    health.refused = {"key_unknown": 3}
    zap = Authenticator(context, allow)
    feed = StatusFeed(
        context,
        "tcp://127.0.0.1:*",
        epoch="run-1",
        clock=health.clock,
        keys=load_keys(tmp_path / "server.key_secret"),
        allow=allow,
    )
    tenant = FeedReader(context, feed.address, keys=load_keys(tmp_path / "tenant-a.key_secret"))
    boss = FeedReader(context, feed.address, keys=load_keys(tmp_path / "boss.key_secret"))
    outside = FeedReader(context, feed.address, keys=stranger)
    turn(feed, health, tenant)
    turn(feed, health, boss)
    assert tenant.snapshot is not None and boss.snapshot is not None
    assert [stream.stream for stream in tenant.snapshot.streams] == ["a/1"]
    assert [stream.stream for stream in boss.snapshot.streams] == ["a/1", "b/secret"]
    assert tenant.snapshot.drops == {"queue_full": 1} and tenant.snapshot.refused == {}
    # Changes of the other tenant neither arrive nor leave a hole in the sequence.
    feed.publish(changes=health.tick())
    health.left("b/secret")
    feed.publish(changes=health.tick())
    health.left("a/1")
    feed.publish(changes=health.tick())
    seen = list(iter(lambda: tenant.read(0.5), None))
    assert [change.stream for message in seen for change in message.changes] == ["a/1", "a/1"]
    assert tenant.missed == 0 and "secret" not in repr(seen)
    assert outside.read(0.2) is None
    # A revoked key hears nothing more, on the connection that it has.
    revoke(tmp_path, "tenant-a")
    feed.publish(health.snapshot(), whole=True)
    assert tenant.read(0.3) is None and boss.read(2.0) is not None
    for socket in (tenant, boss, outside, feed, zap):
        socket.close()


def test_scoped_snapshots() -> None:
    snapshot = health_of("a/1", "b/2").snapshot()
    snapshot = msgspec.structs.replace(snapshot, refused={"key_unknown": 1}, clients=9)
    assert scoped(snapshot, Grant("x", "admin")) is snapshot
    narrow = scoped(snapshot, Grant("x", "admin", ("b/*",)))
    assert [stream.stream for stream in narrow.streams] == ["b/2"] and narrow.refused == {} and narrow.clients == 0
    assert scoped(snapshot, Grant("x", "query", ("nothing",))).streams == ()
    assert msgspec.json.decode(msgspec.json.encode(snapshot), type=HealthSnapshot) == snapshot
