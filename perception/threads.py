"""The two threads beside the pipeline: one reads frames ahead, one listens."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from perception.encoders.base import Suite
from perception.frames import AudioChunk, Frame
from streammem.errors import SourceError, StreammemError
from streammem.model import Speech

_POLL_S = 0.1
"""How long a thread waits before it looks whether it should end."""


T = TypeVar("T")


class Worker(Generic[T]):
    """Runs an iterator in a thread, at most ``ahead`` items before its reader. What it raises is raised by ``get``,
    after everything that came before. ``seconds`` is the time spent inside the iterator."""

    def __init__(self, items: Callable[[], Iterable[T]], ahead: int, name: str) -> None:
        self.seconds = 0.0
        self.ended = False
        self._items = items
        self._queue: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def get(self, timeout_s: float | None = None) -> T | None:
        """The next item; None where there is none within the time, or no more at all (then ``ended`` is True)."""
        if self.ended:
            return None
        try:
            item, error, last = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if error is not None:
            self.ended = True
            raise error
        self.ended = last
        return item

    def close(self) -> None:
        """End the thread; waits at most 5 s for whatever it is blocked in."""
        self._stop.set()
        self._thread.join(5.0)
        self.ended = True

    def _run(self) -> None:
        items: Iterator[T] = iter(())
        try:
            items = iter(self._items())
            while not self._stop.is_set():
                started = time.perf_counter()
                try:
                    item = next(items)
                except StopIteration:
                    break
                finally:
                    self.seconds += time.perf_counter() - started
                self._put(item, None, False)
            self._put(None, None, True)
        except BaseException as error:  # noqa: BLE001 - handed on to the thread that reads, where it is raised
            self._put(None, error, True)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def _put(self, item: T | None, error: BaseException | None, last: bool) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put((item, error, last), timeout=_POLL_S)
                return
            except queue.Full:
                continue


class Reader:
    """Frames of a source, decoded ahead. An error that isn't typed yet becomes a SourceError that says where."""

    def __init__(self, frames: Iterator[Frame], ahead: int, what: str) -> None:
        self._frames, self._what, self._at_ns = frames, what, 0
        self.worker: Worker[Frame] = Worker(self._guarded, ahead, "decode")

    def _guarded(self) -> Iterator[Frame]:
        try:
            for frame in self._frames:
                self._at_ns = frame.media_ns
                yield frame
        except StreammemError:
            raise
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            raise SourceError(
                f"reading {self._what!r} failed {self._at_ns / 1e9:.1f} s in: {type(error).__name__}: {error}",
                hint="watch again: what came before is kept",
            ) from error


class Listener:
    """Speech of a source, in order of time, heard while the pictures are watched.

    A run that goes on after an interruption listens from the start again and leaves out the first ``known`` spans:
    what a transcriber makes of a moment depends on what it heard before, and only this gives the same words."""

    def __init__(self, sound: Iterator[AudioChunk], suite: Suite, known: int) -> None:
        self._sound, self._suite, self._known = sound, suite, known
        self._next: Speech | None = None
        self.number = known
        self.gave_up = False
        self.worker: Worker[Speech] = Worker(self._guarded, 64, "listen")

    def until(self, at_ns: int | None, stopped: Callable[[], bool]) -> Iterator[tuple[int, Speech]]:
        """Numbered spans that begin at or before ``at_ns`` (None: all). Waits until the listening is that far, so
        that words and pictures are always written in the same order."""
        while True:
            if self._next is None:
                self._next = self.worker.get(_POLL_S)
                if self._next is None:
                    if self.worker.ended:
                        return
                    if stopped():
                        self.gave_up = True
                        return
                    continue
            if at_ns is not None and self._next.t_start_ns > at_ns:
                return
            span, self._next = self._next, None
            self.number += 1
            yield self.number - 1, span

    def _guarded(self) -> Iterator[Speech]:
        try:
            for number, span in enumerate(self._suite.transcribe(self._sound)):
                if number >= self._known:
                    yield span
        except StreammemError:
            raise
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            raise StreammemError(
                f"listening failed: {type(error).__name__}: {error}", hint="watch with perception.speech=off"
            ) from error
