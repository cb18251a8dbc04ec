"""Measure at which score a signal can be trusted, and write perception/encoders/data/calibration.json.

    python tools/calibrate.py --cache DIR [--risk 0.03] [--write]

*evidence*: the threshold is the lowest score that at most ``risk`` of the negatives pass. Negatives are the absent
development questions, and single words of the vocabulary for things that can't be in a recording (animals on a robot's
table, vehicles in a living room), 60 a recording, drawn with a seed. *text* and *speech*: every development question is
asked of words that were really read or heard in other recordings. The test split is only printed.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
for folder in (REPOSITORY, REPOSITORY / "tools"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from eval_retrieval import SLACK_S, Watched, signals, watch  # noqa: E402

from perception.encoders import vocabulary  # noqa: E402
from perception.encoders.calibration import FILE  # noqa: E402
from perception.encoders.imagenet import ImageNetSpace  # noqa: E402
from perception.encoders.suite import EncoderSuite  # noqa: E402
from queries import Question, data_root, load_queries  # noqa: E402
from streammem.config import PerceptionConfig  # noqa: E402
from streammem.recall.query import parse_query  # noqa: E402
from streammem.recall.words import match_query  # noqa: E402
from streammem.spaces import Calibration, SignalCalibration  # noqa: E402

OUT = REPOSITORY / "perception" / "encoders" / "data" / FILE
WORDS_EACH = 60
SEED = 7
# Kinds of things of which a recording certainly shows none; checked by looking at it.
NEVER = {
    "robot_table": ("animal", "vehicle", "musical instrument", "clothing", "fruit", "vegetable"),
    "fruit_picking": ("animal", "vehicle", "musical instrument", "clothing", "furniture"),
    "bottle": ("animal", "vehicle", "musical instrument", "clothing", "furniture", "fruit"),
    "outdoors": ("reptile", "fish", "insect", "musical instrument", "vegetable", "crustacean"),
    "bbb": ("vehicle", "furniture", "musical instrument", "electronic equipment", "dog", "cat", "snake", "fish"),
    "home_and_away": ("reptile", "fish", "insect", "bird", "vehicle", "musical instrument"),
    "car": ("animal", "musical instrument", "clothing", "fruit", "furniture"),
    "bikes": ("reptile", "fish", "insect", "musical instrument", "vegetable", "cat", "dog"),
}
# Words must cover at least this much whatever the negatives say: half a question is another question.
LEAST_COVERAGE = 0.6

Row = tuple[float, bool]
"""Best score of a question, and whether its moment is a right one (always False for an absent thing)."""


def never_words(source: str) -> list[str]:
    """Words of the vocabulary whose every class is of a kind that the source never shows."""
    words = vocabulary.load().words
    never = {int(c) for kind in NEVER[source] for c in words[kind]}
    fitting = sorted(word for word, classes in words.items() if {int(c) for c in classes} <= never)
    return random.Random(SEED).sample(fitting, min(WORDS_EACH, len(fitting)))


def best(question: Question | None, query: str, watched: Watched, space: ImageNetSpace, name: str) -> Row | None:
    """The best score of a signal, None where it knows nothing."""
    scores = signals(query, watched, space)[name]
    if not np.isfinite(scores).any():
        return None
    row = int(np.nanargmax(scores))
    return float(scores[row]), question is not None and question.hit(float(watched.times[row]), SLACK_S)


def threshold_at(negatives: Sequence[float], risk: float) -> float:
    """The lowest threshold that at most ``risk`` of the negatives reach."""
    ordered = np.sort(np.asarray(negatives))[::-1]
    allowed = int(risk * len(ordered))
    return float(np.nextafter(ordered[allowed], np.inf)) if allowed < len(ordered) else float("-inf")


def curve(rows: Sequence[Row]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scores (ascending) and, among rows at least as high, the share that is right, made monotone."""
    ordered = sorted(rows, key=lambda row: -row[0])
    right = np.cumsum([row[1] for row in ordered]) / np.arange(1, len(ordered) + 1)
    # One lucky row at the top says nothing: shrink towards the overall share with the weight of two rows.
    count = np.arange(1, len(ordered) + 1)
    shrunk = (right * count + 2 * right[-1]) / (count + 2)
    # Finer towards the top, where decisions are made.
    levels = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.99, 1.0)
    grid = np.unique(np.quantile([row[0] for row in ordered], levels))
    values = [float(shrunk[sum(row[0] >= score for row in ordered) - 1]) for score in grid]
    return tuple(round(float(s), 3) for s in grid), tuple(round(float(v), 3) for v in np.maximum.accumulate(values))


