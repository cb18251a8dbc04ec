"""How well boxes keep their identities: HOTA, IDF1, MOTA and identity switches.

Definitions: HOTA (Luiten et al. 2021, IJCV 129, equations 1 to 8, the mean over 19 thresholds), IDF1 (Ristani et al.
2016), CLEAR MOT (Bernardin and Stiefelhagen 2008, with matches kept from frame to frame). Checked against TrackEval
1.3 on hand-made and real sequences (docs/association.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streammem.errors import InputError

ALPHAS = np.arange(0.05, 0.99, 0.05)
SAME = 0.5
"""Overlap from which IDF1 and MOTA take two boxes as the same."""
EPSILON = float(np.finfo(float).eps)

Frame = tuple[np.ndarray, np.ndarray]
"""Identities (n,) int64 and boxes (n, 4) float64 as x0, y0, x1, y1 in any one unit."""


@dataclass(frozen=True, slots=True)
class BoxScore:
    """Shares in [0, 1] (MOTA may be negative); ``switches`` of identity, ``found`` of ``boxes`` true boxes,
    ``false`` ones beside them, ``tracks`` the number of identities that the tracker gave."""

    hota: float
    det: float
    ass: float
    idf1: float
    mota: float
    switches: int
    found: int
    missed: int
    false: int
    boxes: int
    tracks: int


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) and (m, 4): (n, m) float64, 0 where a box is empty."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    union = _area(a)[:, None] + _area(b)[None] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def score_boxes(truth: Sequence[Frame], found: Sequence[Frame]) -> BoxScore:
    """Compare a tracker's boxes with the true ones, frame by frame.

    Raises InputError where the numbers of frames differ, an identity is there twice in a frame, or nothing is true."""
    if len(truth) != len(found):
        raise InputError(f"{len(found)} frames for {len(truth)} true ones", hint="give one for each, also if empty")
    true_ids, found_ids = _numbered(truth), _numbered(found)
    like = [overlaps(a[1], b[1]) for a, b in zip(truth, found, strict=True)]
    counts = (_count(true_ids), _count(found_ids))
    boxes, given = int(counts[0].sum()), int(counts[1].sum())
    if not boxes:
        raise InputError("there is no true box", hint="check the ground truth file")
    hota, det, ass = _hota(true_ids, found_ids, like, counts)
    hits, switches = _clear(true_ids, found_ids, like)
    return BoxScore(
        hota=hota,
        det=det,
        ass=ass,
        idf1=_idf1(true_ids, found_ids, like, counts),
        mota=(hits - (given - hits) - switches) / boxes,
        switches=switches,
        found=hits,
        missed=boxes - hits,
        false=given - hits,
        boxes=boxes,
        tracks=len(counts[1]),
    )


def _hota(
    true_ids: list[np.ndarray], found_ids: list[np.ndarray], like: list[np.ndarray], counts: tuple[np.ndarray, ...]
) -> tuple[float, float, float]:
    shared = np.zeros((len(counts[0]), len(counts[1])))
    for a, b, s in zip(true_ids, found_ids, like, strict=True):
        total = s.sum(axis=0, keepdims=True) + s.sum(axis=1, keepdims=True) - s
        shared[np.ix_(a, b)] += np.divide(s, total, out=np.zeros_like(s), where=total > EPSILON)
    aligned = shared / (counts[0][:, None] + counts[1][None] - shared)
    matches = np.zeros((len(ALPHAS), *shared.shape))
    for a, b, s in zip(true_ids, found_ids, like, strict=True):
        rows, columns = _best(aligned[np.ix_(a, b)] * s)
        good = s[rows, columns][None] >= ALPHAS[:, None] - EPSILON
        for at in range(len(ALPHAS)):
            matches[at][a[rows[good[at]]], b[columns[good[at]]]] += 1
    hits = matches.sum(axis=(1, 2))
    det = hits / (counts[0].sum() + counts[1].sum() - hits)
    jaccard = matches / np.maximum(counts[0][:, None] + counts[1][None] - matches, 1)
    ass = (matches * jaccard).sum(axis=(1, 2)) / np.maximum(hits, 1)
    return float(np.sqrt(det * ass).mean()), float(det.mean()), float(ass.mean())


def _idf1(
    true_ids: list[np.ndarray], found_ids: list[np.ndarray], like: list[np.ndarray], counts: tuple[np.ndarray, ...]
) -> float:
    n, m = len(counts[0]), len(counts[1])
    together = np.zeros((n, m))
    for a, b, s in zip(true_ids, found_ids, like, strict=True):
        together[np.ix_(a, b)] += s >= SAME
    # An identity may also be matched with nothing: the best total is that of the overlap alone.
    rows, columns = _best(together)
    hits = float(together[rows, columns].sum())
    return hits / (0.5 * float(counts[0].sum() + counts[1].sum()))


def _clear(true_ids: list[np.ndarray], found_ids: list[np.ndarray], like: list[np.ndarray]) -> tuple[int, int]:
    """True boxes that were found, and identity switches."""
    hits = switches = 0
    before: dict[int, int] = {}
    ever: dict[int, int] = {}
    for a, b, s in zip(true_ids, found_ids, like, strict=True):
        kept = np.array([[before.get(int(i)) == int(j) for j in b] for i in a], float).reshape(s.shape)
        score = np.where(s >= SAME - EPSILON, 1000 * kept + s, 0.0)
        rows, columns = _best(score)
        pairs = [(int(a[i]), int(b[j])) for i, j in zip(rows, columns, strict=True) if score[i, j] > EPSILON]
        switches += sum(i in ever and ever[i] != j for i, j in pairs)
        ever.update(pairs)
        before = dict(pairs)
        hits += len(pairs)
    return hits, switches


def _best(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(score, maximize=True)
    return rows, columns


def _numbered(frames: Sequence[Frame]) -> list[np.ndarray]:
    """Identities as 0, 1, ... in each frame."""
    known: Mapping[int, int] = {
        int(name): at for at, name in enumerate(np.unique(np.concatenate([np.zeros(0, np.int64), *_ids(frames)])))
    }
    for at, names in enumerate(_ids(frames)):
        if len(set(names.tolist())) != len(names):
            raise InputError(f"frame {at} has an identity twice", hint="one box an identity and frame")
    return [np.array([known[int(name)] for name in names], np.int64) for names in _ids(frames)]


def _ids(frames: Sequence[Frame]) -> list[np.ndarray]:
    return [np.asarray(names, np.int64) for names, _ in frames]


def _count(frames: list[np.ndarray]) -> np.ndarray:
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *frames])).astype(float)


def _area(boxes: np.ndarray) -> np.ndarray:
    area: np.ndarray = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
    return area
