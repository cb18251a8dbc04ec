"""Pictures and sound on their way from a source to the encoders, and the two protocols they come through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from perception.sampling import FixedRate
from streammem.model import Detection, Intrinsics, Label, Pose, StateFact

AUDIO_RATE = 16_000
"""Samples a second of every :class:`AudioChunk`: what Whisper-type models and the Silero VAD are trained on."""


@dataclass(frozen=True, slots=True, eq=False)
class Sensed:
    """What a robot's other sensors say at the moment of a picture; it goes into the observation as it is.

    ``depth_m`` (h, w) float32 metres along the optical axis, 0 = unknown; ``pose`` is ``map_from_camera``;
    ``detections`` and ``labels`` are those of the robot or simulator itself, and come before the encoders' own;
    ``stats`` are numbers of its own body (a gripper that is closed, say); ``states`` is what it says of things.
    """

    depth_m: np.ndarray | None = None
    pose: Pose | None = None
    intrinsics: Intrinsics | None = None
    detections: tuple[Detection, ...] = ()
    labels: tuple[Label, ...] = ()
    stats: Mapping[str, float] = field(default_factory=dict)
    states: tuple[StateFact, ...] = ()


NOTHING_SENSED = Sensed()


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture. ``image`` (h, w, 3) uint8 sRGB, contiguous, upright, square pixels.

    ``media_ns`` is the container's time stamp, zero at the first frame; ``capture_ns`` is when the sensor saw it (the
    same for a file, Unix time for a live source); ``index`` is the number of its sampling grid point. ``repeated``:
    equal to the one before to the last pixel; only live sources judge that (a film may hold still, a sensor can't).
    """

    image: np.ndarray
    media_ns: int
    capture_ns: int
    index: int
    repeated: bool | None = None
    sensed: Sensed = NOTHING_SENSED


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """``samples`` (n,) float32 mono in [-1, 1] at :data:`AUDIO_RATE`; the first one is heard at ``t_start_ns``."""

    samples: np.ndarray
    t_start_ns: int

    @property
    def t_end_ns(self) -> int:
        return self.t_start_ns + len(self.samples) * 1_000_000_000 // AUDIO_RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """What a source says of itself. ``width``/``height`` are of the upright picture, in pixels, before any size cap.

    ``clock`` is ``media`` (zero at the first frame) or ``wall`` (Unix epoch); ``duration_ns`` and ``fps`` are the
    container's claims: good for a progress bar, never for a time stamp.
    """

    text: str
    kind: str
    stream: str
    content_hash: str = ""
    clock: Literal["media", "wall"] = "media"
    width: int = 0
    height: int = 0
    fps: float = 0.0
    duration_ns: int | None = None
    codec: str = ""
    rotation: int = 0
    has_audio: bool = False
    live: bool = False


@dataclass(slots=True)
class Health:
    """Counters of one source. Nothing is dropped without being counted here."""

    packets: int = 0
    bad_packets: int = 0
    """Packets that the demuxer or the decoder refused."""
    decoded_frames: int = 0
    corrupt_frames: int = 0
    """Frames that the decoder gave although it knew that a part of them is guessed."""
    skipped_packets: int = 0
    """Packets that no chosen frame needs: not decoded."""
    redecoded_groups: int = 0
    """Groups of pictures that were decoded again in full because a chosen frame was missing."""
    pts_resets: int = 0
    missing_pts: int = 0
    reconnects: int = 0
    frozen_frames: int = 0
    """Sampled frames that equal the one before to the last pixel."""
    state: str = ""
    """Of a live source: live, frozen, starved or gone, as in ``streammem.health``."""
    stalls: int = 0
    """Silences that were ended by connecting again."""
    clock_steps: int = 0
    """Times that the wall clock was set."""
    clock_ahead_s: float = 0.0
    """How far capture times are ahead of a wall clock that was set back."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Sampled frames that were not handed on, by reason."""
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Remember one sentence for people; at most 20, so that a bad stream can't fill the memory."""
        if len(self.notes) < 20 and text not in self.notes:
            self.notes.append(text)


@runtime_checkable
class Decoder(Protocol):
    """Pictures of one video, in time order. One thread uses it at a time."""

    name: str
    health: Health

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def fps(self) -> float: ...
    @property
    def duration_ns(self) -> int | None: ...
    @property
    def codec(self) -> str: ...
    @property
    def rotation(self) -> int:
        """Clockwise degrees that were applied to make the picture upright: 0, 90, 180 or 270."""
        ...

    def frames(self, sampling: FixedRate, start_ns: int = 0) -> Iterator[Frame]:
        """The chosen frames at or after ``start_ns``: exactly those that a run from zero gives from there on."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Source(Protocol):
    """A file, a folder, a camera, a generated scene."""

    @property
    def health(self) -> Health: ...
    @property
    def info(self) -> SourceInfo: ...

    def frames(self, start_ns: int = 0, sampling: FixedRate | None = None) -> Iterator[Frame]:
        """Chosen frames in time order. None: the rate of the configuration that opened the source.

        Raises SourceError where nothing more can be read."""
        ...

    def audio(self, start_ns: int = 0) -> Iterator[AudioChunk] | None:
        """Sound as chunks of about a second, on the pictures' clock; None where there is none."""
        ...

    def look_again(self, t_start_ns: int, t_end_ns: int, fps: float) -> list[Frame]:
        """A second, denser look: the frames of [t_start_ns, t_end_ns] at ``fps``, at least the one that was showing.

        Safe beside a running :meth:`frames`. An empty list says "gone" (a live source keeps nothing)."""
        ...

    def close(self) -> None: ...
