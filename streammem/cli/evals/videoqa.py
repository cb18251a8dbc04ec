"""``streammem eval videoqa``: benchmarks of questions about videos, with annotations and videos that you obtained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

if TYPE_CHECKING:
    from streammem.config import Config
    from streammem.evaluation.items import Item
    from streammem.evaluation.log import Log, Row, Scorer
    from streammem.evaluation.scorers import Given, Profile, Score
    from streammem.reason.base import ChatModel

app = typer.Typer(add_completion=False)

STRATEGIES = ("blind", "uniform", "flat", "embedded")
SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", "")


@app.command()
def videoqa(
    benchmark: Annotated[
        str,
        typer.Argument(
            metavar="BENCHMARK", help="nextqa, egomem, videomme, mlvu, lvbench, ovobench, streamingbench ..."
        ),
    ],
    annotations: Annotated[str, typer.Option("--annotations", metavar="PATH", help="Its file or folder.")],
    videos: Annotated[
        str | None, typer.Option("--videos", metavar="DIR", help="Where the videos are, by name.")
    ] = None,
    reasoner: Annotated[
        list[str] | None, typer.Option("--reasoner", metavar="NAME", help="May be repeated; default: all but llm.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="URL", help="A model's server, for llm.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Its model, or a model's folder.")
    ] = None,
    budget: Annotated[str | None, typer.Option("--budget", metavar="N=V,...", help="Of each answer.")] = None,
    official: Annotated[bool, typer.Option("--official", help="Score as the benchmark's own script does.")] = False,
    judge_endpoint: Annotated[
        str | None, typer.Option("--judge-endpoint", metavar="URL", help="OpenEQA: the server of the judging model.")
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option("--judge-model", metavar="NAME", help="That model, or a model's folder.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the options' order; -1 leaves it.")] = 0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many questions.")] = None,
    out_dir: Annotated[str, typer.Option("--out", metavar="DIR", help="Where the log of every question goes.")] = "",
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """Accuracy by kind of question, beside the best constant letter. Goes on where a run into the same folder stopped.

    NExT-QA with its captions needs no videos: then the strategies on text are compared."""
    settings = o.load(config, set_).config
    out = Output(as_json=json, quiet=quiet)
    from streammem.errors import InputError
    from streammem.evaluation.items import shuffled
    from streammem.evaluation.loaders import BENCHMARKS, load
    from streammem.evaluation.log import Log, report
    from streammem.evaluation.scorers import JUDGED

    if (judge_endpoint or judge_model) and benchmark not in JUDGED:
        raise InputError(f"no judge marks {benchmark}", hint=f"a judge is for {', '.join(sorted(JUDGED))}")
    items = load(benchmark, annotations)
    items = [item if seed < 0 else shuffled(item, seed) for item in items][:limit]
    title = BENCHMARKS[benchmark].title
    folder = Path(out_dir) if out_dir else Path(f"videoqa-{benchmark}")
    about = {"benchmark": benchmark, "seed": seed, "budget": budget or "", "model": model or settings.reason.model}
    captions = Path(annotations) / "captions_1fps.json"
    if videos is None and benchmark == "nextqa" and captions.is_file():
        log = Log(folder / "captions.jsonl", about)
        names = _by_captions(items, captions, settings, log, out)
    elif videos is None:
        raise InputError(f"where are the videos of {title}?", hint="--videos DIR with one file a video, by its name")
    else:
        names = list(reasoner or (("llm",) if endpoint or model else STRATEGIES))
        log = Log(folder / "videos.jsonl", about)
        chat = None
        if "llm" in names:
            from streammem.cli.reasoned import chat_model

            chat = chat_model(settings.reason, endpoint, model)
        _by_videos(items, Path(videos), names, settings, log, out, budget, chat)
    profile: Profile = "official" if official else "strict"
    scorer: Scorer | None = None
    cost: dict[str, object] = {}
    if judge_endpoint or judge_model:
        scorer, cost = _judged(items, log, names, settings, out, about, official, judge_endpoint, judge_model)
    rows = report(items, log, names, profile, scorer)
    if json:
        from streammem.cli.present import plain

        found = {"benchmark": benchmark, "official": official, "log": str(log.path), "rows": plain(rows)}
        out.document({**found, **({"judge": cost} if cost else {})})
    else:
        _show(rows, f"{title}, {len(items)} questions, {profile} score", out)
        _costs(rows, log, budget, out)
        out.note(f"every question: {log.path}")
    return 0


def _by_captions(items: Sequence[Item], path: Path, settings: Config, log: Log, out: Output) -> list[str]:
    """The strategies on captions alone (``reason/captioned.py``)."""
    import time

    import numpy as np

    from perception.encoders.minilm import MiniLM
    from streammem.evaluation.items import read_json
    from streammem.evaluation.log import Entry
    from streammem.evaluation.vectors import vectors_of
    from streammem.paths import cache_dir
    from streammem.reason.captioned import METHODS, Asked, Captioned, event_of

    todo = [item for item in items if not all(log.has(name, item) for name in METHODS)]
    if not todo:
        return list(METHODS)
    said = read_json(path, "captions_1fps.json: {video: {second: caption}}")
    captions = {
        item.video: [text for _, text in sorted(said.get(item.video, {}).items(), key=lambda pair: float(pair[0]))]
        for item in todo
    }
    texts = {text for one in captions.values() for text in one}
    for item in todo:
        texts |= {item.question, *item.options, *(f"{item.question} {option}" for option in item.options)}
        texts |= {event} if (event := event_of(f"{item.question}?")) else set()
    model = MiniLM(cache=cache_dir(settings.cache_dir))
    vector = vectors_of(texts, model.embed, log.path.parent / "vectors.npz", out.note)
    for item in todo:
        if not captions[item.video]:
            for name in METHODS:
                log.add(Entry(name, item.id, error=f"no captions of {item.video}"))
            continue
        video = Captioned(item.video, np.stack([vector[text] for text in captions[item.video]]))
        event = event_of(f"{item.question}?")
        asked = Asked(
            f"{item.question}?",
            vector[item.question],
            np.stack([vector[option] for option in item.options]),
            np.stack([vector[f"{item.question} {option}"] for option in item.options]),
            vector[event] if event else None,
        )
        for name, method in METHODS.items():
            begun = time.perf_counter()
            chosen = method(asked, video)
            seconds = time.perf_counter() - begun
            log.add(Entry(name, item.id, option=chosen.option, stage="text", records=chosen.records, seconds=seconds))
    return list(METHODS)


def _by_videos(
    items: Sequence[Item],
    folder: Path,
    names: Sequence[str],
    settings: Config,
    log: Log,
    out: Output,
    budget: str | None,
    model: ChatModel | None,
) -> None:
    """Watch each video once, then ask all its questions. A video that isn't there is an error of its questions."""
    from streammem.cli.reasoned import reason
    from streammem.cli.watched import open_target
    from streammem.errors import StreammemError
    from streammem.evaluation.log import Entry

    silent = Output(as_json=True, quiet=True)
    by_video: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if not all(log.has(name, item) for name in names):
            by_video[item.video].append(item)
    for number, (video, asked) in enumerate(by_video.items(), 1):
        out.note(f"video {number} of {len(by_video)}: {video}, {len(asked)} questions")
        path = _find(folder, video)
        if path is None:
            for item in asked:
                for name in names:
                    log.add(Entry(name, item.id, error=f"{video} isn't in {folder}"))
            continue
        try:
            with open_target(str(path), settings, out) as opened:
                for item in asked:
                    for name in (one for one in names if not log.has(one, item)):
                        span = None if item.asked_s is None else (0, int(item.asked_s * 1e9))
                        try:
                            found = reason(
                                opened, settings, silent, question=item.question, reasoner=name, budget=budget,
                                options=item.options, between=span, model=model,
                            )  # fmt: skip
                        except StreammemError as error:
                            log.add(Entry(name, item.id, error=str(error)))
                            continue
                        answer, spent = found.answer, found.spent
                        shown = answer.evidence or answer.closest[:3]
                        log.add(
                            Entry(
                                name, item.id, answer.text, found.option, answer.status, found.stage, found.partial,
                                spent.calls, spent.tokens, spent.records, spent.frames, round(spent.seconds, 4),
                                tuple((e.t_start_ns / 1e9, e.t_end_ns / 1e9) for e in shown),
                            )
                        )  # fmt: skip
        except StreammemError as error:
            for item in asked:
                for name in names:
                    if not log.has(name, item):
                        log.add(Entry(name, item.id, error=str(error)))


