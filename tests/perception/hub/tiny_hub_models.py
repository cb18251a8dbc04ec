"""Tiny models of the true classes: random weights, real files, real tokenizers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from perception.encoders.hub import HubSpace, open_clip, open_siglip2

SENTENCES = ["a red car on the road", "two dogs play in the park", "a cup on a wooden table", "the quick brown fox"]
CLIP_PIXELS = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True, "size": {"shortest_edge": 32}, "resample": 3, "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32}, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_convert_rgb": True,
}  # fmt: skip
SIGLIP_PIXELS = {
    "image_processor_type": "SiglipImageProcessor",
    "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 2, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    "do_convert_rgb": None,
}  # fmt: skip
NAFLEX_PIXELS = {
    "image_processor_type": "Siglip2ImageProcessor", "do_resize": True, "resample": 2, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    "patch_size": 8, "max_num_patches": 16,
}  # fmt: skip
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def clip_tokenizer() -> Tokenizer:
    """Byte-level BPE with CLIP's begin and end tokens, trained on a few sentences."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    special = ["<|startoftext|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    first, last = (tokenizer.token_to_id(token) for token in special)
    tokenizer.post_processor = processors.RobertaProcessing(
        (special[1], last), (special[0], first), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def siglip_tokenizer(*, own_padding: bool = True) -> Tokenizer:
    """BPE with byte fallback and <eos> at the end, padded to 16 like SigLIP2's to 64."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=400, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", tokenizer.token_to_id("<eos>"))]
    )
    if own_padding:
        tokenizer.enable_padding(direction="right", length=16, pad_id=0, pad_token="<pad>")
    return tokenizer


def save(folder: Path, model: Any, tokenizer: Tokenizer, pixels: dict[str, Any]) -> Path:
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return folder


def make_clip(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    last = tokenizer.token_to_id("<|endoftext|>")
    config = transformers.CLIPConfig(
        text_config={
            **TOWER, "vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 40, "eos_token_id": last,
            "bos_token_id": last - 1, "pad_token_id": last,
        },
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )  # fmt: skip
    return save(folder, transformers.CLIPModel(config), tokenizer, CLIP_PIXELS)


def make_siglip(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    tokenizer = siglip_tokenizer()
    text = {**TOWER, "vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 16, "projection_size": 32}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
    _give_scale(model)
    return save(folder, model, tokenizer, SIGLIP_PIXELS)


def make_naflex(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    tokenizer = siglip_tokenizer()
    text = {**TOWER, "vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 16, "projection_size": 32}
    vision = {**TOWER, "num_patches": 16, "patch_size": 8}
    model = transformers.Siglip2Model(transformers.Siglip2Config(text_config=text, vision_config=vision))
    _give_scale(model)
    return save(folder, model, tokenizer, NAFLEX_PIXELS)


def _give_scale(model: Any) -> None:
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-3.0)


MAKERS: dict[str, tuple[Callable[[Path], Path], Callable[..., HubSpace]]] = {
    "clip": (make_clip, open_clip),
    "siglip": (make_siglip, open_siglip2),
    "naflex": (make_naflex, open_siglip2),
}


def pictures(n: int = 5) -> list[np.ndarray]:
    """Pictures of several shapes with structure: random colour fields, not noise."""
    rng = np.random.default_rng(0)
    shapes = [(48, 64), (64, 48), (33, 100), (32, 32), (120, 90)]
    return [
        np.kron(rng.integers(0, 256, (h // 8 + 1, w // 8 + 1, 3)), np.ones((8, 8, 1)))[:h, :w].astype(np.uint8)
        for h, w in shapes[:n]
    ]
