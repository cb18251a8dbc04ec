"""Pictures for people: the home from above with the path, goals and answers of an experience, and what the robot saw.

python -m nav.homes.picture SEED --out DIR
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from nav.env import CameraSpec
from nav.homes import catalogue
from nav.homes.experience import Experience, make_experience
from nav.homes.layout import Home, make_home
from nav.homes.simulation import HomeSimulation
from streammem.errors import InputError

Colour = tuple[int, int, int]
PATH_START, PATH_END = np.array([60, 110, 220]), np.array([220, 60, 90])
GOAL: Colour = (20, 140, 60)
ANSWER: Colour = (230, 120, 0)
FAR_M = 3.0
"""Depth that is drawn black."""


def from_above(
    experience: Experience,
    *,
    goals: Sequence[str] = (),
    answers: Sequence[int] = (),
    driven: Sequence[tuple[float, float]] = (),
    pixels_per_metre: int = 80,
) -> np.ndarray:
    """(h, w, 3) uint8 RGB; map x to the right, map y up. The walked path goes from blue to red; numbers mark where the
    k-th thing was picked and placed. ``goals`` (entity ids) are ringed in green, ``answers`` (frames) are orange
    arrows, ``driven`` (x, y) metres is the way of the second day."""
    import cv2

    home, floor = experience.home, experience.home.floor
    scale = pixels_per_metre
    rows, cols = (math.ceil(n * floor.cell_m * scale) for n in floor.free.shape)
    canvas = np.full((rows, cols, 3), 250, np.uint8)

    def at(x: float, y: float) -> tuple[int, int]:
        return round((x - floor.origin[0]) * scale), rows - 1 - round((y - floor.origin[1]) * scale)

    def text(words: str, where: tuple[int, int], size: float = 0.42, colour: Colour = (30, 30, 30)) -> None:
        cv2.putText(canvas, words, where, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)

    _draw_home(canvas, home, at)
    positions = [at(frame.pose.x, frame.pose.y) for frame in experience.frames]
    for i in range(1, len(positions)):
        share = i / len(positions)
        ink = tuple(int(v) for v in PATH_START * (1 - share) + PATH_END * share)
        cv2.line(canvas, positions[i - 1], positions[i], ink, 2, cv2.LINE_AA)
    truth = experience.truth
    for thing in home.things:
        x, y, _ = truth.entities[thing.entity_id].position
        ink = tuple(int(255 * v) for v in catalogue.COLOURS[thing.color])
        cv2.circle(canvas, at(x, y), 7, ink, -1, cv2.LINE_AA)
        cv2.circle(canvas, at(x, y), 7, (40, 40, 40), 1, cv2.LINE_AA)
    for k, one in enumerate(experience.interactions):
        for step, letter in ((one.pick_step, "p"), (one.place_step, "d")):
            pose = experience.frames[step].pose
            text(f"{letter}{k + 1}", (at(pose.x, pose.y)[0] - 8, at(pose.x, pose.y)[1] + 4), 0.5)
    for room in home.rooms:
        x, y = at(room.rect[0] + 0.15, room.rect[3] - 0.28)
        text(room.category, (x, y), 0.5, (90, 90, 90))
    for a, b in pairwise(driven):
        cv2.line(canvas, at(*a), at(*b), ANSWER, 3, cv2.LINE_AA)
    for name in goals:
        if name not in truth.entities:
            raise InputError(f"this home has no {name!r}", hint="goals are entity ids")
        cv2.circle(canvas, at(*truth.entities[name].position[:2]), 16, GOAL, 3, cv2.LINE_AA)
    for frame in answers:
        pose = experience.frames[frame].pose
        tip = (pose.x + 0.45 * math.cos(pose.yaw), pose.y + 0.45 * math.sin(pose.yaw))
        cv2.arrowedLine(canvas, at(pose.x, pose.y), at(*tip), ANSWER, 3, cv2.LINE_AA, tipLength=0.4)
    last = experience.final_pose
    cv2.circle(canvas, at(last.x, last.y), 10, (0, 0, 0), 2, cv2.LINE_AA)
    return canvas


def _draw_home(canvas: np.ndarray, home: Home, at: object) -> None:
    import cv2

    assert callable(at)

    def fill(rect: tuple[float, float, float, float], ink: Iterable[float]) -> None:
        shade = tuple(int(255 * v) for v in ink)
        cv2.rectangle(canvas, at(rect[0], rect[1]), at(rect[2], rect[3]), shade, -1)

    for room in home.rooms:
        floor = catalogue.ROOMS[room.category][0]
        fill(room.rect, [0.35 * v + 0.65 for v in floor])
    for wall in home.walls:
        x, y, _ = wall.position
        fill((x - wall.size[0], y - wall.size[1], x + wall.size[0], y + wall.size[1]), (0.25, 0.25, 0.28))
    for one in home.receptacles:
        fill(one.rect, one.model.colour)
        x0, y0, _, y1 = one.rect
        corner = at(x0 + 0.05, (y0 + y1) / 2 - 0.05)
        dark = sum(one.model.colour) < 1.5
        ink = (245, 245, 245) if dark else (40, 40, 40)
        cv2.putText(canvas, one.entity_id, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.36, ink, 1, cv2.LINE_AA)


def seen_sheet(experience: Experience, simulation: HomeSimulation, frames: Sequence[int]) -> np.ndarray:
    """(h, w, 3) uint8 RGB: for each frame its picture, depth (white near, black at 3 m) and instances, in columns."""
    import cv2

    columns = []
    for record in experience.replay(simulation, frames):
        seen = simulation.observe()
        near = np.where(seen.depth_m > 0, 255 * (1 - np.clip(seen.depth_m / FAR_M, 0, 1)), 0).astype(np.uint8)
        depth = np.repeat(near[..., None], 3, axis=2)
        # Multiplying by odd numbers spreads neighbouring ids over the colours.
        ids = (seen.instances[..., None] * np.array([67, 131, 197]) % 251).astype(np.uint8)
        head = np.full((26, seen.rgb.shape[1], 3), 250, np.uint8)
        words = f"{record.step}  {experience.clock.text(record.step)}  {record.mark or record.action}"
        cv2.putText(head, words, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (30, 30, 30), 1, cv2.LINE_AA)
        columns.append(np.concatenate([head, seen.rgb, depth, ids], axis=0))
    return np.concatenate(columns, axis=1)


def save(path: Path, picture: np.ndarray) -> None:
    """PNG."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture[..., ::-1]):
        raise InputError(f"{path}: the picture can't be written", hint="check the folder and its rights")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write ``above.png`` and ``seen.png`` of one experience."""
    import argparse

    parser = argparse.ArgumentParser(description="Pictures of an experience in a procedural home.")
    parser.add_argument("seed", type=int)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--experience", type=int, default=0)
    parser.add_argument("--interactions", type=int, default=None)
    parser.add_argument("--rays", action="store_true", help="draw without OpenGL")
    given = parser.parse_args(arguments)
    home = make_home(given.seed)
    experience = make_experience(home, given.experience, interactions=given.interactions)
    save(given.out / "above.png", from_above(experience))
    camera = CameraSpec(240, 320)
    if given.rays:
        simulation = HomeSimulation(home, camera=camera)
    else:
        from nav.mujoco_env import MujocoEnv

        simulation = MujocoEnv(home, camera=camera)
    steps = sorted({s for i in experience.interactions[:3] for s in (i.pick_step, i.nav_place_step - 1, i.end_step)})
    try:
        save(given.out / "seen.png", seen_sheet(experience, simulation, steps))
    finally:
        simulation.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
