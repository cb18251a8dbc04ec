"""What the pipeline asks of the encoders. ``suite.py`` is the real one, ``fake.py`` a small public one for tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from perception.frames import AudioChunk
from streammem.model import Detection, Label, Producer, Speech, TextSpan
from streammem.spaces import FrameEmbedding


@dataclass(frozen=True, slots=True, eq=False)
class Glance:
    """The cheap look that every sampled frame gets. ``pooled`` (d,) float32 decides whether the frame is new;
    ``embedding`` is what a light record keeps."""

    pooled: np.ndarray
    embedding: FrameEmbedding
    labels: tuple[Label, ...] = ()
    stats: Mapping[str, float] = field(default_factory=dict)
    tokens: np.ndarray | None = None
    """(n, d) float16 patch features, where they are on."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedFrame:
    """Everything that was made of one keyframe. ``embedding`` (d,) float32, L2-normalised, or None.

    ``seconds`` says where the time went by stage (``ocr``, ``faces``...); what it doesn't name counts as ``encode``.
    It is no part of what is remembered.
    """

    embedding: np.ndarray | None
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)
    labels: tuple[Label, ...] = ()
    texts: tuple[TextSpan, ...] = ()
    detections: tuple[Detection, ...] = ()
    stats: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    tokens: np.ndarray | None = None


@runtime_checkable
class Suite(Protocol):
    """All encoders of one configuration. ``glance`` and ``describe`` may be called by several threads at once and
    depend on nothing but their picture, so that the number of threads never changes what is remembered."""

    @property
    def space_id(self) -> str | None:
        """Embedding space ``name@version`` of the vectors, or None where there is none."""
        ...

    def glance(self, image: np.ndarray) -> Glance:
        """``image`` (h, w, 3) uint8 RGB."""
        ...

    def describe(self, image: np.ndarray, glance: Glance) -> EncodedFrame:
        """``image`` (h, w, 3) uint8 RGB and the glance that was taken of it."""
        ...

    def signals(self) -> dict[str, str]:
        """Each signal by name: ``on``, or the reason why it is off."""
        ...

    def identity(self) -> Producer:
        """``parameters`` is a hash of everything that changes the output: weights, settings, which signals are on."""
        ...

    def transcribe(self, audio: Iterable[AudioChunk]) -> Iterator[Speech]:
        """Words heard, in order of ``t_start_ns``. Only called where the signal ``speech`` is ``on``."""
        ...
