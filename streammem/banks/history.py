"""The history of one attribute of one thing: which value held from when to when, and on whose word.

Statements become *runs*: a run is one value, from the first statement that said so to the last. A value holds until
another run takes over; what was superseded stays. The rules (Mem0's operations, arXiv 2504.19413, without an LLM and
without DELETE, as its open code has it since April 2026):

* the same value again: the run goes on;
* another value is a candidate. It takes over, back-dated to its first statement, when it is settled (one statement
  with a confidence of at least ``SURE``, or two in a row that lie ``settle_ns`` apart) and supported: 1 - prod(1 - c)
  of its statements reaches the best single confidence of the value that holds. A certain statement dates the change
  itself: a weak claim before it that said the same may have been a mistake;
* a candidate that is contradicted before that stays as a disputed run: a flapping sensor changes nothing.

Statements are taken by capture time, whatever the order in which they arrive, within ``window_ns`` of the newest and
``MOST_PENDING`` of them. One that comes later than that is put in its place with what is still known there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

import msgspec

SURE = 0.95
"""From this confidence on one statement is enough: an event log, a robot's own gripper, a person."""
MOST_PENDING = 32
MOST_OLDER = 16
"""Values of one attribute that are told apart among what was demoted; further ones are counted together."""
OTHER_VALUES = ("…", "")


class Run(msgspec.Struct, array_like=True, gc=False):
    """One value from its first to its last statement. Times in ns of capture time; ids of the moments that said so."""

    value: str
    relation: str
    t_first_ns: int
    t_last_ns: int
    n: int
    confidence: float
    support: float
    first_id: int
    last_id: int
    disputed: bool = False

    @property
    def says(self) -> tuple[str, str]:
        return (self.value, self.relation)


class Statement(msgspec.Struct, array_like=True, gc=False, frozen=True, order=True):
    """One statement; ordered by time, then by who said it."""

    t_ns: int
    record_id: int
    index: int
    value: str
    relation: str
    confidence: float


class Episode(msgspec.Struct, array_like=True, gc=False, frozen=True, order=True):
    """An entry of an event log: it was so from then to then, both included. Episodes may overlap."""

    t_start_ns: int
    t_end_ns: int
    record_id: int
    index: int
    value: str
    relation: str
    confidence: float


class Older(msgspec.Struct, array_like=True, gc=False):
    """What is left of demoted runs or episodes of one value: how many, and from when to when."""

    value: str
    relation: str
    n: int
    t_first_ns: int
    t_last_ns: int


def _run(said: Statement, *, disputed: bool = False) -> Run:
    return Run(
        said.value,
        said.relation,
        said.t_ns,
        said.t_ns,
        1,
        said.confidence,
        said.confidence,
        said.record_id,
        said.record_id,
        disputed,
    )


def _extend(run: Run, said: Statement) -> None:
    run.n += 1
    run.confidence = max(run.confidence, said.confidence)
    run.support = 1.0 - (1.0 - run.support) * (1.0 - said.confidence)
    if said.t_ns < run.t_first_ns:
        run.t_first_ns, run.first_id = said.t_ns, said.record_id
    if said.t_ns >= run.t_last_ns:
        run.t_last_ns, run.last_id = said.t_ns, said.record_id


def absorb(run: Run, other: Run) -> None:
    """Two runs of one value as one."""
    if other.t_first_ns < run.t_first_ns:
        run.t_first_ns, run.first_id = other.t_first_ns, other.first_id
    if other.t_last_ns >= run.t_last_ns:
        run.t_last_ns, run.last_id = other.t_last_ns, other.last_id
    run.n += other.n
    run.confidence = max(run.confidence, other.confidence)
    run.support = 1.0 - (1.0 - run.support) * (1.0 - other.support)


