"""The progress of a watch: how far, how fast, how long still. On stderr, and only where somebody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streammem.clock import NS, StreamClock, format_duration, format_time
from streammem.printable import printable

if TYPE_CHECKING:
    from perception.pipeline import Progress
    from streammem.cli.output import Output


class WatchProgress:
    """``with WatchProgress(...) as progress: watch(..., progress=progress.update)``."""

    def __init__(self, out: Output, name: str, duration_ns: int | None, clock: StreamClock) -> None:
        self._out = out
        self._name = printable(name, 40)
        self._duration_ns = duration_ns
        self._clock = clock
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> WatchProgress:
        if self._out.quiet or self._out.as_json:
            return self
        if not self._out.aside.is_terminal:
            self._out.note(f"watching {self._name}")
            return self
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            SpinnerColumn(style="cyan"),
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=28, complete_style="cyan", finished_style="green", pulse_style="cyan"),
            TextColumn("{task.fields[where]}", markup=False),
            TextColumn("{task.fields[speed]}", style="cyan", markup=False),
            TextColumn("{task.fields[left]}", style="dim", markup=False),
            console=self._out.aside,
            transient=True,
        )
        self._bar.start()
        # The first look waits for the encoders: on a new machine that is their conversion, 5 s, once.
        self._task = self._bar.add_task(self._name, total=None, where="waking the encoders", speed="", left="")
        return self

    def update(self, progress: Progress) -> None:
        """Take a report of the pipeline."""
        if self._bar is None:
            return
        length = progress.duration_ns or self._duration_ns
        where = format_time(progress.media_ns, self._clock, 0)
        if length and self._clock == "media":
            where += f" / {format_time(length, self._clock, 0)}"
        left = f"{format_duration(int(progress.left_s * NS))} left" if progress.left_s is not None else ""
        self._bar.update(
            self._task,
            total=length,
            completed=min(progress.media_ns, length) if length else None,
            where=where,
            speed=f"{progress.rate:.0f}x" if progress.rate >= 10 else f"{progress.rate:.1f}x",
            left=left,
        )

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
