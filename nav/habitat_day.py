"""A published FindingDory episode acted out in habitat-sim: yesterday's frames, and the judge of the answers.

The episode says what was carried from where to where, in which order, and from which view points. Yesterday is driven
anew: along the navigation mesh to the thing's first view point that can be reached, hands, to the place's view point,
hands, and in the end to the stated pose. Things stand where the recorded place skill left them. It is our own drive of
their episode: goals, things, places and thresholds are theirs; frame numbers are not those of their videos.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable, Container, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from nav.env import AgentPose, CameraSpec, EnvObservation
from nav.findingdory.clock import DayClock
from nav.findingdory.dataset import Candidate, EpisodeInfo, EpisodeSet
from nav.findingdory.expressions import goal_of, timed
from nav.findingdory.goals import Profile
from nav.findingdory.log import ATTRIBUTES, InteractionLog, ObjectInfo, ReceptacleInfo, RoomInfo
from nav.findingdory.tasks import Question
from nav.findingdory.worlds import World
from nav.habitat_drive import Change, Wheels, Yesterday
from nav.habitat_env import HabitatEnv, HabitatSettings, load_habitat, open_habitat
from nav.habitat_frames import map_from_habitat
from nav.habitat_judge import HabitatJudge, Station
from nav.habitat_things import HabitatThings
from nav.source import LEAST_COVERAGE
from perception.frames import Frame, Sensed
from streammem.errors import InputError, SourceError
from streammem.model import Detection, StateFact

FIRST_LABEL = 10_000
"""Semantic ids of an episode's things and receptacles: beyond those of the scene's categories."""
ATTRIBUTE_FILE = "object_attribute_annotation.csv"
"""Of the benchmark's repository: one row an asset. Without it the tasks about attributes have no answer."""


