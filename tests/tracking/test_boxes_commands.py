"""``streammem eval tracking`` on MOTChallenge's layout, and what ``watch --track`` refuses before it watches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streammem.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    told = capsys.readouterr()
    return int(done.value.code or 0), told.out, told.err


def sequence(folder: Path, frames: int = 20) -> Path:
    folder.mkdir(parents=True)
    truth, found = [], []
    for t in range(1, frames + 1):
        for name, x in ((1, 10 + 4 * t), (2, 300 - 4 * t)):
            truth.append(f"{t},{name},{x},50,30,80,1,-1,-1,-1")
            found.append(f"{t},-1,{x},50,30,80,0.9,-1,-1,-1")
    (folder / "gt.txt").write_text("\n".join(truth) + "\n")
    (folder / "det.txt").write_text("\n".join(found) + "\n")
    (folder / "seqinfo.ini").write_text(f"[Sequence]\nseqLength={frames}\nimWidth=400\nimHeight=200\nframeRate=10\n")
    return folder


def test_eval_tracking_of_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequence(tmp_path / "one")
    code, out, _ = run(capsys, "eval", "tracking", str(tmp_path), "--json")
    (ours,) = [one for one in json.loads(out)["runs"] if one["tracker"] == "association"]
    # Two things that pass each other; each is seen once before it counts: 2 of 40 boxes.
    assert code == 0 and ours["score"]["missed"] == 2 and ours["score"]["switches"] == 0
    assert ours["score"]["idf1"] == pytest.approx(2 * 38 / (40 + 38))
    code, out, err = run(capsys, "eval", "tracking", str(tmp_path), "--only", "two")
    assert code == 2 and "there is no 'two' in it" in err
    code, out, _ = run(capsys, "eval", "tracking", str(tmp_path), "--quiet", "--blackout", "6")
    assert code == 0 and "association" in out and "IDF1" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--track", "detector:nowhere.onnx"], "there is no detector at nowhere.onnx"),
        (["--track", "detector:a.onnx", "--track", "detector:b.onnx"], "--track takes one detector"),
        (["--track", "5,5", "--track-model", "/nowhere/sam"], "there is no folder /nowhere/sam"),
    ],
)
def test_told_before_watching(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    if "--track-model" in arguments:
        pytest.importorskip("transformers", reason="needs the models extra")
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "watch", "clip.mp4", "--memory", str(tmp_path / "mem"), *arguments)
    assert code == 2 and words in err and not (tmp_path / "mem").exists()
