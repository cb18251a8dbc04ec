"""What keeps a live source alive, with scripted connections in real threads."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterator

import numpy as np
import pytest

from perception.frames import Frame, Health
from perception.sampling import NS, FixedRate
from perception.sources.supervise import Backoff, LiveFrames, Picture
from streammem.config import LiveConfig
from streammem.errors import SourceError

numbers = itertools.count()
Script = Callable[["Scripted"], Generator[Picture, None, None]]


def moving() -> np.ndarray:
    image = np.zeros((4, 4, 3), np.uint8)
    image[0, 0] = np.frombuffer(next(numbers).to_bytes(3, "little"), np.uint8)
    return image


def frozen() -> np.ndarray:
    return np.full((4, 4, 3), 7, np.uint8)


class Scripted:
    """A connection that does what its script says."""

    def __init__(self, script: Script) -> None:
        self._script, self.ended, self.closed = script, threading.Event(), False

    def pictures(self) -> Generator[Picture, None, None]:
        try:
            yield from self._script(self)
        finally:
            self.closed = True

    def close(self) -> None:
        self.ended.set()


def gives(
    count: int | None, *, make: Callable[[], np.ndarray] = moving, every_s: float = 0.01, then: str = ""
) -> Script:
    def script(me: Scripted) -> Generator[Picture, None, None]:
        for _ in range(count) if count is not None else itertools.count():
            if me.ended.wait(every_s):
                return
            yield None, make
        if then:
            raise SourceError(then)

    return script


def hangs(me: Scripted) -> Generator[Picture, None, None]:
    # In a native library: close() isn't noticed.
    time.sleep(3.0)
    return
    yield


def refuses(me: Scripted) -> Generator[Picture, None, None]:
    raise SourceError("connection refused")
    yield


class Rig:
    def __init__(self, *scripts: Script, fps: float = 1000.0, **config: float) -> None:
        """The last script repeats."""
        defaults = {"stall_seconds": 0.3, "frozen_seconds": 0.3, "reconnect_seconds": 5.0, "backoff_seconds": 0.02}
        self.made: list[Scripted] = []
        self.health = Health()
        self._scripts = scripts

        def connect() -> Scripted:
            made = Scripted(scripts[min(len(self.made), len(scripts) - 1)])
            self.made.append(made)
            return made

        self.frames = LiveFrames(
            connect,
            "camera 1",
            sampling=FixedRate(fps),
            health=self.health,
            config=LiveConfig.model_validate({**defaults, **config}),
        )

    def take(self, count: int) -> list[Frame]:
        return list(itertools.islice(self.frames, count))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    end = time.monotonic() + 5
    while time.monotonic() < end and any(thread.name == "live-reader" for thread in threading.enumerate()):
        time.sleep(0.02)
    assert [thread.name for thread in threading.enumerate() if thread.name == "live-reader"] == []


def test_it_connects_again_and_counts_it() -> None:
    rig = Rig(gives(5, then="broken pipe"), refuses, gives(5), gives(None))
    frames = rig.take(14)
    assert len(frames) == 14 and rig.health.reconnects == 3
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})
    assert [frame.capture_ns - frame.media_ns for frame in frames] == [frames[0].capture_ns] * 14
    assert rig.health.notes == ["broken pipe", "connection refused", "the stream ended"]
    assert all(connection.closed or connection.ended.is_set() for connection in rig.made)


def test_it_gives_up_with_a_typed_error_after_the_time_that_was_set() -> None:
    rig = Rig(gives(3), refuses, reconnect_seconds=0.5)
    started = time.monotonic()
    with pytest.raises(SourceError, match=r"camera 1 is gone: connection refused \(\d+ tries in 0 s\)"):
        rig.take(100)
    assert 0.4 < time.monotonic() - started < 3
    # The waits double: about 0.02 + 0.04 + 0.08 ... within 0.5 s, not a busy loop.
    assert 3 <= len(rig.made) <= 12


def test_a_connection_that_hangs_is_left_behind() -> None:
    rig = Rig(gives(3), hangs, gives(None))
    assert len(rig.take(10)) == 10
    assert rig.health.stalls == 1 and "no picture for 0 s" in " ".join(rig.health.notes)


def test_a_source_that_always_hangs_ends_with_an_error_not_with_ever_more_threads() -> None:
    rig = Rig(hangs, stall_seconds=0.1)
    with pytest.raises(SourceError, match="hangs: 4 connections in a row"):
        rig.take(1)
    assert len(rig.made) == 5


def test_fault_16_a_frozen_image_is_told_and_its_end_too() -> None:
    rig = Rig(gives(60, make=frozen), gives(None))
    states = []
    for frame in itertools.islice(rig.frames, 90):
        if not states or states[-1] != rig.frames.state:
            states.append(rig.frames.state)
        assert frame.image.shape == (4, 4, 3)
    assert states == ["live", "frozen", "live"]
    assert rig.health.frozen_frames >= 55 and "frozen after live" in rig.health.notes


def test_fault_16_a_starved_camera_is_told() -> None:
    rig = Rig(gives(20), lambda me: gives(None, every_s=1.0)(me), stall_seconds=2.0)
    states = set()
    watcher_ends = threading.Event()

    def watch() -> None:
        while not watcher_ends.wait(0.05):
            states.add(rig.frames.state)

    # starved: after the smaller of 5 s and the stall time.
    rig.frames._monitor.limits = rig.frames._monitor.limits.__class__(starved_s=0.3, starved_intervals=2)
    watcher = threading.Thread(target=watch)
    watcher.start()
    rig.take(21)
    watcher_ends.set()
    watcher.join()
    assert {"live", "starved"} <= states


def test_a_slow_reader_gets_the_newest_and_the_rest_is_counted() -> None:
    rig = Rig(gives(None, every_s=0.002), queue=4)
    frames = []
    for frame in itertools.islice(rig.frames, 8):
        frames.append(frame)
        time.sleep(0.1)
    dropped = rig.health.dropped["encoders_busy"]
    assert dropped > 50
    # What is read is at most the queue's length old, not half a second.
    assert time.time_ns() - frames[-1].capture_ns < 0.4 * NS


@pytest.mark.parametrize(
    ("case", "scripts"),
    [("while it reads", (gives(None),)), ("while it waits between tries", (gives(2), refuses))],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_close_stops_at_once(case: str, scripts: tuple[Script, ...]) -> None:
    rig = Rig(*scripts, backoff_seconds=30.0, backoff_limit_seconds=30.0, reconnect_seconds=600.0, stall_seconds=60.0)
    got: list[Frame] = []
    reader = threading.Thread(target=lambda: got.extend(rig.frames))
    reader.start()
    while len(got) < 2 and not rig.health.notes:
        time.sleep(0.01)
    time.sleep(0.1)
    started = time.monotonic()
    rig.frames.close()
    reader.join(5)
    assert not reader.is_alive() and time.monotonic() - started < 1.5


def test_back_off_doubles_with_jitter_is_capped_and_ends() -> None:
    now = [0]
    backoff = Backoff(0.5, 8.0, 100.0, monotonic=lambda: now[0], chance=lambda: 1.0)
    waits = []
    while (wait := backoff.wait_s()) is not None:
        waits.append(wait)
        now[0] += round(wait * NS)
    assert waits[:6] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0] and sum(waits) == pytest.approx(100.0)
    assert Backoff(1.0, 8.0, 10.0, chance=lambda: 0.0).wait_s() == 0.5
    assert Backoff(1.0, 8.0, 0.0).wait_s() is None


def test_a_camera_that_breaks_after_each_picture_is_not_tried_in_a_tight_loop() -> None:
    backoff = Backoff(1.0, 8.0, 100.0, monotonic=lambda: 0, chance=lambda: 1.0)
    waits = []
    for _ in range(4):
        backoff.worked(steady=False)
        waits.append(backoff.wait_s())
    assert waits == [1.0, 2.0, 4.0, 8.0]
    backoff.worked(steady=True)
    assert backoff.wait_s() == 1.0
