"""Measure at which score a signal can be trusted, and write perception/encoders/data/calibration.json.

    python tools/calibrate.py --work DIR [--detector yolox_nano.onnx] [--write]

DIR is the folder of ``tools/eval_recall.py``: the memories are watched as ``streammem watch`` does, and what is
compared with a threshold is what an answer compares, the highest score of a signal among its moments.

*evidence*: the threshold is the lowest score that at most 5 % of questions about absent things reach, one-sided and
with 95 % confidence (Clopper and Pearson, Biometrika 1934), and at most 5 % of single words for things that can't be in
a recording (animals on a robot's table, vehicles in a living room; 60 a recording, drawn with a seed), and at most 5 %
of false claims about things that are there ("does the bottle explode?"). Thresholds are
tried from the highest down until one fails, which needs no correction for many tries (fixed sequence testing:
Angelopoulos et al., "Learn then Test", 2021). *text*, *speech*: every development question is asked of words that were
read or heard in other recordings. Held-out questions aren't looked at: ``eval_recall.py --split test`` does.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
for folder in (REPOSITORY, REPOSITORY / "tools"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from eval_recall import NAMES, SLACK_S, TOP, memories_of  # noqa: E402

from perception.encoders import vocabulary  # noqa: E402
from perception.encoders.calibration import FILE  # noqa: E402
from queries import Question, data_root, load_queries  # noqa: E402
from streammem.memory import Memory  # noqa: E402
from streammem.recall.calibrate import features  # noqa: E402
from streammem.recall.query import parse_query  # noqa: E402
from streammem.recall.search import find  # noqa: E402
from streammem.recall.words import match_query  # noqa: E402
from streammem.spaces import Calibration, SignalCalibration  # noqa: E402

OUT = REPOSITORY / "perception" / "encoders" / "data" / FILE
RISK, CONFIDENCE = 0.05, 0.95
WORDS_RISK = 0.03
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
# Never true of anything in the recordings.
FALSE_CLAIMS = (
    "does the {} explode?",
    "when does the {} melt?",
    "an inflatable {}",
    "a burning {}",
    "a {} made of glass",
)
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


def near_misses() -> list[tuple[str, str]]:
    """(source, question) that say something false of a thing that is there: nothing explodes in any recording."""
    names: dict[str, list[str]] = yaml.safe_load(NAMES.read_text("utf-8"))["dev"]
    return [(source, asked.format(name)) for source, of in names.items() for name in of for asked in FALSE_CLAIMS]


def best(query: str, memory: Memory, name: str, question: Question | None = None) -> Row:
    """The best score of a signal among the moments of an answer; -inf where it knows nothing."""
    scored = [
        (features(hit).get(name, -np.inf), int(hit.signals.timeline.t_start_ns[hit.moment.peak]) / 1e9)
        for hit in find(memory, query, k=TOP).hits
        if hit.evidence.frames
    ]
    score, t_s = max(scored, default=(-np.inf, 0.0))
    return float(score), question is not None and question.hit(t_s, SLACK_S)


def upper_bound(passed: int, of: int) -> float:
    """The Clopper-Pearson bound: the largest share at which so few passing has a chance of 5 %."""
    from scipy.stats import beta

    return 1.0 if passed >= of else float(beta.ppf(CONFIDENCE, passed + 1, of - passed))


def controlled(absent: Sequence[float], *others: Sequence[float]) -> float:
    """The lowest threshold at which the bound for absent questions keeps to RISK, and the share of every other group
    of negatives, each for itself: an easy group must not hide a hard one."""
    level = float("inf")
    for level in sorted({*absent, *(score for group in others for score in group)}, reverse=True):
        gone = np.asarray(absent) >= level
        shares = [float((np.asarray(group) >= level).mean()) for group in others]
        if upper_bound(int(gone.sum()), len(gone)) > RISK or max(shares) > RISK:
            break
    # Just above the first score that is too low.
    return round(level + 1e-4, 4)


def curve(rows: Sequence[Row]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scores (ascending) and, among rows at least as high, the share that is right, made monotone."""
    ordered = sorted((row for row in rows if np.isfinite(row[0])), key=lambda row: -row[0])
    right = np.cumsum([row[1] for row in ordered]) / np.arange(1, len(ordered) + 1)
    # One lucky row at the top says nothing: shrink towards the overall share with the weight of two rows.
    count = np.arange(1, len(ordered) + 1)
    shrunk = (right * count + 2 * right[-1]) / (count + 2)
    # Finer towards the top, where decisions are made.
    levels = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.99, 1.0)
    grid = np.unique(np.quantile([row[0] for row in ordered], levels))
    values = [float(shrunk[sum(row[0] >= score for row in ordered) - 1]) for score in grid]
    return tuple(round(float(s), 3) for s in grid), tuple(round(float(v), 3) for v in np.maximum.accumulate(values))


