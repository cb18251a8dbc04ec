"""Which numbers of tracks are taken in a stream: a later session goes on after them.

Kept in the memory's own small state, in order with the observations. A session that is made again after a kill gets
the numbers it had, so that what it writes is the same and the memory drops the copies.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from streammem.errors import CorruptData

RESERVED = 1000
"""Numbers that stay with a session that didn't end: it may be made again, and needs more than it had by then."""

SESSIONS = 64
"""Sessions of a stream whose numbers are told apart; of older ones the highest is kept."""


class Kept(Protocol):
    """What is needed of a memory: ``Memory``, ``Client``."""

    def put_state(self, key: str, value: bytes) -> None: ...
    def get_state(self, key: str) -> bytes | None: ...


class Taken(msgspec.Struct, array_like=True):
    """Numbers after ``first`` up to ``last`` are a session's; ``done``: it went through to the end."""

    first: int
    last: int
    done: bool = False


class TrackNumbers:
    """Of one session of one stream. Raises CorruptData where the saved numbers can't be read."""

    def __init__(self, memory: Kept, stream: str, session: str) -> None:
        self._memory = memory
        self._key = f"tracks/{stream}"
        self._session = session
        blob = memory.get_state(self._key)
        try:
            self._all = msgspec.msgpack.decode(blob, type=dict[str, Taken]) if blob else {}
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise CorruptData(f"the numbers of tracks of {stream!r} can't be read: {error}") from error
        others = [one for name, one in self._all.items() if name != session]
        if session not in self._all:
            first = max((one.last + (0 if one.done else RESERVED) for one in others), default=0)
            self._all[session] = Taken(first, first)

    @property
    def first(self) -> int:
        """Tracks of this session are numbered from the next one."""
        return self._all[self._session].first

    def keep(self, last: int, *, done: bool = False) -> None:
        """Tracks up to ``last`` were named. A run that is made again doesn't lower it."""
        mine = self._all[self._session]
        fresh = Taken(mine.first, max(mine.last, last), mine.done or done)
        if fresh == mine:
            return
        self._all[self._session] = fresh
        over = [name for name, one in self._all.items() if one.done and name not in ("", self._session)]
        for name in over[: max(0, len(self._all) - SESSIONS)]:
            # Made again it would get other numbers, and write nothing: all of its frames are there.
            self._all[""] = Taken(0, max(self._all.pop(name).last, self._all.get("", Taken(0, 0)).last), True)
        self._memory.put_state(self._key, msgspec.msgpack.encode(self._all))
