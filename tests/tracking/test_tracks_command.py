"""``streammem tracks`` on a small memory, ``watch --track`` with what can't be understood, ``eval tracking``."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import streammem.memory
from streammem.cli.main import run
from streammem.model import Detection, Observation

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("memory")
    picture = np.zeros((60, 100, 3), np.uint8)
    picture[20:40, 30:60] = 200
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    with streammem.memory.open(directory) as memory:
        for n in range(30):
            seen = (Detection("mug", 0.9, (0.3, 0.33, 0.6, 0.67), "7"),) if n % 15 < 8 else ()
            memory.write(
                Observation(stream="cam", seq=n, capture_ns=n * SECOND, detections=seen, thumbnail=jpeg), durable=False
            )
    return directory


def test_the_table_the_audit_and_the_picture(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["tracks", str(place), "--why", "-o", str(tmp_path / "t.png")]) == 0
    out = capfd.readouterr().out
    assert "mug" in out and " 16 " in out and "add      prompt" in out
    sheet = cv2.imread(str(tmp_path / "t.png"))
    assert sheet.shape[1] == 1600
    assert (sheet == np.array([168, 98, 38])).all(axis=2).sum() > 3000, "the stretches, in the object's colour"


def test_the_document(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["tracks", str(place), "--json", "--track", "7"]) == 0
    document = json.loads(capfd.readouterr().out)
    (mug,) = document["tracks"]
    assert [(part[0] // SECOND, part[1] // SECOND) for part in mug["intervals"]] == [(0, 7), (15, 22)]
    assert document["size"][0]["objects"] == 1


def test_nothing_and_nobody(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["tracks", str(place), "--label", "cat"]) == 1
    assert "nothing was tracked there" in capfd.readouterr().out
    assert run(["tracks", str(place), "--track", "8"]) == 2
    assert "there is no track '8' (known: 7)" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["watch", "clip.mp4", "--track", "12;7"], "isn't understood"),
        (["watch", "clip.mp4", "--track", "gone.png"], "there is no file gone.png"),
        (["watch", "clip.mp4", "--to", "tcp://127.0.0.1:1", "--track", "1,2"], "into a memory's directory"),
        (["eval", "tracking", "gone"], "no folder is here"),
        (["eval", "tracking", "gone", "--policy", "smrt"], "no memory policy 'smrt'"),
        (["eval", "tracking", "synthetic:occlusion", "--only", "sideways"], "no 'sideways' in it"),
    ],
)
def test_wrong_use(args: list[str], words: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(args) == 2
    assert words in capfd.readouterr().err