class HabitatDay:
    """A ``nav.findingdory.worlds.World``. The experience is driven when the day is made, without pictures; frames are
    drawn when they are watched. Raises SourceError where episode, scene and assets don't fit together."""

    def __init__(self, episode: EpisodeInfo, data: EpisodeSet, env: HabitatEnv, *, seed: int = 0) -> None:
        self.episode, self.env, self._data, self._seed = episode, env, data, seed
        self.name = f"ep_{episode.episode_id.removeprefix('ep_')}"
        self.clock: DayClock = env.clock
        self._things = HabitatThings(env.module, env.simulator)
        self._things.load(episode.additional_obj_config_paths)
        self.handles = [self._things.add(asset, data.matrix(row)) for asset, row in episode.rigid_objs]
        self._first = dict(zip(self.handles, (data.matrix(row) for _, row in episode.rigid_objs), strict=True))
        self.carried = [self._handle_of(one) for one in episode.candidate_objects]
        self.categories = self._categories()
        self.instances = {name: FIRST_LABEL + i for i, name in enumerate(self.categories)}
        self.receptacles = self._receptacles()
        for name, instance in self.instances.items():
            if (handle := name.split("|")[0]) in self._things:
                self._things.label(handle, instance)
        yesterday = Yesterday(episode, data, env, self.carried, self.receptacles)
        self.steps, self.deeds, self._changes = yesterday.steps, yesterday.deeds, yesterday.changes

    @property
    def interactions(self) -> int:
        return len(self.deeds)

    @property
    def final_pose(self) -> AgentPose:
        return self.steps[-1].pose

    def questions(self, profile: Profile) -> list[Question]:
        """The episode's own instructions; those whose task is none of the 60 or that have no entity are left out."""
        made = []
        for one in self.episode.instructions.values():
            if not 1 <= one.task <= 60:
                continue
            goal = goal_of(one.goal_expr, one.sequential_goals, self.log, profile)
            text = one.lang
            if "timestep" in one.task_type:
                chosen = one.temporal_target_entity if isinstance(one.temporal_target_entity, str) else None
                rng = random.Random(f"{self._seed}/{self.name}/{one.task}")
                text, goal = timed(text, goal, self.log, chosen, rng)
            made.append(Question(task=one.task, slots={}, text=text, goal=goal))
        return sorted(made, key=lambda question: question.task)

    @cached_property
    def truth(self) -> HabitatJudge:
        """The judge. Not for agents."""
        self._arrange(len(self.steps))
        return HabitatJudge(self.env, [step.pose for step in self.steps], self._stations(), self._placed_at())

    @cached_property
    def log(self) -> InteractionLog:
        """What every goal set is a function of."""
        rooms: dict[str, int] = {e.entity_id: 0 for e in self.env.entities() if e.kind == "room"}
        for step in self.steps:
            if step.room is not None:
                rooms[step.room] = rooms.get(step.room, 0) + 1
        known = self._attributes()
        log = InteractionLog(
            objects=tuple(
                ObjectInfo(entity_id=n, category=self.categories[n], **known.get(_asset(n), {})) for n in self.handles
            ),
            receptacles=tuple(
                ReceptacleInfo(entity_id=n, category=one.category, connected=self._same_furniture(n))
                for n, one in self.receptacles.items()
            ),
            rooms=tuple(RoomInfo(entity_id=name, category=_kind(name), steps=count) for name, count in rooms.items()),
            interactions=tuple(self.deeds),
            start_room=self.steps[0].room or "",
            steps=len(self.steps),
            distance_m=self.truth.distances([*self.handles, *self.receptacles]),
            steps_daily=self.clock.steps_daily,
        )
        log.check()
        return log

    def watch(self, wanted: Container[int] | None = None) -> Iterator[Frame]:
        """Yesterday's frames (``wanted`` ones, or all) with the simulator's labels as a perfect detector's."""
        at = 0
        self._arrange(0)
        for number, step in enumerate(self.steps):
            while at < len(self._changes) and self._changes[at].step <= number:
                self._apply(self._changes[at])
                at += 1
            if wanted is not None and number not in wanted:
                continue
            self.env.pose, self.env.steps = step.pose, number
            seen = self.env.observe()
            yield Frame(
                seen.rgb,
                self.clock.capture_ns(number) - self.clock.capture_ns(0),
                seen.time_ns,
                number,
                sensed=Sensed(
                    depth_m=seen.depth_m,
                    pose=seen.camera,
                    intrinsics=self.env.camera.intrinsics,
                    detections=self._detections(seen),
                    stats={"manipulation": float(step.manipulation)},
                    states=self._facts(seen),
                ),
            )

    def body(self) -> Wheels:
        """Today's robot."""
        self._arrange(len(self.steps))
        self.env.pose = self.final_pose
        return Wheels(self.env)

    def picture(self, path: Path, goals: Sequence[str], answers: Sequence[int]) -> None:
        """From above: free floor, the way from blue to red, goals ringed in green, answers as orange arrows."""
        from nav.habitat_picture import from_above
        from nav.homes.picture import save

        spots = [self.truth.position(name)[:2] for name in goals if name in self.instances]
        poses = [step.pose for step in self.steps]
        save(path, from_above(self.env, poses, spots, [poses[frame] for frame in answers]))

    def close(self) -> None:
        self.env.close()

    # -- things

    def _arrange(self, step: int) -> None:
        """The house as the frame before ``step`` left it."""
        for handle, matrix in self._first.items():
            self._things.place(handle, matrix)
        for change in self._changes:
            if change.step < step:
                self._apply(change)

    def _apply(self, change: Change) -> None:
        if change.matrix is None:
            self._things.hide(change.handle)
        else:
            self._things.place(change.handle, change.matrix)

    def _handle_of(self, candidate: Candidate) -> str:
        """The thing in the scene that an episode's candidate is: by its handle, else the nearest to its place."""
        if candidate.name in self._first:
            return candidate.name
        if not candidate.position or not self._first:
            raise SourceError(f"{self.name}: {candidate.name!r} is no object of the scene", hint="check rigid_objs")
        return min(self._first, key=lambda h: (math.dist(self._first[h][:3, 3], candidate.position), h))

    def _categories(self) -> dict[str, str]:
        """Of every thing and receptacle of the episode."""
        e = self.episode
        made = {
            self._handle_of(one): one.category for one in (*e.candidate_objects_noninteracted, *e.candidate_objects)
        }
        made.update({h: _kind(_asset(h)) for h in self.handles if h not in made})
        return made | {one.name: one.category for one in self._all_receptacles()}

    def _all_receptacles(self) -> list[Candidate]:
        e = self.episode
        return [*e.candidate_start_receps, *e.candidate_goal_receps,
                *e.candidate_start_receps_noninteracted, *e.candidate_goal_receps_noninteracted]  # fmt: skip

    def _receptacles(self) -> dict[str, Candidate]:
        return {one.name: one for one in reversed(self._all_receptacles())}

    def _same_furniture(self, name: str) -> tuple[str, ...]:
        """Other surfaces of the same piece."""
        mine = name.split("|")[0]
        return tuple(other for other in self.receptacles if other != name and other.split("|")[0] == mine)

    def _attributes(self) -> dict[str, dict[str, str]]:
        path = self._data.path.parent / ATTRIBUTE_FILE
        path = path if path.is_file() else self._data.path.parent.parent / ATTRIBUTE_FILE
        if not path.is_file():
            return {}
        with path.open(encoding="utf-8", newline="") as file:
            return {
                row.get("object_name", ""): {name: row.get(name) or "" for name in ATTRIBUTES}
                for row in csv.DictReader(file)
            }

    def _placed_at(self) -> dict[str, int]:
        """From which frame on each carried thing is where it is now: the start of its last place skill."""
        return {deed.object_id: deed.place_step for deed in self.deeds}

    def _stations(self) -> dict[str, Station]:
        made = {}
        for name, instance in self.instances.items():
            if name in self.receptacles:
                one = self.receptacles[name]
                views = np.array([map_from_habitat(row[:3]) for row in self._data.view_points(one)]).reshape(-1, 3)
                made[name] = Station("receptacle", instance, tuple(map_from_habitat(one.position)), views)
            else:
                made[name] = Station("object", instance, tuple(map_from_habitat(self._things.position(name))))
        for entity in self.env.entities():
            if entity.kind == "room":
                made[entity.entity_id] = Station("room", 0, entity.position)
        return made

    # -- what is seen

    def _detections(self, seen: EnvObservation) -> tuple[Detection, ...]:
        height, width = seen.instances.shape
        made = []
        for name, instance in self._visible(seen):
            v, u = np.nonzero(seen.instances == instance)
            x0, y0, x1, y1 = u.min() / width, v.min() / height, (u.max() + 1) / width, (v.max() + 1) / height
            made.append(Detection(self.categories[name], 1.0, (float(x0), float(y0), float(x1), float(y1)), name))
        return tuple(made)

    def _facts(self, seen: EnvObservation) -> tuple[StateFact, ...]:
        known = self._attributes_now
        return tuple(
            StateFact(f"#{name}", key, value, kind=self.categories[name])
            for name, _ in self._visible(seen)
            for key, value in known.get(_asset(name), {}).items()
            if value and name in self._first
        )

    @cached_property
    def _attributes_now(self) -> dict[str, dict[str, str]]:
        return self._attributes()

    def _visible(self, seen: EnvObservation) -> list[tuple[str, int]]:
        numbers, counts = np.unique(seen.instances, return_counts=True)
        large = {
            int(n) for n, count in zip(numbers, counts, strict=True) if count >= LEAST_COVERAGE * seen.instances.size
        }
        return [(name, instance) for name, instance in self.instances.items() if instance in large]


