"""The grammar, folders of pictures, generated scenes and addresses."""

from __future__ import annotations

import functools
import http.server
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from mediaclips import number_of, picture, steady, write_clip

from perception.frames import Source
from perception.identity import configuration_hash, content_hash, stream_id
from perception.sources import grammar, known_schemes, open_source
from perception.sources.address import AddressSource, without_password
from perception.sources.images import ImageSequence
from perception.sources.synthetic import SyntheticSource
from streammem.config import PerceptionConfig
from streammem.errors import NoVideoStream, SourceError, SourceNotFound
from streammem.model import Producer

NS = 1_000_000_000
X264 = {"preset": "veryfast", "x264-params": "bframes=3:scenecut=0"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMMEM_CACHE", str(tmp_path_factory.mktemp("cache")))


def write_pictures(folder: Path, names: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        done, data = cv2.imencode(os.path.splitext(name)[1], picture(number)[:, :, ::-1])
        assert done
        (folder / name).write_bytes(bytes(data))
    return folder


# -- folders ---------------------------------------------------------------------------------------------------------


def test_pictures_come_in_natural_order_a_period_apart(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "shots", [f"shot{n}.png" for n in range(12)])
    source = open_source(str(folder), PerceptionConfig(fps=2))
    frames = list(source.frames())
    assert [number_of(frame.image) for frame in frames] == list(range(12))
    assert [frame.media_ns for frame in frames] == [n * NS // 2 for n in range(12)]
    assert source.info.duration_ns == 6 * NS and source.info.kind == "images"
    assert source.health.notes == ["no time stamps: the pictures are taken as 0.5 s apart"]
    assert [frame.index for frame in source.frames(start_ns=frames[4].media_ns + 1)] == list(range(5, 12))
    assert [number_of(frame.image) for frame in source.look_again(NS, 2 * NS, 1)] == [2, 4]


def test_a_pattern_gives_the_same_as_its_folder(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "shots", ["a10.jpg", "a9.jpg", "b1.jpg"])
    source = open_source(str(folder / "a*.jpg"))
    assert [number_of(frame.image) for frame in source.frames()] == [1, 0]
    with pytest.raises(SourceNotFound, match="no file matches"):
        open_source(str(folder / "c*.jpg"))


@pytest.mark.parametrize(
    ("name", "content", "wanted_s"),
    [
        ("timestamps.txt", "10.0\n10.5\n12.000000001\n", [0, 0.5, 2.000000001]),
        ("times.txt", "# seconds\n1700000000.123456789\n1700000001\n1700000009.9\n", [0, 0.876543211, 9.776543211]),
        ("timestamps.csv", "name,seconds\n2.png,5\n0.png,1\n1.png,2\n", [0, 1, 4]),
        ("timestamps.txt", "3.5 0.png\n4.5 1.png\n6.5 2.png\n", [0, 1, 3]),
        ("timestamps.txt", "0 7.25\n1 7.5\n2 8\n", [0, 0.25, 0.75]),
    ],
    ids=["plain", "unix time to the nanosecond", "names and times", "times and names", "numbered"],
)
def test_times_from_a_file(name: str, content: str, wanted_s: list[float], tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "shots", ["0.png", "1.png", "2.png"])
    (folder / name).write_text(content)
    source = open_source(str(folder), PerceptionConfig(fps=10))
    assert [frame.media_ns for frame in source.frames()] == [round(each * NS) for each in wanted_s]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1\n2\n", "holds 2 times for 3 pictures"),
        ("1\n3\n2\n", "don't rise"),
        ("1\nsoon\n3\n", "line 2 of"),
        ("0.png 1\n1.png 2\n", "has no time for '2.png'"),
    ],
)
def test_times_that_do_not_fit(content: str, said: str, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "shots", ["0.png", "1.png", "2.png"])
    (folder / "timestamps.txt").write_text(content)
    with pytest.raises(SourceError, match=said) as error:
        open_source(str(folder))
    assert error.value.hint


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_pictures_are_rgb(suffix: str, tmp_path: Path) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[:] = (220, 30, 60)
    _, data = cv2.imencode(suffix, image[:, :, ::-1])
    (tmp_path / f"a{suffix}").write_bytes(bytes(data))
    found = next(open_source(str(tmp_path / f"a{suffix}")).frames()).image[16, 16].astype(int)
    assert np.abs(found - (220, 30, 60)).max() <= 4


@pytest.mark.parametrize(("value", "corner"), [(1, "red"), (3, "yellow"), (6, "blue"), (8, "green")])
def test_exif_orientation_is_applied(value: int, corner: str, tmp_path: Path) -> None:
    colours = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (40, 70, 220), "yellow": (240, 220, 40)}
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48], image[:32, 48:] = colours["red"], colours["green"]
    image[32:, :48], image[32:, 48:] = colours["blue"], colours["yellow"]
    _, data = cv2.imencode(".jpg", image[:, :, ::-1])
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 0x0112, 3, 1, value, 0) + b"\0\0\0\0"
    jpeg = bytes(data)
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    found = next(open_source(str(tmp_path / "a.jpg")).frames()).image
    assert found.shape == ((64, 96, 3) if value in (1, 3) else (96, 64, 3))
    pixel = found[10, 10].astype(int)
    assert min(colours, key=lambda name: np.abs(pixel - colours[name]).sum()) == corner


