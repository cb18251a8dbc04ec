"""A small suite for tests and examples: colour histograms instead of weights. Deterministic, quick, no downloads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from perception.encoders.base import EncodedFrame, Glance
from perception.frames import AudioChunk
from streammem.model import Label, Producer, Speech
from streammem.spaces import FrameEmbedding

NAMES = ("black", "blue", "green", "cyan", "red", "magenta", "yellow", "white")


class HistogramSuite:
    """Eight bins: one bit each of red, green and blue. The fullest bins are its labels; loud sound is its speech."""

    space_id = "histogram@1"

    def __init__(self, *, speech: bool = False) -> None:
        self.speech = speech

    def glance(self, image: np.ndarray) -> Glance:
        bits = (image >> 7).astype(np.int64) @ np.array([4, 2, 1])
        shares = np.bincount(bits.ravel(), minlength=8).astype(np.float32) / bits.size
        # The mean colour moves when a thing of the same colour does; bins alone would call that frame old.
        pooled = np.concatenate([shares, image.reshape(-1, 3).mean(0).astype(np.float32) / 255])
        return Glance(pooled, FrameEmbedding(shares / np.linalg.norm(shares)), self._labels(shares))

    def describe(self, image: np.ndarray, glance: Glance) -> EncodedFrame:
        return EncodedFrame(
            glance.embedding.vector,
            {"mean_colour": glance.pooled[None, 8:].astype(np.float16)},
            glance.labels,
            stats={"brightness": float(image.mean()) / 255},
        )

    def signals(self) -> dict[str, str]:
        return {"colours": "on", "speech": "on" if self.speech else "off in this fake"}

    def identity(self) -> Producer:
        return Producer("perception.encoders.fake", "histogram", "1", "speech" if self.speech else "")

    def transcribe(self, audio: Iterable[AudioChunk]) -> Iterator[Speech]:
        for chunk in audio:
            if len(chunk.samples) and float(np.abs(chunk.samples).max()) > 0.1:
                yield Speech("beep", chunk.t_start_ns, chunk.t_end_ns)

    def _labels(self, shares: np.ndarray) -> tuple[Label, ...]:
        order = np.argsort(-shares, kind="stable")[:3]
        return tuple(Label(NAMES[i], round(float(shares[i]), 4)) for i in order if shares[i] > 0)
