"""How long does a question take on a video that was watched already, each time in a fresh process?

    streammem bench ask [VIDEO] [--repeats 9]

Wall time of the whole command ``streammem ask``, from starting Python to its exit, and of ``streammem --help``; which
heavy modules the question imported.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from streammem.cli.output import write_document
from streammem.errors import SourceNotFound

HEAVY = ("torch", "transformers", "cv2", "av", "faiss", "pandas", "scipy", "sklearn")
QUESTION = "a bicycle"


def seconds_of(command: list[str]) -> float:
    """Wall time of one run. The exit code may say "nothing found"."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - start


def imported(arguments: list[str]) -> list[str]:
    """Which of the heavy modules a command line imports."""
    code = (
        "import sys\nfrom streammem.cli.main import run\nrun(sys.argv[1:])\n"
        f"print('|', *[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    return run.stderr.rsplit("|", 1)[-1].split()


def main(arguments: list[str], as_json: bool = False) -> int:
    parser = argparse.ArgumentParser("streammem bench ask", description="Time of a second question.")
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=9)
    chosen = parser.parse_args(arguments)
    video = chosen.video
    if video is None:
        from streammem.cli.demo import clip_path

        video = clip_path()
    if not video.is_file():
        raise SourceNotFound(f"{video}: no such file")
    asking = ["ask", str(video), QUESTION, "--quiet"]
    program = [sys.executable, "-m", "streammem"]
    first = seconds_of([*program, *asking])
    again = [seconds_of([*program, *asking]) for _ in range(chosen.repeats)]
    helps = [seconds_of([*program, "--help"]) for _ in range(chosen.repeats)]
    result: dict[str, Any] = {
        "video": str(video),
        "first_ask_s": round(first, 3),
        "second_ask_s": {"median": round(statistics.median(again), 3), "worst": round(max(again), 3)},
        "help_s": {"median": round(statistics.median(helps), 3), "worst": round(max(helps), 3)},
        "heavy_imports_of_ask": imported(asking),
    }
    if as_json:
        write_document(result)
        return 0
    for key, value in result.items():
        print(f"{key:>22}  {value}")
    return 0
