"""``ask --reasoner`` and ``timeline`` as people run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
for folder in ("storage", "recall", "reason"):
    sys.path.insert(0, str(ROOT / "tests" / folder))
from sample_moments import observation  # noqa: E402

import streammem.memory  # noqa: E402


def run(*args: str | Path, cache: Path, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("STREAMMEM")}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH", "")]))
    kept |= {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "STREAMMEM_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-m", "streammem", *map(str, args)],
        capture_output=True,
        text=True,
        env=kept,
        timeout=timeout,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    with streammem.memory.open(folder / "m") as memory:
        memory.write([observation(n) for n in range(120)])
    return folder / "m"


def test_a_tree_and_a_picture(place: Path, tmp_path: Path) -> None:
    import cv2

    done = run("timeline", place, "-o", tmp_path / "t.png", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "24 entries of 5.0 s" in done.stdout and done.stdout.count("├──") == 23
    picture = cv2.imread(str(tmp_path / "t.png"))
    assert picture.shape[1] == 1600 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    span = ("--between", "1970-01-01T00:00:10Z", "1970-01-01T00:00:20Z")
    deep = run("timeline", place, "--depth", "2", *span, "--json", cache=tmp_path)
    found = json.loads(deep.stdout)["entries"]
    assert {entry["level"] for entry in found} == {"coarse", "fine"}
    assert all(entry["records"] for entry in found)


REFUSED = [
    (("--budget", "calls=2"), "--budget and --option are a reasoner's"),
    (("--reasoner", "clever"), "no reasoner is called 'clever'"),
    (("--reasoner", "flat", "--budget", "money=2"), "isn't understood"),
    (("--reasoner", "flat", "--option", "a", "--option", "A"), "options 1 and 2 are the same"),
]


@pytest.mark.parametrize(("flags", "message"), REFUSED, ids=[row[1] for row in REFUSED])
def test_wrong_use(place: Path, tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    done = run("ask", place, "the gate", *flags, cache=tmp_path)
    assert done.returncode == 2 and message in done.stderr.replace("\n", " ")


def test_plain_ask_imports_no_reasoning(place: Path) -> None:
    """Plain ``ask`` stays as quick as it was."""
    code = (
        "import sys; from streammem.cli.main import run; "
        f"run(['ask', {str(place)!r}, 'GATE 3', '--json']); "
        "sys.exit(int(any(name.startswith('streammem.reason') for name in sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_baseline_with_a_trace(place: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    flags = ("--reasoner", "uniform", "--budget", "frames=60", "--trace", trace)
    done = run("ask", place, "GATE 9", *flags, "--json", cache=tmp_path)
    answer = json.loads(done.stdout)
    assert answer["reasoner"] == "uniform" and not answer["partial"] and answer["spent"]["records"] <= 60
    steps = json.loads(trace.read_text())["steps"]
    assert steps[0]["action"] == "coarse" and "60 looks" in steps[0]["why"]
    nothing = run("ask", place, "GATE 9", "--reasoner", "embedded", "--budget", "seconds=0", "--json", cache=tmp_path)
    found = json.loads(nothing.stdout)
    assert found["partial"] and found["why"] == "the budget of seconds is spent" and found["status"] == "unsure"


@pytest.mark.slow
def test_a_second_look_finds_a_sign_that_was_missed_and_is_kept(tmp_path: Path) -> None:
    """A sign is there for two seconds between the looks of a memory that looks every six."""
    import av
    import cv2

    clip = tmp_path / "shop.mp4"
    # Another recording in every run: the cache of second looks may be one that earlier runs used.
    noise = np.random.default_rng(time.time_ns()).integers(0, 255, (8, 8, 3), np.uint8)
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 320, 240, "yuv420p", 2_000_000
        for number in range(240):
            picture = np.full((240, 320, 3), (40, 160, 60), np.uint8)
            picture[-8:, -8:] = noise
            if 80 <= number < 100:
                cv2.rectangle(picture, (40, 70), (280, 170), (255, 255, 255), -1)
                cv2.putText(picture, "OPEN", (65, 145), cv2.FONT_HERSHEY_SIMPLEX, 2.2, (0, 0, 0), 6)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    flags = ("--set", "perception.speech=off", "--set", "perception.threads=1", "--fps", "0.1667")
    flags = (*flags, "--memory", str(tmp_path / "m"), "--json")
    cache = Path(os.environ.get("STREAMMEM_CACHE") or tmp_path / "cache")
    plain = json.loads(run("ask", clip, "where is the OPEN sign?", *flags, cache=cache).stdout)
    assert plain["status"] != "found"
    deep = ("--reasoner", "embedded", "--budget", "rounds=20,frames=200", "--trace", tmp_path / "t.json")
    found = json.loads(run("ask", clip, "where is the OPEN sign?", *flags, *deep, cache=cache).stdout)
    assert found["status"] == "found" and found["stage"] == "loop" and found["spent"]["frames"] > 0
    assert 8e9 - 1e9 <= found["evidence"][0]["t_start_ns"] <= 10e9
    again = json.loads(run("ask", clip, "where is the OPEN sign?", *flags, *deep, cache=cache).stdout)
    assert again["status"] == "found" and again["spent"]["frames"] == 0, "the second question paid for no frame"
    gone = run("forget", tmp_path / "m", "--all", "--yes", cache=cache)
    assert "second looks" in gone.stdout
