"""Where a thing is that somebody names in words: words -> mask of one picture, or "not in this one".

Whether it is there is decided as a question is (15 crops, the calibrated ``evidence`` signal at its threshold). Where
it is, the same network says by itself: its last layer, applied to every cell of the last map instead of their mean, is
the class activation map (Zhou et al. 2016). Two sizes of the picture are read: the small one sees the whole thing, the
large one its outline. What was found is cut out and looked at once more: of 17 frames tried, that told the 13 places
that were right (at least .5) from the 4 that weren't (at most .14). It knows things that ImageNet has names for; for
others point at them, or give a detector.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.encoders import lite0_graph, vocabulary
from perception.encoders.claim import read_claim
from perception.encoders.imagenet import ImageNetSpace
from perception.encoders.lite0 import Graph, load_state
from perception.trackers.prompts import FORMS, Prompt, cut_out
from streammem.errors import InputError
from streammem.recall.query import content_phrase
from streammem.spaces import Ragged

STRIDE = 32
LONG_SIDES = (448, 864)
SHARE = 0.7
"""Of the map's highest value: what lies above it, connected with the highest, is taken for the thing."""
MARGIN = 0.1
"""Around that, as a share of its sides: how far its outline may reach beyond the map's."""
CONFIRM_MARGIN, CONFIRM = 0.25, 0.3
"""The crop around it in which it is looked at again, and the share of probability that its classes must have there."""
_LEAST_P = 1e-4
_RECIPE = "lite0-cells-1"


class WordFinder:
    """Finds named things in pictures. Opened at first use; thread-safe. ``space`` is the one a watch uses."""

    def __init__(self, space: ImageNetSpace | None = None, *, cache: Path | None = None) -> None:
        self._space = space or ImageNetSpace(cache=cache)
        self._cells = Graph(lambda: (_RECIPE, lambda: lite0_graph.cells(load_state())), cache=cache)

    def evidence(self, image: np.ndarray, words: str) -> tuple[float, float]:
        """How surely ``image`` (h, w, 3) uint8 RGB shows it, and what that must reach (log-odds plus deviations)."""
        parts = self._space.embed_frame(image).parts
        columns = {name: Ragged(part, np.array([0, len(part)])) for name, part in parts.items()}
        measured = self._space.calibration()
        least = next((s.threshold for s in measured.signals if s.signal == "evidence"), None) if measured else None
        score = self._space.signals(words, columns, None)["evidence"]
        return float(score[0]), np.inf if least is None else least

    def find(self, image: np.ndarray, words: str) -> np.ndarray | None:
        """The mask (h, w) bool of what ``words`` name, None where ``image`` doesn't show it surely enough, or not
        clearly enough where.

        Raises InputError for words without a name that the network knows, ModelUnavailable."""
        classes = known_classes(words)
        score, least = self.evidence(image, words)
        return self.outline(image, classes) if score >= least else None

    def outline(self, image: np.ndarray, classes: np.ndarray) -> np.ndarray | None:
        """The mask (h, w) bool of where ``image`` looks most like ``classes``; None where a second look disagrees."""
        here = self.likelihood(image, classes)
        certain = (here >= SHARE * here.max()).astype(np.uint8)
        _, pieces = cv2.connectedComponents(certain)
        core = pieces == pieces[np.unravel_index(int(here.argmax()), here.shape)]
        parts = self._space.glance(np.ascontiguousarray(image[_around(core, CONFIRM_MARGIN)]))[1].parts
        if np.exp(parts["scores"][0][np.isin(parts["classes"][0], classes)].astype(np.float32)).sum() < CONFIRM:
            return None
        labels = np.full(here.shape, cv2.GC_BGD, np.uint8)
        labels[_around(core, MARGIN)] = cv2.GC_PR_BGD
        labels[core] = cv2.GC_PR_FGD
        mask = cut_out(image, labels)
        # Cut along the colours it may fall apart or vanish: then the map itself is the better start.
        return mask if (mask & core).sum() >= 0.3 * core.sum() else core

    def likelihood(self, image: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 RGB -> (h, w) float32 in [0, 1]: the share of ``classes`` in every cell's probabilities, the
        mean of both sizes in log-odds."""
        height, width = image.shape[:2]
        total = np.zeros((height, width), np.float32)
        for long_side in LONG_SIDES:
            scale = long_side / max(height, width)
            size = [max(STRIDE, STRIDE * round(side * scale / STRIDE)) for side in (width, height)]
            pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            logits = self._cells.run(pixels[None], "cells")[0][0]
            p = np.exp(logits - logits.max(axis=0))
            share = np.clip(p[classes].sum(axis=0) / p.sum(axis=0), _LEAST_P, 1 - _LEAST_P)
            odds = np.log(share / (1 - share)).astype(np.float32)
            total += cv2.resize(odds, (width, height), interpolation=cv2.INTER_LINEAR)
        return 1 / (1 + np.exp(-total / len(LONG_SIDES)))


def _around(core: np.ndarray, margin: float) -> tuple[slice, slice]:
    """Rows and columns of the box around ``core`` (h, w) bool, grown by ``margin`` of its sides."""
    spans = []
    for axis in (1, 0):
        at = np.flatnonzero(core.any(axis=axis))
        grown = 1 + round(margin * (at[-1] - at[0]))
        spans.append(slice(max(0, int(at[0]) - grown), int(at[-1]) + grown + 1))
    return spans[0], spans[1]


def with_words(
    start: Callable[[np.ndarray, Prompt], Any],
    finder: WordFinder | None = None,
    of_mask: Callable[[np.ndarray], Any] = lambda mask: mask,
) -> Callable[[np.ndarray, Prompt], Any]:
    """``start``, for prompts of every kind: what is named in words is found, and is None until then. ``of_mask`` turns
    its mask into what the tracker takes."""
    known = finder or WordFinder()

    def begin(image: np.ndarray, prompt: Prompt) -> Any:
        if prompt.kind != "words":
            return start(image, prompt)
        mask = known.find(image, prompt.words)
        return None if mask is None else of_mask(mask)

    return begin


def known_classes(words: str) -> np.ndarray:
    """The ImageNet classes that ``words`` name, (k,) int64. Raises InputError where there are none."""
    claim = read_claim(content_phrase(words) or words, frozenset({"a", "an", "the"}))
    named = [thing.classes for thing in claim.things]
    if claim.blind or not sum(len(classes) for classes in named):
        near = difflib.get_close_matches(words.lower(), vocabulary.load().words, n=1, cutoff=0.8)
        raise InputError(
            f"--track {words!r} isn't one of the 1,000 things that can be looked for by name",
            hint=f"{f'is it {near[0]!r}? Or ' if near else ''}give {FORMS}",
        )
    return np.unique(np.concatenate(named))
