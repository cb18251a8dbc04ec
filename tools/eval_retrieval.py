"""Measure the encoders by themselves: every development question, signal by signal, on frames at 1/s.

    python tools/eval_retrieval.py --cache DIR [--split dev|test|all]

Every sampled frame is encoded in full and nothing is stored, so this is what the encoders can do;
`tools/eval_recall.py` measures what is left of it end to end (key frames, storage, fusion, answers). A question
counts as right at rank r when the r-th moment lies in a true span, widened by half the sampling step. Moments are 5 s
apart. Intervals are percentile bootstraps over questions. Where a signal knows nothing, the question counts as
missed; `asked` says how often it did.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
for folder in (REPOSITORY, REPOSITORY / "tools"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from perception.encoders import colours  # noqa: E402
from perception.encoders.imagenet import ImageNetSpace  # noqa: E402
from perception.encoders.suite import EncoderSuite  # noqa: E402
from queries import Clip, Question, Source, load_queries, read_frames  # noqa: E402
from streammem.config import PerceptionConfig  # noqa: E402
from streammem.recall.query import parse_query  # noqa: E402
from streammem.recall.words import match_query  # noqa: E402
from streammem.spaces import Ragged  # noqa: E402

FPS = 1.0
SLACK_S = 0.5 / FPS
GAP_S = 5.0
TOP = 5
BOOTSTRAPS = 2000
PARTS = ("classes", "scores", "colours", "faces")
# Of the fusion, in standard deviations of the vision signal over the source; chosen on `dev`.
TEXT_WEIGHT, COLOUR_WEIGHT, FACE_WEIGHT = 6.0, 0.3, 0.5
TEXT_FLOOR = 0.34

Scores = np.ndarray


@dataclass(frozen=True)
class Watched:
    """A source at 1 frame/s: times (n,) in seconds, parts by name, texts a frame."""

    times: np.ndarray
    columns: Mapping[str, Ragged]
    texts: Sequence[Sequence[str]]


def watch_clip(clip: Clip, suite: EncoderSuite, cache: Path) -> Watched:
    """Encode a clip, or read what was encoded before with the same encoders."""
    key = hashlib.sha256(repr((clip.name, FPS, suite.identity())).encode()).hexdigest()[:16]
    path = cache / f"{clip.name}-{key}.npz"
    if not path.is_file():
        times: list[float] = []
        texts: list[list[str]] = []
        rows: dict[str, list[np.ndarray]] = {name: [] for name in PARTS}
        last = -1
        for t_s, picture in read_frames(clip):
            if (index := int((t_s + 1e-3) * FPS)) > last:
                last = index
                frame = suite.describe(picture, suite.glance(picture))
                times.append(t_s)
                texts.append([span.text for span in frame.texts])
                for name in PARTS:
                    rows[name].append(frame.parts.get(name, np.empty((0, 5))))
        stored: dict[str, np.ndarray] = {"times": np.array(times)}
        for name, values in rows.items():
            stored[f"{name}.values"] = np.concatenate([v for v in values if len(v)] or [np.empty((0, 5))])
            stored[f"{name}.offsets"] = np.cumsum([0] + [len(v) for v in values])
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, texts=np.array(json.dumps(texts)), **stored)
        print(f"encoded {clip.name}: {len(times)} frames", file=sys.stderr)
    with np.load(path, allow_pickle=False) as z:
        columns = {name: Ragged(z[f"{name}.values"], z[f"{name}.offsets"]) for name in PARTS}
        return Watched(z["times"], columns, json.loads(str(z["texts"])))


def watch(source: Source, suite: EncoderSuite, cache: Path) -> Watched:
    """A source, its parts one after the other."""
    clips = [watch_clip(part.clip, suite, cache) for part in source.parts]
    columns = {}
    for name in PARTS:
        counts = np.concatenate([np.diff(clip.columns[name].offsets) for clip in clips])
        filled = [clip.columns[name].values for clip in clips if len(clip.columns[name].values)]
        columns[name] = Ragged(
            np.concatenate(filled) if filled else np.empty((0, 5)), np.concatenate([[0], np.cumsum(counts)])
        )
    times = [clip.times + part.offset_s for clip, part in zip(clips, source.parts, strict=True)]
    return Watched(np.concatenate(times), columns, [texts for clip in clips for texts in clip.texts])


def signals(query: str, watched: Watched, space: ImageNetSpace) -> dict[str, Scores]:
    """Every signal a frame, (n,); NaN where it knows nothing."""
    parsed = parse_query(query)
    columns = dict(watched.columns)
    out = dict(space.signals(parsed.phrase, columns, space.statistics(columns)))
    n = len(watched.times)
    nothing = np.full(n, np.nan)
    matches = [match_query(parsed, texts).coverage if texts else 0.0 for texts in watched.texts]
    out["text"] = np.array(matches) if any(matches) else nothing
    faces = np.zeros(n)
    rows = columns["faces"].row_of
    np.maximum.at(faces, rows, columns["faces"].values[:, 0].astype(np.float64))
    out["face"] = faces if parsed.people else nothing
    asked = colours.asked(parsed.phrase)
    out["colour"] = nothing
    if asked:
        shares = columns["colours"].values[:, list(asked)].astype(np.float64).min(axis=1).reshape(n, -1)
        out["colour"] = ((shares - shares.mean()) / (shares.std() + 0.02)).max(axis=1)
    out["fusion"] = fuse(out)
    out["evidence"] = np.where(np.isfinite(out["evidence"]), out["evidence"], np.nan)
    return out


def fuse(known: Mapping[str, Scores]) -> Scores:
    """Vision in its own deviations, plus the other signals where they speak."""
    vision = known["vision"].astype(np.float64)
    total = (vision - vision.mean()) / max(float(vision.std()), 1e-6)
    text = np.nan_to_num(known["text"])
    total += TEXT_WEIGHT * np.where(text > TEXT_FLOOR, text, 0.0)
    total += FACE_WEIGHT * np.nan_to_num(known["face"])
    return total + COLOUR_WEIGHT * np.clip(np.nan_to_num(known["colour"]), -1.0, 3.0)


def moments(times: np.ndarray, scores: Scores) -> list[int]:
    """Rows of the best moments, at least 5 s apart; rows that know nothing are left out."""
    chosen: list[int] = []
    for row in np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable"):
        if len(chosen) == TOP or not np.isfinite(scores[row]):
            break
        if all(abs(times[row] - times[other]) >= GAP_S for other in chosen):
            chosen.append(int(row))
    return chosen


def rank_of(question: Question, times: np.ndarray, scores: Scores) -> int:
    """Rank of the first right moment, 0 for none."""
    for rank, row in enumerate(moments(times, scores), start=1):
        if question.hit(float(times[row]), SLACK_S):
            return rank
    return 0


def summary(ranks: Sequence[int], seed: int = 0) -> str:
    """R@1, R@5 and MRR with 95 % intervals."""
    rank = np.asarray(ranks)
    table = np.stack([rank == 1, rank > 0, np.where(rank > 0, 1 / np.maximum(rank, 1), 0.0)], axis=1)
    pick = np.random.default_rng(seed).integers(0, len(rank), (BOOTSTRAPS, len(rank)))
    low, high = np.percentile(table[pick].mean(axis=1), [2.5, 97.5], axis=0)
    names = ("R@1", "R@5", "MRR")
    return "  ".join(
        f"{n} {m:.2f} [{a:.2f}, {b:.2f}]" for n, m, a, b in zip(names, table.mean(axis=0), low, high, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="where encoded clips are kept between runs")
    parser.add_argument("--split", choices=("dev", "test", "all"), default="dev")
    arguments = parser.parse_args()
    queries = load_queries()
    chosen = queries if arguments.split == "all" else queries.select(arguments.split)
    suite = EncoderSuite(PerceptionConfig(speech="off"))
    space = suite.space
    if not isinstance(space, ImageNetSpace):
        raise SystemExit("this measures the default space")
    watched = {q.source.name: watch(q.source, suite, arguments.cache) for q in chosen.present}
    random = np.random.default_rng(0)
    known = [signals(q.query, watched[q.source.name], space) for q in chosen.present]
    for table in known:
        table["random"] = random.random(len(table["vision"]))
    columns: list[tuple[str, Callable[[Question], bool]]] = [("all", lambda q: True)]
    columns += [(kind, lambda q, k=kind: q.kind == k) for kind in sorted({q.kind for q in chosen.present})]  # type: ignore[misc]
    columns += [(name, lambda q, s=name: q.source.name == s) for name in watched]  # type: ignore[misc]
    print(f"{len(chosen.present)} questions, split {arguments.split}; missing sources: {chosen.missing or 'none'}")
    for name in ("random", "conse", "vision", "evidence", "text", "face", "colour", "fusion"):
        ranks = [rank_of(q, watched[q.source.name].times, k[name]) for q, k in zip(chosen.present, known, strict=True)]
        asked = sum(bool(np.isfinite(k[name]).any()) for k in known)
        print(f"{name:9} asked {asked:3}  {summary(ranks)}")
    for label, belongs in columns[1:]:
        some = [(q, k) for q, k in zip(chosen.present, known, strict=True) if belongs(q)]
        ranks = [rank_of(q, watched[q.source.name].times, k["fusion"]) for q, k in some]
        print(f"fusion, {label:14} n {len(some):3}  {summary(ranks)}")


if __name__ == "__main__":
    main()
