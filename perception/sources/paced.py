"""A recording played at real speed, or N times as fast: for trying a live set-up without a camera."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from perception.frames import AudioChunk, Frame, Health, Source, SourceInfo
from perception.sampling import NS, FixedRate
from perception.sources.live import WallClock, monotonic_clock
from streammem.errors import ConfigError


class Paced:
    """Hands out the frames of ``source`` when their media time has come. Only the pace changes: frames, numbers and
    times are the source's own, so that the memory is the same at every speed.

    Nothing is dropped: where the reader is slower than the speed, frames come as fast as it takes them, and
    ``behind_s`` says by how much (wall seconds)."""

    def __init__(self, source: Source, speed: float, *, monotonic: WallClock = monotonic_clock) -> None:
        """``speed``: 1 is real time, 10 ten times as fast. Raises ConfigError for a speed outside (0, 100,000]."""
        if not 0 < speed <= 100_000:
            raise ConfigError(f"a recording can't be played at {speed} times its speed", hint="use 1, 10, ...")
        if source.info.live:
            raise ConfigError(f"{source.info.text} is live: it has its own pace", hint="leave the speed out")
        self.speed = speed
        self.behind_s = 0.0
        self._source, self._monotonic = source, monotonic
        self._stop = threading.Event()

    @property
    def info(self) -> SourceInfo:
        return self._source.info

    @property
    def health(self) -> Health:
        return self._source.health

    def frames(self, start_ns: int = 0, sampling: FixedRate | None = None) -> Iterator[Frame]:
        """The clock starts at the first frame, also after a resume."""
        began: tuple[int, int] | None = None
        for frame in self._source.frames(start_ns, sampling):
            now = self._monotonic()
            if began is None:
                began = now, frame.media_ns
            due = began[0] + round((frame.media_ns - began[1]) / self.speed)
            self.behind_s = max(0.0, (now - due) / NS)
            # In pieces, because wait() may return early on some kernels and because close() must be noticed.
            while now < due:
                if self._stop.wait((due - now) / NS):
                    return
                now = self._monotonic()
            yield frame

    def audio(self, start_ns: int = 0) -> Iterator[AudioChunk] | None:
        """At full speed: the pipeline writes words together with the pictures of their time."""
        return self._source.audio(start_ns)

    def look_again(self, t_start_ns: int, t_end_ns: int, fps: float) -> list[Frame]:
        return self._source.look_again(t_start_ns, t_end_ns, fps)

    def close(self) -> None:
        self._stop.set()
        self._source.close()
