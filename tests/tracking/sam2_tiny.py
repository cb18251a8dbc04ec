"""SAM 2 and EdgeTAM with random weights, small enough for tests: 128 pixels, 1.3 million weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

SIDE = 128
_COMMON: dict[str, Any] = {
    "image_size": SIDE,
    "prompt_encoder_config": {"hidden_size": 128, "image_size": SIDE, "patch_size": 16},
    "mask_decoder_config": {
        "hidden_size": 128,
        "mlp_dim": 64,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 32,
    },
    "memory_attention_hidden_size": 128,
    "memory_attention_num_layers": 1,
    "memory_attention_rope_feat_sizes": [8, 8],
    "memory_encoder_hidden_size": 128,
    "memory_encoder_output_channels": 64,
    "mask_downsampler_embed_dim": 128,
    "memory_fuser_embed_dim": 128,
    "memory_fuser_intermediate_dim": 64,
}


def config(kind: str = "sam2_video") -> Any:
    """A configuration of transformers. Global attention may not be in the first block of a stage."""
    from transformers import EdgeTamVideoConfig, Sam2VideoConfig, Sam2VisionConfig

    vision = Sam2VisionConfig(
        backbone_config={
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 16,
            "num_attention_heads": 1,
            "image_size": [SIDE, SIDE],
            "blocks_per_stage": [1, 2, 2, 1],
            "embed_dim_per_stage": [16, 32, 64, 128],
            "num_attention_heads_per_stage": [1, 1, 2, 2],
            "window_size_per_stage": [4, 4, 4, 4],
            "global_attention_blocks": [4],
            "window_positional_embedding_background_size": [4, 4],
        },
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=128,
    )
    if kind == "sam2_video":
        return Sam2VideoConfig(vision_config=vision, memory_attention_feed_forward_hidden_size=64, **_COMMON)
    return EdgeTamVideoConfig(
        vision_config=vision,
        memory_attention_mlp_hidden_size=64,
        memory_attention_rope_k_sizes=[4, 4],
        perceiver_resampler_num_latents=16,
        perceiver_resampler_num_latents_2d=16,
        perceiver_resampler_mlp_intermediate_size=64,
        **_COMMON,
    )


def weights(model: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under which masks, predicted IoUs and presence all vary from frame to frame: the usual small
    random weights give nearly the same output whatever is read."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, value in model.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if not value.dtype.is_floating_point:
            found[name] = value
        elif value.ndim < 2:
            found[name] = value + 0.1 * noise
        else:
            found[name] = noise * (1.6 / max(value[0].numel(), 1) ** 0.5)
    return found


def clip(frames: int, seed: int = 0) -> list[np.ndarray]:
    """Pictures (96, 160, 3) uint8: a bright square that wanders over a texture, gone in frames 14 to 19."""
    random = np.random.default_rng(seed)
    ground = random.integers(0, 120, (12, 20, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    look = random.integers(100, 255, (6, 6, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    made = []
    for t in range(frames):
        picture = ground.copy()
        if not 14 <= t < 20:
            x, y = 10 + 3 * t % 120, 20 + 2 * t % 40
            picture[y : y + 24, x : x + 24] = look
        made.append(np.clip(picture.astype(int) + random.integers(-12, 12, picture.shape), 0, 255).astype(np.uint8))
    return made


def first_mask() -> np.ndarray:
    mask = np.zeros((96, 160), bool)
    mask[20:44, 10:34] = True
    return mask
