"""The same memory from pixels: embeddings of the pictures in place of labels.

No detector: which thing is which has to come from ``Memory.search``. What the robot's body says stays: poses, depth,
and when its arm was at work, so that the k-th pick and the k-th put are known as moments, not as things.

While the arm works the camera stands still, so the pixels that differ between its first and its last frame are the
thing itself: its colour is written as a statement about "thing 2". (Cut out, enlarged and embedded by itself it was
named worse than in its surroundings: 31 instead of 38 of 58 questions of home 0.)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from nav.findingdory.memory_agents import STREAM, MemoryAgent
from nav.findingdory.perceive import ARM, Perceiver
from nav.findingdory.recollection import Deed, Recollection, View, heading, unique
from perception.encoders.colours import asked, box_shares
from perception.encoders.suite import EncoderSuite
from perception.frames import Frame
from streammem.banks.spatial.geometry import unproject
from streammem.colours import TERMS
from streammem.errors import QueryError
from streammem.model import Record, StateFact

CHANGED = 24
"""Of 255, in any channel: MuJoCo draws the same picture twice without a difference."""
FEWEST = 12
"""Changed pixels; fewer are an edge, or a thing behind something."""
EVERY = 4
"""Every so many-th picture is encoded: a step is 0.25 m or 10 degrees, and encoding is what an episode costs."""
_SAME_M = 0.6
"""Places that were worked at are one receptacle where what is in front of the camera is so near ..."""
_BESIDE_M = 1.3
_LINE_M = 0.35
_TOP_M = 0.1
_TURN_RAD = 0.3
"""... or where the robot faced the same way and what it faced lies beside the other, on one line and of one height: a
table has places for four things, and the robot stands before each."""
_LOOKS = 24
"""Other moments in which something stood in front of the robot; candidates for what wasn't touched."""
_NOTICED = 50
"""Best moments that a search is asked for."""


class PixelAgent(MemoryAgent):
    """Needs the embedded encoders' weights (``streammem doctor`` says whether they are there)."""

    def __init__(self, name: str = "pixels") -> None:
        super().__init__("all", name=name)
        self._suite = EncoderSuite(self._config.perception)

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self._perceiver = Perceiver(STREAM, labels=False)

        self._works: list[list[Frame]] = []
        self._working = False

    def _handled(self) -> tuple[StateFact, ...]:
        """The arm is at rest: the colour of what it handled."""
        if not self._working:
            return ()
        self._working = False
        number, (first, last) = len(self._works) - 1, self._works[-1]
        mask = (np.abs(first.image.astype(np.int16) - last.image) > CHANGED).any(axis=2)
        if int(mask.sum()) < FEWEST:
            return ()
        # The hands are empty at first: they pick what is gone in the end, and put what is new then.
        shown = (first if number % 2 == 0 else last).image
        rows, columns = np.nonzero(mask)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        colour = TERMS[int(box_shares(shown, np.array([box]), [mask])[0].argmax())]
        return (StateFact(f"thing {number // 2}", "color", colour),)

    def _write(self, frame: Frame) -> None:
        made = self._perceiver.observation(frame)
        if made.stats.get(ARM):
            self._works = self._works if self._working else [*self._works, [frame, frame]]
            self._works[-1][1], self._working = frame, True
        else:
            made = dataclasses.replace(made, states=self._handled())
        if frame.index % EVERY == 0:
            seen = self._suite.glance(frame.image).embedding
            made = dataclasses.replace(made, space=self._suite.space_id, embedding=seen.vector, parts=seen.parts)
        self.memory.write(made, durable=False)

    def _recollect(self) -> Recollection:
        return PixelRecollection(self.memory, STREAM)


