"""The producer in one file: the same bytes as ours, the same promises, and syntax that Python 3.8 reads."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from live_samples import moment, picture
from live_serve import Running

from perception import mini_producer as mini
from perception.mini_producer import MiniProducer
from streammem import protocol as p
from streammem.model import Detection, Intrinsics, Label, Observation, Pose, Producer, Speech, StateFact, TextSpan
from streammem.wire import encode_observation

FILE = Path(mini.__file__)
POSE = ((1.0, 2.0, 3.0), (0.0, 0.0, 0.0, 1.0))
RNG = np.random.default_rng(7)
VECTOR = np.eye(8, dtype=np.float32)[2]

CASES: dict[str, dict[str, object]] = {
    "bare": {},
    "negative time": {"capture_ns": -5, "media_ns": -(2**40)},
    "picture": {"thumbnail": picture(1)},
    "vector": {"embedding": VECTOR, "space": "words@1"},
    "parts": {
        "parts": {"b": RNG.random((2, 3)), "a": np.zeros((0, 4), np.uint8)},
        "tokens": np.ones((2, 2), np.float16),
    },
    "depth": {"depth_m": RNG.random((4, 6)).astype(np.float32)},
    "labels": {"labels": [("mug", 0.5), ("Käse 🧀", 1)]},
    "detections": {"detections": [("cup", 0.75, (0, 0, 0.5, 1), "t1"), ("cup", 0.1, (0.0, 0.0, 0.5, 1.0), None)]},
    "words": {"texts": [("EXIT", 0.9, None), ("A", 1, (0, 0, 1, 1))], "speech": [("hello", 1, 2, 0.5, "en")]},
    "states": {"states": [("mug-1", "place", "table"), ("lamp", "is", "on", 1, "lamp", "", "hall", 9)]},
    "pose": {"pose": POSE, "intrinsics": (500.0, 500, 320, 240, 640, 480)},
    "pose in a map": {"pose": (*POSE, "house", 3)},
    "numbers": {"stats": {"z": 1.5, "a": 2}, "producer": ("sim", "cam", "1", "abc")},
}


def ours(fields: dict[str, object]) -> Observation:
    given = dict(fields)
    for name, kind in (("labels", Label), ("detections", Detection), ("texts", TextSpan), ("speech", Speech)):
        if name in given:
            rows = [[float(v) if isinstance(v, int) and i == 1 and name != "speech" else v for i, v in enumerate(row)]
                    for row in given[name]]  # type: ignore[attr-defined]  # fmt: skip
            given[name] = tuple(kind(*row) for row in rows)
    if "states" in given:
        given["states"] = tuple(
            StateFact(*row[:3], float((*row, 1.0)[3]), *row[4:])  # type: ignore[misc]
            for row in given["states"]  # type: ignore[attr-defined]
        )
    for name in ("detections", "texts"):
        fixed = []
        for row in given.get(name, ()):  # type: ignore[attr-defined]
            box = None if row.box is None else tuple(float(v) for v in row.box)
            fixed.append(type(row)(**{**{f: getattr(row, f) for f in row.__struct_fields__}, "box": box}))
        if fixed:
            given[name] = tuple(fixed)
    if "pose" in given:
        given["pose"] = Pose(*given["pose"])  # type: ignore[misc]
    if "intrinsics" in given:
        fx, fy, cx, cy, w, h = given["intrinsics"]  # type: ignore[misc]
        given["intrinsics"] = Intrinsics(float(fx), float(fy), float(cx), float(cy), w, h)
    if "producer" in given:
        given["producer"] = Producer(*given["producer"])  # type: ignore[misc]
    if "stats" in given:
        given["stats"] = {name: float(value) for name, value in given["stats"].items()}  # type: ignore[attr-defined]
    return Observation(stream="robot", session="s", seq=300, **{"capture_ns": 10**18, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CASES)
def test_the_same_bytes_as_ours(name: str) -> None:
    fields = {"capture_ns": 10**18, **CASES[name]}
    theirs = mini.encode("robot", 300, session="s", **fields)  # type: ignore[arg-type]
    assert theirs == [bytes(part) for part in encode_observation(ours(CASES[name]), ingest=False)]


def test_golden_bytes() -> None:
    """Fixed for as long as the major version is 1: a producer of today must be understood by a service of later."""
    header = mini.encode("cam", 1, 2, labels=[("mug", 0.5)])[0]
    golden = (
        "de0006a776657273696f6e920100a46b696e64ab6f62736572766174696f6ea673747265616da363616da373657101"
        "aa636170747572655f6e7302a66c6162656c739192a36d7567cb3fe0000000000000"
    )
    assert header.hex() == golden
    assert p.seal(p.Write(id=1)).hex() == "83a46b696e64a57772697465a776657273696f6e920101a2696401"
    assert p.read_from_client(mini.msgpack.packb({"kind": "write", "version": (1, 0), "id": 9})) == p.Write(
        version=(1, 0), id=9
    )


def test_packets_of_a_newer_minor_version_are_understood() -> None:
    message = {"kind": "ping", "version": [1, 7], "id": 3, "mood": "fine"}
    assert p.read_from_client(mini.msgpack.packb(message)).id == 3


def test_it_writes_into_a_service(running: Running) -> None:
    with MiniProducer(running.address, "robot", session="s1", name="test") as producer:
        for i in range(200):
            producer.send(capture_ns=i, thumbnail=picture(i % 5), labels=[("mug", 0.5)])
        producer.flush()
        assert producer.acknowledged == 200
        producer.send(capture_ns=1, labels=[("mug", 7.0)])
        producer.flush()
        assert producer.refused == {"labels": 1}
    assert running.memory.observation_count == 200


def test_it_sends_again_after_a_restart(serve: Callable[..., Running], tmp_path: Path) -> None:
    first = serve()
    address, directory = first.address, first.memory.directory
    producer = MiniProducer(address, "robot", session="s1")
    for i in range(50):
        producer.send(capture_ns=i)
    producer.flush()
    first.service.__exit__(None, None, None)
    first.memory.close()
    for i in range(50, 100):
        producer.send(capture_ns=i)
    assert len(producer) == 50
    second = serve(directory, bind=address)
    producer.flush()
    assert producer.close() == 0
    assert second.memory.observation_count == 100


def test_the_live_lane_keeps_the_newest(serve: Callable[..., Running]) -> None:
    producer = MiniProducer("tcp://127.0.0.1:1", "robot", packets=10, live=True)
    for i in range(50):
        producer.send(capture_ns=i)
    assert (len(producer), producer.dropped) == (10, 40)
    assert producer.close(timeout_s=0.1) == 10


def test_the_same_observation_through_both(running: Running) -> None:
    """Written by us and by the mini producer it is one observation."""
    ob = moment(3)
    running.memory.write(ob)
    labels = [(label.name, label.score) for label in ob.labels]
    message = mini.encode(ob.stream, ob.seq, ob.capture_ns, session=ob.session, space=ob.space, embedding=ob.embedding,
                          parts=ob.parts, thumbnail=ob.thumbnail, labels=labels, stats=ob.stats)  # fmt: skip
    assert message == [bytes(part) for part in encode_observation(ob, ingest=False)]


def test_python_38_can_read_it() -> None:
    ast.parse(FILE.read_text(encoding="utf-8"), feature_version=(3, 8))


def old_interpreters() -> list[str]:
    found = [os.environ["STREAMMEM_OLD_PYTHON"]] if "STREAMMEM_OLD_PYTHON" in os.environ else []
    found += [str(path) for path in sorted(Path.home().glob(".pyenv/versions/3.[89]*/bin/python"))]
    return found + [path for name in ("python3.8", "python3.9", "python3.10") if (path := shutil.which(name))]


def test_a_real_older_interpreter(running: Running) -> None:
    for python in old_interpreters():
        done = subprocess.run([python, "-c", "import zmq, msgpack"], capture_output=True, timeout=30, check=False)
        if done.returncode == 0:
            break
    else:
        pytest.skip("no Python older than 3.11 with pyzmq and msgpack is installed here")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from mini_producer import MiniProducer\n"
        "p = MiniProducer(sys.argv[2], 'old')\n"
        "[p.send(capture_ns=i) for i in range(20)]\n"
        "sys.exit(p.close())"
    )
    done = subprocess.run([python, "-c", code, str(FILE.parent), running.address], timeout=60, check=False)
    assert done.returncode == 0
    assert running.memory.observation_count == 20


def test_it_needs_nothing_but_pyzmq_and_msgpack() -> None:
    tree = ast.parse(FILE.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    ours_too = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}
    assert ours_too == {"msgpack", "zmq"}
    assert importlib.util.find_spec("msgpack") is not None
