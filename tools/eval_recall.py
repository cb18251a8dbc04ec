"""Measure retrieval and abstention end to end: watch the development recordings, ask the development questions.

    python tools/eval_recall.py --work DIR [--split dev|test|all] [--names] [--detector FILE.onnx] [--json out.json]

A question counts as right at rank r when the best frame of the r-th moment lies in one of its true spans, widened by
``SLACK_S`` (half the sampling step: a frame sampled at 1/s stands for that much on either side). Confidence intervals
are percentile bootstraps over questions. ``random`` is the chance of a random frame.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
for folder in (REPOSITORY, REPOSITORY / "tools"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from perception.encoders.suite import EncoderSuite  # noqa: E402
from perception.pipeline import watch  # noqa: E402
from perception.sources import open_source  # noqa: E402
from queries import Queries, Question, Source, load_queries, write_joined_video  # noqa: E402
from streammem.config import Config, PerceptionConfig  # noqa: E402
from streammem.memory import Memory  # noqa: E402
from streammem.memory import open as open_memory  # noqa: E402
from streammem.model import Answer  # noqa: E402
from streammem.recall.fuse import rank_fusion, score_fusion  # noqa: E402
from streammem.recall.query import Query  # noqa: E402
from streammem.recall.search import Fusion, find  # noqa: E402
from streammem.recall.signals import Signals  # noqa: E402

NAMES = REPOSITORY / "tests" / "data" / "names.yaml"
SLACK_S = 0.5
TOP = 5
BOOTSTRAPS = 2000


def media_of(source: Source, work: Path) -> str:
    """What to watch for a source: the clip itself, or the joined video, made once."""
    clip = source.parts[0].clip
    # A folder of pictures has no times of its own: as a video it has those that the questions are written in.
    if not source.joined and not clip.glob:
        return str(clip.path)
    out = work / f"{source.name}.mp4"
    if not out.is_file():
        write_joined_video(source, out)
    return str(out)


def memory_of(source: Source, work: Path, place: Path, config: Config, suite: EncoderSuite) -> Memory:
    """The source's memory below ``place``, watched where it isn't yet."""
    memory = open_memory(place / source.name, config=config)
    watch(open_source(media_of(source, work), config.perception), memory, suite, config)
    memory.flush()
    return memory


def memories_of(queries: Queries, work: Path, *, detector: str = "", config: Config | None = None) -> dict[str, Memory]:
    """The memory of every source that is asked about; with a detector's boxes in a folder of its own."""
    work.mkdir(parents=True, exist_ok=True)
    chosen = config or Config(perception=PerceptionConfig(detector=detector))
    suite = EncoderSuite(chosen.perception)
    used = {q.source.name: q.source for q in (*queries.present, *queries.absent)}
    place = work / ("memories-things" if detector else "memories")
    return {name: memory_of(source, work, place, chosen, suite) for name, source in sorted(used.items())}


def only(name: str) -> Fusion:
    """One signal alone."""

    def fuse(query: Query, groups: Sequence[Signals]) -> list[np.ndarray]:
        out = []
        for group in groups:
            score = group.scores.get(name, np.full(len(group.timeline), np.nan, np.float32))
            supports = np.isfinite(score) & ((score > 0) | (name == "vision"))
            out.append(np.where(supports, score, -np.inf).astype(np.float32))
        return out

    return fuse


FUSIONS: dict[str, Fusion] = {
    "vision": only("vision"),
    "evidence": only("evidence"),
    "text": only("text"),
    "face": only("face"),
    "colour": only("colour"),
    "rank fusion": rank_fusion,
    "score fusion": score_fusion,
}


def ranks(questions: Sequence[Question], memories: dict[str, Memory], fuse: Fusion) -> np.ndarray:
    """Rank of the first right moment a question (1-based), inf where none of the first five is right."""
    out = []
    for question in questions:
        hits = find(memories[question.source.name], question.query, k=TOP, fuse=fuse).hits
        right = [
            rank
            for rank, hit in enumerate(hits, 1)
            if question.hit(int(hit.signals.timeline.t_start_ns[hit.moment.peak]) / 1e9, SLACK_S)
        ]
        out.append(right[0] if right else np.inf)
    return np.array(out, float)


def chance(questions: Sequence[Question]) -> float:
    """Share of a source that is right, averaged over questions."""
    return float(np.mean([sum(b - a for a, b in q.spans) / q.source.duration_s for q in questions]))


