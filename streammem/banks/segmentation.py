"""Where a stream is cut: online rules that turn a sequence of frame embeddings into segments. Not a bank; banks use it.

Every rule is a ``Segmenter``: frames go in one by one in the order of time, out come the lengths of the segments that
are finished. The lengths and the frames still open always add up to the frames that went in, in order and without
overlap. A rule decides by time stamps and vectors alone, and its ``state`` is everything that the next decision needs.

* ``SurpriseSegmenter``: EM-LLM (Fountas et al. 2025, section 3.1 and 3.2) carried over from tokens to pictures: a cut
  where the surprise exceeds what is usual in a trailing window, then moved to the split that separates the frames best.
* ``CosineSegmenter``: the rule of InternLM-XComposer2.5-OmniLive's live demo: at least 3 and at most 16 frames, a cut
  where two neighbours have a cosine of at most 0.9.
* ``FixedSegmenter``: windows of equal length, the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import msgspec
import numpy as np

from streammem.banks.splits import Measure, best_split
from streammem.errors import ConfigError, CorruptData
from streammem.numeric import median

Threshold = Literal["mean_std", "median_mad"]
Refinement = Literal["none", "modularity", "conductance"]
WINDOW_VALUES = 512
"""Surprises that a window keeps at most, whatever the frame rate: its statistics don't get better with more."""
WARM_UP = 5
"""Surprises that must be known before one can stand out."""
ROUNDING = 2e-3
"""What float16 vectors alone make of equal surprises (5e-4 each): a window without spread must not fire on it."""
MAD_TO_STD = 1.4826
"""Of a normal distribution: with it, both thresholds mean the same gamma."""
VERSION = 1
"""Of saved states."""
T = TypeVar("T")


class Segmenter(Protocol):
    """One rule with the state of one stream. Frames are pushed in the order of time."""

    def push(self, t_ns: int, vector: np.ndarray, *, force: bool = False, hint: bool = False) -> tuple[int, ...]:
        """Take in one frame: capture time and embedding (d,) float. ``force``: a segment begins with this frame,
        whatever the rule says; ``hint``: something else saw a cut here, clamps still hold. Returns how many frames
        each segment has that is finished now, oldest first."""
        ...

    def finish(self) -> tuple[int, ...]:
        """Cut after the newest frame."""
        ...

    def keep(self, mask: Sequence[bool]) -> None:
        """Forget the open frames whose mask is False, and everything that was derived from forgotten ones."""
        ...

    def state(self) -> bytes: ...

    def load(self, state: bytes) -> None:
        """Raises CorruptData for bytes that are not a state."""
        ...


@dataclass(frozen=True, slots=True)
class SurpriseRule:
    """Settings of ``SurpriseSegmenter``. Times in seconds.

    ``gamma``: a surprise above mean + gamma * std (or median + gamma * 1.4826 * MAD) of the trailing ``window_s`` is a
    boundary. ``least``: ... if it is at least this, a cosine distance: the noise of a still picture never is a
    boundary. ``forecast_s``: time constant of the forecast. ``min_s`` / ``max_s``: clamps; with refinement a boundary
    is told ``min_s`` after it was seen (the bounded lag). ``max_frames``: cut at this many frames too, which bounds the
    state."""

    threshold: Threshold = "median_mad"
    gamma: float = 3.0
    window_s: float = 60.0
    forecast_s: float = 1.5
    least: float = 0.25
    min_s: float = 2.0
    max_s: float = 60.0
    max_frames: int = 256
    refine: Refinement = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.min_s < self.max_s:
            raise ConfigError(f"events last {self.min_s} to {self.max_s} s", hint="0 <= min_s < max_s")
        if self.max_frames < 2 or self.forecast_s <= 0 or self.window_s <= 0 or self.gamma < 0:
            raise ConfigError(f"not a rule: {self}", hint="max_frames >= 2, forecast_s > 0, window_s > 0, gamma >= 0")


class _SurpriseState(msgspec.Struct, array_like=True):
    version: int
    times: list[int]
    vectors: list[bytes]
    forecast: bytes
    window: list[tuple[int, float]]
    pending: int


