"""The environment without OpenGL: a procedural home drawn by rays in NumPy. About 20 ms a picture of 120x160.

The reference for tests and for ground truth: geometry and ids are exact, colours are flat.
"""

from __future__ import annotations

from nav.env import CameraSpec
from nav.homes.layout import make_home
from nav.homes.simulation import HomeSimulation


class GridEnv(HomeSimulation):
    """``nav.env.Env`` over :mod:`nav.homes`."""


def open_grid(seed: int, *, rooms: int | None = None, camera: CameraSpec | None = None) -> GridEnv:
    """The home of a seed. Raises InputError."""
    return GridEnv(make_home(seed, rooms=rooms), camera=camera)