def test_a_broken_picture_is_counted_and_passed_over(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "shots", [f"{n}.png" for n in range(5)])
    (folder / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (folder / "3.png").write_bytes(b"")
    source = open_source(str(folder))
    assert [number_of(frame.image) for frame in source.frames()] == [0, 1, 4]
    assert source.health.bad_packets == 2 and "'2.png' can't be decoded" in source.health.notes


def test_depth_and_masks_are_not_what_the_camera_saw(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "rgbd", ["f-0.color.png", "f-0.depth.png", "f-1.color.png", "f-1_mask.png"])
    source = open_source(str(folder))
    assert isinstance(source, ImageSequence)
    assert [os.path.basename(path) for path in source.paths] == ["f-0.color.png", "f-1.color.png"]


def test_folders_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(NoVideoStream, match="holds no pictures") as error:
        open_source(str(tmp_path))
    assert "looked for .bmp" in error.value.hint
    write_pictures(tmp_path / "depth", ["0.png"])
    write_pictures(tmp_path / "image", ["0.png"])
    with pytest.raises(NoVideoStream) as error:
        open_source(str(tmp_path))
    assert error.value.hint == f"'{tmp_path}/image' does: give that"


# -- grammar ---------------------------------------------------------------------------------------------------------


def test_unknown_schemes_name_the_known() -> None:
    with pytest.raises(SourceError) as error:
        open_source("ftpx:thing")
    assert str(error.value) == (
        f"no source is called 'ftpx', and no file 'ftpx:thing' (known are {', '.join(known_schemes())})"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the source is empty"),
        ("  ", "the source is empty"),
        ("x" * 5000, "5000 characters long"),
        ("a\0b", "holds a zero byte"),
        ("99", "there is no camera 99"),
        ("no\x1b]red.mp4", "nothing is at 'no␛]red.mp4'"),
    ],
)
def test_what_is_no_source(text: str, said: str) -> None:
    with pytest.raises(SourceError) as error:
        open_source(text)
    assert said in str(error.value) and error.value.hint
    assert "\x1b" not in str(error.value)


def test_a_package_adds_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "dream", "dreams:open"

        def load(self) -> object:
            return lambda rest, config: SyntheticSource(f"shapes?seed={rest}", fps=config.fps)

    monkeypatch.setattr(grammar, "entry_points", lambda group: [Point()] if group == grammar.ENTRY_POINTS else [])
    source = open_source("dream:7", PerceptionConfig(fps=3))
    assert isinstance(source, SyntheticSource) and source.seed == 7 and source.sampling.fps == 3
    assert "dream" in known_schemes()


