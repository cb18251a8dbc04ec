"""A relay keeps nothing and loses nothing: what it acknowledges is durable at the far service."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streammem
from perception.publisher import Lossless, Publisher
from streammem.client import connect
from streammem.errors import AccessDenied, InsecureAddress
from streammem.keys import AllowList, load_keys, new_key
from streammem.model import Label, Observation
from streammem.relay import open_relay
from streammem.service import Service

FREE = "tcp://127.0.0.1:*"


def moment(seq: int) -> Observation:
    return Observation(
        stream="kitchen",
        session="s",
        seq=seq,
        capture_ns=1_800_000_000_000_000_000 + seq * 1_000_000_000,
        labels=(Label("mug", 0.9),),
        depth_m=np.full((32, 32), 1 + seq, np.float32),
    )


def until(ready: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it didn't happen in time"
        time.sleep(0.02)


def test_what_is_acknowledged_through_a_relay_is_durable_behind_it(tmp_path: Path) -> None:
    with (
        streammem.open(tmp_path / "memory") as memory,
        Service(memory, bind=FREE) as far,
        open_relay(FREE, far.address) as relay,
        relay,
        Publisher(relay.address) as publisher,
    ):
        receipt = publisher.write([moment(n) for n in range(50)], durable=True)
        assert (receipt.written, receipt.duplicates) == (50, 0) and memory.observation_count == 50
        again = publisher.write([moment(n) for n in range(50)], durable=True)
        assert (again.written, again.duplicates) == (0, 50)
        with connect(relay.address) as client:
            assert client.status().observations == 50 and client.digest() == memory.digest()
            assert client.has("kitchen", "s", 49)


def test_the_far_service_is_away_for_a_while(tmp_path: Path) -> None:
    with streammem.open(tmp_path / "memory") as memory:
        far = Service(memory, bind=FREE)
        address = far.address
        with (
            open_relay(FREE, address, patience_s=0.3) as relay,
            relay,
            Publisher(relay.address, lane=Lossless(packets=64)) as publisher,
        ):
            with far:
                publisher.write(moment(0), durable=True)
            upstream: Any = relay.memory
            for n in range(1, 40):
                publisher.write(moment(n))
            time.sleep(2.0)
            assert memory.observation_count == 1 and publisher.acknowledged == 1
            # Sending again and again doesn't make the relay grow.
            assert upstream.link.held[0] <= 39
            with Service(memory, bind=address):
                publisher.flush()
                until(lambda: memory.observation_count == 40)
            assert publisher.held == 0
        assert [memory.has("kitchen", "s", n) for n in range(40)] == [True] * 40


def test_rights_are_those_of_both_keys(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    new_key(there, "relay", role="produce", streams=("kitchen*",))
    new_key(here, "cam", role="admin", streams=("*",))
    with (
        streammem.open(tmp_path / "memory") as memory,
        Service(
            memory, bind=FREE, keys=load_keys(there / "server.key_secret"), allow=AllowList(there / "allow.yaml")
        ) as far,
        open_relay(
            FREE,
            far.address,
            key=str(there / "relay.key_secret"),
            keys=load_keys(here / "server.key_secret"),
            allow=AllowList(here / "allow.yaml"),
        ) as relay,
        relay,
        connect(relay.address, keys=str(here / "cam.key_secret")) as client,
    ):
        assert client.write([moment(0)]).written == 1
        # An admin here, but the relay may only produce there.
        with pytest.raises(AccessDenied):
            client.forget(stream="kitchen")
        with pytest.raises(AccessDenied):
            client.search("mug")
    with pytest.raises(InsecureAddress), open_relay("tcp://0.0.0.0:*", "tcp://127.0.0.1:1"):
        pass
