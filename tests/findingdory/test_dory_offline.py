"""The offline set end to end: rows and mp4 videos of our generator in the published layout, watched and scored."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nav.env import CameraSpec
from nav.findingdory import offline_run
from nav.findingdory.clock import DayClock
from nav.findingdory.dataset import OfflineRow, OfflineSet
from nav.findingdory.metered import Metered
from nav.findingdory.offline_run import make_agent, run, score
from nav.findingdory.video_agents import ModelWatcher, Watcher
from nav.findingdory.video_memory import frame_times, still_blocks
from nav.grid_env import GridEnv
from nav.homes.experience import Experience, make_experience
from nav.homes.export import write_offline_set
from nav.homes.layout import make_home
from perception.encoders.fake import HistogramSuite
from streammem.cli.evals.findingdory import app
from streammem.config import Config
from streammem.errors import BudgetSpent, InputError, ServiceUnreachable, SourceError, SourceNotFound
from streammem.reason.base import Budget, Limits
from streammem.reason.models import Endpoint

sys.path.append(str(Path(__file__).parents[1] / "reason"))
import chat_server

SEED = 4


@pytest.fixture(scope="module")
def day() -> Experience:
    return make_experience(make_home(SEED), interactions=2)


@pytest.fixture(scope="module")
def root(day: Experience, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows' episodes, one video: the other is missing."""
    made = tmp_path_factory.mktemp("offline")
    camera = CameraSpec(36, 48)
    rows = write_offline_set(made, {"ep_4": (day, GridEnv(day.home, camera=camera))})
    lost = [{**row, "ep_id": "ep_5", "video": "videos/val/ep_5.mp4"} for row in rows[:3]]
    with (made / "validation.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in lost)
    write_offline_set(made / "96", {"ep_4": (day, GridEnv(day.home, camera=camera))}, frames=96)
    return made


def suite(_: Config) -> HistogramSuite:
    return HistogramSuite()


def no_model() -> Metered:
    raise AssertionError("no model was asked for")


def made(name: str) -> Any:
    return make_agent(name, suite, Config(), no_model)


def test_it_watches_answers_and_scores(root: Path, day: Experience, tmp_path: Path) -> None:
    """From pixels, without any space that knows words: what the hands did is seen, so order and counts are."""
    missed: list[SourceNotFound] = []
    report = run(OfflineSet(root), ["oracle", "random", "pixels"], tmp_path, make=made, missed=missed.append)
    scores = {name: one["all"] for name, one in report["agents"].items()}
    assert all(scores["oracle"][key] == 1 for key in offline_run.SCORES)
    assert scores["pixels"]["relaxed_any"] > 3 * max(scores["random"]["relaxed_any"], scores["oracle"]["chance"])
    assert report["agents"]["pixels"]["by_category"]["Ordered Revisitation"]["relaxed_any"] == 1
    assert scores["pixels"]["exact"] <= scores["pixels"]["relaxed_precision"] <= scores["pixels"]["relaxed_any"]
    episode = report["agents"]["pixels"]["by_episode"]["ep_4"]
    assert episode["memory_bytes"] > 10_000 and episode["watch_s"] > 0
    assert report["agents"]["random"]["by_episode"]["ep_4"]["memory_bytes"] == 0
    assert report["frames"] == len(day.frames) and report["episodes"] == ["ep_4"]
    # The episode without a video is named, with how to obtain it, and left out.
    assert "ep_5" in missed[0].message and "hf download yali30/findingdory videos.zip" in missed[0].hint
    assert len(report["missing"]) == 1
    text = (tmp_path / "report.md").read_text()
    for words in ("relaxed_any by category", "Why answers failed", "memory MB", "Left out: 1 episodes", "ep_5.mp4"):
        assert words in text


def test_frames_of_the_video_are_frames_of_the_day(root: Path, day: Experience) -> None:
    """Picture i of the mp4 is step i, record i and minute i; the hands' work is seen to the frame."""
    path = root / "videos/val/ep_4.mp4"
    times = frame_times(path)
    assert len(times) == len(day.frames) and times[0] == 0 and times == sorted(set(times))
    agent = Watcher(suite, Config())
    agent.watch(path, times)
    known = agent._recollected()
    assert known.frames == list(range(len(day.frames)))
    truth = [span for i in day.interactions for span in ((i.pick_step, i.nav_place_step), (i.place_step, i.end_step))]
    assert len(known.blocks) == len(truth) and len(known.deeds) == 2
    for seen, real in zip(known.blocks, truth, strict=True):
        assert abs(seen[0] - real[0]) <= 2 and abs(seen[1] - real[1]) <= 2
    assert known.deeds[1].placed_ns == (
        DayClock().capture_ns(known.blocks[3][0]),
        DayClock().capture_ns(known.blocks[3][1]),
    )
    agent.close()
    with pytest.raises(InputError, match="watched yet"):
        _ = agent.memory


def test_the_96_frame_set(root: Path, tmp_path: Path) -> None:
    rows = OfflineSet(root / "96", frames=96)
    report = run(rows, ["oracle", "random", "pixels"], tmp_path, make=made)
    assert report["frames"] == 96 and report["agents"]["oracle"]["all"]["relaxed_any"] == 1
    said = json.loads((tmp_path / "episodes/ep_4-pixels.json").read_text())["rows"]
    frames = [
        f for row in said.values() if row["said"].startswith("[[") for goal in json.loads(row["said"]) for f in goal
    ]
    assert frames and all(0 <= frame < 96 for frame in frames)
    # Other rows, other results: nothing of the full-length run is taken for one of these.
    assert report["setting"]["fingerprint"] != OfflineSet(root).fingerprint


ROW = OfflineRow(
    ep_id="ep_1", video="v", question="Go.", answer=[[3, 4], [7, 8]], answer_text="[[3, 4], [7, 8]]", task=52,
    high_level_category="Multi-Goal Tasks", low_level_category="Unordered Revisitation", num_interactions=2,
)  # fmt: skip
NONE = OfflineRow(**{**{f: getattr(ROW, f) for f in ROW.__struct_fields__}, "answer": [[-1]], "answer_text": "[[-1]]"})


@pytest.mark.parametrize(
    ("said", "row", "failure", "relaxed_any", "precision", "official", "exact", "exact_official"),
    [
        ("[[3, 9], [7]]", ROW, "", 1, 0.5, 0.5, 0, 0),  # acceptance 13
        ("[[3, 4], [7, 8]]", ROW, "", 1, 1, 1, 1, 1),
        ("[[3,4],[8,7]]", ROW, "", 1, 1, 1, 1, 0),  # official compares text
        ("the second frame", ROW, "response_error", 0, 0, 0, 0, 0),
        ("", ROW, "response_error", 0, 0, 0, 0, 0),
        ("[[3], [7], [7]]", ROW, "num_targets_error", 0, 0, 0, 0, 0),
        ("[[3]]", ROW, "num_targets_error", 0, 0, 0, 0, 0),
        ("[[3], [100]]", ROW, "out_of_bounds_pred", 0, 0, 0, 0, 0),
        ("[[-5], [7]]", ROW, "out_of_bounds_pred", 0, 0, 0, 0, 0),
        ("[[-1]]", ROW, "abstained", 0, 0, 0, 0, 0),
        ("[[], [7]]", ROW, "wrong_frame", 0, 0, 1, 0, 0),  # official drops a goal with one empty side
        ("[[5], [6]]", ROW, "wrong_frame", 0, 0, 0, 0, 0),
        ("[[-1]]", NONE, "", 1, 1, 1, 1, 1),
        ("[[3]]", NONE, "wrong_frame", 0, 0, 0, 0, 0),
        ('so {"frame_indices": [[3], [7]]}', ROW, "", 1, 1, 1, 0, 0),
    ],
)  # fmt: skip
def test_bad_answers_offline(
    said: str, row: OfflineRow, failure: str, relaxed_any: float, precision: float, official: float, exact: float,
    exact_official: float,
) -> None:  # fmt: skip
    made = score(said, row, 100)
    assert made["failure"] == failure and made["relaxed_any"] == relaxed_any
    assert made["relaxed_precision"] == precision and made["relaxed_precision_official"] == official
    assert made["exact"] == exact and made["exact_official"] == exact_official


def test_nothing_to_watch(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="ep_5"):
        run(OfflineSet(root), ["random"], tmp_path, make=made, episodes=["ep_5"])
    with pytest.raises(InputError, match="no episode 'ep_99'"):
        run(OfflineSet(root), ["random"], tmp_path, make=made, episodes=["ep_99"])
    for name in ("memory", "last_visible", "genius"):
        with pytest.raises(InputError, match="can't answer from a video"):
            made(name)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    with pytest.raises(SourceError, match=r"broken\.mp4"):
        frame_times(broken)


def test_stillness() -> None:
    moving, still = [9.0, 7.0, 8.0, 12.0, 9.0], [0.01] * 8
    change = [255.0, *moving, *still, *moving, *still[:3], 5.0, *still[3:], *moving]
    frames = list(range(100, 100 + len(change)))
    # The second one has a jump in its middle: something was gone.
    assert still_blocks(frames, change) == [(105, 113), (118, 127)]
    assert still_blocks(frames[:6], [255.0, *moving]) == [] and still_blocks([0], [255.0]) == [] == still_blocks([], [])
    # A plain wall in a turn changes a little, again and again: that is no stillness.
    assert still_blocks(list(range(20)), [255.0, *moving, *[0.1, 0.9] * 5, *moving[:4]]) == []
    # Fewer than six frames are a pause for thought.
    assert still_blocks(list(range(15)), [255.0, *moving, *still[:4], *moving]) == []


def test_a_killed_run_goes_on(root: Path, tmp_path: Path) -> None:
    """kill -9 in the middle; the next run makes what is missing and ends in the same table."""
    code = """
        import sys, time
        from pathlib import Path
        sys.path.insert(0, sys.argv[3])
        import test_dory_offline as t
        real = t.made
        def slow(name):
            agent = real(name)
            if name == "pixels":
                agent.watch = lambda *a: (print("watching", flush=True), time.sleep(60))
            return agent
        t.run(t.OfflineSet(Path(sys.argv[1])), ["oracle", "random", "pixels"], Path(sys.argv[2]), make=slow)
    """
    out, here = tmp_path / "killed", str(Path(__file__).parent)
    paths = os.pathsep.join([here, str(Path(chat_server.__file__).parent), os.environ.get("PYTHONPATH", "")])
    running = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(root), str(out), here],
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert running.stdout is not None and running.stdout.readline() == b"watching\n"
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    assert not (out / "report.json").exists()
    kept = {path.name for path in (out / "episodes").glob("*.json")}
    assert kept == {"ep_4-oracle.json", "ep_4-random.json"}
    before = time.time_ns()
    resumed = run(OfflineSet(root), ["oracle", "random", "pixels"], out, make=made)
    assert (out / "episodes/ep_4-oracle.json").stat().st_mtime_ns < before  # not run again
    whole = run(OfflineSet(root), ["oracle", "random", "pixels"], tmp_path / "whole", make=made)
    for report in (resumed, whole):
        for one in report["agents"].values():
            for episode in one["by_episode"].values():
                del episode["watch_s"], episode["answer_s"], episode["memory_bytes"]
    assert resumed == whole


