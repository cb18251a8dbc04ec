"""``streammem map``: what it prints, writes, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from box_room_samples import centre_of, moment, opened

from streammem.cli.main import run


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("mapped")
    with opened(place) as memory:
        memory.write([moment(n) for n in range(24)])
    return place


def test_picture_points_and_things(mapped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, cloud = tmp_path / "map.png", tmp_path / "map.ply"
    voxels = ["--set", "spatial.voxel_m=0.1"]
    code = run(["map", str(mapped), "-o", str(picture), "--ply", str(cloud), "--where", "mug", "--json", *voxels])
    document = json.loads(capsys.readouterr().out)
    assert code == 0 and document["things"][0]["label"] == "mug"
    assert np.linalg.norm(np.array(document["things"][0]["point_m"]) - centre_of("mug")) < 0.25
    drawn = cv2.imread(str(picture), cv2.IMREAD_COLOR_RGB)
    assert drawn is not None and min(drawn.shape[:2]) > 300
    for colour in ((52, 56, 66), (252, 252, 250), (200, 199, 195), (200, 40, 40)):
        assert (drawn == colour).all(axis=2).sum() > 20, f"occupied, free, unknown and the hit are drawn: {colour}"
    header, _, body = cloud.read_bytes().partition(b"end_header\n")
    assert f"element vertex {document['points']}\n".encode() in header and len(body) == 15 * document["points"]


def test_words_and_exit_codes(mapped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["map", str(mapped), "--where", "the kettle"]) == 0
    assert "kettle at (" in capsys.readouterr().out
    assert run(["map", str(mapped), "--where", "elephant"]) == 1
    assert "nothing of 'elephant' was seen" in capsys.readouterr().out
    assert run(["map", str(mapped), "--from", "0", "--to", "vase"]) == 0
    assert "over the places 0" in capsys.readouterr().out
    assert run(["map", str(mapped), "--from", "0"]) == 2
    assert run(["map", str(mapped), "--frame", "attic", "--where", "mug"]) == 2
    assert "nothing is mapped in the frame 'attic'" in capsys.readouterr().err
    with opened(tmp_path) as memory:
        memory.write([moment(n, pose=None) for n in range(2)])
    assert run(["map", str(tmp_path), "-o", str(tmp_path / "no.png")]) == 1
    assert "no stream here sends poses" in capsys.readouterr().out and not (tmp_path / "no.png").exists()
