"""The released compressor's loading code and passes, on a tiny random model of its structure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streammem.banks.compressors import Compressor, open_compressor
from streammem.errors import ModelUnavailable, ObservationError, QueryError

pytest.importorskip("transformers")
pytestmark = pytest.mark.slow  # importing transformers takes longer than everything here
from tiny_ground_qwen import POOL, RESOLUTION, VISION, WIDTH, save_tiny  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def qwen(folder: Path) -> Compressor:
    return open_compressor("qwen", model=folder)


def clip(seed: int, frames: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, 4 * RESOLUTION, VISION)).astype(np.float16)


def test_ixc_1_and_4_shapes_and_causality(qwen: Compressor) -> None:
    """Check 4: another clip leaves a summary alone, changes every long-term vector; another summary the later ones."""
    made = [qwen.compress(clip(i), i * 3.0, i * 3.0 + 2) for i in range(4)]
    assert made[0].slots.shape == (3 * POOL, WIDTH)
    assert made[0].summary.shape == (WIDTH,)
    assert np.array_equal(made[1].summary, qwen.compress(clip(1), 3.0, 5.0).summary)
    slots = [one.slots for one in made]
    summaries = np.stack([one.summary for one in made])
    plain = qwen.integrate(slots, summaries)
    assert plain.shape == (4, WIDTH)
    other = qwen.integrate([slots[0], slots[1], slots[2] + 1, slots[3]], summaries)
    assert (np.abs(other - plain).max(axis=1) > 1e-4).all()
    changed = summaries.copy()
    changed[2] += 1
    after = qwen.integrate(slots, changed)
    assert np.abs(after[:2] - plain[:2]).max() < 1e-5
    assert (np.abs(after[2:] - plain[2:]).max(axis=1) > 1e-4).all()


def test_slots_see_the_whole_clip_and_the_clip_its_time(qwen: Compressor) -> None:
    tokens = clip(7)
    first = qwen.compress(tokens, 0.0, 2.0)
    tokens[-1] += 1
    assert np.abs(qwen.compress(tokens, 0.0, 2.0).slots[0] - first.slots[0]).max() > 1e-4, "the last frame, too"
    tokens[-1] -= 1
    assert np.abs(qwen.compress(tokens, 50.0, 52.0).summary - first.summary).max() > 1e-4, "seconds are in the text"


def test_a_question_is_compared_with_summaries(qwen: Compressor) -> None:
    made = [qwen.compress(clip(i), i, i + 1) for i in range(3)]
    slots, summaries = [one.slots for one in made], np.stack([one.summary for one in made])
    asked = qwen.question(qwen.integrate(slots, summaries), "where is the cup")
    scores = qwen.score(asked, slots, summaries)
    cosine = summaries @ asked / np.linalg.norm(summaries, axis=1) / np.linalg.norm(asked)
    assert scores == pytest.approx(cosine, abs=1e-5)
    assert qwen.score(asked * 3, slots, summaries * 2) == pytest.approx(scores, abs=1e-6), "check 8: scale is nothing"


def test_shards_and_identity(folder: Path, qwen: Compressor, tmp_path: Path) -> None:
    split = open_compressor("qwen", model=save_tiny(tmp_path / "split", shards=True))
    assert np.allclose(split.compress(clip(1), 0, 1).summary, qwen.compress(clip(1), 0, 1).summary, atol=1e-5)
    other = open_compressor("qwen", model=save_tiny(tmp_path / "other", seed=1))
    assert len({qwen.identity, split.identity, other.identity}) == 3
    assert open_compressor("qwen", model=folder).identity == qwen.identity


@pytest.mark.parametrize("key", ["model.mm_projector.mlp.2.bias", "model.layers.1.self_attn.q_proj.weight"])
def test_a_missing_weight_is_named(tmp_path: Path, key: str) -> None:
    broken = open_compressor("qwen", model=save_tiny(tmp_path, leave_out=key))
    with pytest.raises(ModelUnavailable, match=key.removeprefix("model.").removeprefix("mm_projector.mlp.")):
        broken.compress(clip(0), 0, 1)


def test_what_cannot_be_taken_is_refused(qwen: Compressor, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="no weights"):
        open_compressor("qwen", model=tmp_path)
    with pytest.raises(ObservationError, match="the model wants"):
        qwen.compress(np.zeros((2, 64, VISION)), 0, 1)
    with pytest.raises(ObservationError, match="no square grid"):
        qwen.compress(np.zeros((2, 15, VISION)), 0, 1)
    assert qwen.longest == 512 // 65
    with pytest.raises(QueryError, match="the model takes 512"):
        qwen.integrate([np.zeros((600, WIDTH), np.float32)], np.zeros((1, WIDTH), np.float32))
