"""The default embedding space: ImageNet classes in many crops, asked in words. No hub, no GPU, weights from packages.

A keyframe keeps the 50 best classes of 15 crops (6 KB) and one index vector: ConSE (Norouzi et al. 2014), the sum of
the class names' sentence vectors weighted by the classes' probabilities. A question becomes weights over the classes
through names, synonyms and hypernyms (``vocabulary.py``); a row's relevance is in ``ranking.py``. It can't tell by
itself that a thing is absent (``can_abstain`` is False); the ``label`` signal, calibrated on questions about absent
things, can for words of its vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from perception.encoders import calibration, ranking, sparse, vocabulary, weights
from perception.encoders.crops import BOXES, LONGEST, cut
from perception.encoders.lite0 import Lite0
from perception.encoders.lite0_graph import load_ranges
from perception.encoders.minilm import DIM, MiniLM
from streammem.model import Label
from streammem.spaces import Calibration, FrameEmbedding, Ragged

_CONSE_TOP = 10
"""Classes in the ConSE vector. Norouzi et al. use 10; 5 to 50 differ by less than .01 in R@5 here."""


class ImageNetSpace:
    """See the module. Thread-safe; models are opened at first use, texts and pictures separately."""

    name = "imagenet-conse"
    version = "2"
    dim = DIM
    can_abstain = False

    def __init__(self, *, cache: Path | None = None) -> None:
        self._net = Lite0(cache=cache)
        self._maps = Lite0("float32", cache=cache)
        self._text = MiniLM(cache=cache)
        # Reading a question costs 10 to 30 ms, and one search needs it for every moment that it explains.
        self._question = lru_cache(maxsize=32)(lambda query: ranking.read_query(query, self._text))

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def identity(self) -> str:
        """A hash of everything that changes a vector or a part."""
        files = (weights.LITE0.sha256, weights.MINILM.sha256, sorted(load_ranges().items()))
        facts = (self.id, *files, repr(BOXES), LONGEST, sparse.TOP, _CONSE_TOP)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    # pictures

    def glance(self, frame: np.ndarray) -> tuple[np.ndarray, FrameEmbedding]:
        """One look at the whole picture (h, w, 3) uint8 RGB, 5-10 ms: the pooled vector (1280,) float32, by which two
        pictures are compared, and the embedding that a light record keeps (parts with one crop)."""
        logits, pooled = self._net.run(cut(frame, BOXES[:1]), "logits", "pooled")
        return pooled[0], self._embedding(logits)

    def embed_frame(self, frame: np.ndarray, *, glance: FrameEmbedding | None = None) -> FrameEmbedding:
        """The full embedding of one picture (h, w, 3) uint8 RGB. With ``glance``, what :meth:`glance` gave for the same
        picture, its one crop isn't looked at again: the result is the same."""
        # The whole picture runs alone, as in glance(): a batch of 15 could round its last bit differently.
        first = glance if glance is not None else self.glance(frame)[1]
        rest = self._net.run(cut(frame, BOXES[1:]), "logits")[0]
        classes, scores = sparse.pack(rest)
        return self._pooled(
            np.concatenate([first.parts["classes"], classes]), np.concatenate([first.parts["scores"], scores])
        )

    def embed_frames(self, frames: Sequence[np.ndarray]) -> list[FrameEmbedding]:
        return [self.embed_frame(frame) for frame in frames]

    def feature_maps(self, frame: np.ndarray) -> dict[str, np.ndarray]:
        """Dense features of one picture (h, w, 3) uint8 RGB whose sides are multiples of 32:
        ``stride8`` (40, h/8, w/8) and ``stride16`` (112, h/16, w/16) float32, for label propagation."""
        eight, sixteen = self._maps.run(frame[None], "stride8", "stride16")
        return {"stride8": eight[0], "stride16": sixteen[0]}

    def _embedding(self, logits: np.ndarray) -> FrameEmbedding:
        return self._pooled(*sparse.pack(logits))

    def _pooled(self, classes: np.ndarray, scores: np.ndarray) -> FrameEmbedding:
        names = vocabulary.load().class_vectors
        p = np.exp(scores[:, :_CONSE_TOP].astype(np.float32))
        p /= p.sum(axis=1, keepdims=True)
        vector = np.einsum("ck,ckd->d", p, names[classes[:, :_CONSE_TOP]])
        return FrameEmbedding(
            (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32),
            {"classes": classes, "scores": scores},
        )

    # words

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The display names of the classes, (1000,)."""
        return vocabulary.load().names

    def labels_of(self, parts: Mapping[str, np.ndarray], *, top: int = 5, least: float = 0.1) -> tuple[Label, ...]:
        """The best classes of a record by their highest probability in any crop, at least ``least``."""
        best: dict[int, float] = {}
        listed = zip(parts["classes"][:, :top].ravel(), parts["scores"][:, :top].ravel(), strict=True)
        for number, score in listed:
            best[int(number)] = max(best.get(int(number), -np.inf), float(score))
        names = vocabulary.load().names
        ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:top]
        return tuple(
            Label(names[number], round(float(np.exp(score)), 4)) for number, score in ranked if np.exp(score) >= least
        )

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        return self._text.embed(texts)

    # relevance

    def score(self, query: str, columns: Mapping[str, Ragged], statistics: np.ndarray | None) -> np.ndarray:
        return ranking.vision(self._question(query), columns, statistics)

    def signals(
        self, query: str, columns: Mapping[str, Ragged], statistics: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """Each signal by name, (n,) float32 a row: ``vision`` is what :meth:`score` gives, ``conse`` the plain
        ConSE similarity, ``evidence`` the calibrated sign that it is really there (-inf where it can't know),
        ``named`` that the things it names are, whatever else it says of them."""
        return ranking.signals(self._question(query), columns, statistics)

    def explain(self, query: str, columns: Mapping[str, Ragged]) -> list[str]:
        """The classes that made each row relevant, with their probabilities: "mountain bike 0.47, disc brake 0.52"."""
        return ranking.explain(self._question(query), columns)

    def statistics(self, columns: Mapping[str, Ragged]) -> np.ndarray | None:
        if "classes" not in columns or "scores" not in columns:
            return None
        return sparse.summarise(columns["classes"].values, columns["scores"].values)

    def calibration(self) -> Calibration | None:
        return calibration.load(self.id)


def open_space(**options: object) -> ImageNetSpace:
    """Entry point ``streammem.spaces``. Options: ``cache`` (Path or str), the cache directory."""
    cache = options.get("cache")
    return ImageNetSpace(cache=Path(str(cache)) if cache else None)
