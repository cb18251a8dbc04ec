"""From a source into a memory: decode, glance, describe, write; in order, resumable, the same every time.

    decode thread -> bounded queue -> glance and keyframe choice (in order) -> N encoders -> writer (in order)

What is written depends on the frames and the configuration only: not on threads, speed or restarts. Every sampled
frame becomes one observation; its number is that of its grid point and its session the hash of the configuration, so
a frame that is watched twice is kept once. After every batch the keyframe chooser's state goes into the same durable
write: a run that is killed goes on from there and ends in the same memory.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from perception.encoders.base import Glance, Suite
from perception.frames import Frame, Health, Source
from perception.identity import configuration_hash
from perception.observing import full_observation, light_observation, spoken_observation, stream_info
from perception.sampling import NS, Choice, KeyframeSelector
from perception.threads import Listener, Reader
from streammem.config import Config, PerceptionConfig
from streammem.errors import StreammemError
from streammem.model import Observation, StreamInfo

BATCH = 32
"""Observations in one durable write. At 20x real time and 1 frame/s that is one fsync in 1.6 s, and a kill costs at
most so much work."""
LONGEST_BATCH_S = 1.0
"""... or so much time: a slow or live source is written at least this often."""
PROGRESS_S = 0.2
QUEUE = 8
"""Decoded frames that wait: 8 x 2.8 MB at 1280x720."""


class Sink(Protocol):
    """What the pipeline needs of ``streammem.memory.Memory``."""

    def write(self, observations: list[Observation], *, durable: bool = True) -> Any: ...
    def put_state(self, key: str, value: bytes) -> None: ...
    def get_state(self, key: str) -> bytes | None: ...
    def set_stream(self, info: StreamInfo) -> None: ...
    def flush(self) -> None: ...


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a stream has been watched in one configuration. ``next_ns``: media time to go on from."""

    next_ns: int = 0
    frames: int = 0
    keyframes: int = 0
    spoken: int = 0
    done: bool = False
    selector: bytes = b""
    version: int = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a running watch is. ``rate`` is stream seconds per second of work in this run; ``left_s`` is None where
    the source doesn't say how long it is."""

    media_ns: int
    duration_ns: int | None
    frames: int
    keyframes: int
    rate: float
    left_s: float | None


@dataclass(slots=True)
class WatchReport:
    """What one call of :func:`watch` did. ``seconds`` are by stage, summed over threads; ``wall_s`` is the clock."""

    stream: str
    session: str
    resumed_at_ns: int = 0
    frames: int = 0
    keyframes: int = 0
    spoken: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """Observations that the memory's checks turned away, by field. Always empty unless an encoder is broken."""
    media_ns: int = 0
    complete: bool = False
    interrupted: bool = False
    wall_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    health: Health = field(default_factory=Health)
    signals: dict[str, str] = field(default_factory=dict)

    @property
    def shares(self) -> dict[str, float]:
        """Each stage's share of the work, 0 to 1."""
        total = sum(self.seconds.values())
        return {name: value / total if total else 0.0 for name, value in self.seconds.items()}

    @property
    def rate(self) -> float:
        """Stream seconds per second."""
        return (self.media_ns - self.resumed_at_ns) / NS / self.wall_s if self.wall_s else 0.0


def checkpoint_key(stream: str, session: str) -> str:
    """Under which key of the memory's states the checkpoint is kept."""
    return f"watch/{stream}/{session}"


def read_checkpoint(sink: Sink, stream: str, session: str) -> Checkpoint | None:
    """How far this stream has been watched in this configuration, or None."""
    blob = sink.get_state(checkpoint_key(stream, session))
    if not blob:
        return None
    try:
        found = msgspec.msgpack.decode(blob, type=Checkpoint)
    except msgspec.DecodeError:
        return None
    return found if found.version == Checkpoint().version else None


def watch(
    source: Source,
    sink: Sink,
    suite: Suite,
    config: Config | PerceptionConfig,
    *,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | threading.Event | None = None,
) -> WatchReport:
    """Watch ``source`` to its end, or until ``stop`` says so or Ctrl-C is pressed (then ``interrupted`` is set, and
    the next call goes on). An error of any stage is raised after what came before it is durable: nothing that was
    acknowledged is lost, and the next call goes on from there."""
    settings = config.perception if isinstance(config, Config) else config
    return _Watch(source, sink, suite, settings, progress, stop).run()


@dataclass(slots=True)
class _Item:
    """One frame on its way to the writer. ``selector``: the chooser's state after it, where a batch may end."""

    media_ns: int
    key: bool
    result: Observation | Future[Observation]
    selector: bytes | None


