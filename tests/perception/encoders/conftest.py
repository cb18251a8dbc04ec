"""One converted set of models for all encoder tests, in a cache folder of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.encoders.imagenet import ImageNetSpace


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def space(model_cache: Path) -> ImageNetSpace:
    return ImageNetSpace(cache=model_cache)


@pytest.fixture(scope="session")
def banana() -> np.ndarray:
    """A drawn yellow crescent on white, (240, 320, 3): not a photograph, but its colours and edges are known."""
    import cv2

    picture = np.full((240, 320, 3), 245, np.uint8)
    cv2.ellipse(picture, (160, 60), (110, 110), 0, 25, 155, (240, 210, 40), 34)
    return picture


@pytest.fixture(scope="session")
def noise() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 255, (180, 320, 3), dtype=np.uint8)
