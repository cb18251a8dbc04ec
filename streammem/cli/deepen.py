"""A second look for reasoning: frames again, and a denser watch of a stretch that later questions use too.

What a denser look brings is kept in a small memory of its own, beside the watched ones in the cache:
``deeper/<content>-<encoders>``. Its name is the content's hash and a hash of everything in perception that changes what
is seen, a frame's number in it is its time: so a frame is never encoded twice, whatever the question, and a stale one
can't be met. The memory that is asked about stays as it is. ``forget`` reaches this cache as well.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streammem.cli.watched import Frames, Opened
from streammem.config import BudgetConfig, Config
from streammem.errors import MemoryLocked, StorageError, StreammemError
from streammem.paths import cache_dir
from streammem.reason.base import Deeper, Look, Period, SeenFrame
from streammem.recall.layers import Layered
from streammem.render import decode_jpeg

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perception.frames import Frame
    from streammem.memory import Memory
    from streammem.model import Observation, StreamInfo

SESSION = "deeper"
CACHE_BYTES = 512 << 20
"""Cap of one recording's denser looks; the oldest detail is demoted first, as in any memory."""


class SecondLook(Frames):
    """Implements ``reason.base.Revisit``: a file is decoded again, a live stream answers from kept thumbnails."""

    def __init__(self, opened: Opened, config: Config, target: str = "") -> None:
        """``target``: what was named now. A file's memory is found by content, under whatever name it was watched."""
        super().__init__(opened, config)
        self._memory: Any = opened.memory
        if os.path.isfile(target):
            # Whether it is the very same recording is checked by its hash before a frame is shown.
            self._moved = dict.fromkeys(self._infos, target)

    def frames_of(self, stream: str, t_start_ns: int, t_end_ns: int, fps: float, limit: int) -> list[Frame] | None:
        """The source's frames of the stretch, at most ``limit``, evenly chosen; None where the source is gone."""
        if stream not in self._sources:
            self._sources[stream] = self._open(stream)
        source = self._sources[stream]
        if source is None:
            return None
        try:
            found = source.look_again(t_start_ns, t_end_ns, fps)
        except StreammemError:
            return None
        return evenly_chosen(found, limit)

    def look_again(self, stream: str, t_start_ns: int, t_end_ns: int, fps: float, *, limit: int = 32) -> Look:
        period = Period(stream, t_start_ns, t_end_ns)
        found = self.frames_of(stream, t_start_ns, t_end_ns, fps, limit)
        if found:
            return Look(period, tuple(SeenFrame(f.capture_ns, f.image) for f in found), "source")
        kept: list[SeenFrame] = []
        if not hasattr(self._memory, "blocks"):
            return Look(period, (), "gone", "a service doesn't hand out its frames")
        for block in self._memory.blocks("moments", [stream], (t_start_ns, t_end_ns)):
            lo, hi = block.rows_between(t_start_ns, t_end_ns)
            starts = np.asarray(block.t_start_ns[lo:hi])
            inside = (starts >= t_start_ns) & (starts <= t_end_ns) & np.asarray(block.has_thumbnail[lo:hi], bool)
            for row in evenly_chosen((np.flatnonzero(inside) + lo).tolist(), limit):
                picture = decode_jpeg(block.thumbnail(row))
                if picture is not None:
                    kept.append(SeenFrame(int(block.t_start_ns[row]), picture, int(block.record_ids[row])))
        if kept:
            kept.sort(key=lambda frame: frame.t_ns)
            return Look(period, tuple(evenly_chosen(kept, limit)), "kept")
        return Look(period, (), "gone", "the source isn't there any more, and no picture of that time was kept")


