"""Scores of the offline question set: lists of frame indices against lists of frame indices, no simulator needed.

An answer is one list of frames for each goal; ``[[-1]]`` says that no frame solves it. ``exact`` compares what was
written, ``relaxed_precision`` multiplies each goal's precision, ``relaxed_any`` asks each goal for one hit (what the
benchmark's README describes). ``official`` is bug-compatible, ``strict`` is what the words say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from nav.findingdory.goals import Profile
from streammem.errors import InputError

Frames = list[list[int]]
ABSTAIN: Frames = [[-1]]
_LONGEST = 100_000
"""Characters of an answer that are looked at: a model that never stops must not take the evaluator with it."""
_MOST = 10_000
"""Frames in an answer."""
_BRACKET = re.compile(r"[\[{]")
_NEST = re.compile(r"[\[{\s]+")
_TRIES = 2000
"""Brackets at which reading is tried; a nest deeper than Python's stack is passed over as one."""


def parse_answer(text: str) -> Frames | None:
    """What a model wrote -> lists of indices, or None where that can't be read.

    JSON only: ``[[3, 9], [7]]``, ``[3, 9]`` (one frame for each goal), ``{"frame_indices": ...}``, alone, in a code
    fence or after other words (the last one that can be read counts)."""
    text = text[-_LONGEST:]
    found: Frames | None = None
    decoder = json.JSONDecoder()
    at = tries = 0
    while (match := _BRACKET.search(text, at)) and tries < _TRIES:
        tries += 1
        try:
            value, end = decoder.raw_decode(text, match.start())
        except ValueError:
            at = match.start() + 1
            continue
        except RecursionError:
            at = _NEST.match(text, match.start()).end()  # type: ignore[union-attr]
            continue
        read = _frames(value)
        found = found if read is None else read
        at = end if read is not None else match.start() + 1
    return found


def _frames(value: object) -> Frames | None:
    if isinstance(value, dict):
        value = value.get("frame_indices", value.get("answer"))
    if not isinstance(value, list) or len(value) > _MOST:
        return None
    rows = [item if isinstance(item, list) else [item] for item in value]
    if any(isinstance(n, bool) or not isinstance(n, int) for row in rows for n in row):
        return None
    return rows if sum(map(len, rows)) <= _MOST else None


def read_truth(text: str | Frames) -> Frames:
    """The ``answer`` column. Raises InputError: a truth that can't be read is never a wrong answer."""
    if isinstance(text, str):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise InputError(f"the answer {text[:80]!r} is no JSON", hint="expected [[3, 4], [7]]") from None
    else:
        value = text
    good = isinstance(value, list) and value and all(isinstance(row, list) for row in value)
    read = _frames(value) if good else None
    if read is None:
        raise InputError(f"the answer {str(text)[:80]!r} is no list of lists of frames", hint="expected [[3, 4], [7]]")
    return read


def exact(predicted: str, truth: str, profile: Profile = "strict") -> float:
    """1 where the answer is the truth. Quirk ``exact_is_text`` (official): character by character, so that a space
    more is wrong; strict compares the lists (frames of a goal as a set)."""
    if profile == "official":
        return float(predicted == truth)
    said, right = parse_answer(predicted), read_truth(truth)
    if said is None:
        return 0.0
    if right == ABSTAIN or _abstains(said):
        return float(right == ABSTAIN and _abstains(said))
    return float(len(said) == len(right) and all(set(a) == set(b) for a, b in zip(said, right, strict=True)))


def relaxed_precision(predicted: Frames | None, truth: Frames, profile: Profile = "strict") -> float:
    """Product over goals of |predicted & truth| / |predicted|; 0 where the number of goals differs or nothing could be
    read. Quirk ``one_sided_goal_dropped`` (official): a goal where one side is empty is left out instead of being 0."""
    if predicted is None:
        return 0.0
    if profile == "strict" and (truth == ABSTAIN or _abstains(predicted)):
        return float(truth == ABSTAIN and _abstains(predicted))
    if len(predicted) != len(truth):
        return 0.0
    score = 1.0
    for said, right in zip(predicted, truth, strict=True):
        if bool(said) != bool(right):
            score *= 1.0 if profile == "official" else 0.0
        elif said:
            score *= len(set(said) & set(right)) / len(set(said))
    return score


def relaxed_any(predicted: Frames | None, truth: Frames) -> float:
    """1 where each goal is hit by at least one of its frames."""
    if predicted is None:
        return 0.0
    if truth == ABSTAIN or _abstains(predicted):
        return float(truth == ABSTAIN and _abstains(predicted))
    if len(predicted) != len(truth):
        return 0.0
    return float(all(set(said) & set(right) for said, right in zip(predicted, truth, strict=True)))


def first_frames(predicted: Frames | None, truth: Frames) -> float:
    """RAVEN's scoring: the first frame said for each goal must be right, more are ignored; ``[[-1]]`` is right only if
    nothing was said."""
    if truth == ABSTAIN:
        return float(predicted is not None and _abstains(predicted))
    if predicted is None or len(predicted) < len(truth):
        return 0.0
    return float(all(said[:1] and said[0] in right for said, right in zip(predicted, truth, strict=False)))


def random_expectation(truth: Frames, frames: int) -> float:
    """``relaxed_any`` that one random frame for each goal reaches on average: the product of |goal| / T. 0 for
    ``[[-1]]``: whoever names frames never abstains."""
    if frames < 1:
        raise InputError(f"an experience of {frames} frames", hint="it has at least one")
    score = 1.0
    for right in truth:
        score *= len({frame for frame in right if 0 <= frame < frames}) / frames
    return score


def subsample_answer(truth: Frames, kept: Sequence[int]) -> Frames:
    """An answer over all frames -> over the kept ones (original indices, rising): a frame keeps its truth. A goal that
    loses all its frames makes the whole answer ``[[-1]]``: nothing that is left solves it."""
    if truth == ABSTAIN:
        return [[-1]]
    rows = [[i for i, frame in enumerate(kept) if frame in wanted] for wanted in map(set, truth)]
    return rows if all(rows) else [[-1]]


def _abstains(predicted: Frames) -> bool:
    return not any(frame >= 0 for row in predicted for frame in row)
