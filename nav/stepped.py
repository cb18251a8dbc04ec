"""What simulated days share as sources: steps with the benchmark's clock, chosen by a grid, drawn when asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from nav.env import CameraSpec
from nav.findingdory.clock import DayClock
from perception.frames import AudioChunk, Frame, Health, SourceInfo
from perception.identity import stream_id, text_hash
from perception.sampling import FixedRate

_VERSION = 1


class SteppedSource(ABC):
    """A ``perception.frames.Source`` of ``count`` steps. Frame ``index`` is the step, whatever the sampling: frame
    index, observation ``seq`` and step are one number. ``kind`` is the scheme, ``text`` what followed it, ``name`` the
    beginning of the stream's name."""

    def __init__(
        self, kind: str, text: str, name: str, *, count: int, camera: CameraSpec, clock: DayClock, fps: float
    ) -> None:
        self.count, self.camera, self.clock = count, camera, clock
        self.sampling = FixedRate(fps)
        self.health = Health()
        content = text_hash(f"{_VERSION}\0{text}")
        self._info = SourceInfo(
            text=f"{kind}:{text}",
            kind=kind,
            stream=stream_id(name, content),
            content_hash=content,
            clock="wall",
            width=camera.width,
            height=camera.height,
            fps=clock.steps_daily / (16 * 3600),
            duration_ns=self._media_ns(count),
            codec="simulated",
        )

    @property
    def info(self) -> SourceInfo:
        return self._info

    def frames(self, start_ns: int = 0, sampling: FixedRate | None = None) -> Iterator[Frame]:
        """Chosen frames at or after ``start_ns`` of media time (zero at the first frame)."""
        chosen, last = sampling or self.sampling, -1
        wanted: list[int] = []
        for step in range(self.count):
            point = chosen.index(self._media_ns(step))
            if point > last:
                last = point
                if self._media_ns(step) >= start_ns:
                    wanted.append(step)
        return self._draw(wanted)

    def audio(self, start_ns: int = 0) -> Iterator[AudioChunk] | None:
        return None

    def look_again(self, t_start_ns: int, t_end_ns: int, fps: float) -> list[Frame]:
        """By media time. Draws in a context of its own: safe beside a running :meth:`frames`."""
        chosen, last = FixedRate(fps), -1
        showing = max((s for s in range(self.count) if self._media_ns(s) <= t_start_ns), default=0)
        wanted: list[int] = []
        for step in range(showing, self.count):
            if self._media_ns(step) > t_end_ns and wanted:
                break
            point = chosen.index(self._media_ns(step))
            if point > last or not wanted:
                last = point
                wanted.append(step)
        return list(self._draw(wanted))

    def close(self) -> None:  # noqa: B027 - nothing to close is the rule here
        """Nothing is held open: each run of frames closes its own renderer."""

    def _media_ns(self, step: int) -> int:
        return self.clock.capture_ns(step) - self.clock.capture_ns(0)

    @abstractmethod
    def _draw(self, steps: list[int]) -> Iterator[Frame]:
        """These steps, rising. A renderer is opened by the thread that draws: its context belongs to it."""
