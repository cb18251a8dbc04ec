"""Goals with more than one stop: which stop locks which subgoal, and when it is too late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nav.findingdory.goals import Profile
from nav.findingdory.tasks import Mode
from streammem.errors import InputError

State = Literal["open", "done", "failed"]


class Sequencer:
    """Feeds on stops. ``any`` and ``all``/``ordered`` differ in what a stop may do; ``failed`` is for good.

    Unordered: each stop locks at most one new subgoal; a stop that locks none fails the task. Ordered: in the stated
    order, at most one a stop; a subgoal that holds before its predecessor is locked fails the task, and so does a stop
    that locks nothing.

    Quirk ``cached_predicates`` (official): a subgoal that held once holds for ever, so of two that hold at one stop one
    is locked there and the other at the *next* stop, wherever that is. Strict judges each stop by itself; there an
    unordered task is done when stops and subgoals can be matched one to one, so that a stop where two subgoals hold
    isn't spent on the wrong one."""

    def __init__(self, mode: Mode, targets: int, profile: Profile) -> None:
        """``targets``: subgoals to lock, at least one."""
        if targets < 1:
            raise InputError("a task without a target can't be judged", hint="leave unsolvable questions out")
        self.mode, self.targets, self.profile = mode, targets, profile
        self.state: State = "open"
        self._cache = [False] * targets
        self._locked = [False] * targets
        self._stops: list[list[bool]] = []
        self._owner: list[int | None] = [None] * targets

    @property
    def locked(self) -> list[bool]:
        """Which subgoals are locked."""
        return list(self._locked)

    def stop(self, holds: Sequence[bool]) -> State:
        """The agent stops where ``holds[i]`` says of each subgoal whether it is satisfied there."""
        if len(holds) != self.targets:
            raise InputError(f"{len(holds)} subgoals were judged, not {self.targets}", hint="one bool for each subgoal")
        if self.state == "failed" or (self.state == "done" and self.profile == "strict"):
            # A stop too many: the answer named more places than there are.
            self.state = "failed"
            return self.state
        if self.state == "done":
            return self.state
        self._stops.append(list(holds))
        if self.mode == "any":
            self._locked[0] = any(holds)
            self.state = "done" if self._locked[0] else "failed"
        elif self.mode == "all":
            self._unordered()
        else:
            self._ordered()
        if self.state == "open" and all(self._locked):
            self.state = "done"
        return self.state

    def _unordered(self) -> None:
        if self.profile == "official":
            self._cache = [a or b for a, b in zip(self._cache, self._stops[-1], strict=True)]
            new = next((i for i, held in enumerate(self._cache) if held and not self._locked[i]), None)
            if new is None:
                self.state = "failed"
            else:
                self._locked[new] = True
        elif self._augment(len(self._stops) - 1, set()):
            self._locked = [owner is not None for owner in self._owner]
        else:
            self.state = "failed"

    def _augment(self, stop: int, seen: set[int]) -> bool:
        """One step of bipartite matching (Kuhn): give the stop a subgoal, moving others if need be."""
        for i, held in enumerate(self._stops[stop]):
            if held and i not in seen:
                seen.add(i)
                owner = self._owner[i]
                if owner is None or self._augment(owner, seen):
                    self._owner[i] = stop
                    return True
        return False

    def _ordered(self) -> None:
        now = self._stops[-1]
        if self.profile == "official":
            self._cache = [a or b for a, b in zip(self._cache, now, strict=True)]
            now = self._cache
        following = self._locked.index(False)
        if not now[following]:
            self.state = "failed"
            return
        self._locked[following] = True
        if self.profile == "official" and any(now[following + 2 :]):
            # Its predecessor is still open: too early, for good. The direct successor may wait for the next stop.
            self.state = "failed"
