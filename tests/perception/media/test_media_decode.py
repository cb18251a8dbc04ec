"""Pictures and times of real files, made here with PyAV: every container, rate and order that a camera may write."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from mediaclips import expected, number_of, picture, steady, write_clip

from perception.decoders import open_decoder
from perception.decoders import packets as packets_module
from perception.decoders.pyav import PyAVDecoder
from perception.frames import Decoder
from perception.sampling import FixedRate

NS = 1_000_000_000
X264 = {"preset": "veryfast", "x264-params": "bframes=3:b-pyramid=normal:scenecut=0"}
OPEN_GOP = {"preset": "veryfast", "x264-params": "bframes=3:open-gop=1:scenecut=0"}
PLAIN = {"x264-params": "bframes=0:scenecut=0"}
X265 = {"preset": "ultrafast", "x265-params": "open-gop=1:bframes=3:log-level=none"}
VFR = [Fraction(n, 1000) for n in (0, 40, 500, 520, 999, 1700, 1740, 3100, 3140, 3180, 6000, 6001, 7000, 7040, 7999)]
NTSC = Fraction(30000, 1001)

CASES = {
    # name: (file name, times, what is given to write_clip)
    "mp4 h264 with B-frames": ("a.mp4", steady(100, 25), {"options": X264}),
    "mp4 h264 without B-frames": ("a.mp4", steady(100, 25), {"options": PLAIN}),
    "mp4 h264 open groups": ("a.mp4", steady(100, 25), {"options": OPEN_GOP}),
    "mp4 h265 open groups": ("a.mp4", steady(60, 25), {"codec": "libx265", "options": X265}),
    "mp4 mpeg4": ("a.mp4", steady(100, 25), {"codec": "mpeg4", "options": {"b": "2M"}}),
    "mkv h264": ("a.mkv", steady(100, 25), {"options": X264}),
    "mkv ffv1": ("a.mkv", steady(50, 25), {"codec": "ffv1"}),
    "webm vp9": (
        "a.webm",
        steady(40, 25),
        {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    ),
    "webm vp8": ("a.webm", steady(40, 25), {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    "avi mpeg4": ("a.avi", steady(100, 25), {"codec": "mpeg4", "options": {"b": "2M"}}),
    "avi mjpeg": ("a.avi", steady(50, 25), {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {"q": "2"}}),
    "mov h264": ("a.mov", steady(100, 25), {"options": X264}),
    "ts h264": ("a.ts", steady(100, 25), {"options": X264}),
    "ts mpeg2 with B-frames": ("a.ts", steady(100, 25), {"codec": "mpeg2video", "options": {"bf": "2", "b": "2M"}}),
    "mp4 29.97 frames a second": ("a.mp4", steady(300, NTSC), {"options": X264, "rate": NTSC}),
    "mkv 29.97 frames a second": ("a.mkv", steady(300, NTSC), {"options": X264, "rate": NTSC}),
    "mp4 variable rate": ("a.mp4", VFR, {"options": X264}),
    "mkv variable rate": ("a.mkv", VFR, {"options": PLAIN}),
    "webm variable rate": (
        "a.webm",
        VFR,
        {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    ),
    "one group for the whole file": ("a.mp4", steady(100, 25), {"options": X264, "gop": 1000}),
    "every frame a key": ("a.mp4", steady(50, 25), {"options": PLAIN, "gop": 1}),
    "starts an hour in": ("a.ts", steady(60, 25), {"options": X264, "shift": Fraction(3600)}),
    "starts a second in": ("a.mkv", steady(60, 25), {"options": X264, "shift": Fraction(1)}),
    "one frame": ("a.mp4", steady(1, 25), {"options": PLAIN}),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory):
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            file, times, options = CASES[name]
            made[name] = write_clip(tmp_path_factory.mktemp("clip") / file, times, **options)
        return made[name]

    return get


def seen(decoder: Decoder, fps: float, start_ns: int = 0) -> list[tuple[int, int, int, bytes]]:
    return [
        (frame.index, number_of(frame.image), frame.media_ns, frame.image.tobytes())
        for frame in decoder.frames(FixedRate(fps), start_ns)
    ]


@pytest.mark.parametrize("fps", [1.0, 2.5, 30.0])
@pytest.mark.parametrize("name", CASES)
def test_chosen_frames_and_times(name: str, fps: float, clips) -> None:
    times = CASES[name][1]
    found = seen(PyAVDecoder(str(clips(name))), fps)
    assert [(index, number) for index, number, _, _ in found] == expected(times, fps)
    for _, number, at, _ in found:
        # Matroska and WebM keep whole milliseconds.
        assert abs(at - float(times[number] - times[0]) * NS) <= 1_000_001, (number, at)


@pytest.mark.parametrize("fps", [1.0, 7.0])
@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_gives_the_same_pictures(name: str, fps: float, clips) -> None:
    path = str(clips(name))
    whole = seen(PyAVDecoder(path), fps)
    for position in {1, len(whole) // 3, len(whole) // 2, len(whole) - 1} & set(range(1, len(whole))):
        start = whole[position - 1][2] + 1
        assert seen(PyAVDecoder(path), fps, start) == whole[position:], (name, position)


@pytest.mark.parametrize("name", [name for name in CASES if "ffv1" not in name])
def test_skipping_gives_the_pictures_of_a_full_decode(name: str, clips) -> None:
    """Every frame is decoded at 1000 a second; what is chosen at 2 must be among them to the last bit."""
    path = str(clips(name))
    everything = {at: image for _, _, at, image in seen(PyAVDecoder(path), 1000.0)}
    assert len(everything) == len(CASES[name][1]) or name.endswith("variable rate")
    for _, _, at, image in seen(PyAVDecoder(path), 2.0):
        assert everything[at] == image


def test_sparse_sampling_decodes_less(clips) -> None:
    decoder = PyAVDecoder(str(clips("mp4 h264 with B-frames")))
    assert len(seen(decoder, 0.5)) == 2
    assert decoder.health.decoded_frames < 20 and decoder.health.skipped_packets > 70
    assert decoder.health.redecoded_groups == 0 and decoder.health.bad_packets == 0


@pytest.mark.parametrize("name", ["mp4 h264 with B-frames", "ts mpeg2 with B-frames", "one group for the whole file"])
def test_groups_too_long_to_buffer_are_decoded_as_they_come(name: str, clips, monkeypatch) -> None:
    path = str(clips(name))
    whole = seen(PyAVDecoder(path), 2.0)
    monkeypatch.setattr(packets_module, "MAX_GROUP_PACKETS", 5)
    cut = seen(PyAVDecoder(path), 2.0)
    assert [each[:3] for each in cut] == [each[:3] for each in whole]
    assert seen(PyAVDecoder(path), 2.0, cut[1][2] + 1) == cut[2:]


def test_time_goes_on_where_the_clock_is_reset(tmp_path: Path) -> None:
    """Two recordings joined byte by byte: the second starts at zero again."""
    first = write_clip(tmp_path / "1.ts", steady(50, 25), options=X264)
    second = write_clip(tmp_path / "2.ts", steady(50, 25), options=X264, first_number=50)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    decoder = PyAVDecoder(str(joined))
    found = seen(decoder, 5.0)
    times = [at for _, _, at, _ in found]
    assert decoder.health.pts_resets == 1
    assert times == sorted(set(times)) and len(found) >= 19
    assert [number for _, number, _, _ in found] == [number for _, number in expected(steady(100, 25), 5.0)]
    for position in (3, 9, 12, 15):
        assert seen(PyAVDecoder(str(joined)), 5.0, found[position][2]) == found[position:]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "avi"])
def test_starting_late_in_a_longer_file(suffix: str, tmp_path: Path) -> None:
    """Where the index is sound most of the file is never read; where there is none, never decoded."""
    codec, options = ("mpeg4", {}) if suffix == "avi" else ("libx264", OPEN_GOP)
    path = str(write_clip(tmp_path / f"a.{suffix}", steady(1000, 25), codec=codec, options=options, gop=25))
    whole = seen(PyAVDecoder(path), 2.0)
    assert len(whole) == 80
    for position in (11, 40, 41, 63, 78):
        decoder = PyAVDecoder(path)
        assert seen(decoder, 2.0, whole[position][2]) == whole[position:]
    assert decoder.health.decoded_frames < 150
    assert (decoder.health.packets < 200) == (suffix in ("mp4", "mov", "mkv"))


def test_an_index_that_does_not_rise_is_not_trusted(tmp_path: Path) -> None:
    """Two Matroska files joined byte by byte: the same times come twice."""
    first = write_clip(tmp_path / "1.mkv", steady(250, 25), options=X264)
    second = write_clip(tmp_path / "2.mkv", steady(250, 25), options=X264, first_number=250)
    joined = tmp_path / "joined.mkv"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    whole = seen(PyAVDecoder(str(joined)), 2.0)
    assert len(whole) >= 20 and [each[2] for each in whole] == sorted({each[2] for each in whole})
    for position in range(3, len(whole), 4):
        assert seen(PyAVDecoder(str(joined)), 2.0, whole[position][2]) == whole[position:], position


@pytest.mark.parametrize(("suffix", "codec"), [("ts", "libx264"), ("asf", "mpeg4")])
def test_negative_time_stamps(suffix: str, codec: str, tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / f"a.{suffix}",
        steady(75, 25),
        codec=codec,
        shift=Fraction(-1),
        container_options={"avoid_negative_ts": "disabled"},
    )
    with av.open(str(path)) as container:
        assert next(container.demux(video=0)).pts < 0
    found = seen(PyAVDecoder(str(path)), 1.0)
    assert [(index, number, at) for index, number, at, _ in found] == [(n, 25 * n, n * NS) for n in range(3)]
    assert seen(PyAVDecoder(str(path)), 1.0, NS) == found[1:]


def test_what_an_edit_list_cuts_off_is_not_seen(tmp_path: Path) -> None:
    """An mp4 whose first second lies before zero: players begin at frame 25, and so do we."""
    path = write_clip(
        tmp_path / "a.mp4",
        steady(75, 25),
        options=X264,
        shift=Fraction(-1),
        container_options={"avoid_negative_ts": "disabled"},
    )
    found = seen(PyAVDecoder(str(path)), 5.0)
    assert [(index, number, at) for index, number, at, _ in found] == [(n, 25 + 5 * n, n * NS // 5) for n in range(10)]
    for position in (1, 4, 8):
        assert seen(PyAVDecoder(str(path)), 5.0, found[position][2]) == found[position:]


def test_no_time_stamps_at_all(tmp_path: Path) -> None:
    """A bare H.264 stream has none: frames follow each other at the rate that the stream claims."""
    path = write_clip(tmp_path / "a.h264", steady(100, 25), options=X264, format="h264")
    decoder = PyAVDecoder(str(path))
    found = seen(decoder, 5.0)
    assert [number for _, number, _, _ in found] == sorted(number for _, number, _, _ in found)
    assert 18 <= len(found) <= 22 and decoder.health.missing_pts > 0
    assert seen(PyAVDecoder(str(path)), 5.0, found[7][2] + 1) == found[8:]


def test_gif(tmp_path: Path) -> None:
    images = [picture(n) for n in range(40)]
    path = write_clip(tmp_path / "a.gif", steady(40, 10), codec="gif", pix_fmt="rgb8", images=images, rate=10)
    found = seen(PyAVDecoder(str(path)), 1.0)
    assert [(index, number) for index, number, _, _ in found] == [(n, 10 * n) for n in range(4)]
    assert seen(PyAVDecoder(str(path)), 1.0, found[2][2]) == found[2:]


QUADRANTS = np.zeros((96, 160, 3), np.uint8)
QUADRANTS[:48, :80], QUADRANTS[:48, 80:] = (220, 30, 30), (30, 170, 60)
QUADRANTS[48:, :80], QUADRANTS[48:, 80:] = (40, 70, 220), (240, 220, 40)


def corners(image: np.ndarray) -> list[str]:
    names = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (40, 70, 220), "yellow": (240, 220, 40)}
    height, width = image.shape[:2]
    points = [image[y, x].astype(int) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [min(names, key=lambda name: np.abs(point - names[name]).sum()) for point in points]


@pytest.mark.parametrize(
    ("rotate", "hflip", "wanted", "size"),
    [
        (0, False, "red green blue yellow", (160, 96)),
        (90, False, "green yellow red blue", (96, 160)),
        (180, False, "yellow blue green red", (160, 96)),
        (270, False, "blue red yellow green", (96, 160)),
        (0, True, "green red yellow blue", (160, 96)),
    ],
)
@pytest.mark.parametrize("decoder", ["pyav", "decord", "opencv"])
def test_rotation_is_applied(decoder: str, rotate: int, hflip: bool, wanted: str, size, tmp_path: Path) -> None:
    """``rotate`` is counter-clockwise, as the file says it."""
    if hflip and decoder != "pyav":
        pytest.skip("OpenCV drops the mirror, decord takes it as half a turn")
    path = write_clip(
        tmp_path / "a.mp4", steady(5, 25), options=PLAIN, rotate=rotate, hflip=hflip, images=[QUADRANTS] * 5
    )
    opened = open_decoder(decoder, str(path))
    image = next(opened.frames(FixedRate(1.0))).image
    assert corners(image) == wanted.split()
    assert (opened.width, opened.height) == size == (image.shape[1], image.shape[0])


@pytest.mark.parametrize("decoder", ["pyav", "decord", "opencv"])
def test_colours_are_rgb(decoder: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", steady(3, 25), options={**PLAIN, "crf": "1"}, images=[QUADRANTS] * 3)
    image = next(open_decoder(decoder, str(path)).frames(FixedRate(1.0))).image.astype(int)
    assert np.abs(image[24, 40] - (220, 30, 30)).max() <= 6
    assert np.abs(image[72, 40] - (40, 70, 220)).max() <= 6


@pytest.mark.parametrize("matrix", [1, 5], ids=["BT.709", "BT.601"])
def test_the_tagged_colour_matrix_is_used(matrix: int, tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "a.mp4", steady(3, 25), options={**PLAIN, "crf": "1"}, images=[QUADRANTS] * 3, colorspace=matrix
    )
    image = next(PyAVDecoder(str(path)).frames(FixedRate(1.0))).image.astype(int)
    assert np.abs(image[24, 40] - (220, 30, 30)).max() <= 6 and np.abs(image[24, 120] - (30, 170, 60)).max() <= 6


def test_pixels_become_square(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", steady(3, 25), options=PLAIN, aspect=Fraction(4, 3), images=[QUADRANTS] * 3)
    decoder = PyAVDecoder(str(path))
    assert (decoder.width, decoder.height) == (213, 96)
    assert next(decoder.frames(FixedRate(1.0))).image.shape == (96, 213, 3)


def test_large_pictures_are_shrunk(tmp_path: Path) -> None:
    big = np.kron(QUADRANTS, np.ones((20, 20, 1), np.uint8))
    path = write_clip(tmp_path / "a.mp4", steady(1, 25), options=PLAIN, images=[big])
    decoder = PyAVDecoder(str(path))
    image = next(decoder.frames(FixedRate(1.0))).image
    assert (decoder.width, decoder.height) == (3200, 1920) and image.shape == (768, 1280, 3)
    assert corners(image) == ["red", "green", "blue", "yellow"]


@pytest.mark.parametrize("decoder", ["decord", "opencv"])
@pytest.mark.parametrize("name", ["mp4 h264 with B-frames", "mkv h264", "mp4 29.97 frames a second", "mp4 mpeg4"])
def test_the_other_decoders_agree(decoder: str, name: str, clips) -> None:
    mine = [each[:2] for each in seen(PyAVDecoder(str(clips(name))), 2.0)]
    theirs = seen(open_decoder(decoder, str(clips(name))), 2.0)
    assert [each[:2] for each in theirs] == mine
    assert seen(open_decoder(decoder, str(clips(name))), 2.0, theirs[2][2]) == theirs[2:]