# ---- a model


def asked_model(server: chat_server.Server, budget: str = "", images: int = 4) -> Metered:
    limits = Limits(context_tokens=16_384, images=images, json_schema=True)
    return Metered(Endpoint(server.url, "tiny", limits=limits, tries=1), Budget.parse(budget))


def test_a_model_answers_from_the_video(root: Path, tmp_path: Path) -> None:
    """Through the runner: what it is shown, that the budget holds, that bad replies are counted and cost the run
    nothing."""
    script = [
        chat_server.says('{"frame_indices": [[12]]}'),
        chat_server.says("I think it was in the kitchen"),
        chat_server.says('{"frame_indices": "all"}'),
        chat_server.fails(500),
        chat_server.says('{"frame_indices": [[99999]]}'),
    ]
    with chat_server.chat_server(*script) as server:
        rows = OfflineSet(root)
        agent = ModelWatcher(asked_model(server, "calls=6"), suite, Config())
        report = run(rows, ["llm"], tmp_path, make=lambda name: agent)
        assert len(server.asked) == 6
        sent = server.asked[0]["messages"][1]["content"]
        pictures = [part for part in sent if part["type"] == "image_url"]
        words = " ".join(part["text"] for part in sent if part["type"] == "text")
        assert len(pictures) == 4 and "Frame 0:" in words and "probably picked something up" in words
        assert words.endswith("Instruction: Go to a " + words.rsplit("Go to a ", 1)[1])
    one = report["agents"]["llm"]
    asked = one["all"]["questions"]
    costs = one["by_episode"]["ep_4"]["model"]
    assert costs["calls"] == 6 and costs["refused"] == asked - 6
    assert costs["unreadable"] == 2 and costs["errors"] == 1
    assert one["failures"]["response_error"] == asked - 3 and one["failures"]["out_of_bounds_pred"] == 2


