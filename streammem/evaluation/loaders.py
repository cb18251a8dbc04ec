"""Readers of annotation files that people obtained from the benchmarks' authors; nothing of them is shipped here.

Field names are those of the published files (dossier 1.12 and 3.2 to 3.9). Known defects of the data are handled where
they are read, and said in ``Item.extra["defect"]``: such an item is answered and left out of the strict score.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from streammem.evaluation.items import (
    AnnotationError,
    Item,
    Row,
    bare_option,
    index_of,
    read_csv,
    read_json,
    read_jsonl,
    rows_of,
    seconds_of,
)


class Benchmark(NamedTuple):
    """``load(path)`` reads a file or a folder; ``how`` says how to obtain it."""

    load: Callable[[Path, str], list[Item]]
    title: str
    how: str


def load(name: str, path: str | Path) -> list[Item]:
    """The items of a benchmark. Raises AnnotationError: an unknown name, a missing or a different file."""
    found = BENCHMARKS.get(name)
    if found is None:
        raise AnnotationError(f"no benchmark is called {name!r}", hint=f"one of {', '.join(BENCHMARKS)}")
    items = found.load(Path(path), found.how)
    if not items:
        raise AnnotationError(f"{path} holds no questions of {found.title}", hint=found.how)
    return items


def _nextqa(path: Path, how: str) -> list[Item]:
    file = path / "questions.csv" if path.is_dir() else path
    needs = ("video", "question", "answer", "type", "a0", "a1", "a2", "a3", "a4")
    items = []
    for number, row in enumerate(read_csv(file, how, needs), 1):
        if row["answer"] not in ("0", "1", "2", "3", "4"):
            raise AnnotationError(f"{file}, row {number} has answer {row['answer']!r}, not 0 to 4", hint=how)
        items.append(
            Item(
                benchmark="nextqa",
                id=f"{row['video']}/{row.get('qid') or number}",
                video=row["video"],
                question=row["question"],
                kind=row["type"],
                # C: causal, T: temporal, D: descriptive (Xiao et al. 2021).
                category={"C": "causal", "T": "temporal", "D": "descriptive"}.get(row["type"][:1], ""),
                options=tuple(row[f"a{i}"] for i in range(5)),
                answer=int(row["answer"]),
            )
        )
    return items


_EVENT_KINDS = (
    "event order", "temporal judge", "temporal align", "event context", "event rectification", "event reconstruction",
)  # fmt: skip


def _egomem(path: Path, how: str) -> list[Item]:
    items = []
    place: dict[tuple[str, str], int] = {}
    for row in rows_of(read_json(path, how), path, how):
        video, group = row.text("videoID"), row.text("type")
        options = tuple(bare_option(option) for option in row.strings("options"))
        answer = index_of(str(row.get("answer") or ""), len(options))
        # The sub-type is no field: six of each block stand in a fixed order.
        nth = place[video, group] = place.get((video, group), -1) + 1
        event = group.lower().startswith("event")
        gold = str(row.get("answer") or "").strip()
        defect = "" if answer is not None else ("no gold answer" if not gold else f"gold {gold!r} is no option")
        items.append(
            Item(
                benchmark="egomem",
                id=row.text("question_id"),
                video=video,
                question=row.text("question"),
                kind=_EVENT_KINDS[nth % 6] if event else "detail",
                category="event" if event else "detail",
                options=options,
                answer=answer,
                extra={"defect": defect} if defect else {},
            )
        )
    return items


def _videomme(path: Path, how: str) -> list[Item]:
    values = read_jsonl(path, how) if path.suffix == ".jsonl" else _table(path, how)
    return [
        Item(
            benchmark="videomme",
            id=row.text("question_id"),
            video=row.text("videoID", "video_id"),
            question=row.text("question"),
            kind=row.text("task_type"),
            category=row.text("duration"),
            options=(options := tuple(bare_option(option) for option in row.strings("options"))),
            answer=_answer(row, row.text("answer"), len(options)),
        )
        for row in rows_of(values, path, how)
    ]


def _table(path: Path, how: str) -> list[dict[str, object]]:
    """Parquet as it is published, through pyarrow where that is installed; or the same as JSON."""
    if path.suffix != ".parquet":
        found = read_json(path, how)
        return found if isinstance(found, list) else []
    if not path.is_file():
        raise AnnotationError(f"{path}: no annotations are here", hint=how)
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise AnnotationError(
            f"{path}: reading parquet needs pyarrow", hint="pip install pyarrow, or convert the file to .jsonl"
        ) from None
    try:
        rows: list[dict[str, object]] = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise AnnotationError(f"{path} is no parquet file: {error}", hint=how) from None
    return rows


def _mlvu(path: Path, how: str) -> list[Item]:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise AnnotationError(f"{path}: no annotations are here", hint=how)
    items = []
    for file in files:
        if file.is_file() and not file.stat().st_size:
            # The copies of 3_ego.json and 4_count.json inside InternLM-XComposer are empty.
            raise AnnotationError(f"{file} is empty", hint=f"take the file of JUNJIE99/MLVU; {how}")
        for row in rows_of(read_json(file, how), file, how):
            options = tuple(map(str, row.get("candidates") or ()))
            gold = row.text("answer")
            if options and gold not in options:
                raise row.wrong(f"has the answer {gold!r}, which is none of its candidates")
            items.append(
                Item(
                    benchmark="mlvu",
                    id=f"{file.stem}/{row.number}",
                    video=row.text("video"),
                    question=row.text("question"),
                    kind=row.text("question_type"),
                    options=options,
                    answer=options.index(gold) if options else None,
                    text=gold,
                )
            )
    return items


def _lvbench(path: Path, how: str) -> list[Item]:
    items = []
    for entry in rows_of(read_jsonl(path, how), path, how):
        for row in entry.rows("qa"):
            question, options = _lettered_lines(row)
            kinds = row.get("question_type")
            items.append(
                Item(
                    benchmark="lvbench",
                    id=row.text("uid"),
                    video=entry.text("key"),
                    question=question,
                    kind="+".join(kinds) if isinstance(kinds, list) else str(kinds),
                    options=options,
                    answer=_answer(row, row.text("answer"), len(options)),
                    spans=_reference(str(row.get("time_reference") or "")),
                )
            )
    return items


def _lettered_lines(row: Row) -> tuple[str, tuple[str, ...]]:
    """``"What is it?\\n(A) a\\n(B) b"`` -> question and options."""
    lines = row.text("question").splitlines()
    options = tuple(bare_option(line) for line in lines if line.strip()[:1] == "(")
    if len(options) < 2:
        raise row.wrong("has no lettered options in its question")
    return "\n".join(line for line in lines if line.strip()[:1] != "(").strip(), options


def _reference(text: str) -> tuple[tuple[float, float], ...]:
    start, _, end = text.partition("-")
    try:
        return ((seconds_of(start), seconds_of(end)),)
    except ValueError:
        return ()


_OVO_KINDS = {
    **dict.fromkeys(("EPM", "ASI", "HLD"), "backward"),
    **dict.fromkeys(("OCR", "ACR", "ATR", "STU", "FPD", "OJR"), "real-time"),
    **dict.fromkeys(("REC", "SSR", "CRR"), "forward"),
}


def _ovobench(path: Path, how: str) -> list[Item]:
    items = []
    for row in rows_of(read_json(path, how), path, how):
        task = row.text("task")
        group = _OVO_KINDS.get(task)
        if group is None:
            raise row.wrong(f"has the task {task!r}, which OVO-Bench doesn't have")
        number, video = row.text("id"), row.text("video")
        if group != "forward":
            options = row.strings("options")
            gold = int(row.number_of("gt"))
            if not 0 <= gold < len(options):
                raise row.wrong(f"has gt {gold}, outside its {len(options)} options")
            items.append(
                Item(
                    benchmark="ovobench", id=number, video=video, question=row.text("question"), kind=task,
                    category=group, options=options, answer=gold, asked_s=row.number_of("realtime"),
                )
            )  # fmt: skip
            continue
        for at, probe in enumerate(row.rows("test_info")):
            items.append(_probe(row, probe, task, f"{number}/{at}", video))
    return items


def _probe(row: Row, probe: Row, task: str, number: str, video: str) -> Item:
    """Forward tasks ask again and again as time goes on; each probe is a question of its own."""
    spans: tuple[tuple[float, float], ...] = ()
    if task == "REC":
        question, gold = f"How many times has {row.text('activity')} happened so far?", probe.text("count")
    elif task == "SSR":
        question = f"Is the step being carried out now: {probe.text('step')}?"
        gold = "Yes" if int(probe.number_of("type")) else "No"
    else:
        question = row.text("question")
        gold = "Yes" if int(probe.number_of("type")) else "No"
        clue = row.get("clue_time")
        spans = ((float(clue), float(clue)),) if isinstance(clue, (int, float)) else ()
    return Item(
        benchmark="ovobench", id=number, video=video, question=question, kind=task, category="forward", text=gold,
        asked_s=probe.number_of("realtime"), spans=spans,
    )  # fmt: skip


def _streamingbench(path: Path, how: str) -> list[Item]:
    files = sorted(path.glob("questions_*.json")) if path.is_dir() else [path]
    if not files:
        raise AnnotationError(f"{path}: no annotations are here", hint=how)
    items = []
    for file in files:
        group = file.stem.removeprefix("questions_")
        listed = read_json(file, how)
        # The sequence of questions (sqa) is a list of lists, in the order of its turns.
        flat = [entry for value in listed for entry in (value if isinstance(value, list) else [value])]
        for entry in rows_of(flat, file, how):
            for nth, row in enumerate(entry.rows("questions")):
                options = tuple(bare_option(str(option)) for option in row.get("options") or ())
                gold = row.text("answer", "ground_truth_output")
                at = row.text("time_stamp")
                try:
                    asked = seconds_of(at)
                except ValueError:
                    raise row.wrong(f"has the time_stamp {at!r}") from None
                items.append(
                    Item(
                        benchmark="streamingbench",
                        id=f"{group}/{entry.number}/{nth}",
                        video=entry.text("video_path"),
                        question=row.text("question"),
                        kind=str(row.get("task_type") or group),
                        category=str(row.get("required_ability") or group),
                        options=options,
                        answer=_answer(row, gold, len(options)) if options else None,
                        text=gold,
                        asked_s=asked,
                        extra={"time": entry.get("time")},
                    )
                )
    return items


def _openeqa(path: Path, how: str) -> list[Item]:
    return [
        Item(
            benchmark="openeqa",
            id=row.text("question_id"),
            video=row.text("episode_history"),
            question=row.text("question"),
            kind=row.text("category"),
            text=row.text("answer"),
            extra={"extra_answers": list(row.get("extra_answers") or ())},
        )
        for row in rows_of(read_json(path, how), path, how)
    ]


def _navqa(path: Path, how: str) -> list[Item]:
    """``data.csv`` beside ``navqa/<sequence>/qa_unfilled.json``, which has when each stretch begins and ends."""
    folder = path if path.is_dir() else path.parent
    table = read_csv(
        folder / "data.csv", how, ("UUID", "Seq ID", "Question", "type", "text answer", "parsable answer", "category")
    )
    about: dict[str, Row] = {}
    for file in sorted((folder / "navqa").glob("*/qa_unfilled.json")):
        listed = read_json(file, how)
        for entry in rows_of(listed["data"] if isinstance(listed, dict) else listed, file, how):
            about[entry.text("id")] = entry
    items = []
    for row in table:
        known = about.get(row["UUID"])
        extra = (
            {} if known is None else {n: known.get(n) for n in ("start_time", "end_time", "length", "length_category")}
        )
        length = None if known is None else known.number_of("length")
        items.append(
            Item(
                benchmark="navqa",
                id=row["UUID"],
                video=row["Seq ID"],
                question=row["Question"],
                kind=row["type"],
                category=row["category"],
                text=row["parsable answer"] or row["text answer"],
                asked_s=length,
                extra={**extra, "text answer": row["text answer"]},
            )
        )
    return items


def _answer(row: Row, letter: str, count: int) -> int:
    found = index_of(letter, count)
    if found is None:
        raise row.wrong(f"has the answer {letter!r}, which is none of its {count} options")
    return found


BENCHMARKS: dict[str, Benchmark] = {
    "nextqa": Benchmark(_nextqa, "NExT-QA", "a folder with questions.csv and captions_1fps.json"),
    "egomem": Benchmark(_egomem, "EgoMem", "EgoMem.json of VideoLucy's repository (in its history: commit 4caf670)"),
    "videomme": Benchmark(_videomme, "Video-MME", "the test split as .parquet, .json or .jsonl from its authors"),
    "mlvu": Benchmark(_mlvu, "MLVU", "the folder of task files (1_plotQA.json ...) of JUNJIE99/MLVU"),
    "lvbench": Benchmark(_lvbench, "LVBench", "video_info.meta.jsonl from the authors' hub"),
    "ovobench": Benchmark(_ovobench, "OVO-Bench", "data/ovo_bench_new.json of JoeLeelyf/OVO-Bench"),
    "streamingbench": Benchmark(_streamingbench, "StreamingBench", "src/data of THUNLP-MT/StreamingBench"),
    "openeqa": Benchmark(_openeqa, "OpenEQA", "data/open-eqa-v0.json of facebookresearch/open-eqa"),
    "navqa": Benchmark(_navqa, "NaVQA", "remembr/data of NVIDIA-AI-IOT/remembr: data.csv and navqa/"),
}
