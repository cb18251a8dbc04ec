"""``mujoco:SCENE``: an experience in a procedural home as a source, sending what a robot there would send.

    mujoco:SEED?experience=0&interactions=5&size=480x640&labels=1&day=0&days=1&draw=gl

Pictures, metric depth, the camera's pose and intrinsics, capture times of the benchmark's clock (06:00 to 22:00 of one
day; 14.4 s a step), and whether the arm is at work. ``labels=1`` adds the simulator's labels as detections, and the
attributes of what is seen, in place of a detector. ``days=10``: ten days in a row, each from where the last one ended
(``homes/life.py``); ``day`` is the first one's number. ``draw=rays`` needs no OpenGL. The questions and their answers
are not sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal
from urllib.parse import parse_qsl

import numpy as np

from nav.env import CameraSpec, Env, EnvObservation
from nav.findingdory.clock import STEPS_DAILY, DayClock
from nav.findingdory.log import ATTRIBUTES
from nav.grid_env import GridEnv
from nav.homes.experience import Experience
from nav.homes.layout import make_home
from nav.homes.life import MOST_DAYS, make_life
from nav.homes.simulation import HomeSimulation
from nav.stepped import SteppedSource
from perception.frames import Frame, Sensed
from streammem.config import PerceptionConfig
from streammem.errors import SourceError
from streammem.model import Detection, StateFact

LEAST_COVERAGE = 0.001
"""Share of the picture from which a thing is labelled: what the benchmark calls visible."""


class HomeSource(SteppedSource):
    """Same text, same frames (pixels: on the same renderer)."""

    def __init__(self, text: str, *, fps: float = 1.0) -> None:
        """Raises SourceError that names the wrong option."""
        scene, _, query = text.partition("?")
        given = dict(parse_qsl(query, keep_blank_values=True))
        seed = _whole({"SCENE": scene or "0"}, "SCENE", 0, 0, 2**31)
        number = _whole(given, "experience", 0, 0, 2**31)
        count = _whole(given, "interactions", 0, 0, 11)
        rooms = _whole(given, "rooms", 0, 0, 7)
        days = _whole(given, "days", 1, 1, MOST_DAYS)
        self.labels = bool(_whole(given, "labels", 0, 0, 1))
        clock = DayClock(_whole(given, "steps_daily", STEPS_DAILY, 100, 1_000_000), _whole(given, "day", 0, 0, 10_000))
        self.draw = _choice(given, "draw", ("gl", "rays"))
        width, height = _size(given.pop("size", "240x320"))
        if given:
            raise SourceError(
                f"a home has no option {next(iter(given))!r}",
                hint="known are experience, interactions, rooms, size, labels, day, days, steps_daily and draw",
            )
        home = make_home(seed, rooms=rooms or None)
        self.life = make_life(home, days, number, interactions=count or None, clock=clock)
        self.experience: Experience = self.life.days[0] if days == 1 else self.life.whole
        super().__init__(
            "mujoco",
            text,
            f"home-{seed}-{number}",
            count=len(self.experience.frames),
            camera=CameraSpec(width, height),
            clock=self.experience.clock,
            fps=fps,
        )

    def _draw(self, steps: list[int]) -> Iterator[Frame]:
        env = self._environment()
        try:
            for record in self.experience.replay(env, steps):
                seen = env.observe()
                self.health.decoded_frames += 1
                yield Frame(
                    np.ascontiguousarray(seen.rgb),
                    self._media_ns(record.step),
                    seen.time_ns,
                    record.step,
                    sensed=Sensed(
                        depth_m=seen.depth_m,
                        pose=seen.camera,
                        intrinsics=self.camera.intrinsics,
                        detections=detections(env, seen) if self.labels else (),
                        stats={"manipulation": float(record.mode == "manip")},
                        states=self._attributes(env, seen) if self.labels else (),
                    ),
                )
        finally:
            env.close()

    def _attributes(self, env: HomeSimulation, seen: EnvObservation) -> tuple[StateFact, ...]:
        """What a perfect detector says of the things in the picture: their attribute columns, nothing of what was
        done with them."""
        facts = []
        for entity in env.entities():
            if entity.kind == "object" and seen.coverage(entity.instance) >= LEAST_COVERAGE:
                info = env.thing(entity.entity_id).info
                facts += [
                    StateFact(f"#{entity.entity_id}", name, value, kind=info.category)
                    for name in ATTRIBUTES
                    if (value := getattr(info, name))
                ]
        return tuple(facts)

    def _environment(self) -> HomeSimulation:
        home, clock = self.experience.home, self.experience.clock
        if self.draw == "rays":
            return GridEnv(home, camera=self.camera, clock=clock)
        from nav.mujoco_env import MujocoEnv

        return MujocoEnv(home, camera=self.camera, clock=clock)


def detections(env: Env, seen: EnvObservation) -> tuple[Detection, ...]:
    """The simulator's labels: category, box and number of each thing that covers enough of the picture."""
    height, width = seen.instances.shape
    made = []
    for entity in env.entities():
        if not entity.instance or seen.coverage(entity.instance) < LEAST_COVERAGE:
            continue
        v, u = np.nonzero(seen.instances == entity.instance)
        box = (u.min() / width, v.min() / height, (u.max() + 1) / width, (v.max() + 1) / height)
        x0, y0, x1, y1 = (float(edge) for edge in box)
        made.append(Detection(entity.category, 1.0, (x0, y0, x1, y1), entity.entity_id))
    return tuple(made)


def open_mujoco_source(rest: str, config: PerceptionConfig) -> HomeSource:
    """Entry point of the scheme ``mujoco:``."""
    return HomeSource(rest, fps=config.fps)


def _whole(given: dict[str, str], name: str, default: int, low: int, high: int) -> int:
    text = given.pop(name, None)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise SourceError(f"{name}={text!r} can't be used in a home", hint=f"use a whole number, {low} to {high}")
    return int(text)


def _choice(given: dict[str, str], name: str, known: tuple[Literal["gl", "rays"], ...]) -> Literal["gl", "rays"]:
    text = given.pop(name, known[0])
    for one in known:
        if one == text:
            return one
    raise SourceError(f"{name}={text!r} can't be used in a home", hint=f"use {' or '.join(known)}")


def _size(text: str) -> tuple[int, int]:
    wide, _, high = text.partition("x")
    if not (wide.isdigit() and high.isdigit() and 16 <= int(wide) <= 2048 and 16 <= int(high) <= 2048):
        raise SourceError(f"size={text!r} can't be used in a home", hint="use WIDTHxHEIGHT, 16x16 to 2048x2048")
    return int(wide), int(high)