def test_a_budget_holds(tmp_path: Path) -> None:
    with chat_server.chat_server(chat_server.says("{}")) as server:
        model = asked_model(server, "tokens=250")
        for _ in range(3):
            model.chat((), max_tokens=500)
        # 107 tokens a call in this script: the third is allowed 36 more, the fourth nothing.
        assert [one["max_tokens"] for one in server.asked] == [250, 143, 36]
        with pytest.raises(BudgetSpent, match="tokens"):
            model.chat(())
        assert model.costs()["refused"] == 1 and len(server.asked) == 3
        model.begin()
        model.chat(())
        assert model.costs()["calls"] == 1 and model.costs()["refused"] == 0
        spent = asked_model(server, "seconds=0")
        with pytest.raises(BudgetSpent, match="seconds"):
            spent.chat(())


def test_a_server_that_is_gone_ends_the_run(root: Path, tmp_path: Path) -> None:
    """A table full of zeros would be no measurement. What was done is kept."""
    gone = Metered(Endpoint("http://127.0.0.1:9", "tiny", tries=1), Budget())
    with pytest.raises(ServiceUnreachable):
        run(OfflineSet(root), ["llm"], tmp_path, make=lambda name: ModelWatcher(gone, suite, Config()))


# ---- the command


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=True)


def test_the_command(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = command(
        "--env", "offline", "--data", str(root), "--agent", "oracle", "--agent", "random", "--out", str(out), "--json"
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["agents"]["oracle"]["all"]["relaxed_any"] == 1
    assert json.loads((out / "report.json").read_text()) == document
    for arguments, words in (
        (("--env", "moon"), "no environment 'moon'"),
        (("--env", "offline"), "where are the files"),
        (("--env", "offline", "--data", str(tmp_path / "no")), "no rows of the split validation"),
        (("--env", "offline", "--data", str(root), "--frames", "48"), "no set has 48 frames"),
        (("--env", "offline", "--data", str(root), "--agent", "memory"), "can't answer from a video"),
    ):
        failed = command(*arguments, "--out", str(out))
        assert isinstance(failed.exception, InputError) and words in str(failed.exception)