class PixelRecollection(Recollection):
    """Things without names: ``thing 2`` is what was carried third, ``place 1`` the second place that was worked at,
    ``look 5`` something that the robot once stood in front of."""

    def of_category(self, names: Sequence[str], category: str) -> list[str]:
        """The one of them whose moments look most like the word: pictures that resemble a word come in degrees."""
        return self._most_like(names, category)

    def with_value(self, names: Sequence[str], value: str) -> list[str]:
        """A colour is a colour; anything else is looked for."""
        terms = [TERMS[number] for number in asked(value)]
        told = [name for name in names for fact in self._colours(name) if fact in terms]
        return unique(told) or self._most_like(names, value)

    def _colours(self, name: str) -> list[str]:
        return [fact["value"] for fact in self._query("entities", "history", entity=name, attribute="color")["facts"]]

    def things(self) -> list[str]:
        return [name for name in self.views if not name.startswith("place")]

    def receptacles(self) -> list[str]:
        return [name for name in self.views if not name.startswith("thing")]

    def _most_like(self, names: Sequence[str], words: str) -> list[str]:
        found = self.memory.search(words, k=_NOTICED, streams=[self.stream])
        by_time = [(one.t_start_ns, one.score) for one in found]

        def score(name: str) -> float:
            near = [s for t, s in by_time for view in self.views[name] if abs(view.t_ns - t) <= _BESIDE_NS]
            return max(near, default=-1.0)

        known = [name for name in names if name in self.views]
        best = max(known, key=score, default=None)
        return [] if best is None else [best]

    def _look(self, record: Record) -> None:
        """No labels: what the moments show is found when the arm's work is known."""

    def _deeds(self) -> list[Deed]:
        blocks: list[list[Record]] = []
        before = False
        for record in self.moments:
            working = bool(record.stats.get(ARM))
            if working and not before:
                blocks.append([])
            if working:
                blocks[-1].append(record)
            before = working
        deeds: list[Deed] = []
        for number, block in enumerate(blocks):
            view = front(block[-1])
            place = self._place(view)
            if place:
                self.views.setdefault(place, []).append(view)
            span = (block[0].t_start_ns, block[-1].t_start_ns)
            # The hands are empty at first: every second work of the arm puts down what the one before took.
            if number % 2 == 0:
                deeds.append(Deed(f"thing {number // 2}", "", place, "", span, None))
            else:
                deeds[-1].goal, deeds[-1].placed_ns = place, span
                self.views[deeds[-1].thing or ""] = [view]
        self._add_looks()
        return deeds

    def _place(self, view: View) -> str:
        known = [name for name in self.views if name.startswith("place")]
        for name in known:
            if any(same_place(other, view) for other in self.views[name]):
                return name
        return f"place {len(known)}"

    def _add_looks(self) -> None:
        """Moments in which the middle of the picture was near, and nothing that was worked at: one for each spot."""
        every = [front(record) for record in self.moments if not record.stats.get(ARM)]
        spots = [view.point_m for views in self.views.values() for view in views]
        for view in sorted((one for one in every if 0.2 <= one.away_m <= 0.8), key=lambda one: abs(one.away_m - 0.55)):
            if all(math.dist(view.point_m[:2], spot[:2]) > 1.2 for spot in spots) and len(self.views) < _LOOKS:
                self.views[f"look {len(self.views)}"] = [view]
                spots.append(view.point_m)


_BESIDE_NS = 60 * 10**9
"""A search's moment within four steps shows the same."""


def same_place(one: View, other: View) -> bool:
    """Whether two moments of work were at one receptacle."""
    dx, dy = other.point_m[0] - one.point_m[0], other.point_m[1] - one.point_m[1]
    if math.hypot(dx, dy) <= _SAME_M:
        return True
    yaw = heading(one.pose)
    turned = abs(math.remainder(heading(other.pose) - yaw, math.tau))
    ahead, beside = dx * math.cos(yaw) + dy * math.sin(yaw), dy * math.cos(yaw) - dx * math.sin(yaw)
    level = abs(other.point_m[2] - one.point_m[2]) <= _TOP_M
    return level and turned <= _TURN_RAD and abs(ahead) <= _LINE_M and abs(beside) <= _BESIDE_M


def front(record: Record) -> View:
    """What is in the middle of the picture, above the floor; infinitely far where nothing is."""
    depth = record.arrays.get("depth_m")
    if depth is None or record.pose is None or record.intrinsics is None:
        raise QueryError("a moment without depth or pose has no front", hint="send depth_m, pose and intrinsics")
    points, rows, columns = unproject(depth, record.intrinsics, record.pose)
    height, width = depth.shape
    middle = (abs(columns / width - 0.5) < 0.15) & (abs(rows / height - 0.5) < 0.25) & (points[:, 2] > 0.15)
    if not middle.any():
        return View(record.seq, record.t_start_ns, math.inf, 0.0, record.pose.position_m, record.pose)
    mine = points[middle]
    away = np.linalg.norm(mine[:, :2] - np.array(record.pose.position_m[:2]), axis=1)
    x, y, z = np.median(mine, axis=0).tolist()
    return View(record.seq, record.t_start_ns, float(np.percentile(away, 10)), 0.25, (x, y, z), record.pose)
