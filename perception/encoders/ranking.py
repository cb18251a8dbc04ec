"""How much a row of class scores has to do with a question: Q2C-z, ConSE and the evidence of its labels.

*Q2C-z*: the question becomes weights over the classes (softmax over similarities, ``vocabulary.py``), a crop's
relevance is the weighted sum of its activations standardised by the stream's own background, a row's that of its best
crop. It is in deviations, so that two streams compare.
*Label*: where the question holds words of the vocabulary, the probability that the picture shows such a thing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from perception.encoders import colours, sparse, vocabulary
from perception.encoders.minilm import MiniLM
from perception.encoders.vocabulary import TEMPERATURE, Match
from streammem.recall.query import content_phrase
from streammem.spaces import Ragged

WORD_FACTOR = 0.8
"""A single word's match counts less than the whole phrase's. Development R@1/R@5: phrase alone .41/.57, with words
.42/.64 (at .9: .40/.61, at 1: .39/.58)."""
DEVIATION_FLOOR = 1.0
PRIOR_CROPS = 200.0
_MOST_WORDS = 12
_LEAST_P = 1e-4
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
    the phrase; ``matches`` its words that are in the vocabulary; ``colours`` the numbers of its colour terms."""

    weights: np.ndarray
    similarities: np.ndarray
    matches: tuple[Match, ...]
    colours: tuple[int, ...]


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
        tuple(table.matches(phrase)),
        colours.asked(phrase),
    )


@cache
def prior() -> np.ndarray:
    """The shipped background, (3, 1000) float64: ``data/prior.npz``, made by ``tools/build_prior.py``."""
    path = resources.files("perception.encoders") / "data" / "prior.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return stored["statistics"].astype(np.float64)


def vision(question: Question, columns: Mapping[str, Ragged], statistics: np.ndarray | None) -> np.ndarray:
    """Q2C-z of the best crop a row, (n,) float32; -inf where a row has no class scores."""
    classes, scores = columns.get("classes"), columns.get("scores")
    if classes is None or scores is None:
        return _nothing(columns)
    background = sparse.Background.of(statistics, prior(), PRIOR_CROPS, DEVIATION_FLOOR)
    per_deviation = question.weights / background.deviation
    relevance = sparse.weighted(classes.values, sparse.activations(scores.values), per_deviation)
    return best_of(relevance - np.float32(per_deviation @ background.mean), classes.offsets)


def signals(question: Question, columns: Mapping[str, Ragged], statistics: np.ndarray | None) -> dict[str, np.ndarray]:
    """``vision``, ``conse`` and ``label`` a row, (n,) float32; -inf where a row has no class scores."""
    classes, scores = columns.get("classes"), columns.get("scores")
    if classes is None or scores is None:
        return {"vision": _nothing(columns), "conse": _nothing(columns), "label": _nothing(columns)}
    p = np.exp(scores.values.astype(np.float32))
    conse = sparse.weighted(classes.values, p, question.similarities) / np.maximum(p.sum(axis=1), 1e-6)
    return {
        "vision": vision(question, columns, statistics),
        "conse": best_of(conse, classes.offsets),
        "label": _label(question, classes.values, p, classes.offsets),
    }


def _nothing(columns: Mapping[str, Ragged]) -> np.ndarray:
    rows = max((len(column) for column in columns.values()), default=0)
    return np.full(rows, -np.inf, dtype=np.float32)


def _label(question: Question, classes: np.ndarray, p: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Log-odds of the least likely matched word in its best crop: a picture of a dog isn't one of a dog on a boat."""
    least = np.full(len(offsets) - 1, np.inf, dtype=np.float32)
    for match in question.matches:
        members = np.zeros(sparse.CLASSES, dtype=np.float32)
        members[match.classes] = 1.0
        share = np.clip(best_of(sparse.weighted(classes, p, members), offsets), _LEAST_P, 1 - _LEAST_P)
        least = np.minimum(least, np.log(share / (1 - share)))
    return least if question.matches else np.full_like(least, -np.inf)


def best_of(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The highest of each row's values, (n,) float32; -inf for a row without any."""
    out = np.full(len(offsets) - 1, -np.inf, dtype=np.float32)
    filled = np.flatnonzero(np.diff(offsets) > 0)
    if len(filled):
        # Empty rows hold no values, so the starts of the filled ones cut the array without gaps.
        out[filled] = np.maximum.reduceat(values, offsets[:-1][filled])
    return out
