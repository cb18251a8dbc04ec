"""Episodes of robot policies: ``attend`` retrieves, fuses and writes at once, for many episodes beside each other.

An episode's bank is working memory: it lives in this process and nowhere else. So that its loss can't go unnoticed,
an episode begins at step 0 and an id is used once: after a restart, an eviction or ``end`` the next step is an error,
never an empty bank that looks like a full one. A step that is sent again (an answer was lost) gets the same answer.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from streammem.banks.pcmb.options import STREAMS, Streams
from streammem.banks.pcmb.step import Attended, Episode, EpisodeInfo, Parts, check_step, checked, reserve
from streammem.checks import check_name, refuse
from streammem.clock import Clock, SystemClock
from streammem.errors import ObservationError, ServiceBusy

if TYPE_CHECKING:
    from torch import Tensor

REMEMBERED_ENDS = 65_536
"""Ids of ended episodes that are refused when they come again: 1 MB of hashes; then the oldest are forgotten."""


class Episodes:
    """Any number of threads; steps of one episode one after the other, different episodes beside each other.

    ``make`` gives the parts on the first call: that is when torch is imported and weights are read. A new episode is
    let in where the bytes that it may come to still fit under ``most_bytes``; those that were idle for ``idle_s`` make
    room first, oldest first. Raises ServiceBusy where there is no room."""

    def __init__(
        self,
        make: Callable[[], Parts],
        *,
        most: int = 64,
        most_bytes: int = 512 << 20,
        idle_s: float = 600.0,
        clock: Clock | None = None,
    ) -> None:
        self._make = make
        self._parts: Parts | None = None
        self._most, self._most_bytes, self._idle_ns = most, most_bytes, int(idle_s * 1e9)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._open: dict[str, Episode] = {}
        self._ended: OrderedDict[bytes, str] = OrderedDict()
        self._warned = False
        self.evicted = 0

    def attend(
        self,
        episode: str,
        step: int,
        perceptual: Any = None,
        cognitive: Any = None,
        *,
        attention: bool = False,
    ) -> Attended:
        """(n, d) float16 or float32 tokens, NumPy arrays or torch tensors, of one stream or both: which ones and their
        shapes stay the same for the episode. ``step`` begins at 0 and grows, in the policy's own count.

        Raises ObservationError with ``field`` ``episode`` (unknown or ended), ``step`` (backwards) or the stream's name
        (shape, dtype, NaN): nothing was written then, and the episode goes on. Raises ServiceBusy for a new episode
        where there is no room."""
        number = check_step(episode, step)
        parts = self._ready()
        given = {"perceptual": perceptual, "cognitive": cognitive}
        tokens = {stream: checked(given[stream], stream, parts) for stream in STREAMS if given[stream] is not None}
        if not tokens:
            raise refuse("perceptual", "is missing, and so is cognitive", "give the tokens of at least one stream")
        found = self._find(episode, number, tokens, parts)
        with found.lock:
            if found.ended:
                raise self._gone(episode, found.ended)
            found.used_ns = self._clock.now_ns()
            before = found.merges
            answer = found.attend(number, tokens, parts, attention)
            if parts.trained_merges is False and found.merges > before:
                self._warn(parts)
        made = {
            str(stream): each.cpu().numpy() if isinstance(given[stream], np.ndarray) else each
            for stream, each in answer.tokens.items()
        }
        return Attended(made, answer.summary)

    def end(self, episode: str, why: str = "ended") -> bool:
        """The episode is over: its memory is freed, its id is spent. False where it wasn't open."""
        check_name(episode, "episode")
        with self._lock:
            found = self._open.pop(episode, None)
            if found is None:
                return False
            self._spend(episode, why)
        with found.lock:  # a step that is under way finishes first
            found.close(why)
        return True

    def end_of_stream(self, stream: str, why: str) -> int:
        """End all episodes of a stream (``STREAM/...``, or the stream's own name). Returns how many."""
        with self._lock:
            names = [name for name in self._open if stream_of(name) == stream]
        return sum(self.end(name, why) for name in names)

    def open(self) -> list[EpisodeInfo]:
        """The open episodes by name."""
        with self._lock:
            found = sorted(self._open.items())
        return [
            EpisodeInfo(
                episode=name,
                step=each.step,
                bytes=each.reserved,
                lengths={stream: len(bank) for stream, bank in each.banks.items()},
                merges={stream: bank.merges for stream, bank in each.banks.items()},
            )
            for name, each in found
        ]

    def ram_bytes(self) -> int:
        """What open episodes have reserved, and the spent ids."""
        with self._lock:
            return sum(each.reserved for each in self._open.values()) + 16 * len(self._ended)

    # -- beginning and ending

    def _ready(self) -> Parts:
        with self._lock:
            if self._parts is None:
                self._parts = self._make()
            return self._parts

    def _find(self, name: str, step: int, tokens: Mapping[Streams, Tensor], parts: Parts) -> Episode:
        with self._lock:
            found = self._open.get(name)
            if found is not None:
                return found
            why = self._ended.get(_hash(name))
            if why is not None:
                raise self._gone(name, why)
            if step != 0:
                raise refuse(
                    "episode",
                    f"{name!r} isn't known here and its step is {step}",
                    "its memory is lost (a restart?) or it never began: begin a new episode at step 0",
                )
            size = sum(reserve(parts, stream, each) for stream, each in tokens.items())
            self._make_room(size)
            found = self._open[name] = Episode(name, size, used_ns=self._clock.now_ns())
        return found

    def _make_room(self, size: int) -> None:
        """With the registry's lock held."""
        now = self._clock.now_ns()
        if size > self._most_bytes:
            raise ServiceBusy(
                f"an episode of these tokens comes to {size} bytes, all together may have {self._most_bytes}",
                hint="raise perceptual_cognitive.most_bytes, or shorten the bank",
            )

        def full() -> bool:
            held = sum(each.reserved for each in self._open.values())
            return len(self._open) >= self._most or held + size > self._most_bytes

        while full():
            oldest = min(self._open.values(), key=lambda each: each.used_ns)
            # One whose lock is held is at work, however long ago that began.
            if now - oldest.used_ns < self._idle_ns or not oldest.lock.acquire(blocking=False):
                raise ServiceBusy(
                    f"{len(self._open)} episodes are open and none of them was idle for {self._idle_ns / 1e9:g} s",
                    hint="end episodes that are over (end_episode), or raise perceptual_cognitive.most_episodes",
                )
            try:
                del self._open[oldest.name]
                self._spend(oldest.name, "evicted, it was idle")
                oldest.close("evicted, it was idle")
                self.evicted += 1
            finally:
                oldest.lock.release()

    def _spend(self, name: str, why: str) -> None:
        self._ended[_hash(name)] = why
        while len(self._ended) > REMEMBERED_ENDS:
            self._ended.popitem(last=False)

    @staticmethod
    def _gone(name: str, why: str) -> ObservationError:
        return refuse("episode", f"{name!r} is over ({why})", "an id is used once: begin a new episode at step 0")

    def _warn(self, parts: Parts) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the bank merges now that it holds more than {parts.options.length} steps; in training it never did"
                " (groups were no longer than the bank): what it reads now it has never seen",
                stacklevel=4,
            )


def stream_of(episode: str) -> str:
    """The stream that an episode belongs to: what stands before the first slash, or all of it."""
    return episode.partition("/")[0]


def _hash(name: str) -> bytes:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