@pytest.mark.parametrize("text", ["synthetic:shapes", "synthetic:cards?seconds=9&seed=3&scene=2", "synthetic:mixed"])
def test_generated_scenes_are_the_same_every_time(text: str) -> None:
    one, two = open_source(text), open_source(text)
    assert isinstance(one, Source) and isinstance(one, SyntheticSource) and isinstance(two, SyntheticSource)
    assert one.info == two.info and one.truth == two.truth
    frames = list(one.frames())
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames, two.frames(), strict=True))
    assert [f.media_ns for f in one.frames(frames[3].media_ns)] == [f.media_ns for f in frames[3:]]
    assert one.truth[0].t_start_ns == 0 and one.truth[-1].t_end_ns == one.info.duration_ns
    assert open_source(f"{text}{'&' if '?' in text else '?'}rate=5").info.stream != one.info.stream


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("synthetic:cats", "no generated scene is called 'cats'"),
        ("synthetic:shapes?seconds=-1", "seconds='-1' can't be used"),
        ("synthetic:shapes?seed=x", "seed='x' can't be used"),
        ("synthetic:shapes?size=9x9", "size='9x9' can't be used"),
        ("synthetic:shapes?color=red", "has no option 'color'"),
    ],
)
def test_wrong_scenes(text: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        open_source(text)


# -- addresses -------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return

    folder = tmp_path / "www"
    folder.mkdir()
    write_clip(folder / "a.mkv", steady(100, 25), options=X264)
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXTINF:4,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def test_a_file_on_a_web_server(server: str) -> None:
    source = open_source(f"{server}/a.mkv")
    assert source.info.kind == "address" and source.info.clock == "media" and not source.info.live
    assert [(frame.index, number_of(frame.image)) for frame in source.frames()] == [(n, 25 * n) for n in range(4)]
    assert [frame.index for frame in source.frames(start_ns=NS + 1)] == [2, 3]
    assert [number_of(frame.image) for frame in source.look_again(NS, 2 * NS, 2)] == [25, 38, 50]


def test_a_playlist_on_a_server_does_not_reach_the_disk(server: str) -> None:
    with pytest.raises(SourceError):
        open_source(f"{server}/list.m3u8")


def test_nobody_answers() -> None:
    with pytest.raises(SourceError) as error:
        open_source("rtsp://me:secret@127.0.0.1:9/live?key=abc")
    assert str(error.value) == (
        "rtsp://127.0.0.1:9/live can't be opened: Connection refused (check address, password and network)"
    )


def test_a_stream_that_breaks_is_tried_again_and_then_given_up(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    source = AddressSource(f"{server}/a.mkv", fps=5, sleep=waits.append)
    real = source._connect
    lost = 0

    def connect() -> object:
        nonlocal lost
        lost += 1
        if lost == 1:
            return real()
        raise SourceError("no route")

    monkeypatch.setattr(source, "_connect", connect)
    object.__setattr__(source._info, "duration_ns", 60 * NS)
    found = []
    with pytest.raises(SourceError) as error:
        for frame in source.frames():
            found.append(number_of(frame.image))
    assert found == list(range(0, 100, 5)) and waits == [1.0, 2.0, 4.0]
    assert "is gone: no route (3 tries)" in str(error.value) and source.health.reconnects == 3


def test_passwords_stay_out_of_names() -> None:
    assert without_password("rtsp://u:p@cam.local:554/a/b?token=1#x") == "rtsp://cam.local:554/a/b"


# -- identity --------------------------------------------------------------------------------------------------------


def test_content_decides_the_identity(tmp_path: Path) -> None:
    a, b = tmp_path / "Küche 1.mp4", tmp_path / "other.mp4"
    a.write_bytes(b"x" * 100)
    b.write_bytes(b"x" * 100)
    assert content_hash(a) == content_hash(b) and len(content_hash(a)) == 64
    b.write_bytes(b"x" * 99 + b"y")
    assert content_hash(a) != content_hash(b)
    assert stream_id(str(a), content_hash(a)) == f"kuche-1-{content_hash(a)[:8]}"
    with pytest.raises(SourceNotFound):
        content_hash(tmp_path / "none")


def test_a_known_hash_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"1" * 1000)
    first = content_hash(path)
    calls = []
    monkeypatch.setattr("perception.identity.open", lambda *a, **k: calls.append(a) or open(*a, **k), raising=False)  # noqa: SIM115
    assert content_hash(path) == first and not calls
    path.write_bytes(b"2" * 1000)
    os.utime(path, ns=(1, 1))
    assert content_hash(path) != first and calls


def test_a_damaged_cache_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"1")
    cache = Path(os.environ["STREAMMEM_CACHE"]) / "content-hashes.tsv"
    first = content_hash(path)
    cache.write_bytes(b"\xff\xfe junk\n\n\t\t")
    assert content_hash(path) == first
    monkeypatch.setenv("STREAMMEM_CACHE", "/proc/nowhere")
    assert content_hash(path) == first


def test_a_folder_is_its_names_and_contents(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "a", ["0.png", "1.png"])
    before = content_hash(folder)
    assert before == content_hash(folder)
    (folder / "1.png").rename(folder / "2.png")
    assert content_hash(folder) != before


@pytest.mark.parametrize("name", ["", "日本語.mp4", "../../etc", "-x", "a" * 300 + ".mp4", "'; DROP TABLE x;--.mp4"])
def test_stream_ids_are_safe(name: str) -> None:
    found = stream_id(name, "0123456789abcdef")
    assert found.endswith("-01234567") and len(found) <= 49 and found[0] != "-"
    assert all(char.isascii() and (char.isalnum() or char in "-_") for char in found)


def test_the_configuration_hash_knows_what_matters() -> None:
    base, producer = PerceptionConfig(), Producer("m", "a", "1", "x")
    one = configuration_hash(base, producer)
    assert len(one) == 12 and one == configuration_hash(base.model_copy(update={"threads": 7}), producer)
    for changed in ({"fps": 2.0}, {"ocr": False}, {"thumbnail_px": 100}, {"decoder": "decord"}):
        assert configuration_hash(base.model_copy(update=changed), producer) != one
    assert configuration_hash(base, Producer("m", "a", "2", "x")) != one
