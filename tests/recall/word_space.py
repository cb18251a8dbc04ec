"""A tiny embedding space for tests of recall: a picture is one of a few things, a question names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from streammem.model import Observation, Speech, TextSpan
from streammem.spaces import Calibration, FrameEmbedding, Ragged, SignalCalibration

THINGS = ("dog", "car", "tree", "boat", "cup")
S = 1_000_000_000


def vector_of(thing: str) -> np.ndarray:
    """(5,) float32, one axis a thing; anything else is equally far from all of them."""
    vector = np.array([float(thing == name) for name in THINGS], np.float32)
    return vector if vector.any() else np.full(len(THINGS), len(THINGS) ** -0.5, np.float32)


class WordSpace:
    """``vision`` is the cosine with the asked thing; ``evidence`` exists only for words that it knows."""

    name = "words"
    version = "1"
    dim = len(THINGS)
    can_abstain = True
    id = "words@1"

    def embed_frames(self, frames: Sequence[np.ndarray]) -> list[FrameEmbedding]:
        return [FrameEmbedding(vector_of("")) for _ in frames]

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([vector_of(next((t for t in THINGS if t in text), "")) for text in texts])

    def score(self, query: str, columns: Mapping[str, Ragged], statistics: np.ndarray | None) -> np.ndarray:
        return self.signals(query, columns, statistics)["vision"]

    def signals(
        self, query: str, columns: Mapping[str, Ragged], statistics: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        column = columns["vector"]
        out = np.full(len(column), -np.inf, np.float32)
        has = np.flatnonzero(np.diff(column.offsets) > 0)
        cosines = np.asarray(column.values, np.float32) @ self.embed_text([query])[0]
        out[has] = cosines
        known = any(thing in query for thing in THINGS)
        return {"vision": out, "evidence": out if known else np.full_like(out, -np.inf)}

    def statistics(self, columns: Mapping[str, Ragged]) -> np.ndarray | None:
        return None

    def calibration(self) -> Calibration | None:
        return Calibration(
            "words",
            "1",
            "by construction",
            (
                SignalCalibration("evidence", 0.9, 0.0, 100, (0.0, 1.0), (0.0, 1.0)),
                SignalCalibration("text", 0.6, 0.0, 100),
                SignalCalibration("speech", 0.6, 0.0, 100),
                SignalCalibration("vision", None, 1.0, 100, supports=0.6),
            ),
        )


# 2x2 pixels: enough for a frame that exists.
JPEG = b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x08\x00\x08\x01\x01\x11\x00\xff\xda\x00\xff\xd9"


def scene(
    things: Iterable[str],
    *,
    stream: str = "cam",
    texts: Mapping[int, str] | None = None,
    thumbnails: bool = True,
) -> list[Observation]:
    """One observation a second, each of one thing; ``texts`` are read at those seconds."""
    read = texts or {}
    return [
        Observation(
            stream=stream,
            seq=second,
            capture_ns=second * S,
            space="words@1",
            embedding=vector_of(thing),
            thumbnail=JPEG if thumbnails else None,
            texts=(TextSpan(read[second], 0.95),) if second in read else (),
        )
        for second, thing in enumerate(things)
    ]


def said(text: str, start_s: float, end_s: float, *, stream: str = "cam", seq: int = 0) -> Observation:
    """Words heard, as perception writes them."""
    speech = Speech(text, round(start_s * S), round(end_s * S))
    return Observation(stream=stream, session="x/speech", seq=seq, capture_ns=speech.t_start_ns, speech=(speech,))