class History(msgspec.Struct, array_like=True):
    """Runs by their first statement, episodes by their start, what was demoted, and what isn't decided yet."""

    runs: list[Run] = []
    candidate: Run | None = None
    pending: list[Statement] = []
    episodes: list[Episode] = []
    older: list[Older] = []
    folded: tuple[int, int, int] | None = None
    """The last statement that was taken into ``runs``."""
    detail_from_ns: int | None = None
    """Before it only ``older`` is known."""
    late: int = 0
    """Statements that came after the window."""

    def add(self, said: Statement, settle_ns: int, window_ns: int) -> None:
        key = (said.t_ns, said.record_id, said.index)
        if self.folded is not None and key <= self.folded:
            self.late += 1
            self._insert(said)
            return
        insort(self.pending, said)
        while self.pending[-1].t_ns - self.pending[0].t_ns > window_ns or len(self.pending) > MOST_PENDING:
            self._fold_first(settle_ns)

    def _fold_first(self, settle_ns: int) -> None:
        first = self.pending.pop(0)
        self.candidate = fold(self.runs, self.candidate, first, settle_ns)
        self.folded = (first.t_ns, first.record_id, first.index)

    def add_episode(self, episode: Episode) -> None:
        insort(self.episodes, episode)

    def settled(self, settle_ns: int) -> tuple[list[Run], Run | None]:
        """Runs and open candidate with everything that is pending taken in. Nothing of the history changes."""
        if not self.pending:
            return self.runs, self.candidate
        # Only the tail can change: copied from the value that holds on.
        at = _holding(self.runs)
        keep = len(self.runs) if at is None else at
        runs = [*self.runs[:keep], *(msgspec.structs.replace(run) for run in self.runs[keep:])]
        candidate = None if self.candidate is None else msgspec.structs.replace(self.candidate)
        for said in self.pending:
            candidate = fold(runs, candidate, said, settle_ns)
        return runs, candidate

    def _insert(self, said: Statement) -> None:
        """A statement from before what was decided: it changes the place it belongs to, nothing after it."""
        active = [run for run in self.runs if not run.disputed]
        at = bisect_right([run.t_first_ns for run in active], said.t_ns) - 1
        here = active[at] if at >= 0 else None
        following = active[at + 1] if at + 1 < len(active) else None
        if here is not None and here.says == (said.value, said.relation):
            _extend(here, said)
            return
        inside = here is not None and said.t_ns <= here.t_last_ns
        if not inside and following is not None and following.says == (said.value, said.relation):
            _extend(following, said)  # it began earlier than was known
        elif said.confidence < SURE or (here is not None and said.t_ns == here.t_first_ns):
            dispute(self.runs, _run(said))  # too weak to overrule what was said after it
        else:
            if inside and here is not None:
                # What held goes on at its last confirmation: the only later one whose time is still known.
                again = msgspec.structs.replace(here, t_first_ns=here.t_last_ns, first_id=here.last_id, n=1)
                here.t_last_ns, here.last_id, here.n = here.t_first_ns, here.first_id, max(1, here.n - 1)
                self.runs.append(again)
            self.runs.append(_run(said))
        self.runs.sort(key=lambda run: (run.t_first_ns, run.disputed))

    def join(self, other: History) -> None:
        """Two names turned out to be one thing."""
        for run in (self.candidate, other.candidate):
            if run is not None:
                dispute(self.runs, run)
        self.candidate = None
        merged: list[Run] = []
        for run in sorted([*self.runs, *other.runs], key=lambda run: (run.t_first_ns, run.disputed)):
            last = merged[-1] if merged else None
            if last is not None and last.says == run.says and last.disputed == run.disputed:
                absorb(last, run)
            else:
                merged.append(run)
        self.runs = merged
        self.pending = sorted([*self.pending, *other.pending])
        self.episodes = sorted([*self.episodes, *other.episodes])
        for entry in other.older:
            self.note_older(entry)
        known = [key for key in (self.folded, other.folded) if key is not None]
        self.folded = max(known, default=None)
        starts = [start for start in (self.detail_from_ns, other.detail_from_ns) if start is not None]
        self.detail_from_ns = max(starts, default=None)
        self.late += other.late

    def note_older(self, entry: Older) -> None:
        """Count what loses its detail."""
        if len(self.older) >= MOST_OLDER and all(
            (e.value, e.relation) != (entry.value, entry.relation) for e in self.older
        ):
            entry = msgspec.structs.replace(entry, value=OTHER_VALUES[0], relation=OTHER_VALUES[1])
        for known in self.older:
            if (known.value, known.relation) == (entry.value, entry.relation):
                known.n += entry.n
                known.t_first_ns = min(known.t_first_ns, entry.t_first_ns)
                known.t_last_ns = max(known.t_last_ns, entry.t_last_ns)
                return
        self.older.append(entry)

    def demote_before(self, t_ns: int, settle_ns: int) -> None:
        """Runs and episodes that ended before ``t_ns`` lose their detail; the value that holds stays."""
        while self.pending and self.pending[0].t_ns < t_ns:
            self._fold_first(settle_ns)
        at = _holding(self.runs)
        kept: list[Run] = []
        for index, run in enumerate(self.runs):
            if run.t_last_ns >= t_ns or index == at:
                kept.append(run)
            elif not run.disputed:
                self.note_older(Older(run.value, run.relation, 1, run.t_first_ns, run.t_last_ns))
        gone = [episode for episode in self.episodes if episode.t_end_ns < t_ns]
        for episode in gone:
            self.note_older(Older(episode.value, episode.relation, 1, episode.t_start_ns, episode.t_end_ns))
        if len(kept) < len(self.runs) or gone:
            self.runs = kept
            self.episodes = [episode for episode in self.episodes if episode.t_end_ns >= t_ns]
            self.detail_from_ns = max(t_ns, self.detail_from_ns or t_ns)

    def forget(self, t_start_ns: int, t_end_ns: int) -> int:
        """Drop what was said in the closed interval. A run that spans it is cut; its count is shared out by length.
        What was demoted can't be taken apart, so a count that overlaps goes."""
        before = self.size
        runs = [piece for run in self.runs for piece in cut(run, t_start_ns, t_end_ns)]
        candidate = cut(self.candidate, t_start_ns, t_end_ns) if self.candidate is not None else []
        changed = len(runs) != len(self.runs) or any(new is not old for new, old in zip(runs, self.runs, strict=False))
        self.runs = runs
        self.candidate = candidate[-1] if candidate else None
        self.pending = [said for said in self.pending if not t_start_ns <= said.t_ns <= t_end_ns]
        self.episodes = [e for e in self.episodes if e.t_start_ns > t_end_ns or e.t_end_ns < t_start_ns]
        self.older = [o for o in self.older if o.t_first_ns > t_end_ns or o.t_last_ns < t_start_ns]
        return max(before - self.size, int(changed))

    @property
    def size(self) -> int:
        return len(self.runs) + len(self.pending) + len(self.episodes) + len(self.older) + (self.candidate is not None)

    @property
    def span(self) -> tuple[int, int] | None:
        """From the first to the last moment that anything was said of."""
        times = [run.t_first_ns for run in self.runs[:1]] + [run.t_last_ns for run in self.runs[-2:]]
        if self.runs:
            times.append(max(run.t_last_ns for run in self.runs))
        times += [entry for older in self.older for entry in (older.t_first_ns, older.t_last_ns)]
        times += [said.t_ns for said in (self.pending[:1] + self.pending[-1:])]
        if self.episodes:
            times += [self.episodes[0].t_start_ns, max(episode.t_end_ns for episode in self.episodes)]
        if self.candidate is not None:
            times += [self.candidate.t_first_ns, self.candidate.t_last_ns]
        return (min(times), max(times)) if times else None


