"""The loader of released weights, on a synthetic checkpoint of the same structure: names, config, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pcmb_service import tokens

from streammem.banks.pcmb.options import Options, preset
from streammem.banks.pcmb.weights import fresh, load_released, shapes
from streammem.banks.perceptual_cognitive import PerceptualCognitiveBank
from streammem.config import PerceptualCognitiveConfig
from streammem.errors import ConfigError, ModelUnavailable, ObservationError

SAID = {"vla": {"update_fused": False, "mem_length": 3, "retrieval_layers": 2, "group_size": 3}, "seed": 7}


def checkpoint(folder: Path, *, said: dict[str, Any] | None = None, change: Any = None) -> Path:
    """A run's folder: ``config.yaml`` and ``checkpoints/step.pt`` with every module of a released file."""
    import yaml

    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(SAID if said is None else said))
    options = preset("openvla_code")
    model: dict[str, Any] = {
        name: {"weight": torch.zeros(2)}
        for name in ("vision_backbone", "projector", "llm_backbone", "action_model", "per_compr")
    }
    model["per_mem_bank"] = fresh(16, options, seed=1)
    model["cog_mem_bank"] = fresh(32, options, seed=2)
    content: dict[str, Any] = {"model": model, "optimizer": {}}
    if change is not None:
        change(content)
    path = folder / "checkpoints" / "step.pt"
    torch.save(content, path)
    return path


def test_a_released_checkpoint(tmp_path: Path) -> None:
    loaded = load_released(checkpoint(tmp_path))
    assert (loaded.options.length, loaded.options.stored, loaded.options.layers) == (3, "raw", 2)
    assert loaded.trained_merges is False
    assert {stream: len(weights) for stream, weights in loaded.weights.items()} == {"perceptual": 34, "cognitive": 34}
    for name, value in fresh(16, Options(), seed=1).items():
        assert torch.equal(loaded.weights["perceptual"][name], value), name


def test_the_bank_runs_them(tmp_path: Path) -> None:
    """Through the configuration, as a user does; training groups of 3 never merged, so the first merge warns."""
    path = checkpoint(tmp_path)
    bank = PerceptualCognitiveBank(PerceptualCognitiveConfig(on=True, weights=str(path)))
    with pytest.warns(UserWarning, match="in training it never did"):
        for step in range(5):
            done = bank.attend("cam/1", step, tokens(step), tokens(step, 1, 32))
    assert done.summary.reader == "learned"
    assert done.summary.streams["perceptual"].length == 3
    assert 0.4 < done.summary.streams["perceptual"].memory_share < 0.6
    with pytest.raises(ObservationError, match="8 channels, the weights were made for 16"):
        bank.attend("cam/2", 0, tokens(0, 4, 8))


def test_parameter_names_and_counts_of_the_paper() -> None:
    """Page 2.a.10: a block 184.6 M, gate 33.6 M, time code 21.0 M, all 424 M; the perceptual stream 1.7 M."""
    sizes = {name: int(np.prod(shape)) for name, shape in shapes(4096, preset("openvla_code")).items()}

    def million(prefix: str) -> float:
        return sum(size for name, size in sizes.items() if name.startswith(prefix)) / 1e6

    assert million("retrieval_blocks.0") == pytest.approx(184.6, abs=0.05)
    assert million("gate_fusion_blocks") == pytest.approx(33.6, abs=0.05)
    assert million("timestep_encoder") == pytest.approx(21.0, abs=0.05)
    assert million("") == pytest.approx(424, abs=0.5)
    perceptual = shapes(256, preset("openvla_code"))
    assert sum(int(np.prod(shape)) for shape in perceptual.values()) / 1e6 == pytest.approx(1.7, abs=0.05)


def drop(module: str, name: str) -> Any:
    return lambda content: content["model"][module].pop(name)


def put(module: str, name: str, value: Any) -> Any:
    return lambda content: content["model"][module].update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("per_mem_bank", "retrieval_blocks.1.ffn.2.weight"), r"ffn\.2\.weight is missing"),
        (drop("cog_mem_bank", "retrieval_blocks.0.q_proj.weight"), r"has no retrieval_blocks\.0\.q_proj\.weight"),
        (put("per_mem_bank", "gate_fusion_blocks.proj.weight", torch.zeros(16, 16)), r"has shape \(16, 16\)"),
        (put("per_mem_bank", "retrieval_blocks.2.q_proj.weight", torch.zeros(16, 16)), "1 parameters that this bank"),
        (put("per_mem_bank", "retrieval_blocks.0.attn_norm.weight", torch.full((16,), torch.nan)), "NaN or infinity"),
        (put("per_mem_bank", "retrieval_blocks.0.attn_norm.weight", 3), "isn't a dictionary of tensors"),
        (lambda content: content.pop("model"), "has no entry 'model'"),
        (lambda content: content["model"].clear(), "neither per_mem_bank nor cog_mem_bank"),
        (lambda content: content.update(code=Path("x")), "can't be read as weights"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(ModelUnavailable, match=message):
        load_released(checkpoint(tmp_path, change=change))


def test_a_bias_may_be_absent(tmp_path: Path) -> None:
    loaded = load_released(checkpoint(tmp_path, change=drop("per_mem_bank", "retrieval_blocks.0.q_proj.bias")))
    assert len(loaded.weights["perceptual"]) == 33


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"mem_length": "16"}, "mem_length is '16', expected int"),
        ({"update_fused": 1}, "update_fused is 1, expected bool"),
        ({"a": {"mem_length": 4}, "b": {"mem_length": 5}}, "says mem_length is 4 and 5"),
        ({"mem_length": 0}, "length of a perceptual-cognitive bank is 0"),
    ],
)
def test_a_config_that_says_nonsense(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_released(checkpoint(tmp_path, said=said))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="no checkpoint at"):
        load_released(tmp_path / "none.pt")
    path = checkpoint(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_bytes(b"\xff\xfe: [")
    with pytest.raises(ConfigError, match="can't be read"):
        load_released(path)
    (tmp_path / "run" / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"no config\.yaml"):
        load_released(path)
    damaged = checkpoint(tmp_path / "damaged")
    damaged.write_bytes(damaged.read_bytes()[:2000])
    with pytest.raises(ModelUnavailable, match="can't be read as weights"):
        load_released(damaged)


def test_fused_tokens_are_stored_where_the_config_says_so(tmp_path: Path) -> None:
    loaded = load_released(checkpoint(tmp_path, said={**SAID["vla"], "update_fused": True, "group_size": 16}))
    assert loaded.options.stored == "fused" and loaded.trained_merges is True
    assert load_released(tmp_path / "checkpoints" / "step.pt", length=32).trained_merges is False
