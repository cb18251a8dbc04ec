"""All encoders of one configuration, as the pipeline sees them (``base.Suite``): lazy, and each signal on its own.

Parts of a kept frame, besides those of its embedding space: ``colours`` (15, 11) float16, ``faces`` (n, 5) float16,
score and box, ``things`` (n, 6) float16 where a detector is configured (``things.py``), and ``text_vectors`` (n, 384)
float16, row for row with its texts.

A signal whose weights are missing or differ is off with a plain reason; the others run. Nothing is opened before the
first picture; :meth:`EncoderSuite.signals` only looks at files.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from perception.encoders import colours, faces, ocr, speech, stats, things, weights
from perception.encoders.base import EncodedFrame, Glance
from perception.encoders.imagenet import ImageNetSpace
from perception.encoders.minilm import MiniLM
from perception.encoders.tokens import PatchTokens
from perception.frames import AudioChunk
from streammem.config import PerceptionConfig
from streammem.errors import ModelUnavailable
from streammem.model import Detection, Label, Producer, Speech, TextSpan
from streammem.paths import cache_dir
from streammem.spaces import EmbeddingSpace, FrameEmbedding, open_space

ON = "on"
_EMPTY = np.zeros(0, dtype=np.float32)


class EncoderSuite:
    """``glance`` and ``describe`` may be called by several threads; what they give depends on the picture alone.

    ``space`` replaces the one that the configuration names (tests, third parties). ``cache`` is the cache directory."""

    def __init__(
        self, config: PerceptionConfig, *, cache: str | Path = "", space: EmbeddingSpace | None = None
    ) -> None:
        self.config = config
        self._cache = cache_dir(str(cache))
        self._lock = threading.Lock()
        self._space = space
        self._state: dict[str, str] | None = None
        self._text = MiniLM(cache=self._cache)
        self._ocr = ocr.SceneText(cache=self._cache)
        self._faces = faces.FaceFinder(cache=self._cache)
        self._speech = speech.SpeechReader(cache=self._cache)
        self._things = things.ThingFinder(config.detector) if config.detector else None
        self._tokens = None if config.tokens == "off" else PatchTokens(config.tokens, cache=self._cache)

    # what is on

    def signals(self) -> dict[str, str]:
        """``vision``, ``text``, ``faces``, ``colours``, ``speech``, ``things``: ``on``, or the reason why it is off."""
        with self._lock:
            if self._state is None:
                config = self.config
                self._state = {
                    "vision": _try(self._check_vision),
                    "text": _try(self._check_text) if config.ocr else "off in the configuration (perception.ocr)",
                    "faces": _try(self._faces.check) if config.faces == "auto" else _off("faces"),
                    "colours": ON if config.colours else _off("colours"),
                    "speech": _try(self._speech.check) if config.speech != "off" else _off("speech"),
                }
                if self._things is not None:
                    self._state["things"] = _try(self._things.check)
                if self._tokens is not None:
                    self._state["tokens"] = _try(self._tokens.check)
            return dict(self._state)

    def require(self) -> None:
        """Raise ModelUnavailable where a signal that the configuration demands (``speech: on``) is off."""
        reason = self.signals()["speech"]
        if self.config.speech == "on" and reason != ON:
            raise ModelUnavailable(f"perception.speech is on, but {reason}", hint="install the extra or set it to auto")
        if self._things is not None:
            self._things.check()

    @property
    def space(self) -> EmbeddingSpace:
        """The embedding space of the configuration. Raises ModelUnavailable or ConfigError."""
        with self._lock:
            return self._open_space()

    @property
    def space_id(self) -> str | None:
        return self.space.id if self._on("vision") else None

    def identity(self) -> Producer:
        """``parameters`` changes with everything that changes what is remembered: weights, settings, signals."""
        state = self.signals()
        facts: list[object] = [*sorted(name for name, reason in state.items() if reason == ON)]
        space = self.space_id
        if space is not None:
            own = self.space
            # The version of a hub space is a hash of its weights and settings already.
            facts.append(own.identity if isinstance(own, ImageNetSpace) else space)
        if state["text"] == ON:
            facts += [weights.OCR_DETECT.sha256, weights.OCR_READ.sha256, weights.MINILM.sha256]
            facts.append((ocr.LONGEST_SIDE, ocr.LEAST_CONFIDENCE, ocr.LEAST_CHARACTERS))
        if state["faces"] == ON:
            facts += [weights.FACE_SHORT.sha256, weights.FACE_FULL.sha256]
            facts.append((faces.LEAST_SCORE, faces.SURE_SCORE, faces.SURE_SIDE, faces.LOOKS))
        if state["speech"] == ON:
            facts.append((weights.WHISPER_BASE.sha256, speech.WINDOW_SECONDS))
        if self._things is not None and state["things"] == ON:
            facts.append(self._things.identity)
        if self._tokens is not None and state["tokens"] == ON:
            facts.append(self._tokens.identity)
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        name, _, version = (space or "none").partition("@")
        return Producer("perception.encoders", name, version, digest)

    # pictures

    def glance(self, image: np.ndarray) -> Glance:
        """``image`` (h, w, 3) uint8 RGB: the pooled vector, a light embedding, labels and statistics, tokens if on."""
        seen = self._glance(image)
        if self._tokens is None or not self._on("tokens"):
            return seen
        return replace(seen, tokens=self._tokens.of(image))

    def _glance(self, image: np.ndarray) -> Glance:
        values = stats.statistics(image)
        if not self._on("vision"):
            return Glance(_pooled_gray(image), FrameEmbedding(_EMPTY), stats=values)
        space = self.space
        if isinstance(space, ImageNetSpace):
            pooled, embedding = space.glance(image)
            return Glance(pooled, embedding, space.labels_of(embedding.parts), values)
        embedding = space.embed_frames([image])[0]
        return Glance(embedding.vector, embedding, stats=values)

    def describe(self, image: np.ndarray, glance: Glance) -> EncodedFrame:
        """``image`` (h, w, 3) uint8 RGB and its glance: everything that a kept frame remembers."""
        seconds: dict[str, float] = {}
        embedding, labels = glance.embedding, glance.labels
        if self._on("vision"):
            space = self.space
            if isinstance(space, ImageNetSpace):
                embedding = space.embed_frame(image, glance=glance.embedding)
                labels = space.labels_of(embedding.parts)
        parts = dict(embedding.parts)
        texts: tuple[TextSpan, ...] = ()
        blank = stats.is_blank(dict(glance.stats)) if "contrast" in glance.stats else False
        if self._on("text") and not blank:
            began = time.perf_counter()
            texts = self._ocr.read(image)
            if texts:
                parts["text_vectors"] = self._text.embed([span.text for span in texts]).astype(np.float16)
            seconds["ocr"] = time.perf_counter() - began
        detections: tuple[Detection, ...] = ()
        if self._on("faces") and not blank:
            began = time.perf_counter()
            detections = self._faces.find(image)
            if detections:
                parts["faces"] = np.array([d.score for d in detections], dtype=np.float16)
            seconds["faces"] = time.perf_counter() - began
            if detections:
                parts["faces"] = np.array([(d.score, *d.box) for d in detections], dtype=np.float16)
        if self._things is not None and self._on("things"):
            began = time.perf_counter()
            parts["things"] = self._things.find(image)
            labels = (*labels, *things.labels_of(parts["things"]))
            seconds["things"] = time.perf_counter() - began
        if self._on("colours"):
            parts["colours"] = colours.shares(image)
        vector = embedding.vector if len(embedding.vector) else None
        return EncodedFrame(
            vector, parts, _with_faces(labels, detections), texts, detections, glance.stats, seconds, glance.tokens
        )

    # sound

    def transcribe(self, audio: Iterable[AudioChunk]) -> Iterator[Speech]:
        """Words heard, in order of time. Raises ModelUnavailable where the signal ``speech`` is off."""
        if not self._on("speech"):
            raise ModelUnavailable(f"speech is off: {self.signals()['speech']}", hint="see: streammem doctor")
        return self._speech.transcribe(audio)

    # private

    def _on(self, name: str) -> bool:
        return self.signals()[name] == ON

    def _open_space(self) -> EmbeddingSpace:
        if self._space is None and _is_default(self.config):
            # Not through its entry point: the default must also run from a checkout that isn't installed.
            self._space = ImageNetSpace(cache=self._cache)
        if self._space is None:
            options: dict[str, object] = {"model": self.config.model} if self.config.model else {}
            self._space = open_space(self.config.space, **options)
        return self._space

    def _check_vision(self) -> None:
        if _is_default(self.config) and not self._foreign_space():
            weights.verified_path(weights.LITE0, self._cache)
            weights.find(weights.MINILM)
        else:
            self._open_space()

    def _foreign_space(self) -> bool:
        return self._space is not None and not isinstance(self._space, ImageNetSpace)

    def _check_text(self) -> None:
        self._ocr.check()
        weights.find(weights.MINILM)


def _try(check: Callable[[], None]) -> str:
    try:
        check()
    except ModelUnavailable as error:
        return str(error)
    return ON


def _is_default(config: PerceptionConfig) -> bool:
    return config.space.split("@", 1)[0] == ImageNetSpace.name


def _off(name: str) -> str:
    return f"off in the configuration (perception.{name})"


def _with_faces(labels: tuple[Label, ...], detections: tuple[Detection, ...]) -> tuple[Label, ...]:
    """Faces stand among the labels, so that a list of what was seen names people too."""
    found = [d.score for d in detections if d.label == "face"]
    return (*labels, Label("face", max(found))) if found else labels


def _pooled_gray(image: np.ndarray) -> np.ndarray:
    """Without vision, novelty still needs a vector: the 16x16 gray picture, centred, and the mean colours."""
    import cv2

    # Not sampling.gray16, which averages before it rounds: that would change what memories without vision hold.
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (16, 16), interpolation=cv2.INTER_AREA)
    gray = small.astype(np.float32).ravel() / 255
    tint = colours.shares(image)[0].astype(np.float32)
    pooled = np.concatenate([gray - gray.mean(), tint])
    return pooled / max(float(np.linalg.norm(pooled)), 1e-6)