class DenserWatch:
    """Implements ``reason.base.Deepener``: watches stretches of the source again and keeps what that brings."""

    def __init__(self, opened: Opened, config: Config, revisit: SecondLook) -> None:
        self._memory: Any = opened.memory
        self._config = config
        self._revisit = revisit
        self._suite: Any = None
        self._beside: dict[str, Memory | None] = {}
        self._temporary: list[str] = []

    @property
    def view(self) -> Any:
        view = self._memory
        for _, beside in sorted(self._beside.items()):
            if beside is not None:
                view = Layered(view, beside)
        return view

    def deepen(self, period: Period, fps: float, *, limit: int = 64) -> Deeper:
        """Watch ``period`` at ``fps``, at most ``limit`` frames. Frames that were watched before cost nothing."""
        info = next((one for one in self._memory.streams() if one.stream == period.stream), None)
        if info is None or info.clock != "media":
            return Deeper(period, (), 0, 0, "a live stream can't be watched again; what it kept was described already")
        suite = self._encoders()
        spaces = {block.space for block in self._memory.blocks("moments", [period.stream], None)} - {None}
        if suite.space_id not in spaces:
            return Deeper(period, (), 0, 0, f"the memory's space is {', '.join(map(str, spaces)) or 'none'}")
        # More than will be watched: those that the memory looked at already are left out before the limit is.
        frames = self._revisit.frames_of(period.stream, period.t_start_ns, period.t_end_ns, fps, 2 * limit)
        if frames is None:
            return Deeper(period, (), 0, 0, "the source isn't there any more, or is another file now")
        looked = self._looked(period, suite.space_id)
        frames = evenly_chosen([frame for frame in frames if frame.capture_ns not in looked], limit)
        beside = self._open(info)
        new = [f for f in frames if not beside.has(period.stream, SESSION, f.capture_ns // 1000)]
        with ThreadPoolExecutor(self._config.perception.threads, thread_name_prefix="deepen") as pool:
            made = list(pool.map(lambda frame: self._describe(frame, period.stream), new))
        beside.write(made)
        ids = [_number(period.stream, frame) for frame in frames]
        return Deeper(period, tuple(ids), len(new), len(frames) - len(new))

    def _looked(self, period: Period, space: str) -> set[int]:
        """Instants of which the memory has a vector itself: there is nothing to add."""
        span = (period.t_start_ns, period.t_end_ns)
        blocks = [b for b in self._memory.blocks("moments", [period.stream], span) if b.space == space]
        return {int(t) for block in blocks for t in np.asarray(block.t_start_ns)}

    def _encoders(self) -> Any:
        if self._suite is None:
            from perception.encoders.suite import EncoderSuite

            self._suite = EncoderSuite(self._config.perception, cache=self._config.cache_dir)
        return self._suite

    def _describe(self, frame: Frame, stream: str) -> Observation:
        from dataclasses import replace

        from perception.observing import full_observation
        from perception.sampling import Choice

        glance = self._suite.glance(frame.image)
        made = full_observation(
            frame,
            self._suite.describe(frame.image, glance),
            Choice(True, 0.0, 0.0, "deeper"),
            stream=stream,
            session=SESSION,
            space=self._suite.space_id,
            producer=self._suite.identity(),
            thumbnail_px=self._config.perception.thumbnail_px,
        )
        # The number is the time, not the place on a grid: looks at different rates never collide.
        return replace(made, seq=frame.capture_ns // 1000)

    def _open(self, info: StreamInfo) -> Memory:
        known = self._beside.get(info.stream)
        if known is not None:
            return known
        import streammem.memory
        from perception.identity import configuration_hash

        session = configuration_hash(self._config.perception, self._suite.identity())
        place = _folder(self._config) / f"{info.content_hash[:16]}-{session}"
        # Moments are all that is read from it: no bank has to work there.
        sections = ((name, getattr(self._config, name)) for name in type(self._config).model_fields)
        off = {name: section.model_copy(update={"on": False}) for name, section in sections if hasattr(section, "on")}
        budget = BudgetConfig(disk_bytes=CACHE_BYTES, ram_bytes=self._config.budget.ram_bytes)
        settings = self._config.model_copy(update={**off, "budget": budget})
        try:
            place.mkdir(parents=True, exist_ok=True)
            opened = streammem.memory.open(place, config=settings)
        except (MemoryLocked, StorageError, OSError):
            # Another question looks at the same recording now, or the cache can't be written: this look isn't kept.
            self._temporary.append(tempfile.mkdtemp(prefix="streammem-deeper-"))
            opened = streammem.memory.open(self._temporary[-1], config=settings)
        opened.set_stream(info)
        self._beside[info.stream] = opened
        return opened

    def close(self) -> None:
        for beside in self._beside.values():
            if beside is not None:
                beside.close()
        for folder in self._temporary:
            shutil.rmtree(folder, ignore_errors=True)
        self._beside.clear()


def forget_deeper(config: Config, infos: Iterable[StreamInfo], between: tuple[int, int] | None) -> int:
    """Forget denser looks at these streams, so that nothing outlives ``forget`` in the cache. Returns how many."""
    import streammem.memory

    gone = 0
    for info in infos:
        for place in sorted(_folder(config).glob(f"{info.content_hash[:16]}-*")) if info.content_hash else ():
            with streammem.memory.open(place, config=config) as beside:
                # A renamed file is the same recording under another stream's name.
                names = [one.stream for one in beside.streams()]
                gone += sum(beside.forget(stream=name, between=between).observations for name in names)
    return gone


def _folder(config: Config) -> Path:
    return cache_dir(config.cache_dir) / "deeper"


def _number(stream: str, frame: Frame) -> int:
    from streammem.model import record_id

    return record_id("moments", stream, SESSION, frame.capture_ns // 1000)


def evenly_chosen(items: Sequence[Any], limit: int) -> list[Any]:
    """At most ``limit`` of them at even distances, the first and the last included."""
    if limit <= 0:
        return []
    if len(items) <= limit:
        return list(items)
    if limit == 1:
        return [items[len(items) // 2]]
    return [items[i * (len(items) - 1) // (limit - 1)] for i in range(limit)]
