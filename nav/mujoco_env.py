"""The environment drawn by MuJoCo on any laptop: the same homes, rendered offscreen by OpenGL (software will do).

MuJoCo is only the renderer: the base moves on the floor map, things are carried by magic (mocap bodies). Shadows,
reflections and multisampling are off: with its defaults software OpenGL gives 10 pictures a second, without them 100
and more; multisampling would also blend ids and depths at edges.
"""

from __future__ import annotations

import math
import os
import threading
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from nav.env import AgentPose, CameraSpec
from nav.findingdory.clock import DayClock
from nav.homes.layout import Home, make_home
from nav.homes.simulation import HomeSimulation
from nav.homes.solids import Solid
from streammem.errors import ModelUnavailable, SourceError

FAR_M = 40.0
_AWAY = (0.0, 0.0, -50.0)
"""Where held things wait: under the floor and beyond the far plane."""
INSTALL = 'pip install "streammem[sim]"; Debian: apt install libegl1 libegl-mesa0 libgl1-mesa-dri libgles2 libosmesa6'


class MujocoEnv(HomeSimulation):
    """``nav.env.Env`` over :mod:`nav.homes`, drawn by MuJoCo.

    The OpenGL context belongs to the thread that draws first. Close it: a context left to the interpreter's end prints
    errors on some drivers. Raises ModelUnavailable where MuJoCo isn't installed, SourceError where no context can be
    made."""

    def __init__(self, home: Home, *, camera: CameraSpec | None = None, clock: DayClock | None = None) -> None:
        self._mujoco = load_mujoco()
        self._body: dict[str, int] = {}
        self._model: Any = None
        super().__init__(home, camera=camera, clock=clock)
        mj = self._mujoco
        self._model = mj.MjModel.from_xml_string(self._xml())
        self._data = mj.MjData(self._model)
        names = {name: mj.mj_name2id(self._model, mj.mjtObj.mjOBJ_BODY, name) for name in (*self._built, "camera")}
        self._body = {name: int(self._model.body_mocapid[number]) for name, number in names.items()}
        self._instance_of_geom = self._model.geom_user[:, 0].astype(np.int32)
        self._renderer: Any = None
        self._thread = 0
        self.moved_things()

    def draw(self, pose: AgentPose) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """RGB, metric depth and instances. Raises SourceError in another thread than that of the first picture."""
        renderer, mj = self._context(), self._mujoco
        where, rotation = self._camera.place(pose)
        mocap = self._body["camera"]
        self._data.mocap_pos[mocap] = where
        # MuJoCo's cameras look along -z with y up: OpenCV's x, -y, -z.
        matrix = (rotation * np.array([1.0, -1.0, -1.0])).ravel()
        mj.mju_mat2Quat(self._data.mocap_quat[mocap], matrix)
        mj.mj_kinematics(self._model, self._data)
        mj.mj_camlight(self._model, self._data)
        renderer.disable_depth_rendering()
        renderer.disable_segmentation_rendering()
        renderer.update_scene(self._data, camera="head")
        renderer.scene.flags[mj.mjtRndFlag.mjRND_SHADOW] = 0
        renderer.scene.flags[mj.mjtRndFlag.mjRND_REFLECTION] = 0
        rgb = renderer.render().copy()
        renderer.enable_segmentation_rendering()
        marks = renderer.render()
        geom = np.where(marks[..., 1] == int(mj.mjtObj.mjOBJ_GEOM), marks[..., 0], -1)
        renderer.disable_segmentation_rendering()
        renderer.enable_depth_rendering()
        depth = renderer.render().copy()
        renderer.disable_depth_rendering()
        # Where no geom is, MuJoCo gives the far plane: that is no measurement.
        hit = (geom >= 0) & (depth < FAR_M * 0.99)
        instances = np.where(hit, self._instance_of_geom[geom], 0).astype(np.int32)
        return rgb, np.where(hit, depth, 0).astype(np.float32), instances

    def moved_things(self) -> None:
        if self._model is None:
            return
        for name in self._built:
            mocap = self._body[name]
            held = name == self.held
            self._data.mocap_pos[mocap] = _AWAY if held else self.where(name)
            half = 0.0 if held else self.yaw_of(name) / 2
            self._data.mocap_quat[mocap] = (math.cos(half), 0, 0, math.sin(half))

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _context(self) -> Any:
        if self._renderer is None:
            self._thread = threading.get_ident()
            try:
                self._renderer = self._mujoco.Renderer(self._model, self._camera.height, self._camera.width)
            except Exception as error:  # each GL back-end raises types of its own
                raise SourceError(f"no OpenGL context can be made: {error}", hint=INSTALL) from error
        if self._thread != threading.get_ident():
            raise SourceError("a picture is drawn in another thread than the first", hint="use one thread for one env")
        return self._renderer

    def _xml(self) -> str:
        geoms = [_geom(solid) for solid in self.home.fixed_solids]
        bodies = []
        for name in self._built:
            inner = "".join(_geom(solid) for solid in self.local_solids(name))
            bodies.append(f'<body name={quoteattr(name)} mocap="true">{inner}</body>')
        size = f'offwidth="{self._camera.width}" offheight="{self._camera.height}"'
        fovy = math.degrees(self._camera.vfov_rad)
        return (
            '<mujoco><compiler autolimits="true"/><option gravity="0 0 0"/><size nuser_geom="1"/>'
            # znear and zfar are in units of the extent, which is therefore fixed to 1.
            f'<statistic extent="1"/><visual><global {size}/><quality shadowsize="0" offsamples="0"/>'
            f'<map znear="0.02" zfar="{FAR_M}"/><headlight ambient="0.45 0.45 0.45" diffuse="0.15 0.15 0.15" '
            'specular="0 0 0"/></visual><worldbody>'
            '<light directional="true" pos="0 0 5" dir="-0.35 -0.25 -0.9" diffuse="0.4 0.4 0.4" specular="0 0 0"/>'
            f"{''.join(geoms)}{''.join(bodies)}"
            f'<body name="camera" mocap="true"><camera name="head" fovy="{fovy!r}"/></body></worldbody></mujoco>'
        )


def _geom(solid: Solid) -> str:
    x, y, z = solid.position
    size = {"box": solid.size, "cylinder": (solid.size[0], solid.size[2]), "sphere": (solid.size[0],)}[solid.shape]
    r, g, b = solid.colour
    half = solid.yaw / 2
    return (
        f'<geom type="{solid.shape}" size="{" ".join(map(repr, size))}" pos="{x!r} {y!r} {z!r}" '
        f'quat="{math.cos(half)!r} 0 0 {math.sin(half)!r}" rgba="{r:.4f} {g:.4f} {b:.4f} 1" user="{solid.instance}" '
        'contype="0" conaffinity="0"/>'
    )


def open_mujoco(seed: int, *, rooms: int | None = None, camera: CameraSpec | None = None) -> MujocoEnv:
    """The home of a seed. Raises InputError, ModelUnavailable, SourceError."""
    return MujocoEnv(make_home(seed, rooms=rooms), camera=camera)


def load_mujoco() -> Any:
    """MuJoCo, told to draw without a screen unless ``MUJOCO_GL`` says otherwise. It reads that at its import."""
    if "MUJOCO_GL" not in os.environ and not os.environ.get("DISPLAY"):
        os.environ["MUJOCO_GL"] = "egl"
    try:
        import mujoco
    except ImportError as error:
        raise ModelUnavailable(f"MuJoCo can't be loaded: {error}", hint=INSTALL) from error
    return mujoco
