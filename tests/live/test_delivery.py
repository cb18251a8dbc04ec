"""Delivery: credits, resends, duplicates, lanes, reconnects, restarts, silence. Faults 5-7, 10, 11, 14, 15, 29, 30."""

from __future__ import annotations

import errno
import os
import signal
import socket as sockets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import msgspec
import pytest
import zmq
from live_process import Relay, ServiceProcess
from live_samples import FAST, fake_space, moment, until
from live_serve import Running

import streammem.memory
from perception.publisher import KeepNewest, Lossless, Publisher
from streammem import protocol as p
from streammem.client import connect
from streammem.errors import (
    DeadlineExceeded,
    MemoryLocked,
    ProtocolError,
    ServiceUnreachable,
)
from streammem.link import Link
from streammem.service import Service
from streammem.storage.files import Files
from streammem.wire import encode_observation


def publisher(address: str, **options: object) -> Publisher:
    return Publisher(address, timing=FAST, timeout_s=20.0, **options)  # type: ignore[arg-type]


def test_nobody_there() -> None:
    begun = time.monotonic()
    with pytest.raises(ServiceUnreachable, match=r"no memory service answers at tcp://127\.0\.0\.1:9") as caught:
        connect("tcp://127.0.0.1:9", connect_s=0.5)
    assert caught.value.exit_code == 3
    assert "streammem serve" in caught.value.hint
    assert time.monotonic() - begun < 3


def test_something_else_there() -> None:
    """A server that isn't a memory service: unreachable in the time given, whatever it says."""
    with sockets.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ServiceUnreachable):
            connect(f"tcp://127.0.0.1:{port}", connect_s=0.5)


def test_fault_06_a_service_that_is_away_makes_a_lossless_producer_wait() -> None:
    with publisher("tcp://127.0.0.1:9", lane=Lossless(packets=20, patience_s=0.3)) as away:
        with pytest.raises(ServiceUnreachable):
            away.write([moment(i) for i in range(100)])
        assert away.held == 20
        assert away.close(wait_s=0.0) == 20


