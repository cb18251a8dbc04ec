"""``habitat:SCENE``: a walk through a Habitat scene, or a published episode: what a robot there would send.

    habitat:scenes/apartment.glb?places=8&seed=0&size=480x640&labels=1
    habitat:102344280?dataset=data/hssd-hab/hssd-hab.scene_dataset_config.json
    habitat:data/findingdory-habitat?episode=ep_14&split=validation&dataset=...&labels=1

Pictures, metric depth, the camera's pose and intrinsics, capture times of the benchmark's clock. ``labels=1`` adds the
scene's labels as detections, in place of a detector. habitat-sim's context belongs to one thread: the way is planned
without a renderer, and the frames are drawn in whatever thread asks for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

from nav.env import AgentPose, CameraSpec
from nav.findingdory.clock import DayClock
from nav.findingdory.dataset import EpisodeSet
from nav.habitat_day import HabitatDay, open_day
from nav.habitat_drive import tour
from nav.habitat_env import HabitatEnv, HabitatSettings, load_habitat, open_habitat
from nav.source import detections
from nav.stepped import SteppedSource
from perception.frames import Frame, Sensed
from streammem.config import PerceptionConfig
from streammem.errors import SourceError, SourceNotFound

_KNOWN = ("places", "seed", "size", "labels", "gpu", "dataset", "episode", "split", "day")


class HabitatSource(SteppedSource):
    """Raises ModelUnavailable where habitat-sim isn't installed, SourceError that names a wrong option, SourceNotFound
    for a scene that isn't there."""

    def __init__(self, text: str, *, fps: float = 1.0) -> None:
        scene, _, query = text.partition("?")
        given = dict(parse_qsl(query, keep_blank_values=True))
        unknown = sorted(set(given) - set(_KNOWN))
        if unknown or not scene:
            what = f"no option {unknown[0]!r}" if unknown else "no name"
            raise SourceError(f"a Habitat scene has {what}", hint=f"habitat:SCENE?..., known are {', '.join(_KNOWN)}")
        load_habitat()
        self._episode, self._split = given.get("episode", ""), given.get("split", "validation")
        self.scene, self._dataset = scene, given.get("dataset", "")
        if scene.endswith((".glb", ".ply", ".json")) and not Path(scene).is_file():
            raise SourceNotFound(f"{scene}: no scene is here", hint="check the path, or name a scene of a dataset=FILE")
        self._seed, self._places = _whole(given, "seed", 0, 0, 2**31), _whole(given, "places", 6, 1, 1000)
        self._gpu, self.labels = _whole(given, "gpu", -1, -1, 64), bool(_whole(given, "labels", 0, 0, 1))
        self.camera = _camera(given.get("size", "480x640"))
        self.clock = DayClock(day=_whole(given, "day", 0, 0, 10_000))
        self._poses = self._plan()
        name = f"habitat-{Path(scene).stem}-{self._episode or self._seed}"
        super().__init__("habitat", text, name, count=len(self._poses), camera=self.camera, clock=self.clock, fps=fps)

    def _plan(self) -> list[AgentPose]:
        if self._episode:
            day = self._open_day(draw=False)
            try:
                return [step.pose for step in day.steps]
            finally:
                day.close()
        env = self._open(draw=False)
        try:
            return [step.pose for step in tour(env, self._places, self._seed)]
        finally:
            env.close()

    def _open(self, *, draw: bool = True) -> HabitatEnv:
        dataset = self._dataset or "default"
        settings = HabitatSettings(self.scene, dataset, gpu=self._gpu, camera=self.camera, draw=draw)
        return open_habitat(settings, clock=self.clock)

    def _open_day(self, *, draw: bool = True) -> HabitatDay:
        data = EpisodeSet(self.scene, self._split)  # type: ignore[arg-type]
        return open_day(data, self._episode, scenes=self._dataset, camera=self.camera, draw=draw, clock=self.clock)

    def _draw(self, steps: list[int]) -> Iterator[Frame]:
        if self._episode:
            day = self._open_day()
            try:
                wanted = set(steps)
                for frame in day.watch(wanted):
                    self.health.decoded_frames += 1
                    yield frame if self.labels else _unlabelled(frame)
            finally:
                day.close()
            return
        env = self._open()
        try:
            for step in steps:
                env.pose, env.steps = self._poses[step], step
                seen = env.observe()
                self.health.decoded_frames += 1
                sensed = Sensed(
                    depth_m=seen.depth_m,
                    pose=seen.camera,
                    intrinsics=self.camera.intrinsics,
                    detections=detections(env, seen) if self.labels else (),
                )
                yield Frame(seen.rgb, self._media_ns(step), seen.time_ns, step, sensed=sensed)
        finally:
            env.close()


def _unlabelled(frame: Frame) -> Frame:
    import dataclasses

    return dataclasses.replace(frame, sensed=dataclasses.replace(frame.sensed, detections=(), states=()))


def open_habitat_source(rest: str, config: PerceptionConfig) -> HabitatSource:
    """Entry point of the scheme ``habitat:``."""
    return HabitatSource(rest, fps=config.fps)


def _whole(given: dict[str, str], name: str, default: int, low: int, high: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    if not text.removeprefix("-").isdigit() or not low <= int(text) <= high:
        raise SourceError(f"{name}={text!r} can't be used in a scene", hint=f"use a whole number, {low} to {high}")
    return int(text)


def _camera(size: str) -> CameraSpec:
    wide, _, high = size.partition("x")
    if not (wide.isdigit() and high.isdigit() and 8 <= int(wide) <= 4096 and 8 <= int(high) <= 4096):
        raise SourceError(f"size={size!r} can't be used in a scene", hint="use WIDTHxHEIGHT, 8x8 to 4096x4096")
    return CameraSpec(int(wide), int(high), math.radians(43))
