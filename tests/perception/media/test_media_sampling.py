"""The rule of the grid against a brute force, and the keyframe chooser's state."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.sampling import FixedRate, KeyframeSelector, gray16
from streammem.errors import ConfigError

NS = 1_000_000_000
RATES = st.sampled_from([0.1, 0.5, 1.0, 2.0, 7.5, 10.0, 24.0, 29.97, 30.0, 60.0, 240.0])


@settings(deadline=None, max_examples=60)
@given(RATES, st.lists(st.integers(0, 20 * NS), min_size=1, max_size=60, unique=True))
def test_the_first_frame_at_or_after_each_grid_point(fps: float, times: list[int]) -> None:
    rate = FixedRate(fps)
    times = sorted(times)
    chosen, last = [], -1
    for at in times:
        index = rate.index(at)
        if index > last:
            chosen.append(at)
            last = index
    exact = Fraction(fps).limit_denominator(100_000)
    points = {
        min((at for at in times if at + rate.slack_ns >= Fraction(n * NS) / exact), default=None)
        for n in range(int((times[-1] + rate.slack_ns) * exact / NS) + 1)
    }
    assert chosen == sorted(point for point in points if point is not None)


@settings(deadline=None, max_examples=60)
@given(RATES, st.integers(0, 10**6))
def test_rounded_time_stamps_keep_their_grid_point(fps: float, number: int) -> None:
    """A frame that belongs on a grid point stays there when its container rounds to milliseconds."""
    exact = Fraction(number * NS) / Fraction(fps).limit_denominator(100_000)
    rounded = round(exact / 1_000_000) * 1_000_000
    assert FixedRate(fps).index(rounded) == number
    assert FixedRate(fps).index(round(exact)) == number


@pytest.mark.parametrize("fps", [0, -1, 1001, float("nan")])
def test_impossible_rates(fps: float) -> None:
    with pytest.raises(ConfigError, match="frames a second can't be sampled"):
        FixedRate(fps)


def _walk(selector: KeyframeSelector, seed: int, lo: int, hi: int) -> list[tuple[bool, float, float, str]]:
    made = []
    for number in range(hi):
        draw = np.random.default_rng(seed * 1000 + number // 7)
        image = draw.integers(0, 255, (32, 48, 3), dtype=np.uint8)
        vector = draw.random(64).astype(np.float32) + np.float32(0.01 * number % 1)
        if number >= lo:
            choice = selector.decide(image, vector, number * NS)
            made.append((choice.key, choice.novelty, choice.change, choice.reason))
    return made


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 50), st.integers(0, 60))
def test_a_chooser_that_is_put_back_decides_the_same(seed: int, cut: int) -> None:
    whole = _walk(KeyframeSelector(), seed, 0, 60)
    first = KeyframeSelector()
    assert _walk(first, seed, 0, cut) == whole[:cut]
    second = KeyframeSelector()
    second.load(first.state())
    assert _walk(second, seed, cut, 60) == whole[cut:]
    assert second.state() == _state_after(seed)


def _state_after(seed: int) -> bytes:
    selector = KeyframeSelector()
    _walk(selector, seed, 0, 60)
    return selector.state()


def test_reasons() -> None:
    selector = KeyframeSelector(distance=0.3, max_gap_s=5, cut=40, leaders=2)
    dark, light = np.zeros((20, 20, 3), np.uint8), np.full((20, 20, 3), 200, np.uint8)
    a, b, c = np.eye(3, dtype=np.float32)
    said = [
        selector.decide(image, vector, at * NS).reason
        for image, vector, at in [
            (dark, a, 0),
            (dark, a, 1),
            (dark, b, 2),
            (light, b, 3),
            (light, b, 8),
            (light, c, 9),
            (light, a, 10),
        ]
    ]
    # The first vector is forgotten by then: only the last two leaders count, so it is new again.
    assert said == ["first", "", "new", "cut", "gap", "new", "new"]


def test_every_frame_is_a_keyframe_when_asked() -> None:
    selector = KeyframeSelector(every_frame=True)
    assert all(choice[0] for choice in _walk(selector, 1, 0, 30))


@pytest.mark.parametrize("state", [b"", b"junk", b"\x94\x01\x00\xc4\x03abc\x90"])
def test_a_broken_state_is_said(state: bytes) -> None:
    with pytest.raises(ConfigError, match="the keyframe state can't be read"):
        KeyframeSelector().load(state)


def test_gray16_of_plain_colours() -> None:
    assert (gray16(np.full((50, 70, 3), 77, np.uint8)) == 77).all()
    red = np.zeros((40, 40, 3), np.uint8)
    red[..., 0] = 255
    assert (gray16(red) == 76).all()
