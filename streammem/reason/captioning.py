"""Captions on demand: what a captioner says of a stretch, from the cache where it was said before.

The embedded caption of a stretch is always there; a model's caption takes its place where one is known or can be had
within the budget. One clip's pictures are in memory at a time. What fails is told and leaves the embedded caption.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from streammem.banks.timeline import moments_of
from streammem.captions import Captioner, Scene, scene_of
from streammem.errors import (
    AccessDenied,
    BudgetSpent,
    ModelUnavailable,
    QueryError,
    ServiceUnreachable,
    StreammemError,
)
from streammem.model import StreamInfo
from streammem.reason.base import Budget, Period, Purse, Revisit
from streammem.reason.caption_store import CaptionStore, Kept, Key
from streammem.recall.timeline import Between, View

WORDS: Mapping[str, int] = {"coarse": 70, "fine": 50, "ultra-fine": 40}
"""Length that is asked for. VideoLucy's sample captions have 307 words; in a replication longer captions by a larger
model hurt on long videos (dossier 1.10), and a list of 40 has to fit into a small model's context."""
SIDE = 672
"""Longest side of a picture for a captioner that names none."""


def content_of(info: StreamInfo) -> str:
    """What a caption's pictures are known by: a recording's hash; a live stream's name, where the pictures themselves
    are hashed as well."""
    return info.content_hash or f"live:{info.stream}"


class Captions:
    """One captioner over one memory. ``revisit`` gives pictures, one clip's at a time."""

    def __init__(
        self, captioner: Captioner, store: CaptionStore, view: View, revisit: Revisit | None, purse: Purse | None = None
    ) -> None:
        self.captioner, self.store = captioner, store
        self._view, self._revisit = view, revisit
        self._content = {info.stream: content_of(info) for info in view.streams()}
        self.pay_from(purse or Purse(Budget()))

    def pay_from(self, purse: Purse) -> None:
        """From now on the captioner's calls are paid from this purse."""
        self._purse = purse
        self._metered = hasattr(self.captioner, "purse")
        if self._metered:
            self.captioner.purse = purse  # type: ignore[attr-defined]

    def find(self, period: Period, level: str, instruction: str = "") -> Kept | None:
        """The caption that was made of this very stretch before, from the same facts; None where there is none."""
        known = self._candidates(period, level, instruction)
        if not known:
            return None
        key = self._key(period, level, instruction, self._scene(period), self.captioner.frames)
        same = [kept for kept in known if msgspec.structs.replace(kept.key, pictures="") == key]
        from_source = next((kept for kept in same if not kept.key.pictures), None)
        if from_source is not None or not same:
            return from_source
        seen = _hashed(self._pictures(period, level, self.captioner.frames)[0])
        return next((kept for kept in same if kept.key.pictures == seen), None)

    def _candidates(self, period: Period, level: str, instruction: str) -> list[Kept]:
        span = (period.t_start_ns, period.t_end_ns)
        content = self._content.get(period.stream, "")
        rows = self.store.stretches(content, self.captioner.id, span, asked=_asked(instruction))
        return [r for r in rows if (r.key.t_start_ns, r.key.t_end_ns) == span and r.key.level == level]

    def known(
        self, streams: Sequence[str] | None, between: tuple[int, int], level: str, most: int
    ) -> list[tuple[Period, Kept]]:
        """At most ``most`` captions of one level that earlier questions had made inside a stretch, in time order;
        question-independent ones alone."""
        found: list[tuple[Period, Kept]] = []
        for stream, content in sorted(self._content.items()):
            if streams is not None and stream not in streams:
                continue
            for row in self.store.stretches(content, self.captioner.id, between, asked=""):
                period = Period(stream, row.key.t_start_ns, row.key.t_end_ns)
                inside = between[0] <= period.t_start_ns and period.t_end_ns <= between[1]
                # Found again as it would be made now: other facts or pictures would be another caption.
                if inside and row.key.level == level and len(found) < most and self.find(period, level) == row:
                    found.append((period, row))
        return found

    def make(self, period: Period, level: str, instruction: str = "") -> Kept:
        """Look and caption, and keep it. Raises BudgetSpent, QueryError where no picture can be had any more, and what
        the captioner raises."""
        purse, count = self._purse, self.captioner.frames
        scene = self._scene(period)
        if scene is None:
            raise QueryError("nothing is remembered there")
        short = purse.exhausted("calls", "tokens", "seconds", *(["frames"] if count else []))
        if not short and purse.left("frames") < count:
            # What serves one question may look at less; what is kept for all is made as it will be looked up.
            count, short = (int(purse.left("frames")), "") if instruction else (count, "frames")
        if short:
            raise BudgetSpent(f"the budget of {short} is spent", hint="--budget calls=..,tokens=..,seconds=..")
        pictures, origin = self._pictures(period, level, count)
        if not pictures and count:
            raise QueryError(f"no picture of that time can be had: {origin}")
        key = self._key(period, level, instruction, scene, count)
        if origin != "source" and pictures:
            key = msgspec.structs.replace(key, pictures=_hashed(pictures))
        known = next((kept for kept in self._candidates(period, level, instruction) if kept.key == key), None)
        if known is not None:
            return known
        before = _costs(purse)
        purse.pay(frames=len(pictures), calls=0 if self._metered else 1)
        text = self.captioner.caption(scene, pictures, level=level, instruction=instruction, words=WORDS[level])
        calls, tokens, seconds = (round(b - a, 4) for a, b in zip(before, _costs(purse), strict=True))
        kept = Kept(key, text, len(pictures), int(calls), int(tokens), seconds)
        self.store.add(kept)
        return kept

    # private

    def _key(self, period: Period, level: str, instruction: str, scene: Scene | None, count: int) -> Key:
        return Key(
            content=self._content.get(period.stream, ""),
            captioner=self.captioner.id,
            sampling=f"{count}x{self._side(level)}",
            level=level,
            t_start_ns=period.t_start_ns,
            t_end_ns=period.t_end_ns,
            facts=_digest(msgspec.msgpack.encode(scene.compact(), order="deterministic")) if scene else "",
            asked=_asked(instruction),
        )

    def _side(self, level: str) -> int:
        side = getattr(self.captioner, "side", None)
        return SIDE if side is None else int(side(level))

    def _scene(self, period: Period) -> Scene | None:
        """What the memory knows of the stretch: from the timeline's nodes, or from the moments where it keeps none."""
        span = (period.t_start_ns, period.t_end_ns)
        ask = getattr(self._view, "query", None)
        if ask is not None:
            try:
                scenes = ask("timeline", "scene", streams=[period.stream], t_start_ns=span[0], t_end_ns=span[1])
                return msgspec.convert(scenes[0], Scene) if scenes else None
            except QueryError:
                pass  # the timeline is off in this memory
        records = moments_of(self._view, period.stream, span)  # type: ignore[arg-type]
        return scene_of(records) if records else None

    def _pictures(self, period: Period, level: str, count: int) -> tuple[list[np.ndarray], str]:
        """At most ``count``, RGB, evenly over the stretch, and where they came from."""
        if count < 1 or self._revisit is None:
            return [], "nothing here can look again"
        seconds = max((period.t_end_ns - period.t_start_ns) / 1e9, 0.1)
        look = self._revisit.look_again(
            period.stream, period.t_start_ns, period.t_end_ns, max(count / seconds, SLOWEST), limit=count
        )
        side = self._side(level)
        return [_shrunk(frame.image, side) for frame in look.frames[:count]], look.why or look.origin


