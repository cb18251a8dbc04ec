"""Which intervals answers have rested on: what MemoryBank calls a recall, and RMM a citation.

Only what an answer cites counts, not everything that a search looked at. A citation is a journal entry, dated by the
stream's own newest capture time at that place in the journal, so that a replay gives the same state at any speed.
"""

from __future__ import annotations

import msgspec

MOST = 256
"""Intervals remembered of a stream; beyond that the one that was cited longest ago is let go of."""
SESSION_NS = 600 * 10**9
"""Citations of one interval within so much stream time count once: a conversation asks the same thing many times."""


class Cited(msgspec.Struct, array_like=True):
    """A closed interval of capture time, when it was last cited, how often, and the longest time between two."""

    t_start_ns: int
    t_end_ns: int
    last_ns: int
    count: int = 1
    longest_gap_ns: int = 0


class Citations(msgspec.Struct):
    """By stream. ``lsn`` is the last journal entry that is in it: an entry that is replayed isn't counted twice."""

    lsn: int = 0
    streams: dict[str, list[Cited]] = {}

    def add(self, stream: str, t_start_ns: int, t_end_ns: int, *, now_ns: int, lsn: int) -> None:
        """``now_ns`` is the stream's newest capture time. A clock that went back doesn't make a citation older."""
        if lsn <= self.lsn:
            return
        self.lsn = lsn
        known = self.streams.setdefault(stream, [])
        for cited in known:
            if (cited.t_start_ns, cited.t_end_ns) == (t_start_ns, t_end_ns):
                gap = now_ns - cited.last_ns
                if gap >= SESSION_NS:
                    cited.count += 1
                    cited.longest_gap_ns = max(cited.longest_gap_ns, gap)
                cited.last_ns = max(cited.last_ns, now_ns)
                return
        known.append(Cited(t_start_ns, t_end_ns, now_ns))
        if len(known) > MOST:
            known.remove(min(known, key=lambda cited: (cited.last_ns, cited.t_start_ns)))

    def of(self, stream: str, t_min_ns: int, t_max_ns: int) -> list[Cited]:
        """Those that overlap the closed interval."""
        return [
            cited
            for cited in self.streams.get(stream, ())
            if cited.t_start_ns <= t_max_ns and cited.t_end_ns >= t_min_ns
        ]

    def forget(self, stream: str, t_start_ns: int, t_end_ns: int) -> None:
        kept = [
            each for each in self.streams.get(stream, ()) if each.t_start_ns > t_end_ns or each.t_end_ns < t_start_ns
        ]
        if kept:
            self.streams[stream] = kept
        else:
            self.streams.pop(stream, None)
