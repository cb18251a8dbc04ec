"""``streammem reembed`` as people run it, with pictures decoded again from the source."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_reembed import NEW

import streammem.memory
import streammem.spaces
from perception.encoders.fake import HistogramSuite
from perception.pipeline import watch
from perception.sources import open_source
from streammem.cli.main import run
from streammem.config import PerceptionConfig

SCENE = "synthetic:mixed?seconds=12&seed=5&rate=10&scene=3&size=160x120"


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def test_the_source_gives_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No thumbnail is kept: only the source can tell what the moments looked like."""
    place = tmp_path / "memory"
    perception = PerceptionConfig(fps=2, thumbnail_px=0)
    with streammem.memory.open(place) as memory:
        watch(open_source(SCENE, perception), memory, HistogramSuite(), perception)
        count = memory.observation_count
    monkeypatch.setattr(streammem.spaces, "open_space", lambda name, **options: NEW)
    command = ["reembed", str(place), "--space", "corners3", "--json"]
    assert run([*command, "--dry-run"]) == 1
    assert told(capsys)["segments"] == 0, "nothing is sealed yet; the switch seals"
    assert run(command) == 0
    report = told(capsys)
    assert (report["embedded"], report["lent"], report["kept"]) == (count, 0, 0)
    with streammem.memory.open(place, mode="read", spaces=lambda name: NEW) as memory:
        frames = {frame.capture_ns: frame.image for frame in open_source(SCENE, perception).frames()}
        for record in memory:
            expected = NEW.embed_frames([frames[record.t_start_ns]])[0].vector
            assert np.allclose(record.vector, expected, atol=1e-3)  # float16 keeps three digits
    assert run([*command, "--rollback"]) == 0
    assert told(capsys)["rolled_back"] >= 1, "moments, and the events that were marked stale"
    assert run([*command, "--rollback"]) == 2
    assert "no change of space is kept" in capsys.readouterr().err


def test_while_somebody_writes_it_stages_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "memory"
    perception = PerceptionConfig(fps=2)
    monkeypatch.setattr(streammem.spaces, "open_space", lambda name, **options: NEW)
    with streammem.memory.open(place) as memory:
        watch(open_source(SCENE, perception), memory, HistogramSuite(), perception)
        memory.seal()
        assert run(["reembed", str(place), "--space", "corners3"]) == 2
        assert "everything is staged" in capsys.readouterr().err
        assert {block.space for block in memory.blocks()} == {"histogram@1"}
    assert run(["reembed", str(place), "--space", "corners3", "--json"]) == 0
    report = told(capsys)
    assert (report["segments"], report["found"]) == (0, 1)
    assert run(["reembed", str(place), "--discard", "--json"]) == 0
    assert not (place / "reembed").exists()
