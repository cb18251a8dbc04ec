"""Multiple choice over a list of captions: the strategies on text alone, each with what it read.

For benchmarks that give captions (NExT-QA at one a second): no picture, no language model, only sentence vectors. An
option's support is the mean of its best cosines with the captions that a strategy chose to read; strategies differ in
which those are. Levels are those of the timeline: a window of captions is one coarse record, its vector the normalised
mean (HCAM's chunk key, arXiv 2105.14039, sec. 3), and its captions are the fine level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from streammem.reason.likelihood import OPTION, option_scores
from streammem.recall.plan import plan_question

WINDOW = 8
"""Captions of a coarse record: a tenth of a minute at one a second, near VideoLucy's 5 s for short videos."""
WINDOWS = 3
"""Coarse records that are looked into (VideoLucy, sec. 2.2)."""
TOP = 3


@dataclass(frozen=True, slots=True, eq=False)
class Captioned:
    """One video as captions: ``vectors`` (n, d) float32, L2-normalised, in time order."""

    video: str
    vectors: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """One question with its vectors, all L2-normalised float32: ``question`` (d,), ``options`` (o, d), and ``joint``
    (o, d) of the question followed by each option. ``event`` (d,) is that of "before" or "after" something."""

    text: str
    question: np.ndarray
    options: np.ndarray
    joint: np.ndarray
    event: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The option, and how many records (coarse and fine) were compared for it."""

    option: int
    records: int


Method = Callable[[Asked, Captioned], Chosen]


def _support(asked: Asked, captions: np.ndarray) -> np.ndarray:
    """How well these captions (n, d) support each option, (o,) float64."""
    return option_scores(asked.joint, captions, top=TOP) + OPTION * option_scores(asked.options, captions, top=TOP)


def blind(asked: Asked, video: Captioned) -> Chosen:
    """The option that resembles the question: no look at the video."""
    return Chosen(int(np.argmax(asked.options @ asked.question)), 0)


def flat(asked: Asked, video: Captioned) -> Chosen:
    """All captions in one list."""
    return Chosen(int(np.argmax(_support(asked, video.vectors))), len(video.vectors))


def _windows(video: Captioned) -> tuple[list[np.ndarray], np.ndarray]:
    """Rows of each coarse record, and its vector."""
    count = len(video.vectors)
    rows = [np.arange(start, min(start + WINDOW, count)) for start in range(0, count, WINDOW)]
    keys = np.stack([video.vectors[one].mean(axis=0) for one in rows])
    return rows, keys / np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), 1e-9)


def _inside(asked: Asked, video: Captioned, rows: Sequence[np.ndarray], chosen: Sequence[int]) -> Chosen:
    fine = np.concatenate([rows[at] for at in sorted(set(chosen))])
    option = int(np.argmax(_support(asked, video.vectors[fine])))
    return Chosen(option, len(rows) + len(fine))


def _best(asked: Asked, keys: np.ndarray) -> list[int]:
    """Windows nearest to the question, or to it with any of its options."""
    score = np.maximum(keys @ asked.question, (keys @ asked.joint.T).max(axis=1))
    return np.argsort(-score, kind="stable")[:WINDOWS].tolist()


def hierarchical(asked: Asked, video: Captioned) -> Chosen:
    """The windows nearest to the question, then the captions inside them."""
    rows, keys = _windows(video)
    return _inside(asked, video, rows, _best(asked, keys))


def contiguous(asked: Asked, video: Captioned) -> Chosen:
    """... and the windows before and after each of them (EM-LLM's contiguity, VideoLucy's neighbours)."""
    rows, keys = _windows(video)
    near = [at + step for at in _best(asked, keys) for step in (-1, 0, 1) if 0 <= at + step < len(rows)]
    return _inside(asked, video, rows, near)


def planned(asked: Asked, video: Captioned) -> Chosen:
    """The window of the event ("after he sits down") and the one on the side that is meant; else as ``contiguous``."""
    anchor = plan_question(asked.text).anchor
    if anchor is None or asked.event is None:
        return contiguous(asked, video)
    rows, keys = _windows(video)
    at = int(np.argmax(keys @ asked.event))
    step = {"before": -1, "after": 1}.get(anchor.relation, 0)
    near = [other for other in (at, at + step) if 0 <= other < len(rows)]
    return _inside(asked, video, rows, near)


METHODS: dict[str, Method] = {
    "blind": blind,
    "flat": flat,
    "hierarchical": hierarchical,
    "hierarchical + contiguity": contiguous,
    "hierarchical + plan": planned,
}
"""In the order of a report; constant letters are counted from the answers alone."""


def event_of(question: str) -> str:
    """The event that a question's time is told by ("after the man sits down" -> "the man sits down"), or empty."""
    anchor = plan_question(question).anchor
    return "" if anchor is None else anchor.event
