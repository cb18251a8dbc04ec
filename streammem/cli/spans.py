"""``--between`` and ``--at`` on the command line: from words to nanoseconds of the right clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from streammem.clock import Clock, StreamClock, SystemClock, parse_between, parse_time
from streammem.errors import QueryError, TimeSyntaxError

if TYPE_CHECKING:
    from streammem.client import Client
    from streammem.memory import Memory


def check_words(between: Sequence[str] | None) -> None:
    """Refuse what is a time on no clock, before anything is watched. Raises TimeSyntaxError."""
    for text in between or ():
        try:
            parse_time(text, now_ns=0, clock="media")
        except TimeSyntaxError:
            parse_time(text, now_ns=0, clock="wall")


def read_between(
    between: tuple[str, str] | None, memory: Memory | Client, streams: Sequence[str] | None, clock: Clock | None = None
) -> tuple[int, int] | None:
    """The interval on the clock of the streams meant. Raises TimeSyntaxError, QueryError."""
    check_streams(memory, streams)
    if between is None:
        return None
    kind, now_ns = the_clock(memory, streams, clock)
    return parse_between(*between, now_ns=now_ns, clock=kind)


def check_streams(memory: Memory | Client, streams: Sequence[str] | None) -> None:
    """Refuse a stream that isn't there: a search in nothing would look like "not seen". Raises QueryError."""
    known = known_streams(memory)
    for name in streams or ():
        if name not in known:
            raise QueryError(f"there is no stream {name!r}", hint=f"streams: {', '.join(known) or 'none'}")


def known_streams(memory: Memory | Client) -> list[str]:
    """Names of the streams that were described or written, sorted."""
    return sorted(info.stream for info in memory.streams())


def the_clock(
    memory: Memory | Client, streams: Sequence[str] | None, clock: Clock | None = None
) -> tuple[StreamClock, int | None]:
    """The one clock of the streams meant, and its present: for a file its end. Raises QueryError for a mixture."""
    wanted = set(streams or known_streams(memory))
    clocks: dict[str, StreamClock] = {info.stream: info.clock for info in memory.streams()}
    # A stream that nobody described was written by a robot or a camera: it counts on the wall clock.
    kinds: set[StreamClock] = {clocks.get(name, "wall") for name in wanted}
    if len(kinds) > 1:
        raise QueryError("these streams count time in different ways", hint="choose with --stream NAME")
    kind: StreamClock = kinds.pop() if kinds else "media"
    if kind == "wall":
        return kind, (clock or SystemClock()).now_ns()
    ends = [item.t_max_ns for item in memory.status().streams if item.stream in wanted and item.t_max_ns is not None]
    return kind, max(ends, default=None)
