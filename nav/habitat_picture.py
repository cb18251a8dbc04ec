"""A Habitat scene from above: the free floor, the way of a day, goals and answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nav.env import AgentPose, Env
from nav.homes.picture import ANSWER, GOAL, PATH_END, PATH_START


def from_above(
    env: Env,
    poses: Sequence[AgentPose],
    goals: Sequence[Sequence[float]] = (),
    answers: Sequence[AgentPose] = (),
    *,
    metres_per_pixel: float = 0.02,
) -> np.ndarray:
    """(h, w, 3) uint8 RGB; map x to the right, map y up; free floor is white. The way goes from blue to red; ``goals``
    (x, y) metres are ringed in green, ``answers`` are orange arrows."""
    import cv2

    free, (x0, y0) = env.topdown(0.05)
    scale = round(0.05 / metres_per_pixel)
    canvas = np.repeat(np.where(free, 250, 150).astype(np.uint8)[::-1, :, None], 3, axis=2)
    canvas = np.ascontiguousarray(canvas.repeat(scale, axis=0).repeat(scale, axis=1))
    rows = canvas.shape[0]

    def at(x: float, y: float) -> tuple[int, int]:
        return round((x - x0) / 0.05 * scale), rows - 1 - round((y - y0) / 0.05 * scale)

    spots = [at(pose.x, pose.y) for pose in poses]
    for i in range(1, len(spots)):
        share = i / len(spots)
        ink = tuple(int(v) for v in PATH_START * (1 - share) + PATH_END * share)
        cv2.line(canvas, spots[i - 1], spots[i], ink, 2, cv2.LINE_AA)
    for goal in goals:
        cv2.circle(canvas, at(float(goal[0]), float(goal[1])), 14, GOAL, 3, cv2.LINE_AA)
    for pose in answers:
        tip = at(pose.x + 0.45 * math.cos(pose.yaw), pose.y + 0.45 * math.sin(pose.yaw))
        cv2.arrowedLine(canvas, at(pose.x, pose.y), tip, ANSWER, 3, cv2.LINE_AA, tipLength=0.4)
    return canvas
