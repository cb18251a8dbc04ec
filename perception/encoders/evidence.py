"""Whether a picture really shows what a question names: the one vision signal that can say "not here".

Similarity can't tell absence: something is always the most similar. This signal speaks only where every thing that the
question names is one of a vocabulary (``claim.py``). It weighs how likely the classes below each thing are in the best
crop and in its three best, how far that is above the stream's own background, what a detector saw of it where one
looked, and how many words of the question nothing could check.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from perception.encoders import sparse
from perception.encoders.claim import Claim, Thing
from streammem.spaces import Ragged

RELEVANCE = 0.75
"""Of the row's Q2C-z. 0.5 to 1 find the same development questions (without it: 2 of 102 fewer at the same risk)."""
SOFT_PENALTY = 6.0
"""For a question with words that aren't checked: 95 of 100 things that are there have less evidence, so "the bottle
explodes" passes as rarely as an absent thing does. At 1.5 twice as many development questions pass, and on held-out
ones 5 of 52 that say something false of a thing that is there (docs/quality.md)."""
EACH_SOFT = 0.5
"""For every further word of that sort."""
OTHERS = 0.25
"""Of several things that are claimed together the worst decides; the others have this much say."""
COLOUR_PENALTY = 2.0
LEAST_COLOUR = 0.03
"""Share of the asked colour in the crops that show the thing. Its absence speaks against the question; its presence
confirms nothing, because a crop is mostly background: the crops of a black swan are 42 % green."""
BOX_START = -0.5
"""From the log-odds of a detector's score (YOLOX-nano) to this signal's scale."""
BOX_STAYS = 0.5
"""Share of a box's say that depends on its being there in the row before or after, too."""
_LEAST_P = 1e-4
_SHOWING = 0.5
_NOTHING = np.float32(-np.inf)


def score(claim: Claim, relevance: np.ndarray, columns: Mapping[str, Ragged]) -> dict[str, np.ndarray]:
    """Two signals a row, (n,) float32, in log-odds plus deviations; -inf where there is nothing to check.

    ``evidence``: that all is there that the question claims; -inf for a question with a blind word. ``named``: that the
    things are there which it names and which can be looked for, whatever else it says of them.

    ``relevance`` (n,) is the row's Q2C-z. ``columns`` needs ``classes`` and ``scores``; with ``colours`` a claimed
    colour can be refuted; with ``things`` (``things.py``) a detector's boxes count."""
    classes, scores = columns["classes"], columns["scores"]
    rows = len(classes)
    seen = [t for t in claim.things if len(t.classes) or (t.kinds and "things" in columns)]
    nothing = np.full(rows, _NOTHING, dtype=np.float32)
    if not seen or claim.negated:
        return {"evidence": nothing, "named": nothing}
    p = np.exp(scores.values.astype(np.float32))
    sure: list[np.ndarray] = []
    tint = np.zeros(rows, dtype=np.float32)
    for thing in seen:
        by_classes, share, best = _by_classes(thing, p, classes)
        # A detector fills the gaps of the classes. Where both know a thing it adds nothing: 43 of 106 names are found
        # at the same risk when its word counts there as well, 47 when it doesn't.
        sure.append(by_classes if len(thing.classes) else _by_boxes(thing, columns["things"]))
        if claim.colours and len(thing.classes) and "colours" in columns:
            tint = np.maximum(tint, _tint(claim.colours, share, best, classes, columns["colours"]))
    looked = np.diff(classes.offsets) > 0
    named = np.where(looked, _all_of(sure) + RELEVANCE * relevance, _NOTHING).astype(np.float32)
    if claim.blind or len(seen) < len(claim.things):
        return {"evidence": nothing, "named": named}
    out = named.copy()
    if unchecked := len(claim.soft) + len(claim.colours):
        out -= np.float32(SOFT_PENALTY + EACH_SOFT * (unchecked - 1))
    if claim.colours:
        out -= np.where(tint < LEAST_COLOUR, np.float32(COLOUR_PENALTY), np.float32(0.0))
    return {"evidence": out, "named": named}


def _all_of(sure: list[np.ndarray]) -> np.ndarray:
    """Log-odds a row (n,) that all things are there."""
    ordered = np.sort(np.stack(sure), axis=0)
    if len(ordered) == 1:
        return ordered[0]
    return (1 - OTHERS) * ordered[0] + OTHERS * ordered[1:].mean(axis=0)


def _by_classes(thing: Thing, p: np.ndarray, classes: Ragged) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-odds a row (n,), and the probability of the thing's classes in each crop and in each row's best."""
    members = np.zeros(sparse.CLASSES, dtype=np.float32)
    members[thing.classes] = 1.0
    share = sparse.weighted(classes.values, p, members)
    best = sparse.best_of(share, classes.offsets)
    return 0.5 * _log_odds(best) + 0.5 * _log_odds(_mean_of_best(share, classes, 3)), share, best


def _by_boxes(thing: Thing, things: Ragged) -> np.ndarray:
    """Log-odds a row (n,) of the surest box of the thing's kinds; a row where nobody looked has the last look's."""
    values = things.values.astype(np.float32)
    of_kind = np.isin(values[:, 0].astype(np.int64), thing.kinds)
    surest = sparse.best_of(np.where(of_kind, values[:, 1], np.float32(0.0)), things.offsets)
    last = np.maximum.accumulate(np.where(np.isfinite(surest), np.arange(len(surest)), -1))
    held = _log_odds(np.where(last >= 0, surest[np.maximum(last, 0)], 0.0))
    beside = np.pad(held, 1, constant_values=-np.inf)
    stays = held if len(held) < 2 else np.minimum(held, np.maximum(beside[:-2], beside[2:]))
    return np.float32(BOX_START) + (1 - BOX_STAYS) * held + BOX_STAYS * stays


def _log_odds(share: np.ndarray) -> np.ndarray:
    clipped = np.clip(share, _LEAST_P, 1 - _LEAST_P)
    return np.log(clipped / (1 - clipped))


def _mean_of_best(values: np.ndarray, like: Ragged, count: int) -> np.ndarray:
    """Mean of each row's ``count`` highest values (of all, where it has fewer); 0 for an empty row."""
    row_of = like.row_of
    order = np.lexsort((-values, row_of))
    rank = np.arange(len(values)) - like.offsets[:-1][row_of]
    chosen = rank < count
    rows = len(like)
    total = np.bincount(row_of[chosen], weights=values[order][chosen], minlength=rows)
    return total / np.maximum(np.bincount(row_of[chosen], minlength=rows), 1)


def _tint(asked: tuple[int, ...], share: np.ndarray, best: np.ndarray, classes: Ragged, shares: Ragged) -> np.ndarray:
    """The largest share of the asked colours (the rarest of them) in crops that show the thing about as well as the
    best one does, (n,) float32; 0 for rows that keep no colours."""
    counts = np.diff(classes.offsets)
    both = (np.diff(shares.offsets) == counts) & (counts > 0)
    out = np.zeros(len(classes), dtype=np.float32)
    if not both.any():
        return out
    crops = np.repeat(both, counts)
    listed = np.repeat(both, np.diff(shares.offsets))
    amount = shares.values[listed][:, list(asked)].astype(np.float32).min(axis=1)
    rows = classes.row_of[crops]
    showing = share[crops] >= _SHOWING * best[rows]
    np.maximum.at(out, rows, np.where(showing, amount, np.float32(0.0)))
    return out