def _holding(runs: list[Run]) -> int | None:
    """Index of the value that holds now: the last run that isn't disputed."""
    for index in range(len(runs) - 1, -1, -1):
        if not runs[index].disputed:
            return index
    return None


def dispute(runs: list[Run], run: Run) -> None:
    """Keep a value that didn't take over. Since the last change each value is kept once."""
    for known in reversed(runs):
        if not known.disputed and known.t_first_ns <= run.t_first_ns:
            break
        if known.disputed and known.says == run.says:
            absorb(known, run)
            return
    run.disputed = True
    insort(runs, run, key=lambda each: (each.t_first_ns, each.disputed))


def fold(runs: list[Run], candidate: Run | None, said: Statement, settle_ns: int) -> Run | None:
    """Take in the next statement in order of time; gives the candidate that is open afterwards."""
    at = _holding(runs)
    if at is None:
        runs.append(_run(said))
        return None
    holds = runs[at]
    if holds.says == (said.value, said.relation):
        _extend(holds, said)
        if candidate is not None:
            dispute(runs, candidate)
        return None
    sure = said.confidence >= SURE
    if candidate is not None and candidate.says == (said.value, said.relation) and not sure:
        _extend(candidate, said)
    else:
        if candidate is not None:
            dispute(runs, candidate)
        candidate = _run(said)
    settled = sure or (candidate.n >= 2 and candidate.t_last_ns - candidate.t_first_ns >= settle_ns)
    if settled and candidate.support >= holds.confidence:
        runs.append(candidate)
        return None
    return candidate


def cut(run: Run, t_start_ns: int, t_end_ns: int) -> list[Run]:
    """What is left of a run without a closed interval: up to two runs, with the ids of moments that still exist."""
    if run.t_first_ns > t_end_ns or run.t_last_ns < t_start_ns:
        return [run]
    length = max(1, run.t_last_ns - run.t_first_ns)
    pieces: list[Run] = []
    if run.t_first_ns < t_start_ns:
        share = max(1, round(run.n * (t_start_ns - run.t_first_ns) / length))
        pieces.append(msgspec.structs.replace(run, t_last_ns=t_start_ns - 1, last_id=run.first_id, n=share))
    if run.t_last_ns > t_end_ns:
        share = max(1, round(run.n * (run.t_last_ns - t_end_ns) / length))
        pieces.append(msgspec.structs.replace(run, t_first_ns=t_end_ns + 1, first_id=run.last_id, n=share))
    return pieces


def sight(sightings: list[Run], seen: Run, gap_ns: int) -> None:
    """Join a sighting with those at most ``gap_ns`` away. The result doesn't depend on the order of arrival."""
    at = bisect_left(sightings, seen.t_first_ns, key=lambda run: run.t_first_ns)
    while at > 0 and seen.t_first_ns - sightings[at - 1].t_last_ns <= gap_ns:
        at -= 1
        absorb(seen, sightings.pop(at))
    while at < len(sightings) and sightings[at].t_first_ns - seen.t_last_ns <= gap_ns:
        absorb(seen, sightings.pop(at))
    sightings.insert(at, seen)
