"""Files that are broken, cut, empty, misnamed or not videos: read on, or say in one line what, where and what next."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from mediaclips import expected, number_of, picture, steady, write_clip, write_sound

from perception.decoders import open_decoder
from perception.decoders.opening import READABLE
from perception.decoders.pyav import PyAVDecoder
from perception.sampling import FixedRate
from perception.sources import open_source
from perception.sources.file import VideoFile
from streammem.errors import ConfigError, NoVideoStream, SourceError, SourceNotFound

X264 = {"preset": "veryfast", "x264-params": "bframes=3:scenecut=0"}
NS = 1_000_000_000


def chosen(path: Path, fps: float, start_ns: int = 0) -> list[tuple[int, int, bytes]]:
    frames = PyAVDecoder(str(path)).frames(FixedRate(fps), start_ns)
    return [(frame.index, frame.media_ns, frame.image.tobytes()) for frame in frames]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_corrupt_middle_is_passed_over(suffix: str, seed: int, tmp_path: Path) -> None:
    """A tenth of the bytes in the middle is noise: what lies before and behind is still seen, in order, every time the
    same, also from the middle on."""
    codec = {"avi": "mpeg4"}.get(suffix, "libx264")
    path = write_clip(
        tmp_path / f"a.{suffix}", steady(250, 25), codec=codec, options=X264 if codec == "libx264" else {}
    )
    data = bytearray(path.read_bytes())
    middle, length = len(data) * 9 // 20, len(data) // 10
    data[middle : middle + length] = np.random.default_rng(seed).bytes(length)
    path.write_bytes(data)
    decoder = PyAVDecoder(str(path))
    found = chosen(path, 5.0)
    times = [at for _, at, _ in found]
    assert times == sorted(set(times))
    assert min(times) == 0 and max(times) > 8 * NS and len(found) >= 35
    assert found == chosen(path, 5.0)
    for position in (5, 20, 25, len(found) - 3):
        assert chosen(path, 5.0, found[position][1]) == found[position:], position
    list(decoder.frames(FixedRate(5.0)))
    health = decoder.health
    assert health.bad_packets + health.corrupt_frames + health.redecoded_groups + (len(found) < 50) > 0, health


@pytest.mark.parametrize("suffix", ["mkv", "ts", "avi"])
def test_a_cut_off_file_gives_what_it_has(suffix: str, tmp_path: Path) -> None:
    codec = {"avi": "mpeg4"}.get(suffix, "libx264")
    path = write_clip(
        tmp_path / f"a.{suffix}", steady(100, 25), codec=codec, options=X264 if codec == "libx264" else {}
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    found = chosen(path, 5.0)
    assert 8 <= len(found) < 20
    assert [index for index, _, _ in found] == list(range(len(found)))


def message(error: pytest.ExceptionInfo[SourceError]) -> str:
    text = str(error.value)
    assert "\n" not in text and error.value.hint
    return text


def test_missing(tmp_path: Path) -> None:
    write_clip(tmp_path / "kitchen.mp4", steady(3, 25), options=X264)
    with pytest.raises(SourceNotFound) as error:
        open_source(str(tmp_path / "kichen.mp4"))
    assert message(error) == f"nothing is at '{tmp_path}/kichen.mp4' (did you mean 'kitchen.mp4'?)"
    with pytest.raises(SourceNotFound) as error:
        open_source(str(tmp_path / "cellar" / "deep" / "x.mp4"))
    assert message(error).endswith(f"(the folder doesn't exist; '{tmp_path}' does)")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.touch()
    with pytest.raises(SourceError) as error:
        open_source(str(path))
    assert message(error) == f"'{path}' is empty (0 bytes) (copy or download it again)"


def test_truncated_mp4(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", steady(100, 25), options=X264)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError) as error:
        open_source(str(path))
    assert message(error).startswith(f"'{path}' is cut off: the index of the mp4 (its moov box) is missing (copy")


@pytest.mark.parametrize(
    "content",
    ["just a text\n", "naïve çà et là, 日本語\n" * 500, "{'json': 1}"],
    ids=["plain", "unicode", "json"],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.txt"])
def test_text_is_not_a_video(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SourceError) as error:
        open_source(str(path))
    assert "is not a video" in message(error) or "is a text file, not a video" in message(error)


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nreal.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile real.ts\n",
        "#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/x.ts\n",
    ],
    ids=["hls", "concat", "hls to a server"],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8"])
def test_a_playlist_opens_nothing_else(name: str, content: str, tmp_path: Path) -> None:
    """A text that names other files or servers must not make us read them."""
    write_clip(tmp_path / "real.ts", steady(25, 25), options=X264)
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SourceError) as error:
        open_source(str(path))
    assert "not a video" in message(error)


def test_random_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(np.random.default_rng(0).bytes(100_000))
    with pytest.raises(SourceError) as error:
        open_source(str(path))
    assert message(error).endswith(f"(readable are {READABLE})")


def sound_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        track = container.add_stream("aac", rate=16000, layout="mono")
        write_sound(container, track, [(0.0, 1.0)], 2.0)
    return path


def test_sound_alone(tmp_path: Path) -> None:
    path = sound_only(tmp_path / "talk.m4a")
    with pytest.raises(NoVideoStream) as error:
        open_source(str(path))
    assert message(error) == f"'{path}' holds sound but no pictures (give a video, or a folder with pictures)"


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container:
        track = container.add_stream("libmp3lame", rate=16000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 192, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(picture(1), format="rgb24").reformat(format="yuvj420p")
        container.mux(cover.encode(frame))
        container.mux(cover.encode(None))
        write_sound(container, track, [(0.0, 1.0)], 2.0)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(NoVideoStream):
        open_source(str(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", steady(3, 25), options=X264)
    path.chmod(0)
    with pytest.raises(SourceError, match="permission denied"):
        open_source(str(path))
    folder = tmp_path / "locked"
    folder.mkdir(mode=0)
    with pytest.raises(SourceError, match="Permission denied"):
        open_source(str(folder))


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (str(tmp_path / "pipe.mp4"), "/dev/zero"):
        with pytest.raises(SourceError, match="not a regular file"):
            open_source(path)


NAMES = [
    "with space.mp4",
    "quote'\".mp4",
    "-leading.mp4",
    "--help.mp4",
    "hash#1.mp4",
    "per%20cent%d.mp4",
    "time 10:42.mp4",
    "rtsp:x.mp4",
    "C:\\Users\\me\\video.mp4",
    "back\\slash.mp4",
    "日本語 ünï 🎥.mp4",
    "star*[1]?.mp4",
    "new\nline.mp4",
    "$(touch x);.mp4",
    "7",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_works(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that exists wins over schemes, patterns and camera numbers."""
    monkeypatch.chdir(tmp_path)
    made = write_clip(tmp_path / "plain.mp4", steady(30, 25), options=X264)
    made.rename(tmp_path / name)
    source = open_source(name)
    assert [number_of(frame.image) for frame in source.frames()] == [0, 25]
    assert source.info.stream.replace("-", "").replace("_", "").isalnum() and source.info.stream.isascii()
    assert [number_of(frame.image) for frame in source.look_again(0, NS // 2, 5)] == [0, 5, 10]


def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    made = write_clip(tmp_path / "a.mp4", steady(30, 25), options=X264)
    path = os.fsdecode(os.fsencode(str(tmp_path)) + b"/caf\xe9.mp4")
    os.rename(made, path)
    assert len(list(open_source(path).frames())) == 2


def test_unknown_decoder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        open_decoder("gstreamer", "x")
    assert str(error.value) == "no decoder is called 'gstreamer' (use one of pyav, decord, opencv)"


def test_look_again_is_denser(tmp_path: Path) -> None:
    source = VideoFile(str(write_clip(tmp_path / "a.mp4", steady(100, 25), options=X264)))
    found = source.look_again(NS, 2 * NS, 5)
    assert [number_of(frame.image) for frame in found] == [25, 30, 35, 40, 45, 50]
    assert [number_of(frame.image) for frame in source.look_again(1_010_000_000, 1_020_000_000, 5)] == [25]
    assert [number_of(frame.image) for frame in source.look_again(60 * NS, 70 * NS, 5)] == [99]


def test_sound_is_on_the_clock_of_the_pictures(tmp_path: Path) -> None:
    path = write_clip(
        tmp_path / "a.mp4", steady(100, 25), options=X264, sound=[(1.5, 2.0), (3.0, 3.25)], seconds_of_sound=4.0
    )
    chunks = list(VideoFile(str(path)).audio() or [])
    assert all(chunk.samples.dtype == np.float32 and chunk.samples.ndim == 1 for chunk in chunks)
    assert [chunk.t_start_ns for chunk in chunks] == [n * NS for n in range(len(chunks))]
    samples = np.concatenate([chunk.samples for chunk in chunks])
    loud = np.abs(samples) > 0.1
    assert abs(np.argmax(loud) / 16000 - 1.5) < 0.1
    assert loud[int(1.6 * 16000) : int(1.9 * 16000)].mean() > 0.5
    assert loud[int(2.2 * 16000) : int(2.8 * 16000)].mean() < 0.01
    later = list(VideoFile(str(path)).audio(2 * NS) or [])
    assert later[0].t_start_ns == 2 * NS and np.array_equal(later[0].samples, chunks[2].samples)


def test_no_sound_is_none(tmp_path: Path) -> None:
    source = VideoFile(str(write_clip(tmp_path / "a.mp4", steady(10, 25), options=X264)))
    assert source.audio() is None and not source.info.has_audio


def test_a_frozen_camera_is_counted(tmp_path: Path) -> None:
    images = [picture(0)] * 50
    path = write_clip(tmp_path / "a.mkv", steady(50, 25), codec="ffv1", images=images)
    source = VideoFile(str(path), fps=5)
    assert len(list(source.frames())) == 10 and source.health.frozen_frames == 9


def test_no_drift_over_an_hour_of_29_97(tmp_path: Path) -> None:
    """Index over a truncated rate would be 120 s off after an hour; the container is exact to the frame."""
    rate = Fraction(30000, 1001)
    times = [Fraction(n * 300) / rate for n in range(360)]
    path = write_clip(tmp_path / "a.mp4", times, options=X264, rate=rate)
    found = [(frame.index, number_of(frame.image)) for frame in PyAVDecoder(str(path)).frames(FixedRate(1.0))]
    assert found == expected(times, 1.0)
    assert found[-1][0] == int(times[-1])
