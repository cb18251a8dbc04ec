"""Which clips a question gets: IXC2.5-OL's rules as objects, with what happens where nothing passes. Not a bank.

The released code has four of them in different places. Two take the *first* clip in time whose cosine passes, not the
best: a defect that is not copied. ``softmax_threshold`` at temperature 0.1 and 0.2 never passes more than four clips,
and one clip among K needs a lead of about 0.1 ln((K - 1) / 4) to pass: 0.13 at 16 clips, 0.49 at 512. For long streams
take ``top_k`` or ``cosine_threshold``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from streammem.errors import QueryError

Fallback = Literal["", "whole", "newest"]
"""``whole``: look at frames of everything, evenly. ``newest``: look at the last frames. Empty: the rule passed some."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Indices of the chosen clips in the order of time; if there are none, what to look at instead."""

    chosen: tuple[int, ...]
    fallback: Fallback = ""


class Policy(Protocol):
    def select(self, scores: np.ndarray) -> Selection:
        """``scores`` (k,) cosines in the order of time. Ties go to the earlier clip."""
        ...


@dataclass(frozen=True, slots=True)
class SoftmaxThreshold:
    """All clips whose share of softmax(score / temperature) exceeds ``threshold`` (infer_llm_with_memory.py)."""

    temperature: float = 0.1
    threshold: float = 0.2

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not 0 <= self.threshold < 1:
            raise QueryError(f"not a policy: {self}", hint="temperature > 0, 0 <= threshold < 1")

    def select(self, scores: np.ndarray) -> Selection:
        if not len(scores):
            return Selection((), "whole")
        raised = np.exp((scores - scores.max()) / self.temperature)
        passed = np.flatnonzero(raised / raised.sum() > self.threshold)
        return Selection(tuple(passed.tolist()), "" if len(passed) else "whole")


@dataclass(frozen=True, slots=True)
class TopK:
    """The ``k`` best, in the order of time (the QA branch of modeling_qwen.py)."""

    k: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.k <= 1024:
            raise QueryError(f"k is {self.k}", hint="1 to 1024")

    def select(self, scores: np.ndarray) -> Selection:
        best = np.lexsort((np.arange(len(scores)), -scores))[: self.k]
        return Selection(tuple(np.sort(best).tolist()), "" if len(best) else "newest")


@dataclass(frozen=True, slots=True)
class CosineThreshold:
    """The ``most`` best clips above ``threshold`` (0.3 in video_streaming.py, 0.25 in backend_vs.py)."""

    threshold: float = 0.3
    most: int = 1

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1 or self.most < 1:
            raise QueryError(f"not a policy: {self}", hint="-1 <= threshold <= 1, most >= 1")

    def select(self, scores: np.ndarray) -> Selection:
        order = np.lexsort((np.arange(len(scores)), -scores))
        best = [int(at) for at in order if scores[at] > self.threshold][: self.most]
        return Selection(tuple(sorted(best)), "" if best else "newest")


POLICIES: dict[str, type[SoftmaxThreshold] | type[TopK] | type[CosineThreshold]] = {
    "softmax_threshold": SoftmaxThreshold,
    "top_k": TopK,
    "cosine_threshold": CosineThreshold,
}


def open_policy(name: str, options: dict[str, float]) -> Policy:
    """By name and keywords. Raises QueryError."""
    if name not in POLICIES:
        raise QueryError(f"no policy is called {name!r}", hint=f"known: {', '.join(sorted(POLICIES))}")
    kind = POLICIES[name]
    fields = {field: value for field, value in options.items() if field in kind.__dataclass_fields__}
    if len(fields) < len(options):
        unknown = sorted(set(options) - set(fields))
        raise QueryError(f"{name} has no setting {unknown[0]!r}", hint=f"it has {', '.join(kind.__dataclass_fields__)}")
    whole = {field: int(value) if field in ("k", "most") else float(value) for field, value in fields.items()}
    return kind(**whole)  # type: ignore[arg-type]