def summary(found: np.ndarray, seed: int = 0) -> dict[str, float | list[float]]:
    """R@1, R@5, MRR with 95 % bootstrap intervals."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(found), (BOOTSTRAPS, len(found)))
    out: dict[str, float | list[float]] = {}
    measures: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "R@1": lambda r: r <= 1,
        "R@5": lambda r: r <= TOP,
        "MRR": lambda r: 1.0 / r,
    }
    for name, measure in measures.items():
        values = measure(found).astype(float)
        low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
        out[name] = round(float(values.mean()), 3)
        out[f"{name} 95%"] = [round(float(low), 3), round(float(high), 3)]
    return out


def answers(questions: Sequence[Question], memories: dict[str, Memory]) -> list[tuple[Answer, bool]]:
    """Every question asked for real; whether the first moment of the evidence is a right one."""
    out = []
    for question in questions:
        answer = memories[question.source.name].ask(question.query)
        first = answer.evidence[0] if answer.evidence else None
        right = first is not None and any(
            first.t_start_ns / 1e9 <= end + SLACK_S and start - SLACK_S <= first.t_end_ns / 1e9
            for start, end in question.spans
        )
        out.append((answer, right))
    return out


def top_evidence(answer: Answer) -> float:
    """The highest score of the signal ``evidence`` among the moments of an answer; -inf where it knew nothing."""
    scores = [why.score for moment in answer.closest for why in moment.why if why.signal == "evidence"]
    return max(scores, default=-np.inf)


def abstention(
    present: Sequence[tuple[Answer, bool]], absent: Sequence[tuple[Answer, bool]], of_kind: Sequence[str]
) -> dict[str, object]:
    """Statuses of both kinds, and the risk-coverage curve of ``evidence``: share of absent things that pass a
    threshold, share of present things that do, and how many of those moments are right."""
    kinds = [(a, right, kind) for (a, right), kind in zip(present, of_kind, strict=True)]
    here = np.array([top_evidence(a) for a, _ in present])
    gone = np.array([top_evidence(a) for a, _ in absent])
    statuses = ("found", "unsure", "not_seen")
    return {
        "present": {s: sum(a.status == s for a, _ in present) for s in statuses},
        "present found, by kind": {
            kind: f"{sum(a.status == 'found' for a, _, k in kinds if k == kind)}/{sum(k == kind for *_, k in kinds)}"
            for kind in sorted({k for *_, k in kinds})
        },
        "present found and right": sum(a.status == "found" and right for a, right in present),
        "absent": {s: sum(a.status == s for a, _ in absent) for s in statuses},
        "false found": [a.question for a, _ in absent if a.status == "found"],
        "risk-coverage": [
            {
                "threshold": float(level),
                "absent that pass": round(float((gone >= level).mean()), 3),
                "present that pass": round(float((here >= level).mean()), 3),
            }
            for level in (3, 2, 1, 0.5, 0, -0.5, -1, -2, -3, -5)
        ],
    }


def ask_names(split: str, memories: dict[str, Memory]) -> dict[str, object]:
    """ "Is there a NAME?" of everything that is there: the plainest question there is."""
    listed = yaml.safe_load(NAMES.read_text("utf-8"))
    asked = [
        (source, name, memories[source].ask(f"is there a {name}?").status)
        for part in (("dev", "test") if split == "all" else (split,))
        for source, names in listed[part].items()
        for name in names
        if source in memories
    ]
    counts = {status: sum(told == status for *_, told in asked) for status in ("found", "unsure", "not_seen")}
    return counts | {"not_seen names": [f"{name} ({source})" for source, name, told in asked if told == "not_seen"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for joined videos and memories")
    parser.add_argument("--split", choices=("dev", "test", "all"), default="dev")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sampling", choices=("adaptive", "fixed"), default="adaptive")
    parser.add_argument("--fps", type=float, default=1.0)
    parser.add_argument("--detector", default="", help="PATH of an ONNX detector: perception.detector")
    parser.add_argument("--names", action="store_true", help="ask for tests/data/names.yaml, too")
    parser.add_argument("--by-kind", action="store_true")
    parser.add_argument("--list", action="store_true", help="one line a question")
    args = parser.parse_args()
    queries = load_queries()
    if args.split != "all":
        queries = queries.select(args.split)
    config = Config(perception=PerceptionConfig(sampling=args.sampling, fps=args.fps, detector=args.detector))
    memories = memories_of(queries, args.work, detector=args.detector, config=config)
    report: dict[str, object] = {
        "split": args.split,
        "present": len(queries.present),
        "random frame": round(chance(queries.present), 3),
    }
    for name, fuse in FUSIONS.items():
        found = ranks(queries.present, memories, fuse)
        report[name] = summary(found)
        if name == "score fusion":
            if args.by_kind:
                for kind in sorted({q.kind for q in queries.present}):
                    mine = np.array([q.kind == kind for q in queries.present])
                    report[f"{name} / {kind} ({int(mine.sum())})"] = summary(found[mine])
            if args.list:
                for question, rank in zip(queries.present, found, strict=True):
                    print(f"{rank:4.0f}  {question.id:12} {question.kind:7} {question.query}", file=sys.stderr)
    report["answers"] = abstention(
        answers(queries.present, memories), answers(queries.absent, memories), [q.kind for q in queries.present]
    )
    if args.names:
        report["names"] = ask_names(args.split, memories)
    print(json.dumps(report, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    for memory in memories.values():
        memory.close()


if __name__ == "__main__":
    main()
