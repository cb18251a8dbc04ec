"""The shapes that a home is made of, and rays against them in NumPy: the reference renderer, without OpenGL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from nav.env import AgentPose, CameraSpec

Shape = Literal["box", "cylinder", "sphere"]
Colour = tuple[float, float, float]
NEAR_M = 0.02


@dataclass(frozen=True, slots=True)
class Solid:
    """``size``: half extents of a box, (radius, radius, half height) of an upright cylinder, (r, r, r) of a sphere;
    ``position`` is its middle; ``yaw`` turns it about z. ``colour`` in [0, 1]; ``instance`` 0 belongs to the house."""

    shape: Shape
    size: tuple[float, float, float]
    position: tuple[float, float, float]
    yaw: float = 0.0
    colour: Colour = (0.5, 0.5, 0.5)
    instance: int = 0

    def at(self, position: Sequence[float], yaw: float = 0.0) -> Solid:
        """The same solid of a thing that stands at ``position`` turned by ``yaw``."""
        c, s = math.cos(yaw), math.sin(yaw)
        x, y, z = self.position
        where = (position[0] + c * x - s * y, position[1] + s * x + c * y, position[2] + z)
        return replace(self, position=where, yaw=self.yaw + yaw)


# Corners of the unit cube, and the pairs of corners that are its edges.
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
_EDGES = np.array([(i, j) for i in range(8) for j in range(i) if bin(i ^ j).count("1") == 1])
_LIGHT = np.array([0.35, 0.25, 0.9]) / np.linalg.norm([0.35, 0.25, 0.9])


class Scene:
    """Solids, ready for rays. Read-only; a new arrangement is a new scene."""

    def __init__(self, solids: Sequence[Solid]) -> None:
        self.solids = list(solids)
        self.position = np.array([one.position for one in solids], float).reshape(-1, 3)
        self.size = np.array([one.size for one in solids], float).reshape(-1, 3)
        self.instance = np.array([one.instance for one in solids], np.int32)
        self.colour = np.array([one.colour for one in solids], float).reshape(-1, 3)
        yaw = np.array([one.yaw for one in solids], float)
        self.turn = np.zeros((len(solids), 3, 3))  # map_from_solid
        self.turn[:, 0, 0] = self.turn[:, 1, 1] = np.cos(yaw)
        self.turn[:, 1, 0] = np.sin(yaw)
        self.turn[:, 0, 1] = -np.sin(yaw)
        self.turn[:, 2, 2] = 1
        self.corners = (
            np.einsum("nij,nkj->nki", self.turn, _CORNERS[None] * self.size[:, None]) + self.position[:, None]
        )

    def render(self, pose: AgentPose, camera: CameraSpec, *, colour: bool = True) -> tuple[np.ndarray, ...]:
        """(h, w, 3) uint8 RGB (black where ``colour`` is off), (h, w) float32 depth along the optical axis (0: nothing
        hit), (h, w) int32 instances."""
        depth, index = self._trace(pose, camera)
        hit = index >= 0
        instances = np.where(hit, self.instance[index], 0).astype(np.int32)
        rgb = np.zeros((*depth.shape, 3), np.uint8)
        if colour and hit.any():
            rgb = self._shade(pose, camera, depth, index)
        return rgb, np.where(hit, depth, 0).astype(np.float32), instances

    def near(self, rect: tuple[float, float, float, float], reach_m: float) -> Scene:
        """The solids that come within ``reach_m`` of an upright rectangle: all that can hide it from so near."""
        low, high = self.corners[..., :2].min(axis=1), self.corners[..., :2].max(axis=1)
        dx = np.maximum(np.maximum(rect[0] - high[:, 0], low[:, 0] - rect[2]), 0)
        dy = np.maximum(np.maximum(rect[1] - high[:, 1], low[:, 1] - rect[3]), 0)
        return Scene([self.solids[i] for i in np.flatnonzero(np.hypot(dx, dy) <= reach_m)])

    def coverage(self, instance: int, pose: AgentPose, camera: CameraSpec) -> float:
        """Share of the picture's pixels that show ``instance``. Looks only where it could be: about 1 ms."""
        mine = np.flatnonzero(self.instance == instance)
        rects, nearest = self._rectangles(pose, camera)
        seen = [rects[i] for i in mine if rects[i, 0] < rects[i, 2] and rects[i, 1] < rects[i, 3]]
        if not seen:
            return 0.0
        stack = np.array(seen)
        window = (*stack[:, :2].min(axis=0), *stack[:, 2:].max(axis=0))
        _, index = self._trace(pose, camera, window, (rects, nearest))
        return float(np.isin(index, mine).sum() / (camera.width * camera.height))

    def _rectangles(self, pose: AgentPose, camera: CameraSpec) -> tuple[np.ndarray, np.ndarray]:
        """Pixel rectangles (n, 4) u0, v0, u1, v1 (end exclusive; empty where out of view) and nearest depths (n,).

        Edges are cut at the near plane first: a wall that begins behind the camera would cover the whole picture."""
        k = camera.intrinsics
        where, rotation = camera.place(pose)
        seen = (self.corners - where) @ rotation  # camera coordinates
        a, b = seen[:, _EDGES[:, 0]], seen[:, _EDGES[:, 1]]
        za, zb = a[..., 2:], b[..., 2:]
        with np.errstate(divide="ignore", invalid="ignore"):
            cut = a + (b - a) * ((NEAR_M - za) / (zb - za))
        ends = np.concatenate([np.where(za >= NEAR_M, a, cut), np.where(zb >= NEAR_M, b, cut)], axis=1)
        valid = np.concatenate([(za >= NEAR_M) | (zb >= NEAR_M)] * 2, axis=1)[..., 0]
        z = np.where(valid, ends[..., 2], 1.0)
        u = np.where(valid, k.fx * ends[..., 0] / z + k.cx, np.nan)
        v = np.where(valid, k.fy * ends[..., 1] / z + k.cy, np.nan)
        rects = np.zeros((len(self.solids), 4), int)
        some = valid.any(axis=1)
        for column, values, pick, limit in ((0, u, np.nanmin, k.width), (1, v, np.nanmin, k.height),
                                            (2, u, np.nanmax, k.width), (3, v, np.nanmax, k.height)):  # fmt: skip
            edge = pick(values[some], axis=1)
            rounded = np.floor(edge) if column < 2 else np.ceil(edge)
            rects[some, column] = np.clip(rounded, 0, limit).astype(int)
        nearest = np.where(valid, ends[..., 2], np.inf).min(axis=1)
        return rects, nearest

    def _trace(
        self,
        pose: AgentPose,
        camera: CameraSpec,
        window: tuple[int, ...] | None = None,
        known: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Depth (inf: nothing) and index of the solid (-1: nothing) for each pixel of the window."""
        rects, nearest = known if known is not None else self._rectangles(pose, camera)
        u0, v0, u1, v1 = window or (0, 0, camera.width, camera.height)
        k = camera.intrinsics
        where, rotation = camera.place(pose)
        u, v = np.meshgrid(np.arange(u0, u1) + 0.5, np.arange(v0, v1) + 0.5)
        rays = np.stack([(u - k.cx) / k.fx, (v - k.cy) / k.fy, np.ones_like(u)], axis=-1) @ rotation.T
        depth = np.full(u.shape, np.inf)
        index = np.full(u.shape, -1)
        lo = np.maximum(rects[:, :2], (u0, v0)) - (u0, v0)
        hi = np.minimum(rects[:, 2:], (u1, v1)) - (u0, v0)
        shown = np.flatnonzero(np.isfinite(nearest) & (lo < hi).all(axis=1))
        for i in shown[np.argsort(nearest[shown], kind="stable")]:
            part = (slice(lo[i, 1], hi[i, 1]), slice(lo[i, 0], hi[i, 0]))
            before = depth[part]
            if before.max() <= nearest[i]:
                continue  # all of it lies behind what is drawn
            t = self._hit(int(i), where, rays[part])
            closer = t < before
            before[closer] = t[closer]
            index[part][closer] = i
        return depth, index

    def _hit(self, i: int, where: np.ndarray, rays: np.ndarray) -> np.ndarray:
        """Depth along each ray (its camera z is 1) at which it enters the solid; inf where it doesn't."""
        o = (where - self.position[i]) @ self.turn[i]
        d = rays @ self.turn[i]
        size = self.size[i]
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.solids[i].shape == "box":
                low, high = (-size - o) / d, (size - o) / d
                enter, leave = np.minimum(low, high).max(axis=-1), np.maximum(low, high).min(axis=-1)
                return np.where((enter <= leave) & (enter > NEAR_M), enter, np.inf)
            if self.solids[i].shape == "sphere":
                return _quadratic((d * d).sum(-1), (d * o).sum(-1), float(o @ o) - size[0] ** 2)
            side = _quadratic(
                (d[..., :2] ** 2).sum(-1), (d[..., :2] * o[:2]).sum(-1), float(o[:2] @ o[:2]) - size[0] ** 2
            )
            side = np.where(np.abs(o[2] + side * d[..., 2]) <= size[2], side, np.inf)
            cap = (math.copysign(size[2], o[2]) - o[2]) / d[..., 2]
            on_cap = ((o[:2] + cap[..., None] * d[..., :2]) ** 2).sum(-1) <= size[0] ** 2
            return np.minimum(side, np.where(on_cap & (cap > NEAR_M), cap, np.inf))

    def _shade(self, pose: AgentPose, camera: CameraSpec, depth: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Flat colours, darker on faces turned from the light: enough for eyes and for tests."""
        k = camera.intrinsics
        where, rotation = camera.place(pose)
        v, u = np.nonzero(index >= 0)
        i, t = index[v, u], depth[v, u]
        rays = np.stack([(u + 0.5 - k.cx) / k.fx, (v + 0.5 - k.cy) / k.fy, np.ones(len(u))], axis=1) @ rotation.T
        local = np.einsum("nji,nj->ni", self.turn[i], where + t[:, None] * rays - self.position[i])
        scaled = local / self.size[i]
        face = np.abs(scaled).argmax(axis=1)
        normal = np.zeros_like(local)
        normal[np.arange(len(u)), face] = np.sign(scaled[np.arange(len(u)), face])
        round_ = np.array([one.shape == "sphere" for one in self.solids])[i]
        tube = np.array([one.shape == "cylinder" for one in self.solids])[i] & (np.abs(scaled[:, 2]) < 0.999)
        normal[round_] = scaled[round_]
        normal[tube] = np.where(np.arange(3) < 2, scaled[tube], 0)
        world = np.einsum("nij,nj->ni", self.turn[i], normal)
        light = 0.55 + 0.45 * np.clip(world @ _LIGHT / np.maximum(np.linalg.norm(world, axis=1), 1e-9), 0, 1)
        rgb = np.zeros((*index.shape, 3), np.uint8)
        rgb[v, u] = np.clip(self.colour[i] * light[:, None] * 255 + 0.5, 0, 255)
        return rgb


def _quadratic(a: np.ndarray, half_b: np.ndarray, c: float) -> np.ndarray:
    """Smaller root of a t^2 + 2 half_b t + c beyond the near plane, or inf."""
    root = half_b * half_b - a * c
    t = (-half_b - np.sqrt(np.maximum(root, 0))) / a
    return np.where((root >= 0) & (t > NEAR_M), t, np.inf)
