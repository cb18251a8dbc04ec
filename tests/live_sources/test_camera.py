"""Cameras of this machine, by a device that the test drives: unplugged, frozen, broken pictures."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from perception.sources.camera import Camera
from streammem.config import LiveConfig
from streammem.errors import SourceError, SourceNotFound

RED_BGR = (0, 0, 255)


class Device:
    """A camera of 50 pictures a second that fails as told."""

    def __init__(self, *, pictures: int | None = None, still: bool = False, damaged: bool = False) -> None:
        self.left, self.still, self.damaged = pictures, still, damaged
        self.released = False
        self.count = 0

    def isOpened(self) -> bool:
        return not self.released

    def grab(self) -> bool:
        time.sleep(0.02)
        self.count += 1
        return self.left is None or self.count <= self.left

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        if self.damaged and self.count % 2:
            return False, None
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:] = RED_BGR
        if not self.still:
            picture[0, 0] = self.count % 256
        return True, picture

    def get(self, propId: int) -> float:
        return {3: 64.0, 4: 48.0, 5: 50.0}.get(propId, 0.0)

    def release(self) -> None:
        self.released = True


QUICK = LiveConfig(stall_seconds=5.0, frozen_seconds=0.5, reconnect_seconds=10.0, backoff_seconds=0.05)


def test_pictures_are_rgb_and_carry_the_wall_clock() -> None:
    devices = [Device()]
    camera = Camera(0, fps=20, config=QUICK, open_device=lambda number: devices[0])
    assert (camera.info.width, camera.info.height, camera.info.fps) == (64, 48, 50.0)
    assert camera.info.live and camera.info.clock == "wall" and camera.state == ""
    before = time.time_ns()
    frames = list(itertools.islice(camera.frames(), 5))
    camera.close()
    assert frames[0].image[10, 10].tolist() == [255, 0, 0]
    assert before <= frames[0].capture_ns <= frames[-1].capture_ns <= time.time_ns()
    assert devices[0].released


def test_an_unplugged_camera_is_opened_again() -> None:
    devices = [Device(pictures=20), Device()]
    opened = iter(devices)
    camera = Camera(0, fps=50, config=QUICK, open_device=lambda number: next(opened))
    frames = list(itertools.islice(camera.frames(), 30))
    camera.close()
    assert len(frames) == 30 and camera.health.reconnects == 1 and devices[0].released
    assert any("camera 0 gives no more pictures" in note for note in camera.health.notes)


def test_a_camera_that_stays_away_ends_with_an_error() -> None:
    devices = iter([Device(pictures=5)])

    def open_device(number: int) -> Device:
        device = next(devices, None)
        if device is None:
            raise SourceNotFound("there is no camera 0")
        return device

    camera = Camera(0, fps=50, config=LiveConfig(reconnect_seconds=0.5), open_device=open_device)
    with pytest.raises(SourceError, match="camera 0 is gone: there is no camera 0"):
        list(camera.frames())


def test_fault_16_a_frozen_camera_is_told() -> None:
    camera = Camera(0, fps=50, config=QUICK, open_device=lambda number: Device(still=True))
    states = set()
    for _ in itertools.islice(camera.frames(), 60):
        states.add(camera.state)
    camera.close()
    assert states == {"live", "frozen"} and camera.health.frozen_frames >= 50


def test_damaged_pictures_are_counted() -> None:
    camera = Camera(0, fps=50, config=QUICK, open_device=lambda number: Device(damaged=True))
    assert len(list(itertools.islice(camera.frames(), 10))) == 10
    camera.close()
    assert camera.health.bad_packets >= 8


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(SourceNotFound, match=r"there is no camera 99.*/dev/video99"):
        Camera(99)
