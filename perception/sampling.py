"""Which frames are looked at, and which of those in full detail."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import msgspec
import numpy as np

from streammem.errors import ConfigError

NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class FixedRate:
    """A grid of ``fps`` points a second. A frame is chosen when it is the first one at or after a grid point.

    The choice depends on the frames' time stamps alone: never on speed, threads, seeks or where a run started.
    Where several grid points pass without a frame, the next frame is chosen once and carries the last of them.
    """

    fps: float

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 1000:
            raise ConfigError(f"{self.fps} frames a second can't be sampled", hint="use more than 0 and at most 1000")

    @property
    def period_ns(self) -> int:
        return max(1, round(NS / self.fps))

    @property
    def slack_ns(self) -> int:
        """How much before its grid point a frame may be. Matroska, WebM and FLV round time stamps to whole
        milliseconds, so a frame that belongs on a grid point may be stamped 0.5 ms before it."""
        return min(1_000_000, self.period_ns // 4)

    def index(self, media_ns: int) -> int:
        """The last grid point at or before this time."""
        rate = Fraction(self.fps).limit_denominator(100_000)
        return (media_ns + self.slack_ns) * rate.numerator // (rate.denominator * NS)


MOST_SPARE = 2.0
"""Keyframes that a still stretch can save up: enough for the onset of what happens next."""


class _State(msgspec.Struct, array_like=True):
    version: int
    last_key_ns: int
    gray: bytes
    leaders: list[bytes]
    spare: float


@dataclass(frozen=True, slots=True)
class Choice:
    """``key``: worth full detail. ``novelty``: cosine distance to the nearest leader, 0 to 2. ``change``: mean
    absolute difference of the 16x16 gray pictures, 0 to 255."""

    key: bool
    novelty: float
    change: float
    reason: str = ""


class KeyframeSelector:
    """Leader clustering on the glance's pooled vector: a frame that is near none of the last leaders becomes one.

    On the development clips 6 % of the frames chosen this way keep 97 % of the mean reciprocal rank that all frames
    give (uniform sampling of as many keeps 78 %). The 16x16 gray gate catches cuts, which it separates as well as any
    feature does; the longest gap makes sure that a still scene is looked at again.

    A still scene would leave the encoders idle and its small changes (a gripper closes) without detail. So every frame
    earns ``share`` of a keyframe, and a frame that differs a little from the last keyframe spends one that was saved.
    The share is a promise about cost: a third of the frames in full is what two cores do at 20x real time.
    """

    def __init__(
        self,
        *,
        distance: float = 0.35,
        leaders: int = 16,
        max_gap_s: float = 10.0,
        cut: float = 40.0,
        share: float = 0.3,
        little: float = 0.06,
        every_frame: bool = False,
    ) -> None:
        """``distance``: cosine distance beyond which a frame is new. ``cut``: gray levels (0 to 255) of mean change.
        ``share``: keyframes a frame that may be spent on differences above ``little`` from the last keyframe.
        ``every_frame``: everything is a keyframe (fixed sampling); distances are still measured."""
        self.distance = distance
        self.max_gap_ns = round(max_gap_s * NS)
        self.cut = cut
        self.share = share
        self.little = little
        self.every_frame = every_frame
        self._leaders: deque[np.ndarray] = deque(maxlen=leaders)
        self._gray: np.ndarray | None = None
        self._last_key_ns = 0
        self._spare = 0.0

    def decide(self, image: np.ndarray, pooled: np.ndarray, media_ns: int) -> Choice:
        """``image`` (h, w, 3) uint8 RGB, ``pooled`` (d,) float32 of any length. Call it in time order."""
        gray = gray16(image)
        change = float(np.abs(gray.astype(np.int16) - self._gray).mean()) if self._gray is not None else 255.0
        self._gray = gray
        # float16 is what state() keeps: deciding on it as well makes a resumed run equal to the last bit.
        vector = pooled.astype(np.float32)
        norm = float(np.linalg.norm(vector))
        vector = (vector / norm if norm > 0 else vector).astype(np.float16)
        novelty = since_key = 1.0
        if self._leaders:
            stack = np.stack(self._leaders).astype(np.float32)
            novelty = float(np.clip(1.0 - (stack @ vector.astype(np.float32)).max(), 0.0, 2.0))
            since_key = 1.0 - float(stack[-1] @ vector.astype(np.float32))
        self._spare = min(self._spare + self.share, MOST_SPARE)
        if not self._leaders:
            reason = "first"
        elif novelty > self.distance:
            reason = "new"
        elif change > self.cut:
            reason = "cut"
        elif media_ns - self._last_key_ns >= self.max_gap_ns:
            reason = "gap"
        elif self._spare >= 1.0 and since_key > self.little:
            reason = "spare"
        else:
            reason = "every" if self.every_frame else ""
        if reason:
            self._last_key_ns = media_ns
            if reason != "every":
                self._leaders.append(vector)
            self._spare = max(self._spare - 1.0, 0.0)
        return Choice(bool(reason), novelty, change, reason)

    def state(self) -> bytes:
        """Everything that the next decision depends on."""
        gray = b"" if self._gray is None else self._gray.tobytes()
        leaders = [vector.tobytes() for vector in self._leaders]
        return msgspec.msgpack.encode(_State(2, self._last_key_ns, gray, leaders, self._spare))

    def load(self, state: bytes) -> None:
        """Go on where :meth:`state` was taken. Raises ConfigError for bytes that are not a state."""
        try:
            read = msgspec.msgpack.decode(state, type=_State)
            gray = np.frombuffer(read.gray, np.uint8).reshape(16, 16) if read.gray else None
            leaders = [np.frombuffer(blob, np.float16) for blob in read.leaders]
        except (msgspec.DecodeError, ValueError) as error:
            raise ConfigError(
                f"the keyframe state can't be read: {error}", hint="watch again with --rewatch"
            ) from error
        self._last_key_ns, self._gray, self._spare = read.last_key_ns, gray, read.spare
        self._leaders.clear()
        self._leaders.extend(leaders)


def gray16(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 RGB -> (16, 16) uint8: block means of the luma (BT.601 weights)."""
    import cv2  # 0.1 s that `--help` must not pay

    small = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.clip(small @ np.array([0.299, 0.587, 0.114], np.float32) + 0.5, 0, 255).astype(np.uint8)
