"""Whether a picture really shows what a question names: the one vision signal that can say "not here".

Similarity can't tell absence: something is always the most similar. This signal speaks only where the question's
content words are words of the vocabulary, and weighs how likely the classes below them are in the best crop and in
its three best, how far that is above the stream's own background, and what of the question it could not check.
Questions about absent things that beat it were, on development, nearly all of one kind: the thing is there, but not
in the asked colour, number or action ("a dog catches a frisbee"). So every word that can't be checked costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from perception.encoders import colours, sparse, vocabulary
from perception.encoders.vocabulary import Match
from streammem.spaces import Ragged

UNCHECKED_PENALTY = 3.0
"""For every content word outside the vocabulary. At 1 to 2 as many right answers pass, and more wrong ones: of 128
absent development questions 6 at the same threshold instead of 3."""
COLOUR_PENALTY = 2.0
LEAST_COLOUR = 0.03
"""Share of the asked colour in the crops that show the thing. Small, because a crop is mostly background."""
_LEAST_P = 1e-4
_SHOWING = 0.5
_NOTHING = np.float32(-np.inf)
# Words that ask or measure nothing that could be wrong: they need no check.
_FREE = frozenset(
    """small big large little tiny huge some any another one single lot bunch couple whole nice old new bit pair few
    several can be ever visible seen show shown see picture appear""".split()
)
# "A road with no cars" isn't shown by a car.
_NEGATIONS = frozenset("no not without never nobody nothing none neither nor except".split())


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """What a question claims to be visible: ``things`` all at once, in ``colours`` (numbers of the colour terms);
    ``unchecked`` is how many of its content words say something else."""

    things: tuple[Match, ...]
    colours: tuple[int, ...]
    unchecked: int


def read_claim(phrase: str, function_words: frozenset[str]) -> Claim:
    """Take a question's content phrase apart by the vocabulary."""
    table = vocabulary.load()
    tokens = vocabulary.split(phrase)
    things = table.matches(phrase)
    used = {position for match in things for position in range(match.first, match.last + 1)}
    asked = colours.asked(phrase)
    rest = [
        token
        for position, token in enumerate(tokens)
        if position not in used
        and (token in _NEGATIONS or token not in function_words | _FREE)
        and not colours.asked(token)
    ]
    return Claim(tuple(_of_colour(match, asked, table.names) for match in things), asked, len(rest))


def _of_colour(match: Match, asked: tuple[int, ...], names: tuple[str, ...]) -> Match:
    """A class whose name holds another colour than the asked one isn't meant: no black swan for "a white swan"."""
    if not asked:
        return match
    kept = [c for c in match.classes if not (named := colours.asked(names[c])) or set(named) & set(asked)]
    return Match(match.word, np.array(kept, dtype=np.int64), match.first, match.last)


def score(claim: Claim, relevance: np.ndarray, columns: Mapping[str, Ragged]) -> np.ndarray:
    """Evidence a row, (n,) float32, in log-odds plus deviations; -inf where the question has no word of the vocabulary.

    ``relevance`` (n,) is the row's Q2C-z. ``columns`` needs ``classes`` and ``scores``; with ``colours`` a claimed
    colour is checked, without it the claim pays for it."""
    classes, scores = columns["classes"], columns["scores"]
    rows = len(classes)
    if not claim.things:
        return np.full(rows, _NOTHING, dtype=np.float32)
    p = np.exp(scores.values.astype(np.float32))
    least = np.full(rows, np.inf, dtype=np.float32)
    tint = np.zeros(rows, dtype=np.float32)
    for thing in claim.things:
        members = np.zeros(sparse.CLASSES, dtype=np.float32)
        members[thing.classes] = 1.0
        share = sparse.weighted(classes.values, p, members)
        best = sparse.best_of(share, classes.offsets)
        least = np.minimum(least, 0.5 * _log_odds(best) + 0.5 * _log_odds(_mean_of_best(share, classes, 3)))
        if claim.colours and "colours" in columns:
            tint = np.maximum(tint, _tint(claim.colours, share, best, classes, columns["colours"]))
    out = least + relevance - np.float32(UNCHECKED_PENALTY * claim.unchecked)
    if claim.colours:
        out -= np.where(tint < LEAST_COLOUR, np.float32(COLOUR_PENALTY), np.float32(0.0))
    return np.where(np.isfinite(best), out, _NOTHING).astype(np.float32)


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
