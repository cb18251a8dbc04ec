"""NExT-QA with given captions: accuracy by question type of every text strategy, beside constant letters.

    python tools/eval_nextqa.py --data ../shared/data/text/nextqa [--vectors CACHE.npz] [--json out.json]

``captions_1fps.json`` {video: {second: caption}} and ``questions.csv`` (video, question, answer, type, a0..a4). The
sentence vectors are the shipped MiniLM's; ``--vectors`` keeps them. Seconds are those of choosing, with vectors given.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))

from perception.encoders.minilm import MiniLM  # noqa: E402
from streammem.reason.captioned import METHODS, Asked, Captioned, event_of  # noqa: E402

BATCH = 256
TYPES = ("CW", "CH", "TN", "TC", "TP", "DO", "DL", "DC")
"""Causal why and how; temporal next, current, previous; descriptive other, location, count."""


def vectors_of(texts: list[str], cache: Path | None) -> dict[str, np.ndarray]:
    """Every text's vector (384,) float32, L2-normalised; kept in ``cache`` as float16."""
    known: dict[str, np.ndarray] = {}
    if cache is not None and cache.is_file():
        with np.load(cache, allow_pickle=False) as kept:
            known = dict(zip(kept["texts"].tolist(), kept["vectors"].astype(np.float32), strict=True))
    missing = sorted({text for text in texts if text not in known}, key=len)
    model = MiniLM()
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        known.update(zip(batch, model.embed(batch), strict=True))
    if cache is not None and missing:
        np.savez(cache, texts=np.array(list(known)), vectors=np.stack(list(known.values())).astype(np.float16))
    return {text: vector / max(float(np.linalg.norm(vector)), 1e-9) for text, vector in known.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    captions: dict[str, dict[str, str]] = json.loads((args.data / "captions_1fps.json").read_text())
    with (args.data / "questions.csv").open(newline="") as file:
        questions = list(csv.DictReader(file))
    options = [[row[f"a{n}"] for n in range(5)] for row in questions]
    texts = [text for video in captions.values() for text in video.values()]
    for row, given in zip(questions, options, strict=True):
        texts += [row["question"], *given, *(f"{row['question']} {one}" for one in given)]
        texts += [event for event in [event_of(row["question"] + "?")] if event]
    vector = vectors_of(texts, args.vectors)
    videos = {
        name: Captioned(name, np.stack([vector[text] for _, text in sorted(said.items(), key=lambda i: int(i[0]))]))
        for name, said in captions.items()
    }
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    records: dict[str, list[int]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    for row, given in zip(questions, options, strict=True):
        text, answer = row["question"], int(row["answer"])
        event = event_of(text + "?")
        asked = Asked(
            text + "?",
            vector[text],
            np.stack([vector[one] for one in given]),
            np.stack([vector[f"{text} {one}"] for one in given]),
            vector[event] if event else None,
        )
        for letter in range(5):
            right[f"constant {'ABCDE'[letter]}"][row["type"]].append(answer == letter)
        for name, method in METHODS.items():
            begun = time.perf_counter()
            chosen = method(asked, videos[row["video"]])
            seconds[name].append(time.perf_counter() - begun)
            records[name].append(chosen.records)
            right[name][row["type"]].append(chosen.option == answer)
    report = {}
    print(f"{len(questions)} questions, {len(videos)} videos, {sum(len(v.vectors) for v in videos.values())} captions")
    print(f"{'':28}{''.join(f'{kind:>7}' for kind in TYPES)}{'all':>8}{'records':>9}{'ms':>8}")
    for name, by_kind in right.items():
        values = {kind: 100 * float(np.mean(by_kind[kind])) for kind in TYPES}
        every = 100 * float(np.mean([one for kind in by_kind.values() for one in kind]))
        read = float(np.mean(records[name])) if records[name] else 0.0
        ms = 1000 * float(np.median(seconds[name])) if seconds[name] else 0.0
        report[name] = {**values, "all": every, "records": read, "ms": ms}
        print(f"{name:28}{''.join(f'{values[kind]:7.1f}' for kind in TYPES)}{every:8.1f}{read:9.1f}{ms:8.2f}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
