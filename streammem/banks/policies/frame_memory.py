"""The memory of one object: a policy, and the invariants that no policy can break.

* prompts are never dropped and are always read;
* what is read for frame t is held, unique, older than t, within the declared budget;
* every drop has a reason; duplicated and out-of-order frames are refused and counted.

Where a policy breaks one of them the memory mends it and counts a violation: a robot goes on, a test sees it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from streammem.banks.policies.base import MemoryPolicy, Summary
from streammem.banks.policies.record import CONDITIONING, Change, FrameRecord, Hypothesis, Read, Role
from streammem.errors import CorruptData, InputError

AUDIT = 256
"""Newest changes that are kept for ``why``; counts by reason are kept for all."""
REASONS = 64
"""Different reasons that are counted; the rest is counted as "other"."""


class FrameMemory:
    """Frames of one object. ``times`` says whose payload the tracker has to keep; everything else may be freed."""

    def __init__(self, policy: MemoryPolicy, *, obj: str = "0", audit: int = AUDIT) -> None:
        self.obj = obj
        self.policy = policy
        self.last: int | None = None
        """The newest frame taken in."""
        self.violations = 0
        self.counts: Counter[str] = Counter()
        self._audit: deque[Change] = deque(maxlen=audit)

    @property
    def started(self) -> bool:
        """Whether there is a frame to track from."""
        return any(role == "prompt" for role, _ in self.policy.held().values())

    def start(self, record: FrameRecord) -> list[Change]:
        """Track from this frame: a prompt (also a later one that mends the mask) or a credible start.

        It may be at most the newest frame (a prompt on a frame that was just predicted replaces it), or older where a
        credible start looks back. Raises InputError where the object has as many prompts as it may have."""
        prompts = [t for t, (role, _) in self.policy.held().items() if role == "prompt"]
        if record.t not in prompts and len(prompts) >= self.policy.budget().prompts:
            raise InputError(
                f"object {self.obj!r} has {len(prompts)} prompts, the most that are kept for good",
                hint="start a new object",
            )
        if record.box is None:
            raise InputError(
                f"the prompt of object {self.obj!r} is empty", hint="give a mask or box inside the picture"
            )
        known = self._comparable(record)
        changes = self._guarded(lambda: self.policy.start(known), record.t)
        self.last = record.t if self.last is None else max(self.last, record.t)
        return changes

    def propose(self, record: FrameRecord) -> bool:
        """Before the start: offer what a detector found. True: tracking starts, from ``started_from``."""
        if self._late(record):
            return False
        self.last = record.t
        chosen = self.policy.propose(record)
        if chosen is None:
            return False
        self._guarded(lambda: self.policy.start(chosen), record.t)
        return True

    def observe(self, record: FrameRecord) -> list[Change]:
        """Take in the prediction of a frame. Frames come in order; a duplicate or a late one is refused, counted, and
        changes nothing."""
        late = self._late(record)
        if late:
            return late
        if not self.started:
            raise InputError(f"object {self.obj!r} isn't tracked yet", hint="start it with a prompt, or propose frames")
        self.last = record.t
        if record.is_prompt:
            record = replace(record, is_prompt=False)  # prompts go through start
        known = self._comparable(record)
        return self._guarded(lambda: self.policy.observe(known), record.t)

    def select(self, t: int) -> list[Read]:
        """What to read for frame ``t``."""
        held = self.policy.held()
        reads: list[Read] = []
        seen: set[int] = set()
        for read in self.policy.select(t):
            if read.t >= t or read.t in seen or read.t not in held or not 0 <= read.tpos <= 6:
                self.violations += 1
                continue
            seen.add(read.t)
            reads.append(read)
        for at in sorted(held):
            if held[at][0] == "prompt" and at < t and at not in seen:
                self.violations += 1
                reads.insert(0, Read(at, CONDITIONING, "prompt", why="prompts are always read"))
        return reads

    def pointers(self, t: int) -> list[tuple[int, FrameRecord]]:
        """``(t - t', record)`` of the object pointers to read, each once, from the past."""
        found = [(dt, record) for dt, record in self.policy.pointers(t) if record.t < t]
        return list({record.t: (dt, record) for dt, record in found}.values())

    def choose(self, hypotheses: Sequence[Hypothesis]) -> int:
        """The index of the mask to take. Raises InputError for none."""
        if not hypotheses:
            raise InputError(f"object {self.obj!r} has no mask to choose from", hint="give at least one hypothesis")
        index = self.policy.choose(hypotheses)
        if not 0 <= index < len(hypotheses):
            self.violations += 1
            return 0
        return index

    def attended(self, mass: Mapping[int, float]) -> None:
        """Tell how much attention each frame that was read received."""
        self.policy.attended(mass)

    def summary(self) -> Summary | None:
        return self.policy.summary()

    # what is held

    def times(self) -> set[int]:
        """Frames whose payload is needed."""
        return set(self.policy.held())

    def held(self) -> dict[int, tuple[Role, FrameRecord]]:
        """Role and record by frame number."""
        return self.policy.held()

    @property
    def ram_bytes(self) -> int:
        """RAM of the records and of the tracker's payload for them, and of the audit (about 200 bytes a line)."""
        return sum(record.bytes for _, record in self.policy.held().values()) + 200 * len(self._audit)

    def audit(self) -> list[Change]:
        """The newest changes, oldest first."""
        return list(self._audit)

    # saving

    def state(self) -> bytes:
        """Everything needed to go on from here, but for the tracker's payloads."""
        return msgspec.msgpack.encode(
            _Saved(self.obj, self.policy.name, self.last, self.policy.state(), dict(self.counts), list(self._audit))
        )

    def load(self, state: bytes) -> None:
        """Take up a saved state of the same policy. Raises CorruptData."""
        try:
            saved = msgspec.msgpack.decode(state, type=_Saved)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise CorruptData(f"the saved memory of object {self.obj!r} can't be read: {error}") from error
        if saved.policy != self.policy.name:
            raise CorruptData(f"object {saved.obj!r} was kept by the policy {saved.policy!r}, not {self.policy.name!r}")
        self.policy.load(saved.inner)
        self.obj, self.last = saved.obj, saved.last
        self.counts = Counter(saved.counts)
        self._audit.clear()
        self._audit.extend(saved.audit)

    # private

    def _late(self, record: FrameRecord) -> list[Change]:
        if self.last is None or record.t > self.last:
            return []
        reason = "duplicate frame" if record.t == self.last else "out of order"
        change = Change(record.t, "refuse", "recent", reason, self.last)
        self._note(change)
        return [change]

    def _comparable(self, record: FrameRecord) -> FrameRecord:
        """Without descriptors of another shape than those held: a tracker that changes its features mid-stream can't
        be compared with itself. Counted; non-finite descriptors too."""
        held = [one for _, one in self.policy.held().values()]
        for name in ("desc_map", "desc_obj", "desc_back"):
            new = getattr(record, name)
            if new is None:
                continue
            shape = next((getattr(one, name).shape for one in held if getattr(one, name) is not None), new.shape)
            if new.shape != shape or not np.isfinite(new).all():
                self.counts[f"refuse: {name} of another shape or not finite"] += 1
                record = replace(record, **{name: None})  # type: ignore[arg-type]
        return record

    def _note(self, change: Change) -> None:
        # Numbers in a reason ("cosine 0.97") tell one line of the audit from another; counts go by the words before.
        reason = f"{change.action}: {change.reason.partition(' (')[0]}"
        self.counts[reason if reason in self.counts or len(self.counts) < REASONS else "other"] += 1
        self._audit.append(change)

    def _guarded(self, call: Callable[[], list[Change]], at: int) -> list[Change]:
        before = self.policy.held()
        changes: list[Change] = call()
        after = self.policy.held()
        told = {change.t for change in changes if change.action == "drop" and change.reason}
        for t in sorted(before.keys() - after.keys()):
            role, record = before[t]
            if role == "prompt":
                self.violations += 1
                self.policy.start(record)
            elif t not in told:
                self.violations += 1
                changes.append(Change(t, "drop", role, "the policy gave no reason", at))
        changes += self._shrink(at)
        for change in changes:
            self._note(change)
        return changes

    def _shrink(self, at: int) -> list[Change]:
        """Oldest recent frames go first, then oldest long-term ones, until the budget holds."""
        limits = self.policy.budget()
        changes: list[Change] = []
        while True:
            held = self.policy.held()
            loose = sorted((role != "recent", t) for t, (role, _) in held.items() if role != "prompt")
            size = sum(record.bytes for _, record in held.values())
            if not loose or (len(loose) <= limits.frames and (not limits.bytes or size <= limits.bytes)):
                return changes
            self.violations += len(loose) > limits.frames
            t = loose[0][1]
            self.policy.drop(t)
            changes.append(Change(t, "drop", held[t][0], "over the budget of this object", at))


class _Saved(msgspec.Struct):
    obj: str
    policy: str
    last: int | None
    inner: bytes
    counts: dict[str, int]
    audit: list[Change]