def _judged(
    items: Sequence[Item],
    log: Log,
    names: Sequence[str],
    settings: Config,
    out: Output,
    about: dict[str, object],
    official: bool,
    endpoint: str | None,
    model: str | None,
) -> tuple[Scorer, dict[str, object]]:
    """Let a model mark the answers; the marks lie beside the log, a file for each judge. The scorer, and the cost."""
    from streammem.evaluation.judge import TEMPERATURE, Judge, judge_all, judged_hash, judged_score
    from streammem.evaluation.log import Log
    from streammem.reason.captioner import open_chat_model

    chat = open_chat_model(
        endpoint or "", model or "", timeout_s=settings.reason.timeout_seconds, temperature=TEMPERATURE * official
    )
    judge = Judge(chat, official=official)
    path = log.path.parent / f"judge-{judged_hash(judge.id)}.jsonl"
    marks = Log(path, {**about, "judge": judge.id})
    try:
        judge_all(judge, items, log, marks, names, out.note)
    finally:
        close = getattr(chat, "close", None)
        if close is not None:
            close()
    spent = judge.purse.tick()

    def scorer(name: str, answers: Mapping[str, Given]) -> Score:
        mine = {item.id: marks.entries[name, item.id] for item in items if marks.has(name, item)}
        return judged_score(items, answers, mine, judge.id)

    cost: dict[str, object] = {"id": judge.id, "log": str(path), "calls": spent.calls, "tokens": spent.tokens}
    out.note(f"the judge: {spent.calls} calls, {spent.tokens:,} tokens; every mark: {path}")
    return scorer, {**cost, "parse_failures": spent.parse_failures, "seconds": round(spent.seconds, 3)}