def test_fault_06_a_live_producer_keeps_the_newest_and_counts(serve: Callable[..., Running], tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/late.sock"
    live = publisher(address, lane=KeepNewest(packets=10))
    for i in range(100):
        live.write(moment(i))
    assert live.held == 10
    assert live.drops == {"live_replaced": 90}
    running = serve(bind=address)
    live.flush()
    assert [running.memory.has("kitchen", "s1", i) for i in (0, 89, 90, 99)] == [False, False, True, True]
    health = running.service.telling.health
    until(lambda: health.snapshot().drops.get("live_replaced") == 90)
    live.close()


def test_fault_06_the_buffer_is_bounded_in_bytes() -> None:
    with publisher("tcp://127.0.0.1:9", lane=KeepNewest(packets=10_000, bytes=50_000)) as live:
        for i in range(200):
            live.write(moment(i))
        assert live.held_bytes <= 50_000
        assert live.drops["live_replaced"] == 200 - live.held
        live.close(wait_s=0)


def test_a_restart_of_the_service(serve: Callable[..., Running]) -> None:
    """Nothing acknowledged is lost and nothing twice: the producer notices another epoch and sends again."""
    first = serve()
    producer = publisher(first.address)
    producer.write([moment(i) for i in range(30)])
    producer.flush()
    first.service.__exit__(None, None, None)
    first.memory.close()
    producer.write([moment(i) for i in range(30, 60)])
    second = serve(first.memory.directory, bind=first.address)
    producer.write([moment(i) for i in range(60, 90)])
    producer.flush()
    assert second.memory.observation_count == 90
    assert producer.close() == 0


def test_fault_10_duplicates_across_a_reconnect_are_kept_once(running: Running) -> None:
    producer = publisher(running.address)
    producer.write([moment(i) for i in range(50)], durable=True)
    again = producer.write([moment(i) for i in range(50)], durable=True)
    assert (again.written, again.duplicates) == (0, 50)
    assert running.memory.observation_count == 50
    assert running.memory.status().drops == {"duplicate": 50}
    producer.close()


def test_fault_11_late_packets_are_kept_in_order_and_counted(running: Running) -> None:
    """Out of order is ordered by capture time; a packet an hour late is kept where it belongs, and counted."""
    with running.connect() as client:
        order = [3, 1, 2, 200_000, 0, 5]
        for number in order:
            client.write(moment(number))
    times = [record.t_start_ns for record in running.memory]
    assert times == sorted(times) and len(times) == 6
    assert running.service.telling.counts["late"] == 2


def test_a_request_is_sent_again_after_a_cut_and_done_once(serve: Callable[..., Running]) -> None:
    """The network is cut while a change is under way: a relay in between drops the connection."""
    running = serve()
    relay = Relay(running.address)
    with connect(relay.address, timing=FAST) as client:
        client.write([moment(i) for i in range(20)])
        relay.cut()
        assert client.forget(stream="kitchen", between=(0, 10 * 33_333_333)).observations == 11
        relay.cut()
        assert client.write([moment(i) for i in range(20, 40)]).written == 20
        assert client.observation_count == 29
    relay.close()


def test_fault_15_half_open_tcp_is_noticed(running: Running) -> None:
    """The connection stays open and nothing moves any more, as after a router lost its table."""
    relay = Relay(running.address)
    producer = publisher(relay.address)
    producer.write([moment(i) for i in range(10)], durable=True)
    relay.frozen.set()
    producer.write([moment(i) for i in range(10, 20)])
    until(lambda: not producer.connected)
    relay.frozen.clear()
    relay.cut()
    producer.flush()
    assert running.memory.observation_count == 20
    producer.close()
    relay.close()


def test_network_cuts_while_writing(running: Running) -> None:
    relay = Relay(running.address)
    producer = publisher(relay.address)
    for i in range(400):
        producer.write(moment(i, full=False))
        if i % 60 == 59:
            relay.cut()
    producer.flush()
    assert running.memory.observation_count == 400
    assert producer.acknowledged + producer.duplicates == 400
    producer.close()
    relay.close()


@pytest.mark.slow
def test_fault_14_a_reconnect_storm_of_100(serve: Callable[..., Running]) -> None:
    first = serve()
    with ThreadPoolExecutor(20) as pool:
        producers = list(pool.map(lambda _: publisher(first.address), range(100)))
        for number, producer in enumerate(producers):
            producer.write(moment(0, f"cam-{number}", full=False))
        list(pool.map(lambda producer: producer.flush(), producers))
        first.service.__exit__(None, None, None)
        first.memory.close()
        for number, producer in enumerate(producers):
            producer.write([moment(i, f"cam-{number}", full=False) for i in range(1, 4)])
        second = serve(first.memory.directory, bind=first.address)
        begun = time.monotonic()
        list(pool.map(lambda producer: producer.flush(), producers))
        assert time.monotonic() - begun < 20
        assert second.memory.observation_count == 400
        assert len(second.service._peers) == 100
        list(pool.map(lambda producer: producer.close(), producers))
    until(lambda: len(second.service._peers) == 0)


def test_a_dead_client_frees_what_it_held(running: Running) -> None:
    """Without a goodbye: the identity is forgotten as soon as an answer can't be delivered."""
    with zmq.Context() as context:
        for _ in range(20):
            with context.socket(zmq.DEALER) as socket:
                socket.linger = 0
                socket.connect(running.address)
                socket.send_multipart([p.seal(p.Hello(id=0, client="dead"))])
                assert socket.poll(2000)
                body = [bytes(part) for part in encode_observation(moment(1), ingest=False)]
                socket.send_multipart([p.seal(p.Write(id=1)), *body])
                assert socket.poll(2000)
    for peer in running.service._peers.all():
        peer.heard_at -= 60
    until(lambda: len(running.service._peers) == 0)
    assert running.service._lanes.bytes == 0


def test_fault_07_a_slow_question_does_not_delay_packets(
    serve: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve()
    real = running.memory.search

    def slow(*args: object, **options: object) -> object:
        time.sleep(2.0)
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(running.memory, "search", slow)
    with running.connect() as asking, running.connect() as writing, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(asking.search, "mug")
        time.sleep(0.1)
        slowest = 0.0
        for i in range(50):
            begun = time.monotonic()
            writing.write(moment(i))
            slowest = max(slowest, time.monotonic() - begun)
        assert not answer.done()
        answer.result()
    assert slowest < 0.5


def test_a_deadline(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.memory, "search", lambda *a, **k: time.sleep(1.5) or [])
    with running.connect() as client:
        with pytest.raises(DeadlineExceeded, match=r"is there and didn't answer within 0\.3 s"):
            client.search("mug", timeout_s=0.3)
        assert client.streams() == []


def test_one_flooding_stream_does_not_starve_another(serve: Callable[..., Running]) -> None:
    running = serve()
    stop = threading.Event()

    def flood(number: int) -> None:
        with publisher(running.address, lane=Lossless(packets=256)) as producer:
            at = 0
            while not stop.is_set():
                producer.write(moment(at, "flood", session=str(number), full=False))
                at += 1

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    slowest = 0.0
    with running.connect() as client:
        until(lambda: running.service.telling.counts["written"] > 200)
        for i in range(30):
            begun = time.monotonic()
            client.write(moment(i, "quiet", full=False))
            slowest = max(slowest, time.monotonic() - begun)
    stop.set()
    for thread in threads:
        thread.join()
    # Fair by stream: the quiet one waits for one group, not for the flood's 512 packets.
    assert slowest < 2.0


class FullDisk(Files):
    full = False

    def write(self, handle: IO[bytes], data: bytes) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(handle, data)


def test_fault_05_a_full_disk(tmp_path: Path) -> None:
    """Nothing is acknowledged while the disk is full, questions are answered, and the producer gets through after."""
    files = FullDisk()
    with (
        streammem.memory.open(tmp_path / "m", files=files, spaces=fake_space) as memory,
        Service(memory, bind="tcp://127.0.0.1:*") as service,
    ):
        producer = publisher(service.address)
        producer.write([moment(i) for i in range(10)], durable=True)
        files.full = True
        producer.write([moment(i) for i in range(10, 20)])
        until(lambda: service.telling.counts["refused"] >= 10)
        assert producer.acknowledged == 10
        with connect(service.address, timing=FAST) as client:
            assert client.search("mug")
        files.full = False
        producer.flush()
        assert memory.observation_count == 20
        producer.close()


def test_fault_29_two_services_on_one_directory(running: Running, tmp_path: Path) -> None:
    with pytest.raises(MemoryLocked, match=str(os.getpid())):
        streammem.memory.open(running.memory.directory)
    command = [sys.executable, "-m", "streammem", "serve", str(running.memory.directory), "--bind", "ipc:///tmp/x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert str(os.getpid()) in done.stderr


def test_two_services_on_one_address(running: Running, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streammem", "serve", str(tmp_path / "other"), "--bind", running.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "can't be bound" in done.stderr


def test_fault_30_sigterm_under_load(tmp_path: Path) -> None:
    """Everything that was received is written within the declared time, and the exit code is 0."""
    with ServiceProcess(tmp_path / "memory") as service:
        producers = [publisher(service.address) for _ in range(3)]
        for number, producer in enumerate(producers):
            producer.write([moment(i, f"cam-{number}") for i in range(150)])
        until(lambda: sum(producer.acknowledged for producer in producers) > 50)
        begun = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
        assert time.monotonic() - begun < 10
    acknowledged = sum(producer.acknowledged for producer in producers)
    with streammem.memory.open(tmp_path / "memory", spaces=fake_space) as memory:
        assert memory.observation_count >= acknowledged
    for producer in producers:
        producer.close(wait_s=0.0)


def test_systemd_is_told_the_truth(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(20)
        environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "300000"}
        with ServiceProcess(tmp_path / "memory", environment=environment) as service:
            assert listener.recv(1000).startswith(b"READY=1\n")
            assert listener.recv(1000) == b"WATCHDOG=1"
            service.process.send_signal(signal.SIGTERM)
            while (said := listener.recv(1000)) == b"WATCHDOG=1":
                pass
            assert said.startswith(b"STOPPING=1\nEXTEND_TIMEOUT_USEC=10000000")
            assert service.process.wait(20) == 0


def test_an_older_service_is_refused_by_name(tmp_path: Path) -> None:
    """A service that answers in protocol 2 ends the wait at once, with both versions."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        port = router.bind_to_random_port("tcp://127.0.0.1")

        def answer() -> None:
            if router.poll(5000):
                identity, *_ = router.recv_multipart()
                reply = {"kind": "welcome", "version": [2, 0], "id": 0}
                router.send_multipart([identity, msgspec.msgpack.encode(reply)])

        thread = threading.Thread(target=answer)
        thread.start()
        link = Link(f"tcp://127.0.0.1:{port}", timing=FAST)
        link.start()
        with pytest.raises(ProtocolError, match=r"protocol 2\.0, this release speaks 1\.\d"):
            link.wait_welcome(5)
        link.close()
        thread.join()
