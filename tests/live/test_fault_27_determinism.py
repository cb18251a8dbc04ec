"""Fault 27: a recording through the service at 1x, 10x and full speed, with two restarts, is the memory of a run in the
process: the same digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from live_samples import FAST, fake_space
from live_serve import Running

import streammem.memory
from perception.encoders.fake import HistogramSuite
from perception.pipeline import watch
from perception.publisher import Publisher
from perception.sources import open_source
from streammem.config import Config, MemoryConfig, PerceptionConfig

CONFIG = Config(perception=PerceptionConfig(fps=4, space="histogram"), memory=MemoryConfig(seal_bytes=32768))
SCENE = "synthetic:mixed"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """Digest and number of observations of a run in the process."""
    place = tmp_path_factory.mktemp("process") / "memory"
    with streammem.memory.open(place, config=CONFIG, spaces=fake_space) as memory:
        source = open_source(SCENE, CONFIG)
        watch(source, memory, HistogramSuite(), CONFIG)
        source.close()
        return memory.digest(), memory.observation_count


class Paced:
    """A source that gives its frames ``speed`` times as fast as they were taken, for a sleep that is scaled down 50
    times: what matters is that the packets come in other groups."""

    def __init__(self, inner: object, speed: float, pause: Callable[[int], None] = lambda number: None) -> None:
        self._inner, self._speed, self._pause = inner, speed, pause

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def frames(self, start_ns: int = 0) -> Iterator[object]:
        import time

        for number, frame in enumerate(self._inner.frames(start_ns)):  # type: ignore[attr-defined]
            if self._speed:
                time.sleep(0.25 / self._speed / 50)
            self._pause(number)
            yield frame


@pytest.mark.parametrize("speed", [1.0, 10.0, 0.0], ids=["1x", "10x", "max"])
def test_fault_27_any_speed_gives_the_same_memory(
    serve: Callable[..., Running], expected: tuple[str, int], speed: float
) -> None:
    running = serve(config=CONFIG)
    source = Paced(open_source(SCENE, CONFIG), speed)
    with Publisher(running.address, timing=FAST) as publisher:
        report = watch(source, publisher, HistogramSuite(), CONFIG)  # type: ignore[arg-type]
    assert report.complete
    assert (running.memory.digest(), running.memory.observation_count) == expected
    again = watch(open_source(SCENE, CONFIG), running.memory, HistogramSuite(), CONFIG)
    assert again.complete and again.frames == 0


def test_fault_27_two_restarts_of_the_service_in_the_middle(
    serve: Callable[..., Running], expected: tuple[str, int]
) -> None:
    now = serve(config=CONFIG)
    address, directory = now.address, now.memory.directory

    def restart(number: int) -> None:
        nonlocal now
        if number in (20, 45):
            now.service.__exit__(None, None, None)
            now.memory.close()
            now = serve(directory, config=CONFIG, bind=address)

    source = Paced(open_source(SCENE, CONFIG), 0.0, restart)
    with Publisher(address, timing=FAST) as publisher:
        assert watch(source, publisher, HistogramSuite(), CONFIG).complete  # type: ignore[arg-type]
    assert (now.memory.digest(), now.memory.observation_count) == expected


def test_fault_27_a_producer_that_is_stopped_goes_on(serve: Callable[..., Running], expected: tuple[str, int]) -> None:
    running = serve(config=CONFIG)
    for stop_at in (15, 30, None):
        seen = 0

        def stopped(stop_at: int | None = stop_at) -> bool:
            nonlocal seen
            seen += 1
            return stop_at is not None and seen > stop_at

        with Publisher(running.address, timing=FAST) as publisher:
            report = watch(open_source(SCENE, CONFIG), publisher, HistogramSuite(), CONFIG, stop=stopped)
        assert report.interrupted == (stop_at is not None)
    assert (running.memory.digest(), running.memory.observation_count) == expected


def test_the_memory_directory_is_the_same_kind_of_thing(serve: Callable[..., Running], tmp_path: Path) -> None:
    """What a service wrote opens in the process."""
    running = serve(tmp_path / "m", config=CONFIG)
    with Publisher(running.address, timing=FAST) as publisher:
        watch(open_source(SCENE, CONFIG), publisher, HistogramSuite(), CONFIG)
    digest = running.memory.digest()
    with streammem.memory.open(tmp_path / "m", mode="read", config=CONFIG, spaces=fake_space) as reader:
        assert reader.digest() == digest
