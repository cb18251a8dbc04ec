"""A recording at its own pace: the same frames, later."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from perception.sources import open_source
from perception.sources.paced import Paced
from streammem.config import PerceptionConfig
from streammem.errors import ConfigError

SCENE = "synthetic:shapes"


@pytest.fixture(scope="module")
def scene() -> str:
    from perception.sources.synthetic import SCENARIOS

    return f"synthetic:{sorted(SCENARIOS)[0]}"


def test_the_frames_are_the_same_at_every_speed(scene: str) -> None:
    config = PerceptionConfig(fps=2)
    plain = list(open_source(scene, config).frames())
    length_s = (plain[-1].media_ns - plain[0].media_ns) / 1e9
    speed = length_s / 0.5
    source = Paced(open_source(scene, config), speed)
    started = time.monotonic()
    paced = list(source.frames())
    took = time.monotonic() - started
    assert 0.45 <= took < 5
    assert [(f.index, f.media_ns, f.capture_ns) for f in paced] == [(f.index, f.media_ns, f.capture_ns) for f in plain]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(paced, plain, strict=True))


def test_a_slow_reader_loses_nothing_and_is_told_how_late_it_is(scene: str) -> None:
    source = Paced(open_source(scene, PerceptionConfig(fps=2)), 1000)
    count = 0
    for _ in source.frames():
        time.sleep(0.01)
        count += 1
    assert count == len(list(open_source(scene, PerceptionConfig(fps=2)).frames())) and source.behind_s > 0


def test_it_goes_on_where_it_was_stopped(scene: str) -> None:
    plain = list(open_source(scene, PerceptionConfig(fps=2)).frames())
    source = Paced(open_source(scene, PerceptionConfig(fps=2)), 100)
    rest = list(source.frames(plain[3].media_ns))
    assert [f.index for f in rest] == [f.index for f in plain[3:]]


def test_close_ends_the_waiting(scene: str) -> None:
    source = Paced(open_source(scene, PerceptionConfig(fps=1)), 0.001)
    threading.Timer(0.3, source.close).start()
    started = time.monotonic()
    assert len(list(source.frames())) == 1 and time.monotonic() - started < 3


def test_speeds_that_make_no_sense(scene: str) -> None:
    for speed in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="can't be played"):
            Paced(open_source(scene, PerceptionConfig()), speed)
