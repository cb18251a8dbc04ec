"""How much a row of class scores has to do with a question: Q2C-z and ConSE.

*Q2C-z*: the question becomes weights over the classes (softmax over similarities, ``vocabulary.py``), a crop's
relevance is the weighted sum of its activations standardised by the stream's own background, a row's that of its best
crop. It is in deviations, so that two streams compare.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from perception.encoders import evidence, sparse, vocabulary
from perception.encoders.claim import COCO, Claim, read_claim
from perception.encoders.minilm import MiniLM
from perception.encoders.vocabulary import TEMPERATURE
from streammem.recall.query import content_phrase
from streammem.spaces import Ragged

WORD_FACTOR = 0.8
"""A single word's match counts less than the whole phrase's. Development R@1/R@5: phrase alone .41/.57, with words
.42/.64 (at .9: .40/.61, at 1: .39/.58)."""
DEVIATION_FLOOR = 1.0
PRIOR_CROPS = 200.0
VECTOR_SLOPE, VECTOR_START = 1.18, -0.10
"""Q2C-z by the cosine of the index vector: least squares over the development questions (correlation .28; the vector
alone finds .26/.52 where class scores find .42/.64)."""
_MOST_WORDS = 12
_LEAST_TOLD = np.log(0.02)
LEAST_BOX = 0.3
"""A box less sure than this is no reason to tell."""
# Function words have no picture; their sentence vectors are near "knot", "switch" and other short names.
_FUNCTION_WORDS = frozenset(
    """a an the of in on at to for from by with and or is are was were be been being do does did has have had there here
    this that these those it its their his her our your my when where what which who whose how many much first last
    time times into onto over under up down out as if then than so no not only just also very while during before after
    about around behind beside between next through along across near above below against inside outside off towards
    toward together someone something seen""".split()
)


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A question in the terms of this space. ``weights`` (1000,) sum 1; ``similarities`` (1000,) of the class names to
    the phrase, ``vector`` (384,) is the phrase's own; ``claim`` what it says is visible, for ``evidence.py``."""

    weights: np.ndarray
    similarities: np.ndarray
    vector: np.ndarray
    claim: Claim


def read_query(text: str, model: MiniLM) -> Question:
    """Turn a question into weights over the classes. Raises ModelUnavailable."""
    table = vocabulary.load()
    phrase = content_phrase(text) or text
    words = [t for t in re.findall(r"[a-z0-9-]+", phrase.lower()) if t not in _FUNCTION_WORDS and len(t) > 2]
    words = list(dict.fromkeys(words))[:_MOST_WORDS]
    vectors = model.embed([phrase, *words])
    best = table.similarities(vectors[0])
    for vector in vectors[1:]:
        best = np.maximum(best, WORD_FACTOR * table.similarities(vector))
    weights = np.exp((best - best.max()) / TEMPERATURE)
    return Question(
        (weights / weights.sum()).astype(np.float32),
        (table.class_vectors @ vectors[0]).astype(np.float32),
        vectors[0],
        read_claim(phrase, _FUNCTION_WORDS),
    )


def explain(question: Question, columns: Mapping[str, Ragged], limit: int = 3) -> list[str]:
    """The class names that made a row relevant, with their probability in its most relevant crop; one text a row."""
    classes, scores = columns.get("classes"), columns.get("scores")
    if classes is None or scores is None:
        return [""] * max((len(column) for column in columns.values()), default=0)
    names = vocabulary.load().names
    out = []
    for row in range(len(classes)):
        entries = slice(int(classes.offsets[row]), int(classes.offsets[row + 1]))
        listed, log_p = classes.values[entries], scores.values[entries].astype(np.float32)
        if not len(listed):
            out.append("")
            continue
        shares = question.weights[listed] * sparse.activations(scores.values[entries])
        crop = int(shares.sum(axis=1).argmax())
        best = np.argsort(-shares[crop], kind="stable")[:limit]
        # A class with less than a tenth of the whole had no say; one below 2 % isn't worth a word.
        least = 0.1 * shares[crop].sum()
        told = [i for i in best if shares[crop, i] >= max(least, 1e-9) and log_p[crop, i] >= _LEAST_TOLD]
        texts = [f"{names[listed[crop, i]]} {np.exp(log_p[crop, i]):.2f}" for i in told]
        out.append(", ".join(_told_boxes(question.claim, columns.get("things"), row) + texts))
    return out


def _told_boxes(claim: Claim, things: Ragged | None, row: int) -> list[str]:
    """What a detector saw in this row of the things that no class knows: "person 0.91"."""
    if things is None:
        return []
    boxes = things.values[things.offsets[row] : things.offsets[row + 1], :2].astype(np.float64)
    wanted = {kind for thing in claim.things if not len(thing.classes) for kind in thing.kinds}
    best = {kind: max(boxes[boxes[:, 0] == kind, 1], default=0.0) for kind in sorted(wanted)}
    return [f"{COCO[kind]} {score:.2f}" for kind, score in best.items() if score >= LEAST_BOX]


@cache
def prior() -> np.ndarray:
    """The shipped background, (3, 1000) float64: ``data/prior.npz``, made by ``tools/build_prior.py``."""
    path = resources.files("perception.encoders") / "data" / "prior.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return stored["statistics"].astype(np.float64)


def vision(question: Question, columns: Mapping[str, Ragged], statistics: np.ndarray | None) -> np.ndarray:
    """Q2C-z of the best crop a row, (n,) float32.

    A row that has lost its class scores to the budget is judged by its index vector; -inf where it has neither."""
    classes, scores = columns.get("classes"), columns.get("scores")
    if classes is None or scores is None:
        return _by_vector(question, columns, _nothing(columns))
    background = sparse.Background.of(statistics, prior(), PRIOR_CROPS, DEVIATION_FLOOR)
    per_deviation = question.weights / background.deviation
    relevance = sparse.weighted(classes.values, sparse.activations(scores.values), per_deviation)
    best = sparse.best_of(relevance - np.float32(per_deviation @ background.mean), classes.offsets)
    return _by_vector(question, columns, best)


def _by_vector(question: Question, columns: Mapping[str, Ragged], best: np.ndarray) -> np.ndarray:
    """Fill the rows without a relevance from their index vectors, on the same scale."""
    vectors = columns.get("vector")
    if vectors is None or not len(vectors.values):
        return best
    lost = np.isneginf(best) & (np.diff(vectors.offsets) > 0)
    if lost.any():
        cosines = vectors.values[vectors.offsets[:-1][lost]].astype(np.float32) @ question.vector
        best[lost] = VECTOR_SLOPE * cosines + VECTOR_START
    return best


def signals(question: Question, columns: Mapping[str, Ragged], statistics: np.ndarray | None) -> dict[str, np.ndarray]:
    """``vision``, ``conse``, ``evidence`` and ``named`` a row, (n,) float32; -inf where a row has no class scores."""
    classes, scores = columns.get("classes"), columns.get("scores")
    if classes is None or scores is None:
        return {name: _nothing(columns) for name in ("vision", "conse", "evidence", "named")}
    relevance = vision(question, columns, statistics)
    p = np.exp(scores.values.astype(np.float32))
    conse = sparse.weighted(classes.values, p, question.similarities) / np.maximum(p.sum(axis=1), 1e-6)
    return {
        "vision": relevance,
        "conse": sparse.best_of(conse, classes.offsets),
        **evidence.score(question.claim, relevance, columns),
    }


def _nothing(columns: Mapping[str, Ragged]) -> np.ndarray:
    rows = max((len(column) for column in columns.values()), default=0)
    return np.full(rows, -np.inf, dtype=np.float32)
