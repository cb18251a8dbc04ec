"""The protocol of a compressor, and what all that need no training share.

After InternLM-XComposer2.5-OmniLive (Zhang et al. 2024, section 3.2): a clip of T frames with N tokens each becomes T*P
slots and one summary (pass 1); all clips together become one long-term vector a clip (pass 2); a question becomes a
vector and is compared with the summaries. Names here: F = tokens, H = slots, H-hat = summary, H-bar = long-term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from streammem.errors import ConfigError, QueryError

SHARPNESS = 0.1
"""Temperature of the attention in the training-free pass 2; IXC2.5-OL's own retrieval uses the same number."""


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """A clip after pass 1. ``slots`` (m, d) float32, oldest first. ``summary`` (d,) float32. ``counts`` (m,) uint16:
    tokens that each slot stands for. ``spans`` (m, 2) uint8: first and last frame of the clip that it is from."""

    slots: np.ndarray
    summary: np.ndarray
    counts: np.ndarray
    spans: np.ndarray


class Compressor(Protocol):
    """``identity`` is a hash of everything that changes what it gives. ``longest`` is how many clips pass 2 takes."""

    name: str
    longest: int

    @property
    def identity(self) -> str: ...

    def accepts(self, count: int, width: int) -> bool:
        """Whether it can compress frames of ``count`` tokens of ``width`` numbers."""
        ...

    def compress(self, tokens: np.ndarray, t_start_s: float, t_end_s: float) -> Compressed:
        """Pass 1. ``tokens`` (T, N, C) of the frames in order; N row by row. Raises ObservationError for shapes that it
        can't take."""
        ...

    def integrate(self, slots: Sequence[np.ndarray], summaries: np.ndarray) -> np.ndarray:
        """Pass 2: k clips' slots (m_i, d) and summaries (k, d) -> (k, d). Row j depends on all slots and on the
        summaries up to j."""
        ...

    def question(self, long_term: np.ndarray, query: str | np.ndarray) -> np.ndarray:
        """A question as a vector (d,) that is comparable with what :meth:`score` compares it with."""
        ...

    def score(self, question: np.ndarray, slots: Sequence[np.ndarray], summaries: np.ndarray) -> np.ndarray:
        """(k,) float64: the relevance of each clip, a cosine."""
        ...


class TrainingFree:
    """Pass 2, question and score without weights. A substitute: it mixes and compares, it has learned nothing.

    ``slots``: P, slots a frame. Raises ConfigError for fewer than 1 or more than 1024."""

    longest = 504
    """Clips in pass 2: what a context of 32,768 tokens holds at 65 a clip, so that all compressors have one ceiling."""

    def __init__(self, slots: int = 4) -> None:
        if not 1 <= slots <= 1024:
            raise ConfigError(f"{slots} slots a frame", hint="1 to 1024; 4 is IXC2.5-OL's")
        self.slots = slots

    def accepts(self, count: int, width: int) -> bool:
        return count > 0 and width > 0

    def integrate(self, slots: Sequence[np.ndarray], summaries: np.ndarray) -> np.ndarray:
        """One head of attention, identity projections: summary j asks all slots and the summaries up to j."""
        values = np.concatenate([*slots, summaries]).astype(np.float64)
        asks = unit(summaries.astype(np.float64)) @ unit(values).T / SHARPNESS
        own = len(values) - len(summaries)
        later = np.arange(len(summaries))[None, :] > np.arange(len(summaries))[:, None]
        asks[:, own:][later] = -np.inf
        weights = np.exp(asks - asks.max(axis=1, keepdims=True))
        return (weights @ values / weights.sum(axis=1, keepdims=True)).astype(np.float32)

    def question(self, long_term: np.ndarray, query: str | np.ndarray) -> np.ndarray:
        """A vector of token space, mean-free (tokens of what is looked for, less the mean of its picture)."""
        if isinstance(query, str):
            raise QueryError(
                "this compressor has no words: its tokens are picture features",
                hint="ask with like=<a moment's id> and box=[x0, y0, x1, y1], or with a vector",
            )
        return np.asarray(query, np.float32)

    def score(self, question: np.ndarray, slots: Sequence[np.ndarray], summaries: np.ndarray) -> np.ndarray:
        """Largest cosine of a slot less its clip's mean. Against the summary alone a small thing is found by chance
        (measured in tests/longterm: a few in a hundred), because a mean over a thousand tokens drowns it."""
        return np.array([float((unit(own - own.mean(axis=0)) @ unit(question)).max()) for own in slots])


def unit(vectors: np.ndarray) -> np.ndarray:
    """The last axis at length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)
