"""Real recordings: three decoders agree on times, skipping and resuming change no bit."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from perception.decoders import open_decoder
from perception.decoders.pyav import PyAVDecoder
from perception.sampling import FixedRate
from perception.sources import open_source

DATA = Path(__file__).parents[4] / "shared" / "data"
CLIPS = (
    sorted(DATA.glob("robot_clips/[1-4]*.mp4")) + sorted(DATA.glob("intel/*.mp4")) + sorted(DATA.glob("mot/*/*.mp4"))
)
FILM = DATA / "big_buck_bunny" / "bbb_first_300s_448x252.mp4"
NS = 1_000_000_000

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not CLIPS, reason=f"the shared recordings are not at {DATA}"),
]


def seen(path: Path, fps: float, start_ns: int = 0, decoder: str = "pyav") -> list[tuple[int, int, str]]:
    frames = open_decoder(decoder, str(path)).frames(FixedRate(fps), start_ns)
    return [(each.index, each.media_ns, hashlib.blake2b(each.image, digest_size=8).hexdigest()) for each in frames]


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.stem)
def test_skipping_and_resuming_change_nothing(path: Path) -> None:
    every = {at: image for _, at, image in seen(path, 1000.0)}
    found = seen(path, 1.0)
    assert all(every[at] == image for _, at, image in found)
    assert [index for index, _, _ in found] == list(range(len(found)))
    for position in {1, len(found) // 2, len(found) - 1}:
        assert seen(path, 1.0, found[position][1]) == found[position:]


@pytest.mark.parametrize("decoder", ["decord", "opencv"])
@pytest.mark.parametrize("path", CLIPS[::2], ids=lambda path: path.stem)
def test_decoders_agree_on_times(path: Path, decoder: str) -> None:
    mine = [(index, at) for index, at, _ in seen(path, 5.0)]
    theirs = [(index, at) for index, at, _ in seen(path, 5.0, decoder=decoder)]
    assert [index for index, _ in theirs] == [index for index, _ in mine]
    # decord's 32-bit floats are 2 microseconds off after 40 s.
    assert all(abs(a - b) <= 4000 for (_, a), (_, b) in zip(mine, theirs, strict=True))


def test_a_film_at_one_frame_a_second() -> None:
    """300 s, 24 frames a second, a key frame every 2 s: half of the packets are never decoded. 100x real time alone on
    one core is the goal (227x measured); a third of it is asserted, because machines are busy."""
    decoder = PyAVDecoder(str(FILM))
    started = time.process_time()
    count = sum(1 for _ in decoder.frames(FixedRate(1.0)))
    spent = time.process_time() - started
    assert count == 300 and decoder.health.skipped_packets > 3000
    assert 300 / spent > 33


def test_folders_of_pictures() -> None:
    source = open_source(str(DATA / "redkitchen"))
    frames = list(source.frames())
    assert len(frames) == 200 and frames[0].image.shape == (480, 640, 3)
    assert source.info.duration_ns == 200 * NS