def _asset(handle: str) -> str:
    """Without the instance's number: ``mug_:0001`` -> ``mug``."""
    return handle.split("_:")[0]


def _kind(name: str) -> str:
    """A category from a name without one: letters, without numbers at the end."""
    return name.rstrip("0123456789_").replace("_", " ")


NOTE = "FindingDory's episodes driven anew in Habitat; goals and judge are the benchmark's, the frames are ours"


def open_days(
    data: EpisodeSet, episodes: Sequence[str] = (), *, scenes: str = "", size: str = "480x640"
) -> dict[str, Callable[[], World]]:
    """How each episode (none named: all) is opened, by name. Raises SourceNotFound for an unknown one, InputError for a
    size, ModelUnavailable where habitat-sim isn't installed: before anything else is done."""
    load_habitat()
    wide, _, high = size.partition("x")
    if not (wide.isdigit() and high.isdigit()):
        raise InputError(f"the size {size!r} can't be read", hint="use WIDTHxHEIGHT, as 480x640")
    camera = CameraSpec(int(wide), int(high))
    named = [data.episode(name).episode_id for name in episodes] or [one.episode_id for one in data.episodes]
    return {
        f"ep_{name.removeprefix('ep_')}": partial(open_day, data, name, scenes=scenes, camera=camera) for name in named
    }


def open_day(
    data: EpisodeSet,
    episode_id: str,
    *,
    scenes: str = "",
    camera: CameraSpec | None = None,
    seed: int = 0,
    draw: bool = True,
    clock: DayClock | None = None,
) -> HabitatDay:
    """One episode in its scene. ``scenes``: the houses' .scene_dataset_config.json (empty: the episode's own words).
    ``draw`` False: its way alone, without a renderer.

    Raises ModelUnavailable where habitat-sim isn't installed, SourceNotFound, SourceError."""
    episode = data.episode(episode_id)
    settings = HabitatSettings(
        scene=episode.scene_id,
        dataset=scenes or episode.scene_dataset_config or "default",
        camera=camera or CameraSpec(),
        # Objects are put in by the physics' manager, even those that never move.
        physics=True,
        draw=draw,
    )
    env = open_habitat(settings, clock=clock)
    try:
        return HabitatDay(episode, data, env, seed=seed)
    except BaseException:
        env.close()
        raise