class SurpriseSegmenter:
    """Surprise is 1 - cosine between a frame and the forecast of it, an exponential average of the last frames.

    Frames are kept as unit vectors in float16, at most ``max_frames`` of them: 0.2 MB at 384-d. A vector that isn't
    finite has no surprise and cuts nothing.
    """

    def __init__(self, rule: SurpriseRule | None = None) -> None:
        self.rule = rule or SurpriseRule()
        self._min_ns, self._max_ns = round(self.rule.min_s * 1e9), round(self.rule.max_s * 1e9)
        self._times: list[int] = []
        self._vectors: list[np.ndarray] = []
        self._forecast: np.ndarray | None = None
        self._window: list[tuple[int, float]] = []
        self._pending = 0  # index of the open frame that may begin the next segment; 0: none
        self.surprise = math.nan

    def push(self, t_ns: int, vector: np.ndarray, *, force: bool = False, hint: bool = False) -> tuple[int, ...]:
        unit = _unit16(vector)
        fired = self._is_surprise(t_ns, unit) or (hint and bool(self._times))
        done: list[int] = []
        if force:
            done += self.finish()
        if self._pending and t_ns - self._times[self._pending] >= self._min_ns:
            done.append(self._resolve())
        if self._is_full(t_ns):
            done.append(self._resolve() if self._pending else self._cut(len(self._times)))
        if self._is_full(t_ns):  # what followed the resolved boundary may be too long by itself
            done.append(self._cut(len(self._times)))
        long_enough = bool(self._times) and t_ns - self._times[0] >= self._min_ns
        if fired and long_enough and not self._pending:
            if self.rule.refine == "none":
                done.append(self._cut(len(self._times)))
            else:
                self._pending = len(self._times)
        self._times.append(t_ns)
        self._vectors.append(unit)
        self._look_ahead(t_ns, unit, restart=force or fired)
        return tuple(done)

    def finish(self) -> tuple[int, ...]:
        done = [self._resolve()] if self._pending else []
        return (*done, self._cut(len(self._times))) if self._times else tuple(done)

    def keep(self, mask: Sequence[bool]) -> None:
        self._times = [t for t, kept in zip(self._times, mask, strict=True) if kept]
        self._vectors = [v for v, kept in zip(self._vectors, mask, strict=True) if kept]
        self._window, self._pending = [], 0
        self._forecast = self._vectors[-1].astype(np.float64) if self._vectors else None

    def state(self) -> bytes:
        vectors = [vector.tobytes() for vector in self._vectors]
        forecast = b"" if self._forecast is None else self._forecast.tobytes()
        return msgspec.msgpack.encode(_SurpriseState(1, self._times, vectors, forecast, self._window, self._pending))

    def load(self, state: bytes) -> None:
        read = _decode(state, _SurpriseState)
        try:
            self._vectors = [np.frombuffer(blob, np.float16) for blob in read.vectors]
            self._forecast = np.frombuffer(read.forecast, np.float64) if read.forecast else None
        except ValueError as error:
            raise CorruptData(f"the state of a segmentation can't be read: {error}") from error
        if len(read.times) != len(self._vectors) or not 0 <= read.pending <= len(read.times):
            raise CorruptData("the state of a segmentation contradicts itself")
        self._times, self._window, self._pending = list(read.times), list(read.window), read.pending

    # private

    def _is_surprise(self, t_ns: int, unit: np.ndarray) -> bool:
        """Judge a frame against the window before it, and put its surprise there."""
        forecast = self._forecast
        self.surprise = math.nan
        if self._window and t_ns < self._window[-1][0]:
            self._window = []  # another recording: what was usual in the last one says nothing
        if forecast is None or forecast.shape != unit.shape or not unit.any():
            return False
        length = float(np.linalg.norm(forecast))
        if length == 0.0:
            return False
        value = self.surprise = 1.0 - float(forecast @ unit.astype(np.float64)) / length
        oldest = t_ns - round(self.rule.window_s * 1e9)
        old = next((i for i, known in enumerate(self._window) if known[0] >= oldest), len(self._window))
        del self._window[: max(old, len(self._window) - (WINDOW_VALUES - 1))]
        # The threshold takes two medians: most frames aren't surprising enough to need it.
        fired = len(self._window) >= WARM_UP and value > self.rule.least and value > self._threshold() + ROUNDING
        self._window.append((t_ns, value))
        return fired

    def _threshold(self) -> float:
        values = np.array([value for _, value in self._window])
        if self.rule.threshold == "mean_std":
            return float(values.mean() + self.rule.gamma * values.std())
        middle = median(values)
        return middle + self.rule.gamma * MAD_TO_STD * median(np.abs(values - middle))

    def _look_ahead(self, t_ns: int, unit: np.ndarray, *, restart: bool) -> None:
        """The forecast of the next frame. After a boundary it begins anew: what was before says nothing about it."""
        if not unit.any():
            return
        vector = unit.astype(np.float64)
        if restart or self._forecast is None or self._forecast.shape != vector.shape or len(self._times) < 2:
            self._forecast = vector
            return
        passed_s = max(0, t_ns - self._times[-2]) / 1e9
        share = 1.0 - math.exp(-passed_s / self.rule.forecast_s)
        self._forecast = (1.0 - share) * self._forecast + share * vector

    def _is_full(self, t_ns: int) -> bool:
        return bool(self._times) and (t_ns - self._times[0] >= self._max_ns or len(self._times) >= self.rule.max_frames)

    def _resolve(self) -> int:
        """The pending boundary becomes a cut, where the graph of the frames around it says."""
        at, self._pending = self._pending, 0
        ahead = len(self._vectors) - at
        if self.rule.refine != "none":
            # EM-LLM's graph reaches half an event to both sides and lets the boundary go back a whole one. Online there
            # are the frames of the lag ahead, so as many behind: with unequal ends the split is drawn to the longer one
            # (seen: 13 frames off).
            low = max(0, at - ahead)
            frames = self._vectors[low : at + ahead]
            allowed = [i for i in range(max(low, 1), at) if self._times[i] - self._times[0] >= self._min_ns]
            if allowed and all(vector.shape == frames[0].shape for vector in frames):
                measure: Measure = self.rule.refine
                at = low + best_split(np.stack(frames), max(allowed[0] - low, 1), at - low, measure)
        return self._cut(at)

    def _cut(self, at: int) -> int:
        """The first ``at`` open frames are a segment."""
        self._times, self._vectors = self._times[at:], self._vectors[at:]
        return at


