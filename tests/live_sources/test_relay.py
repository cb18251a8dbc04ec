"""A relay keeps nothing and loses nothing: what it acknowledges is durable at the far service."""

from __future__ import annotations

import time
from pathlib import Path

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


def moment(seq: int) -> Observation:
    return Observation(
        stream="kitchen",
        session="s",
        seq=seq,
        capture_ns=1_800_000_000_000_000_000 + seq * 1_000_000_000,
        labels=(Label("mug", 0.9),),
        depth_m=np.full((32, 32), 1 + seq, np.float32),
    )


def until(ready: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < end, "it didn't happen in time"
        time.sleep(0.02)


def test_what_is_acknowledged_through_a_relay_is_durable_behind_it(tmp_path: Path) -> None:
    with streammem.open(tmp_path / "memory") as memory:
        far = Service(memory, bind="tcp://127.0.0.1:*")
        address = far.address
        with (
            far,
            open_relay(
                "tcp://127.0.0.1:*",
                far.address,
                key=str(tmp_path / "far" / "relay.key_secret"),
                keys=load_keys(tmp_path / "here" / "server.key_secret"),
                allow=AllowList(tmp_path / "here" / "allow.yaml"),
            ) as relay,
            relay,
            connect(relay.address, keys=str(tmp_path / "here" / "cam.key_secret")) as client,
        ):
            assert client.write([moment(0)]).written == 1
            # An admin here, but the relay may only produce there.
            with pytest.raises(AccessDenied):
                client.forget(stream="kitchen")
            with pytest.raises(AccessDenied):
                client.search("mug")
    with pytest.raises(InsecureAddress), open_relay("tcp://0.0.0.0:*", "tcp://127.0.0.1:1"):
        pass