def words_read(memory: Memory) -> list[str]:
    """Every text that was read in a recording."""
    timelines = {id(hit.signals.timeline): hit.signals.timeline for hit in find(memory, "anything", k=1).hits}
    rows = [(t, int(row)) for t in timelines.values() for row in np.flatnonzero(t.has_words)]
    return sorted({span.text for timeline, row in rows for span in timeline.record(row).texts})


def word_negatives(questions: Sequence[Question], texts: Sequence[tuple[str, Sequence[str]]]) -> list[float]:
    """Every question asked of words from other recordings: the share of it that stands there."""
    return [
        match_query(parse_query(question.query), words).coverage
        for question in questions
        for source, words in texts
        if source != question.source.name and words
    ]


def threshold_at(negatives: Sequence[float], risk: float) -> float:
    """The lowest threshold that at most ``risk`` of the negatives reach."""
    ordered = np.sort(np.asarray(negatives))[::-1]
    allowed = int(risk * len(ordered))
    return float(np.nextafter(ordered[allowed], np.inf)) if allowed < len(ordered) else float("-inf")


def transcripts() -> list[tuple[str, Sequence[str]]]:
    """What is said in the shared recordings of speech."""
    return [("", (path.read_text("utf-8"),)) for path in sorted((data_root() / "speech").glob("*.txt"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of tools/eval_recall.py")
    parser.add_argument("--detector", default="", help="hold the bound with this detector's boxes, too")
    parser.add_argument("--write", action="store_true", help=f"write {OUT.name}")
    arguments = parser.parse_args()
    dev = load_queries().select("dev")
    thresholds, negatives = [], 0
    plain, present, absent = {}, [], []
    for detector in dict.fromkeys(("", arguments.detector)):
        memories = memories_of(dev, arguments.work, detector=detector)
        present = [best(q.query, memories[q.source.name], "evidence", q) for q in dev.present]
        absent = [best(q.query, memories[q.source.name], "evidence") for q in dev.absent]
        words = [best(w, memories[s], "evidence")[0] for s in NEVER if s in memories for w in never_words(s)]
        gone = [score for score, _ in absent]
        near = [best(asked, memories[s], "evidence")[0] for s, asked in near_misses() if s in memories]
        thresholds.append(controlled(gone, words, near))
        negatives = len(gone) + len(words) + len(near)
        name = "with boxes" if detector else "plain"
        for level in (thresholds[-1] - 1, thresholds[-1], thresholds[-1] + 1):
            passed = sum(score >= level for score in gone)
            print(
                f"evidence, {name}, at {level:5.2f}: present {sum(row[0] >= level for row in present)}/{len(present)},"
                f" right {sum(row[1] for row in present if row[0] >= level)}; absent {passed}/{len(gone)}, bound"
                f" {upper_bound(passed, len(gone)):.3f}; words {sum(w >= level for w in words)}/{len(words)};"
                f" near misses {sum(w >= level for w in near)}/{len(near)}"
            )
        if not detector:
            plain, kept = memories, (present, absent)
    present, absent = kept
    scores, precision = curve([*present, *absent])
    threshold = max(thresholds)
    entries = [SignalCalibration("evidence", threshold, RISK, negatives, scores, precision)]
    # Things that are there by the same measure, of which the question says more than can be checked.
    entries.append(SignalCalibration("named", None, 1.0, negatives, supports=threshold))
    seen = [row[0] for row in (best(q.query, plain[q.source.name], "vision", q) for q in dev.present) if row[1]]
    # Vision alone can't tell absence; what 95 of 100 right moments reach at least resembles.
    level = float(np.quantile(seen, 0.05))
    odd = [best(q.query, plain[q.source.name], "vision")[0] for q in dev.absent]
    print(f"vision: supports from {level:.3f}: absent questions below it {np.mean(np.array(odd) < level):.2f}")
    entries.append(SignalCalibration("vision", None, 1.0, len(odd), supports=round(level, 4)))
    for name, texts in (("text", [(n, words_read(m)) for n, m in plain.items()]), ("speech", transcripts())):
        found = word_negatives((*dev.present, *dev.absent), texts)
        level = max(threshold_at(found, WORDS_RISK), LEAST_COVERAGE) if found else LEAST_COVERAGE
        print(f"{name}: {len(found)} negatives, highest {max(found, default=0.0):.2f}, threshold {level:.2f}")
        entries.append(SignalCalibration(name, round(float(level), 4), WORDS_RISK, len(found)))
    source = "development questions and impossible words on the shared clips, watched as usual; tools/calibrate.py"
    made = Calibration("imagenet-conse", "2", source, tuple(entries))
    if arguments.write:
        OUT.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
        print(f"wrote {OUT}")


if __name__ == "__main__":
    main()
