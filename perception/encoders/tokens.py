"""Patch tokens of the embedded encoder: the output of one of its blocks as a grid of vectors, for banks that keep where
in the picture something was (``perception.tokens``; off by default).

``stride16`` is block 10 of Lite0 (by number: several blocks have its shape), 14 x 14 tokens of 112 numbers, 43 KB a
frame in float16; ``stride8`` is block 4, 28 x 28 of 40, 61 KB. It is a second run of the network, in float32, because
the int8 graph that pictures are watched with has no maps: about 10 ms a sampled frame on one thread. At 1 frame/s that
is 151 or 215 MB an hour before demotion takes the tokens away (the first thing that it takes).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from perception.encoders import weights
from perception.encoders.crops import BOXES, cut
from perception.encoders.lite0 import Lite0

Stage = Literal["stride16", "stride8"]


class PatchTokens:
    """Of the whole picture, stretched to 224 x 224 as the embedding's first crop is. Thread-safe."""

    def __init__(self, stage: Stage, *, cache: Path | None = None) -> None:
        self.stage: Stage = stage
        self._cache = cache
        self._net = Lite0("float32", cache=cache)

    def check(self) -> None:
        """Raises ModelUnavailable where the weights are missing or differ."""
        weights.verified_path(weights.LITE0, self._cache)

    @property
    def identity(self) -> tuple[str, str, str]:
        """What changes a token: the stage and the weights."""
        return ("tokens", self.stage, weights.LITE0.sha256)

    def of(self, image: np.ndarray) -> np.ndarray:
        """``image`` (h, w, 3) uint8 RGB -> (196, 112) or (784, 40) float16, row by row."""
        grid = self._net.run(cut(image, BOXES[:1]), self.stage)[0][0]
        largest = float(np.finfo(np.float16).max)
        return np.ascontiguousarray(np.clip(grid.reshape(len(grid), -1).T, -largest, largest), np.float16)