SLOWEST = 1e-4
"""Frames a second, the least that a source samples at: eight in a day."""


def _costs(purse: Purse) -> tuple[float, float, float]:
    spent = purse.tick()
    return (spent.calls, spent.tokens, spent.seconds)


def clip_of(stream: str, t_ns: int, scope_ns: int, between: Between | None) -> Period:
    """The clip of the grid that holds an instant: what a caption is known by, whoever asks for it. Cut only to a range
    that the caller set, because a caption may not know what lies outside it."""
    start = t_ns // scope_ns * scope_ns
    lo, hi = between or (None, None)
    end = start + scope_ns - 1
    return Period(stream, start if lo is None else max(start, lo), end if hi is None else min(end, hi))


def _asked(instruction: str) -> str:
    return _digest(instruction.encode()) if instruction else ""


def _digest(blob: bytes) -> str:
    return hashlib.blake2b(blob, digest_size=8).hexdigest()


def _hashed(pictures: Sequence[np.ndarray]) -> str:
    made = hashlib.blake2b(digest_size=8)
    for picture in pictures:
        made.update(str(picture.shape).encode())
        made.update(np.ascontiguousarray(picture).tobytes())
    return made.hexdigest()


def _shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """``image`` (h, w, 3) with its longer side at most ``side`` pixels."""
    height, width = image.shape[:2]
    share = side / max(height, width)
    if share >= 1:
        return image
    import cv2

    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


# -- a whole list


@dataclass(slots=True)
class Run:
    """What became of a list of stretches. ``captions``: those that have one now, by their place in the list;
    ``failed``: why others haven't, by place; ``why``: what ended the work early."""

    captions: dict[int, Kept] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    reused: int = 0
    why: str = ""
    fault: StreammemError | None = None
    total: int = 0

    @property
    def made(self) -> int:
        return len(self.captions) - self.reused

    @property
    def partial(self) -> bool:
        return len(self.captions) < self.total


GIVE_UP = (BudgetSpent, AccessDenied, ModelUnavailable, ServiceUnreachable)
"""Faults that the next clip would meet as well."""
IN_A_ROW = 3


def caption_all(
    captions: Captions, wanted: Sequence[tuple[Period, str]], progress: Callable[[int, Run], None] | None = None
) -> Run:
    """Caption every ``(period, level)``, what is known first. Each caption is kept as it is made: a run that was killed
    goes on where it was. ``progress`` gets the place and the run after each. Never raises for the model's faults."""
    run = Run(total=len(wanted))
    missing: list[int] = []
    for place, (period, level) in enumerate(wanted):
        kept = captions.find(period, level)
        if kept is None:
            missing.append(place)
        else:
            run.captions[place], run.reused = kept, run.reused + 1
    faults = 0
    for place in _made(captions, wanted, missing, run):
        faults = faults + 1 if run.fault is not None else 0
        if progress is not None:
            progress(place, run)
        if run.why:
            break
        if faults == IN_A_ROW:
            run.why = f"the model failed {IN_A_ROW} times in a row: {run.fault}"
            break
    return run


def _made(captions: Captions, wanted: Sequence[tuple[Period, str]], missing: Sequence[int], run: Run) -> Iterator[int]:
    for place in missing:
        period, level = wanted[place]
        try:
            run.captions[place] = captions.make(period, level)
            run.fault = None
        except StreammemError as error:
            run.failed[place], run.fault = str(error), None if isinstance(error, QueryError) else error
            if isinstance(error, GIVE_UP):
                run.why = str(error)
        yield place


def named(run: Run, captioner: str) -> dict[str, Any]:
    """A run as plain values."""
    return {
        "captioner": captioner,
        "made": run.made,
        "reused": run.reused,
        "missing": run.total - len(run.captions),
        "partial": run.partial,
        "why": run.why or next(iter(run.failed.values()), ""),
    }