class _CosineState(msgspec.Struct, array_like=True):
    version: int
    frames: int
    last: bytes


class CosineSegmenter:
    """A segment ends before a frame where it has ``min_frames`` already and either ``max_frames`` or a frame whose
    cosine with the one before it is at most ``cosine``. Without a maximum it is a detector of cuts between shots."""

    def __init__(self, *, min_frames: int = 3, max_frames: int | None = 16, cosine: float = 0.9) -> None:
        self.min_frames, self.max_frames, self.cosine = min_frames, max_frames, cosine
        self._frames = 0
        self._last: np.ndarray | None = None

    def push(self, t_ns: int, vector: np.ndarray, *, force: bool = False, hint: bool = False) -> tuple[int, ...]:
        unit, last = _unit16(vector), self._last
        alike = last is not None and last.shape == unit.shape
        near = not hint and alike and float(unit.astype(np.float32) @ last.astype(np.float32)) > self.cosine  # type: ignore[union-attr]
        full = self.max_frames is not None and self._frames >= self.max_frames
        ends = force or (self._frames >= self.min_frames and (full or not near))
        done = self.finish() if ends else ()
        self._frames += 1
        self._last = unit
        return done

    def finish(self) -> tuple[int, ...]:
        done = (self._frames,) if self._frames else ()
        self._frames = 0
        return done

    def keep(self, mask: Sequence[bool]) -> None:
        self._frames = sum(mask)
        if not mask or not mask[-1]:
            self._last = None

    def state(self) -> bytes:
        return msgspec.msgpack.encode(
            _CosineState(1, self._frames, b"" if self._last is None else self._last.tobytes())
        )

    def load(self, state: bytes) -> None:
        read = _decode(state, _CosineState)
        self._frames = read.frames
        self._last = np.frombuffer(read.last, np.float16) if read.last else None


class FixedSegmenter:
    """A segment ends before a frame that is ``seconds`` or more after its first one."""

    def __init__(self, seconds: float) -> None:
        self._length_ns = round(seconds * 1e9)
        self._frames = 0
        self._start_ns = 0

    def push(self, t_ns: int, vector: np.ndarray, *, force: bool = False, hint: bool = False) -> tuple[int, ...]:
        done = self.finish() if force or (self._frames and t_ns - self._start_ns >= self._length_ns) else ()
        if not self._frames:
            self._start_ns = t_ns
        self._frames += 1
        return done

    def finish(self) -> tuple[int, ...]:
        done = (self._frames,) if self._frames else ()
        self._frames = 0
        return done

    def keep(self, mask: Sequence[bool]) -> None:
        self._frames = sum(mask)  # where it ends stays as it was: a window of time

    def state(self) -> bytes:
        return msgspec.msgpack.encode((self._frames, self._start_ns))

    def load(self, state: bytes) -> None:
        self._frames, self._start_ns = _decode(state, tuple[int, int])


def _unit16(vector: np.ndarray) -> np.ndarray:
    """A unit vector in float16, what the state keeps: deciding on it makes a resumed run equal. Zero if not finite."""
    values = np.asarray(vector, np.float32)
    length = float(np.linalg.norm(values))
    if not math.isfinite(length) or length == 0.0:
        return np.zeros(values.shape, np.float16)
    return (values / length).astype(np.float16)


def _decode(state: bytes, kind: type[T]) -> T:
    """A state as it was saved, by this version. Raises CorruptData."""
    return decode_state(state, kind, "the state of a segmentation")


def decode_state(state: bytes, kind: type[T], what: str) -> T:
    """Read a saved state whose struct has a field ``version`` (or none). Raises CorruptData where it can't be read, or
    a newer release wrote it."""
    try:
        read = msgspec.msgpack.decode(state, type=kind)
    except msgspec.DecodeError as error:
        raise CorruptData(f"{what} can't be read: {error}") from error
    version = getattr(read, "version", VERSION)
    if version != VERSION:
        raise CorruptData(f"{what} has version {version}, this release reads {VERSION}", hint="use the newer release")
    return read
