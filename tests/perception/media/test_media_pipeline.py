"""Watching: in order, the same every time, resumable at any instant, and honest about errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from mediaclips import steady, write_clip
from mediasink import DictSink

from perception import pipeline
from perception.encoders.base import EncodedFrame, Glance, Suite
from perception.encoders.fake import HistogramSuite
from perception.frames import Frame, Source
from perception.pipeline import Progress, WatchReport, read_checkpoint, watch
from perception.sampling import FixedRate
from perception.sources import open_source
from perception.sources.synthetic import SyntheticSource
from streammem.config import PerceptionConfig
from streammem.errors import SourceError, StorageFull, StreammemError

NS = 1_000_000_000
SCENE = "synthetic:mixed?seconds=60&seed=5&rate=10&scene=3&size=160x120"
FAST = PerceptionConfig(fps=5)


def run(
    text: str = SCENE,
    sink: DictSink | None = None,
    config: PerceptionConfig = FAST,
    suite: Suite | None = None,
    **options,
) -> tuple[WatchReport, DictSink]:
    sink = sink or DictSink()
    return watch(open_source(text, config), sink, suite or HistogramSuite(), config, **options), sink


def test_every_sampled_frame_becomes_an_observation() -> None:
    report, sink = run()
    kept = list(sink.kept.values())
    assert report.complete and not report.interrupted
    assert report.frames == len(kept) == 300
    assert [each.seq for each in kept] == list(range(300))
    assert [each.capture_ns for each in kept] == [n * NS // 5 for n in range(300)]
    assert {each.session for each in kept} == {report.session} and {each.stream for each in kept} == {report.stream}
    keys = [each for each in kept if each.stats["key"]]
    assert len(keys) == report.keyframes and 10 <= len(keys) < 100
    for each in kept:
        assert (each.thumbnail is not None) == bool(each.stats["key"])
        assert each.space == "histogram@1" and each.embedding is not None and each.labels
    assert sink.infos[0].stream == report.stream and sink.infos[0].clock == "media"
    assert set(report.seconds) >= {"decode", "glance", "encode", "ocr", "write"}
    assert abs(sum(report.shares.values()) - 1) < 1e-9 and report.rate > 1


def test_every_new_look_gets_a_keyframe() -> None:
    """Cards of the same colour look the same to the fake encoder; each colour is seen in full where it first comes."""
    text = "synthetic:cards?seconds=30&seed=11&scene=3"
    source = open_source(text, FAST)
    assert isinstance(source, SyntheticSource)
    _, sink = run(text)
    keys = [each.capture_ns for each in sink.kept.values() if each.stats["key"]]
    first: dict[str, int] = {}
    for truth in source.truth:
        first.setdefault(truth.words[0], truth.t_start_ns)
    assert len(first) >= 4 and set(first.values()) <= set(keys)


def test_thumbnails_are_rgb_jpegs_of_the_asked_size() -> None:
    _, sink = run(config=PerceptionConfig(fps=1, thumbnail_px=80))
    first = next(each for each in sink.kept.values() if each.thumbnail)
    image = cv2.imdecode(np.frombuffer(first.thumbnail or b"", np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image.shape == (60, 80, 3)
    original = next(open_source(SCENE).frames()).image
    small = cv2.resize(original, (80, 60), interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - small).mean() < 6


def test_no_thumbnails_when_none_are_asked_for() -> None:
    _, sink = run(config=PerceptionConfig(fps=1, thumbnail_px=0))
    assert all(each.thumbnail is None for each in sink.kept.values())


def test_fixed_sampling_keeps_every_frame_in_full() -> None:
    report, _ = run(config=PerceptionConfig(fps=2, sampling="fixed"))
    assert report.keyframes == report.frames == 120


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_nothing(threads: int) -> None:
    class Uneven(HistogramSuite):
        def describe(self, image: np.ndarray, glance: Glance) -> EncodedFrame:
            time.sleep(float(image[::7, ::7].sum() % 5) / 500)
            return super().describe(image, glance)

    expected = run()[1].digest()
    assert run(config=FAST.model_copy(update={"threads": threads}), suite=Uneven())[1].digest() == expected


@pytest.mark.parametrize("text", [SCENE, f"{SCENE}&sound=1"], ids=["silent", "with sound"])
def test_stopping_anywhere_and_going_on_gives_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BATCH", 7)
    suite = HistogramSuite(speech=True)
    whole = run(text, suite=suite)[1]
    sink, rounds = DictSink(), 0
    while True:
        limit = 20 + 13 * rounds
        report, _ = run(text, sink, suite=suite, stop=lambda limit=limit: sink.written >= limit)
        rounds += 1
        if report.complete:
            break
        assert report.interrupted
    assert rounds >= 4
    assert sink.digest() == whole.digest() and list(sink.kept) == list(whole.kept)
    assert sink.states == whole.states


def test_what_is_done_is_not_done_again() -> None:
    report, sink = run()
    before = sink.written
    again, _ = run(sink=sink)
    assert again.complete and again.frames == 0 and sink.written == before
    found = read_checkpoint(sink, report.stream, report.session)
    assert found is not None and found.done and found.frames == 300 and found.keyframes == report.keyframes


def test_another_configuration_is_another_session() -> None:
    report, sink = run()
    other, _ = run(sink=sink, config=PerceptionConfig(fps=2))
    assert other.session != report.session and other.frames == 120 and len(sink.kept) == 420
    assert run(config=FAST.model_copy(update={"threads": 9}))[0].session == report.session


def test_speech_lies_between_the_frames_in_order_of_time() -> None:
    report, sink = run(f"{SCENE}&sound=1", suite=HistogramSuite(speech=True))
    spoken = [each for each in sink.kept.values() if each.speech]
    assert report.spoken == len(spoken) == 20
    assert {each.session for each in spoken} == {f"{report.session}/speech"}
    assert [each.seq for each in spoken] == list(range(20))
    assert [each.capture_ns for each in spoken] == [3 * n * NS for n in range(20)]
    times = [each.capture_ns for each in sink.kept.values()]
    assert times == sorted(times)
    assert report.seconds["speech"] >= 0


def test_sound_is_left_alone_where_speech_is_off() -> None:
    report, _ = run(f"{SCENE}&sound=1", suite=HistogramSuite(speech=False))
    assert report.spoken == 0 and report.frames == 300


def test_an_encoder_that_fails_keeps_what_came_before() -> None:
    class Breaks(HistogramSuite):
        calls = 0

        def describe(self, image: np.ndarray, glance: Glance) -> EncodedFrame:
            type(self).calls += 1
            if self.calls == 6:
                raise RuntimeError("the model fell over")
            return super().describe(image, glance)

    sink = DictSink()
    with pytest.raises(StreammemError) as error:
        run(sink=sink, suite=Breaks(), config=FAST.model_copy(update={"threads": 1}))
    assert "of 'synthetic:mixed?" in str(error.value) and "RuntimeError: the model fell over" in str(error.value)
    assert error.value.hint.startswith("what came before is kept")
    kept = list(sink.kept.values())
    assert sum(bool(each.stats["key"]) for each in kept) == 5
    assert [each.seq for each in kept] == list(range(len(kept)))
    assert run(sink=sink)[1].digest() == run()[1].digest()


class _Faulty:
    """A source that ends in an error after some frames."""

    def __init__(self, frames: int, error: Exception) -> None:
        self._real = open_source(SCENE, FAST)
        self._frames, self._error = frames, error
        self.info, self.health = self._real.info, self._real.health

    def frames(self, start_ns: int = 0, sampling: FixedRate | None = None) -> Iterator[Frame]:
        for frame in self._real.frames(start_ns, sampling):
            if frame.index >= self._frames:
                raise self._error
            yield frame

    def audio(self, start_ns: int = 0) -> None:
        return None

    def look_again(self, t_start_ns: int, t_end_ns: int, fps: float) -> list[Frame]:
        return []

    def close(self) -> None:
        pass


@pytest.mark.parametrize("error", [SourceError("the camera is gone"), OSError("disk on fire")], ids=["typed", "raw"])
def test_a_source_that_fails_keeps_what_came_before(error: Exception) -> None:
    source: Source = _Faulty(101, error)
    sink = DictSink()
    with pytest.raises(SourceError) as raised:
        watch(source, sink, HistogramSuite(), FAST)
    if isinstance(error, OSError):
        assert "failed 20.0 s in: OSError: disk on fire" in str(raised.value)
    assert len(sink.kept) == 101
    assert run(sink=sink)[1].digest() == run()[1].digest()


def test_a_full_disk_loses_nothing_that_was_acknowledged() -> None:
    sink = DictSink(fail_after=100)
    with pytest.raises(StorageFull):
        run(sink=sink)
    assert len(sink.kept) == 96
    sink.fail_after = None
    assert run(sink=sink)[1].digest() == run()[1].digest()


def test_memory_is_bounded_by_the_queues() -> None:
    """A slow encoder holds the decoder back: frames in flight stay few, however long the source is."""
    decoded, described, most = 0, 0, 0

    class Slow(HistogramSuite):
        def describe(self, image: np.ndarray, glance: Glance) -> EncodedFrame:
            nonlocal described, most
            time.sleep(0.005)
            described += 1
            most = max(most, decoded - described)
            return super().describe(image, glance)

    source = open_source(SCENE, FAST)
    real = source.frames

    def counted(start_ns: int = 0, sampling: FixedRate | None = None) -> Iterator[Frame]:
        nonlocal decoded
        for frame in real(start_ns, sampling):
            decoded += 1
            yield frame

    source.frames = counted  # type: ignore[method-assign]
    config = FAST.model_copy(update={"sampling": "fixed"})
    watch(source, DictSink(), Slow(), config)
    assert decoded == described == 300
    assert most <= pipeline.QUEUE + 2 * config.threads + 2 + 2


def test_progress_says_where_and_how_long_it_takes() -> None:
    class Slow(HistogramSuite):
        def glance(self, image: np.ndarray) -> Glance:
            time.sleep(0.004)
            return super().glance(image)

    seen: list[Progress] = []
    run(suite=Slow(), progress=seen.append)
    assert len(seen) >= 3
    assert [each.media_ns for each in seen] == sorted(each.media_ns for each in seen)
    assert all(each.duration_ns == 60 * NS and each.rate > 0 and each.left_s is not None for each in seen)


def test_an_event_stops_it() -> None:
    event = threading.Event()
    event.set()
    report, sink = run(stop=event)
    assert report.interrupted and not report.complete and len(sink.kept) < 10


PROGRAM = textwrap.dedent(
    """
    import sys, time
    import streammem.memory
    from perception import pipeline
    from perception.encoders.fake import HistogramSuite
    from perception.sources import open_source
    from streammem.config import PerceptionConfig

    pipeline.BATCH = 8
    class Slow(HistogramSuite):
        def describe(self, image, glance):
            time.sleep(float(sys.argv[3]))
            return super().describe(image, glance)

    config = PerceptionConfig(fps=5, sampling=sys.argv[4])
    with streammem.memory.open(sys.argv[1], mode="write") as memory:
        source = open_source(sys.argv[2], config)
        print("watching", flush=True)
        report = pipeline.watch(source, memory, Slow(speech=True), config)
        print("interrupted" if report.interrupted else "done", report.resumed_at_ns, flush=True)
        if report.complete:
            memory.flush()
            print("digest", memory.digest(), memory.observation_count, flush=True)
    """
)


def program(directory: Path, source: str, pause: float, sampling: str = "adaptive") -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(directory), source, str(pause), sampling]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    tones = [(n + 0.2, n + 0.6) for n in range(1, 39, 4)]
    options = {"preset": "veryfast", "x264-params": "bframes=3:open-gop=1:scenecut=0"}
    write_clip(path, steady(1000, 25), options=options, gop=30, sound=tones, seconds_of_sound=40.0)
    return str(path)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_in_the_same_memory(clip: str, tmp_path: Path) -> None:
    """SIGKILL after waits from a fixed list; the memory's digest is that of a run in one go."""
    one_go = program(tmp_path / "one", clip, 0.0)
    wanted = [line for line in one_go.communicate(timeout=120)[0].splitlines() if line.startswith("digest")]
    assert wanted
    for wait in (0.25, 0.4, 0.6, 0.3, 0.5):
        process = program(tmp_path / "many", clip, 0.03)
        assert process.stdout is not None and process.stdout.readline() == "watching\n"
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    process = program(tmp_path / "many", clip, 0.0)
    lines = process.communicate(timeout=120)[0].splitlines()
    resumed = [int(line.split()[1]) for line in lines if line.startswith("done")]
    assert resumed[0] > NS
    assert [line for line in lines if line.startswith("digest")] == wanted


def test_ctrl_c_is_a_clean_stop(clip: str, tmp_path: Path) -> None:
    process = program(tmp_path / "memory", clip, 0.3, "fixed")
    assert process.stdout is not None and process.stdout.readline() == "watching\n"
    time.sleep(0.6)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0].startswith("interrupted") and process.returncode == 0