class _Watch:
    def __init__(
        self,
        source: Source,
        sink: Sink,
        suite: Suite,
        settings: PerceptionConfig,
        progress: Callable[[Progress], None] | None,
        stop: Callable[[], bool] | threading.Event | None,
    ) -> None:
        self.source, self.sink, self.suite, self.settings = source, sink, suite, settings
        self.progress = progress
        self.stopped = stop.is_set if isinstance(stop, threading.Event) else stop or (lambda: False)
        self.info = source.info
        self.producer = suite.identity()
        self.session = configuration_hash(settings, self.producer)
        self.key = checkpoint_key(self.info.stream, self.session)
        self.selector = KeyframeSelector(every_frame=settings.sampling == "fixed")
        self.report = WatchReport(self.info.stream, self.session, health=source.health)
        self.report.seconds = dict.fromkeys(("decode", "glance", "encode", "ocr", "write"), 0.0)
        self.lock = threading.Lock()
        self.items: deque[_Item] = deque()
        self.busy = 0
        self.batch: list[Observation] = []
        self.since_mark = 0
        self.reported_at = self.marked_at = self.started = time.perf_counter()
        self.before = Checkpoint()
        self.listener: Listener | None = None
        self.committing = False

    def run(self) -> WatchReport:
        report = self.report
        report.signals = self.suite.signals()
        self.before = read_checkpoint(self.sink, self.info.stream, self.session) or Checkpoint()
        report.resumed_at_ns = report.media_ns = self.before.next_ns
        if self.before.done:
            report.complete = True
            return report
        if self.before.selector:
            self.selector.load(self.before.selector)
        self.sink.set_stream(stream_info(self.info))
        sound = self.source.audio() if report.signals.get("speech") == "on" and not self.info.live else None
        if sound is not None:
            self.listener = Listener(sound, self.suite, self.before.spoken)
        reader = Reader(self.source.frames(self.before.next_ns), QUEUE, self.info.text)
        try:
            with ThreadPoolExecutor(self.settings.threads, thread_name_prefix="encode") as pool:
                try:
                    self._loop(reader, pool)
                except KeyboardInterrupt:
                    report.interrupted = True
                finally:
                    for item in self.items:
                        if isinstance(item.result, Future):
                            item.result.cancel()
                    self._keep()
        finally:
            reader.worker.close()
            report.seconds["decode"] += reader.worker.seconds
            if self.listener is not None:
                self.listener.worker.close()
                report.seconds["speech"] = self.listener.worker.seconds
            report.wall_s = time.perf_counter() - self.started
        report.complete = not report.interrupted
        return report

    def _loop(self, reader: Reader, pool: ThreadPoolExecutor) -> None:
        most = 2 * self.settings.threads + 2
        while True:
            try:
                frame = reader.worker.get(0.2)
            except StreammemError:
                # What came before the error may still be with the encoders.
                while self.items and self._write_next():
                    pass
                raise
            if frame is not None:
                self._take(frame, pool)
            elif reader.worker.ended:
                break
            while self.items and (self._ready() or self.busy > most or len(self.items) > 4 * BATCH):
                if not self._write_next():
                    break
            if self.stopped():
                self.report.interrupted = True
                return
        while self.items and self._write_next():
            pass
        if self.items or not self._hear(None):
            self.report.interrupted = True
            return
        self._commit(self.selector.state(), done=not self.info.live)
        self._note_early_end()

    def _note_early_end(self) -> None:
        """A file that was cut off plays to where it was cut; its header still tells the whole length."""
        claimed = self.info.duration_ns
        if self.info.live or claimed is None:
            return
        missing_ns = claimed - self.report.media_ns
        # Two looks, or two seconds: sound often outlasts the pictures by that much.
        if missing_ns > max(2 * NS, round(2 * NS / self.settings.fps)):
            self.source.health.note(
                f"the pictures end at {self.report.media_ns / NS:.1f} s, the file claims {claimed / NS:.1f} s: "
                "it may have been cut off"
            )

    def _take(self, frame: Frame, pool: ThreadPoolExecutor) -> None:
        """The cheap look, and the choice who gets the thorough one. In order of time."""
        started = time.perf_counter()
        glance = self.suite.glance(frame.image)
        choice = self.selector.decide(frame.image, glance.pooled, frame.capture_ns)
        self.report.seconds["glance"] += time.perf_counter() - started
        result: Observation | Future[Observation]
        if choice.key:
            self.busy += 1
            result = pool.submit(self._describe, frame, glance, choice)
        else:
            result = light_observation(frame, glance, choice, **self._identity())
        self.since_mark += 1
        now = time.perf_counter()
        mark = self.since_mark >= BATCH or now - self.marked_at >= LONGEST_BATCH_S
        if mark:
            self.since_mark, self.marked_at = 0, now
        self.items.append(_Item(frame.media_ns, choice.key, result, self.selector.state() if mark else None))

    def _describe(self, frame: Frame, glance: Glance, choice: Choice) -> Observation:
        started = time.perf_counter()
        try:
            encoded = self.suite.describe(frame.image, glance)
            made = full_observation(frame, encoded, choice, thumbnail_px=self.settings.thumbnail_px, **self._identity())
        except StreammemError:
            raise
        except Exception as error:
            raise StreammemError(
                f"describing the picture at {frame.media_ns / NS:.3f} s of {self.info.text!r} failed: "
                f"{type(error).__name__}: {error}",
                hint="what came before is kept; `streammem doctor` checks the encoders",
            ) from error
        spent = time.perf_counter() - started
        with self.lock:
            for name, seconds in encoded.seconds.items():
                self.report.seconds[name] = self.report.seconds.get(name, 0.0) + seconds
            self.report.seconds["encode"] += max(0.0, spent - sum(encoded.seconds.values()))
        return made

    def _identity(self) -> dict[str, Any]:
        return {
            "stream": self.info.stream,
            "session": self.session,
            "space": self.suite.space_id,
            "producer": self.producer,
        }

    def _ready(self) -> bool:
        result = self.items[0].result
        return not isinstance(result, Future) or result.done()

    def _write_next(self) -> bool:
        """Hand the oldest frame to the memory, waiting for it if it isn't ready; words that came before it first.
        False: the run was stopped while it waited for the words."""
        item = self.items[0]
        made = item.result.result() if isinstance(item.result, Future) else item.result
        if not self._hear(item.media_ns):
            return False
        self.items.popleft()
        self.batch.append(made)
        self.busy -= item.key
        self.report.frames += 1
        self.report.keyframes += item.key
        self.report.media_ns = item.media_ns
        if item.selector is not None:
            self._commit(item.selector)
        self._tell()
        return True

    def _hear(self, at_ns: int | None) -> bool:
        """Words up to this time (None: all the rest) go into the batch. False: stopped while waiting for them."""
        if self.listener is None:
            return True
        for number, span in self.listener.until(at_ns, self.stopped):
            self.batch.append(spoken_observation(span, number, 0, stream=self.info.stream, session=self.session))
            self.report.spoken += 1
        return not self.listener.gave_up

    def _commit(self, selector: bytes, *, done: bool = False) -> None:
        """Everything that waits, and how far we are, in one durable write."""
        started = time.perf_counter()
        self.committing = True
        self._hand_over(durable=False)
        report, before = self.report, self.before
        checkpoint = Checkpoint(
            next_ns=report.media_ns + 1 if report.frames else before.next_ns,
            frames=before.frames + report.frames,
            keyframes=before.keyframes + report.keyframes,
            spoken=self.listener.number if self.listener else before.spoken,
            done=done and bool(report.frames or before.frames),
            selector=selector,
        )
        self.sink.put_state(self.key, msgspec.msgpack.encode(checkpoint))
        self.sink.flush()
        self.committing = False
        self.report.seconds["write"] += time.perf_counter() - started

    def _keep(self) -> None:
        """After a stop or an error: make durable what waits to be written. No checkpoint fits in the middle of a batch;
        the next run makes the few frames since the last one again, and the memory drops the copies."""
        if not self.committing:
            self._hand_over(durable=True)

    def _hand_over(self, *, durable: bool) -> None:
        if not self.batch:
            return
        receipt = self.sink.write(self.batch, durable=durable)
        self.batch = []
        for name, count in getattr(receipt, "refused", {}).items():
            self.report.refused[name] = self.report.refused.get(name, 0) + count

    def _tell(self) -> None:
        now = time.perf_counter()
        if self.progress is None or now - self.reported_at < PROGRESS_S:
            return
        self.reported_at = now
        report, duration = self.report, self.info.duration_ns
        rate = (report.media_ns - report.resumed_at_ns) / NS / max(now - self.started, 1e-6)
        left = max(0, duration - report.media_ns) / NS / rate if duration and rate > 0 else None
        frames, keyframes = self.before.frames + report.frames, self.before.keyframes + report.keyframes
        self.progress(Progress(report.media_ns, duration, frames, keyframes, rate, left))
