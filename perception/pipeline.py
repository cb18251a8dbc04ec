"""From a source into a memory: decode, glance, describe, write; in order, resumable, the same every time.

    decode thread -> bounded queue -> glance and keyframe choice (in order) -> N workers for keyframes -> writer (in order)

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

from perception.encoders.base import Suite
from perception.frames import Frame, Health, Source
from perception.identity import configuration_hash
from perception.listening import Listener
from perception.reading import Reader
from perception.sampling import NS, KeyframeSelector
from streammem.config import Config, PerceptionConfig
from streammem.errors import StreammemError
from streammem.model import Observation, StreamInfo

BATCH = 32
"""Observations in one durable write. At 20x real time and 1 frame/s that is one fsync in 1.6 s, and a kill costs at
most so much work."""
LIVE_BATCH_S = 1.0
"""A live source is written at least this often."""
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
    """One frame on its way to the writer. ``selector``: the chooser's state after it, where a batch ends here."""

    frame: Frame
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
        self.seconds = dict.fromkeys(("decode", "glance", "encode", "ocr", "write"), 0.0)
        self.lock = threading.Lock()
        self.items: deque[_Item] = deque()
        self.batch: list[Observation] = []
        self.since_mark = 0
        self.marked_at = 0.0

    def run(self) -> WatchReport:
        started = time.perf_counter()
        signals = self.suite.signals()
        report = WatchReport(self.info.stream, self.session, signals=signals, health=self.source.health)
        done = read_checkpoint(self.sink, self.info.stream, self.session) or Checkpoint()
        if done.selector:
            self.selector.load(done.selector)
        self.done = done
        report.resumed_at_ns = report.media_ns = done.next_ns
        if done.done:
            report.complete = True
            return report
        self.sink.set_stream(stream_info(self.info))
        sound = self.source.audio() if signals.get("speech") == "on" and not self.info.live else None
        listener = Listener(sound, self.suite, self.info.stream, self.session, done.spoken) if sound else None
        reader = Reader(self.source.frames(done.next_ns), QUEUE)
        self.started = self.marked_at = started
        error: BaseException | None = None
        with ThreadPoolExecutor(self.settings.threads, thread_name_prefix="encode") as pool:
            try:
                for frame in reader:
                    self._take(frame, pool)
                    self._write_ready(report, listener, wait_above=2 * self.settings.threads + 2)
                    if self.stopped():
                        report.interrupted = True
                        break
                self._write_ready(report, listener, wait_above=0)
                if not report.interrupted and listener is not None:
                    self._hear(report, listener, None)
            except KeyboardInterrupt:
                report.interrupted = True
            except BaseException as raised:
                error = raised
            finally:
                reader.close()
                if listener is not None:
                    listener.close()
                for item in self.items:
                    if isinstance(item.result, Future):
                        item.result.cancel()
        if (isinstance(error, StreammemError) and not isinstance(error, _sink_errors())) or error is None:
            self._commit(report, done=error is None and not report.interrupted)
        self.seconds["decode"] += reader.seconds
        if listener is not None:
            self.seconds["speech"] = listener.seconds
        report.complete = error is None and not report.interrupted
        report.seconds, report.wall_s = self.seconds, time.perf_counter() - started
        if error is not None:
            raise error
        return report