def word_negatives(questions: Sequence[Question], texts: Sequence[tuple[str, Sequence[str]]]) -> list[float]:
    """Every question asked of words from other recordings: the share of it that stands there."""
    return [
        match_query(parse_query(question.query), words).coverage
        for question in questions
        for source, words in texts
        if source != question.source.name and words
    ]


def transcripts() -> list[tuple[str, Sequence[str]]]:
    """What is said in the shared recordings of speech."""
    return [("", (path.read_text("utf-8"),)) for path in sorted((data_root() / "speech").glob("*.txt"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="where eval_retrieval.py keeps encoded clips")
    parser.add_argument("--risk", type=float, default=0.03, help="share of negatives that may pass")
    parser.add_argument("--write", action="store_true", help=f"write {OUT.name}")
    arguments = parser.parse_args()
    queries = load_queries()
    suite = EncoderSuite(PerceptionConfig(speech="off"))
    space = suite.space
    if not isinstance(space, ImageNetSpace):
        raise SystemExit("this calibrates the default space")
    every = {q.source.name: q.source for q in (*queries.present, *queries.absent)}
    watched = {name: watch(source, suite, arguments.cache) for name, source in every.items()}

    def rows(questions: Sequence[Question], name: str) -> list[Row | None]:
        return [best(q, q.query, watched[q.source.name], space, name) for q in questions]

    dev, test = queries.select("dev"), queries.select("test")
    invented = [best(None, w, watched[s], space, "evidence") for s in NEVER if s in watched for w in never_words(s)]
    absent = rows(dev.absent, "evidence")
    negatives = [row[0] for row in (*absent, *invented) if row is not None]
    threshold = threshold_at(negatives, arguments.risk)
    present = rows(dev.present, "evidence")
    scores, precision = curve([row for row in (*present, *absent) if row is not None])
    print(f"evidence: {len(negatives)} negatives ({len(invented)} words), threshold {threshold:.2f}")
    for name, here, gone in (
        ("dev", present, absent),
        ("test", rows(test.present, "evidence"), rows(test.absent, "evidence")),
    ):
        for level in (threshold - 1, threshold, threshold + 1):
            passed = [row for row in here if row is not None and row[0] >= level]
            wrong = sum(row is not None and row[0] >= level for row in gone)
            right = sum(row[1] for row in passed)
            print(
                f"  {name} at {level:5.2f}: present {len(passed)}/{len(here)}, right {right}; "
                f"absent {wrong}/{len(gone)}"
            )
    entries = [
        SignalCalibration("evidence", round(float(threshold), 4), arguments.risk, len(negatives), scores, precision)
    ]
    seen = [row for row in rows(dev.present, "vision") if row is not None and row[1]]
    # Vision alone can't tell absence; what 95 of 100 right moments reach at least resembles.
    level = float(np.quantile([row[0] for row in seen], 0.05))
    gone = [row[0] for row in rows(dev.absent, "vision") if row is not None]
    print(f"vision: supports from {level:.3f}: absent questions below it {np.mean(np.array(gone) < level):.2f}")
    entries.append(SignalCalibration("vision", None, 1.0, len(gone), supports=round(level, 4)))
    read = [(name, sorted({t for texts in w.texts for t in texts})) for name, w in watched.items()]
    for name, words in (("text", read), ("speech", transcripts())):
        found = word_negatives((*dev.present, *dev.absent), words)
        level = max(threshold_at(found, arguments.risk), LEAST_COVERAGE) if found else LEAST_COVERAGE
        print(f"{name}: {len(found)} negatives, highest {max(found, default=0.0):.2f}, threshold {level:.2f}")
        entries.append(SignalCalibration(name, round(float(level), 4), arguments.risk, len(found)))
    source = "development questions and impossible words on the shared clips, 1 frame/s; tools/calibrate.py"
    made = Calibration(space.name, space.version, source, tuple(entries))
    if arguments.write:
        OUT.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
        print(f"wrote {OUT}")


if __name__ == "__main__":
    main()
