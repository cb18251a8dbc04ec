"""From a video file to an answer, through the real encoders and the real engine, in processes of their own."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_run import Run, command, environment, write_clip

# The clip's truth: a sign that says OPEN in the first three seconds.
ARGS = ("--fps", "2", "--set", "perception.speech=off", "--set", "perception.threads=1")


@pytest.fixture(scope="module")
def watched(clip: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The memory of the clip, watched once for this file."""
    place = tmp_path_factory.mktemp("memories") / "sign.mem"
    done = subprocess.run(
        [*command(), "watch", str(clip), "--memory", str(place), *ARGS],
        capture_output=True,
        text=True,
        env=environment(STREAMMEM_CACHE=str(cache)),
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(place)
    assert "12 looks" in done.stderr
    return place


def test_the_sign_is_read_and_found(run: Run, watched: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "evidence.png"
    done = run("ask", watched, "where is the OPEN sign?", "--json", "--sheet", sheet)
    answer = done.document
    assert (done.code, answer["status"]) == (0, "found")
    first = answer["evidence"][0]
    assert first["t_start_ns"] < 3_000_000_000
    assert any(why["signal"] == "text" and "OPEN" in why["detail"].upper() for why in first["why"])
    assert first["frames"]
    assert first["start"].startswith("00:00:0")
    assert 1 <= len(answer["closest"]) <= 5
    assert answer["sheet"] == str(sheet)
    picture = cv2.imread(str(sheet))
    assert picture.shape[1] == 1600
    # The sheet shows the sign itself: pure blue background, which paper and ink don't have.
    blue = (picture[..., 0] > 150) & (picture[..., 2] < 80)
    assert blue.mean() > 0.05


def test_people_read_the_answer(run: Run, watched: Path) -> None:
    done = run("ask", watched, "where is the OPEN sign?")
    lines = done.out.splitlines()
    assert "OPEN" in lines[0]
    assert lines[1].startswith("● found")
    assert lines[3].lstrip().startswith("1  00:00:0")
    assert done.err == ""


def test_what_is_absent_is_not_found(run: Run, watched: Path) -> None:
    done = run("ask", watched, "where is the GIRAFFE sign?", "--json")
    assert done.document["status"] != "found"
    assert done.document["evidence"] == []
    assert done.code == (1 if done.document["status"] == "not_seen" else 0)


def test_a_time_range_without_the_sign(run: Run, watched: Path) -> None:
    done = run("ask", watched, "where is the OPEN sign?", "--json", "--between", "3.2", "now")
    assert done.document["status"] != "found"
    assert all(item["t_end_ns"] >= 3_200_000_000 for item in done.document["closest"])


@pytest.mark.parametrize(
    "question",
    [
        "красная машина",
        "赤い車はどこ",
        "أين السيارة",
        "a\x1b[31m red\x07 car",
        "'; DROP TABLE x;--",
        "-1",
        "[bold]x[/]",
    ],
)
def test_questions_in_any_script(run: Run, watched: Path, question: str) -> None:
    done = run("ask", watched, "--", question)
    assert done.code in (0, 1), done.err
    assert "\x1b" not in done.out


def test_search_gives_the_closest_moments(run: Run, watched: Path) -> None:
    done = run("search", watched, "green", "--k", "2", "--json")
    assert done.code == 0
    assert 1 <= len(done.document["moments"]) <= 2
    assert run("search", watched, "green", "--between", "1:00:00", "2:00:00").code == 1
    wrong = run("search", watched, "green", "--stream", "nobody")
    assert (wrong.code, "there is no stream 'nobody' (streams: shop-sign-" in wrong.err) == (2, True)


def test_status_and_digest(run: Run, watched: Path) -> None:
    status = run("status", watched, "--json").document
    digest = run("status", watched, "--digest")
    assert (status["observations"], digest.out.strip()) == (12, status["digest"])
    shown = run("status", watched).out
    assert "12 observations" in shown
    assert "shop-sign-" in shown


def test_show_writes_a_sheet(run: Run, watched: Path, tmp_path: Path) -> None:
    for args in ([], ["--at", "1"], ["--between", "0", "2"], ["--query", "a sign"]):
        done = run("show", watched, "-o", "sheet.png", *args)
        assert (done.code, done.out.strip()) == (0, "sheet.png"), done.err
        picture = cv2.imread(str(tmp_path / "sheet.png"))
        assert isinstance(picture, np.ndarray)
        assert picture.shape[1] == 1600
    assert run("show", watched, "-o", "sheet.png", "--between", "500", "600").code == 1
    refused = run("show", watched, "-o", ".")
    assert (refused.code, "is a directory" in refused.err) == (2, True)


def test_doctor_finds_a_flipped_bit(run: Run, watched: Path, tmp_path: Path) -> None:
    good = run("doctor", watched, "--json", timeout=300)
    assert good.document["level"] != "fail", [c for c in good.document["checks"] if c["level"] == "fail"]
    copy = tmp_path / "copy.mem"
    shutil.copytree(watched, copy)
    journal = max((copy / "journal").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 0x10
    journal.write_bytes(data)
    done = run("doctor", copy, "--json", timeout=300)
    assert done.code == 2
    (damage,) = [c for c in done.document["checks"] if c["section"] == "memory" and c["level"] == "fail"]
    assert journal.name in damage["detail"]
    assert "byte" in damage["detail"]
    assert run("ask", copy, "green", "--json").code in (0, 1)


def test_forget_asks_and_forgets(run: Run, watched: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mem"
    shutil.copytree(watched, copy)
    assert "add --yes" in run("forget", copy, "--between", "0", "3").err
    done = run("forget", copy, "--between", "0", "3", "--yes", "--json")
    assert done.document["forgotten"]["observations"] == 7
    assert run("search", copy, "OPEN", "--between", "0", "2.9").code == 1
    assert run("ask", copy, "where is the OPEN sign?", "--json").document["status"] != "found"
    assert run("forget", copy, "--between", "0", "3", "--yes").code == 1


def test_the_second_question_is_answered_from_the_cache(run: Run, clip: Path, tmp_path: Path) -> None:
    home = {"STREAMMEM__CACHE_DIR": str(tmp_path / "cache")}
    first = run("ask", clip, "OPEN", *ARGS, "--json", env=home, timeout=300)
    assert first.code in (0, 1), first.err
    place = Path(first.document["memory"])
    assert place.parent == tmp_path / "cache" / "memories"

    def written() -> list[int]:
        # A reader of SQLite's write-ahead log touches its shared-memory file; what is remembered lies elsewhere.
        kept = [path for folder in ("journal", "segments") for path in (place / folder).rglob("*") if path.is_file()]
        return sorted(path.stat().st_mtime_ns for path in kept)

    before = written()
    assert before
    renamed = tmp_path / "another name.mp4"
    shutil.copy(clip, renamed)
    second = run("ask", renamed, "OPEN", *ARGS, "--json", env=home)
    assert second.document["memory"] == str(place)
    assert second.document["closest"] == first.document["closest"]
    assert written() == before
    again = run("watch", clip, *ARGS, env=home)
    assert "already watched" in again.err
    # Other settings are another memory, and it says so.
    other = run("watch", clip, *ARGS, "--fps", "1", env=home)
    assert "watched before with other settings (fps 2.0 -> 1.0)" in other.err
    assert other.out.strip() != str(place)
    # What was forgotten as a whole was never watched: the next question watches it again.
    assert run("forget", place, "--all", "--yes", env=home).code == 0
    assert run("ask", clip, "OPEN", *ARGS, "--json", env=home, timeout=300).document["closest"]


def test_a_folder_of_pictures(run: Run, tmp_path: Path) -> None:
    home = {"STREAMMEM__CACHE_DIR": str(tmp_path / "cache")}
    folder = tmp_path / "pictures [1]"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"p{number}.jpg"), np.full((120, 160, 3), 80 * number, np.uint8))
    assert run("status", folder, env=home).code == 2
    done = run("ask", folder, "a cat", *ARGS, "--json", env=home)
    assert (done.code, done.document["status"]) == (1, "not_seen")
    assert run("status", folder, "--json", env=home).document["observations"] == 3
    # A memory that can't even be opened is watched anew when that is asked for.
    place = Path(done.document["memory"])
    (place / "FORMAT").write_text("{")
    broken = run("ask", folder, "a cat", *ARGS, "--json", env=home)
    assert (broken.code, broken.document["error"]["type"]) == (2, "CorruptData")
    assert run("ask", folder, "a cat", *ARGS, "--rewatch", env=home).code == 1


def test_another_configuration_in_a_named_memory_is_refused(run: Run, clip: Path, watched: Path) -> None:
    done = run("watch", clip, "--memory", watched, *ARGS, "--fps", "1")
    assert (done.code, "--rewatch replaces that" in done.err) == (2, True)


@pytest.mark.slow
def test_an_interrupted_watch_resumes_and_ends_in_the_same_memory(run: Run, cache: Path, tmp_path: Path) -> None:
    """SIGINT in the middle: exit code 130; the next call says where it goes on; the digest is that of a whole run."""
    video = write_clip(tmp_path / "long.mp4", seconds=60)
    args = ["--fps", "4", "--set", "perception.speech=off", "--set", "perception.threads=1"]
    whole = run("watch", video, "--memory", "whole.mem", *args, timeout=300)
    assert whole.code == 0
    process = subprocess.Popen(
        [*command(), "watch", str(video), "--memory", str(tmp_path / "parts.mem"), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(STREAMMEM_CACHE=str(cache)),
    )
    deadline = time.monotonic() + 60
    journal = tmp_path / "parts.mem" / "journal"
    # Something durable must be there before the interrupt; 60 kB are a few batches of this clip.
    while time.monotonic() < deadline and sum(f.stat().st_size for f in journal.glob("*")) < 60_000:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    if process.returncode == 0:
        pytest.skip("the machine finished the clip before the signal arrived")
    assert process.returncode == 130
    assert "the next run goes on from there" in err
    resumed = run("watch", video, "--memory", "parts.mem", *args, timeout=300)
    assert resumed.code == 0
    assert "Resuming at 00:00:" in resumed.err
    assert run("status", "parts.mem", "--digest").out == run("status", "whole.mem", "--digest").out


def test_bad_files_are_one_line(run: Run, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("this is a text\n" * 100)
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:3000])
    (tmp_path / "nothing").mkdir()
    for name in ("empty.mp4", "text.mp4", "cut.mp4", "nothing"):
        done = run("ask", name, "a cat", *ARGS)
        assert done.code == 2, (name, done)
        assert done.err.count("\n") == 1, (name, done.err)
        assert name in done.err
        assert "bug" not in done.err
        assert "(" in done.err, "no next action"
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".mem"]


def test_a_cache_that_can_not_be_written(run: Run, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("ask", clip, "a cat", *ARGS, env={"STREAMMEM__CACHE_DIR": str(tmp_path / "file" / "x")})
    assert (done.code, "bug" in done.err) == (2, False), done.err
    assert done.err.splitlines()[-1].startswith("streammem: ")


def test_a_locked_memory_names_its_writer(run: Run, clip: Path, watched: Path) -> None:
    import streammem.memory

    with streammem.memory.open(watched, mode="write"):
        done = run("forget", watched, "--all", "--yes")
        assert (done.code, str(os.getpid()) in done.err) == (2, True)
        assert run("ask", watched, "green", "--json").code in (0, 1), "readers need no lock"


def test_a_second_answer_needs_no_torch_and_no_decoder(run: Run, watched: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom streammem.cli.main import run\n"
        f"run(['ask', {str(watched)!r}, 'green', '--json'])\n"
        "print(sorted({'torch', 'transformers', 'av', 'decord', 'cv2'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [command()[0], "-c", code], capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    assert done.stderr.splitlines()[-1] == "[]"
    json.loads(done.stdout)


def test_progress_is_drawn_on_a_terminal(clip: Path, cache: Path, tmp_path: Path) -> None:
    """On a pseudo-terminal, which is what a person has: a bar on it, and the memory's path alone on stdout."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*command(), "watch", str(clip), "--memory", str(tmp_path / "m.mem"), *ARGS],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment(STREAMMEM_CACHE=str(cache), TERM="xterm-256color"),
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:
            break
        if not block:
            break
        seen += block
    os.close(ours)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert out.decode().strip() == str(tmp_path / "m.mem")
    text = seen.decode()
    assert "shop sign.mp4" in text
    assert "waking the encoders" in text
    assert "x real time" in text