def _find(folder: Path, video: str) -> Path | None:
    # Annotations are data: a name may not leave the folder.
    if Path(video).is_absolute() or ".." in Path(video).parts:
        return None
    return next((path for suffix in SUFFIXES if (path := folder / f"{video}{suffix}").exists()), None)


def _costs(rows: Sequence[Row], log: Log, budget: str | None, out: Output) -> None:
    """What an answer took, and whether all kept to the budget."""
    from streammem.evaluation.log import beyond
    from streammem.reason.base import Budget

    for row in rows:
        mine = [entry for (name, _), entry in log.entries.items() if name == row.strategy]
        if not mine:
            continue
        text = f"{row.strategy}: seconds an answer p50 {row.seconds_p50:.3g}, p99 {row.seconds_p99:.3g}; calls p50 "
        text += f"{row.calls_p50}, p99 {row.calls_p99}"
        over = f"; {beyond(mine, Budget.parse(budget))} of {len(mine)} beyond the budget" if budget else ""
        out.note(text + over)


def _show(rows: Sequence[Row], title: str, out: Output) -> None:
    from rich.table import Table

    kinds = list(dict.fromkeys(kind for row in rows for kind in row.groups))[:12]
    table = Table(title=title, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in ("all", *kinds, "ms", "records"):
        table.add_column(name, justify="right")
    for row in rows:
        shares = [f"{row.groups[kind][0]:.1%}" if kind in row.groups else "" for kind in kinds]
        table.add_row(row.strategy, f"{row.value:.1%}", *shares, f"{1000 * row.seconds_p50:.1f}", f"{row.records:.0f}")
    out.result.print(table)
    for row in rows:
        facts = [*row.notes, *([f"{row.failed} failed"] if row.failed else [])]
        if row.temporal is not None:
            facts.append(f"temporal recall {row.temporal[0]:.2f}, IoU {row.temporal[1]:.2f}")
        if facts:
            out.note(f"{row.strategy}: {'; '.join(facts)}")
