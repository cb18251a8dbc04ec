"""A random model of the released structure on disk: the key names of IXC2.5-OL's ``memory`` folder, a few kilobytes."""

from __future__ import annotations

import json
from pathlib import Path

WIDTH, VISION, RESOLUTION, POOL = 32, 6, 4, 4


def save_tiny(folder: Path, *, leave_out: str = "", shards: bool = False, seed: int = 0) -> Path:
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    words = ["[UNK]", *"This contains a clip sampled in to seconds where is the cup".split(), *map(str, range(100))]
    fast = Tokenizer(models.WordLevel({word: i for i, word in enumerate(dict.fromkeys(words))}, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir(parents=True, exist_ok=True)
    PreTrainedTokenizerFast(tokenizer_object=fast, unk_token="[UNK]").save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=200,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        initializer_range=0.5,
    )
    state = {name: value.contiguous() for name, value in Qwen2ForCausalLM(config).state_dict().items()}
    state["model.mm_projector.mlp.0.weight"] = torch.randn(WIDTH, 4 * VISION) / 3
    state["model.mm_projector.mlp.0.bias"] = torch.randn(WIDTH)
    state["model.mm_projector.mlp.2.weight"] = torch.randn(WIDTH, WIDTH) / 3
    state["model.mm_projector.mlp.2.bias"] = torch.randn(WIDTH)
    state["model.vision_tower.vision_tower.vision_model.embeddings.class_embedding"] = torch.randn(VISION)
    state.pop(leave_out, None)
    if shards:
        names = sorted(state)
        parts = {"model-00001.safetensors": names[::2], "model-00002.safetensors": names[1::2]}
        for file, own in parts.items():
            save_file({name: state[name] for name in own}, folder / file)
        index = {"weight_map": {name: file for file, own in parts.items() for name in own}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file(state, folder / "model.safetensors")
    released = {**config.to_dict(), "model_type": "ground_qwen", "architectures": ["GroundQwenForCausalLM"]}
    released |= {"resolution": RESOLUTION, "pool_num": POOL, "mm_hidden_size": VISION, "mm_projector_type": "pool"}
    (folder / "config.json").write_text(json.dumps(released))
    return folder
