"""Observations, times and tools that the tests of the service share."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from streammem.errors import ModelUnavailable
from streammem.link import Timing
from streammem.model import Label, Observation, Speech, TextSpan
from streammem.spaces import Calibration, EmbeddingSpace, FrameEmbedding, Ragged

FAST = Timing(ping_s=0.2, dead_s=1.0, resend_s=1.0, hello_s=0.2)
"""Heartbeats at a fifth of the usual times, so that tests of silence take a second."""


class WordSpace:
    """A space without weights: a word's vector comes from its hash, a query's is the mean of its words."""

    name, version, dim, can_abstain = "words", "1", 32, False
    id = "words@1"

    def embed_frames(self, frames: Sequence[np.ndarray]) -> list[FrameEmbedding]:
        return [FrameEmbedding(self.embed_text(["picture"])[0]) for _ in frames]

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> np.ndarray:
        rows = []
        for word in text.casefold().split() or [""]:
            seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
            rows.append(np.random.default_rng(seed).standard_normal(self.dim))
        mean = np.mean(rows, axis=0).astype(np.float32)
        return mean / np.float32(np.linalg.norm(mean))

    def score(self, query: str, columns: Mapping[str, Ragged], statistics: np.ndarray | None) -> np.ndarray:
        column = columns["vector"]
        scores = np.full(len(column), -np.inf, np.float32)
        scores[column.row_of] = column.values.astype(np.float32) @ self._vector(query)
        return scores

    def signals(
        self, query: str, columns: Mapping[str, Ragged], statistics: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        return {"vision": self.score(query, columns, statistics)}

    def statistics(self, columns: Mapping[str, Ragged]) -> np.ndarray | None:
        return None

    def calibration(self) -> Calibration | None:
        return None


_SPACE = WordSpace()


def fake_space(name: str) -> EmbeddingSpace:
    if name != _SPACE.id:
        raise ModelUnavailable(f"no space {name}")
    return _SPACE


def picture(seed: int, size: int = 32) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def moment(seq: int, stream: str = "kitchen", *, session: str = "s1", full: bool = True) -> Observation:
    """A small observation that depends on its arguments alone, 33 ms apart."""
    rng = np.random.default_rng([seq, len(stream), sum(map(ord, stream))])
    vector = rng.standard_normal(_SPACE.dim).astype(np.float32)
    return Observation(
        stream=stream,
        session=session,
        seq=seq,
        capture_ns=seq * 33_333_333,
        space=_SPACE.id,
        embedding=vector / np.float32(np.linalg.norm(vector)),
        parts={"classes": rng.standard_normal((3, 4)).astype(np.float16)} if full else {},
        thumbnail=picture(seq) if full else None,
        labels=(Label("mug", 0.75),),
        texts=(TextSpan(f"EXIT {seq}", 0.9, (0.1, 0.1, 0.4, 0.2)),) if seq % 5 == 0 else (),
        speech=(Speech("good morning", seq * 33_333_333, seq * 33_333_333 + 10**9),) if seq % 7 == 0 else (),
        stats={"sharpness": 0.5},
    )


def until(ready: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait for something that happens in another thread or process."""
    end = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < end, "it didn't happen in time"
        time.sleep(0.01)
