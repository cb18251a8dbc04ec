"""Pictures and prompts as SAM 2 wants them, without its processor (which can't be built without torchvision)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from perception.trackers.prompts import Prompt, in_pixels, read_mask
from streammem.banks.policies.record import mask_box
from streammem.errors import InputError
from streammem.model import Box

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, as in the image processor of every SAM 2 checkpoint."""
BOX_CORNERS = (2, 3)
"""Labels of a box's first and second corner; 1 is a point on the object, 0 one beside it."""


@dataclass(frozen=True, slots=True)
class SamPrompt:
    """Where an object is, in pixels of the picture: points ``(x, y)``, those in ``positive`` on it and those in
    ``negative`` beside it, and a ``box``. A mask is given as an array instead."""

    positive: tuple[tuple[float, float], ...] = ()
    negative: tuple[tuple[float, float], ...] = ()
    box: Box | None = None


def sam_prompt(image: np.ndarray, prompt: Prompt) -> np.ndarray | SamPrompt:
    """What a person named on the command line, as SAM 2 takes it. Raises InputError."""
    height, width = image.shape[:2]
    if prompt.kind == "mask":
        return read_mask(prompt, height, width)
    xs, ys = (part.tolist() for part in in_pixels(prompt, height, width))
    if prompt.kind == "point":
        return SamPrompt(positive=((xs[0], ys[0]),))
    return SamPrompt(box=(xs[0], ys[0], xs[1], ys[1]))


def box_prompt(mask: np.ndarray) -> SamPrompt:
    """The box around a rough mask (h, w) bool: SAM 2 finds the outline inside it by itself."""
    height, width = mask.shape
    box = mask_box(mask)
    return SamPrompt(box=box and (box[0] * width, box[1] * height, box[2] * width, box[3] * height))


def pixels(image: np.ndarray, side: int, device: Any, dtype: torch.dtype) -> torch.Tensor:
    """(h, w, 3) uint8 RGB -> (1, 3, side, side), stretched to a square (SAM 2 does not keep the aspect ratio)."""
    raw = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(raw, (side, side), mode="bilinear", align_corners=False, antialias=True)
    mean, std = (torch.tensor(part, device=device).view(1, 3, 1, 1) for part in (MEAN, STD))
    # The reference resizes bytes: without rounding the same picture would differ by half a grey level.
    return ((small.round().clamp(0, 255) / 255 - mean) / std).to(dtype)


def inputs(
    prompt: SamPrompt | np.ndarray, name: str, size: tuple[int, int], side: int
) -> dict[str, torch.Tensor] | torch.Tensor:
    """What a session takes: a mask (1, 1, side, side) float, or points in the model's pixels with labels.

    ``size`` is the picture's (height, width). Raises InputError for a prompt that is empty or outside."""
    height, width = size
    if isinstance(prompt, np.ndarray):
        if prompt.shape != size:
            raise InputError(f"the mask of {name!r} is {prompt.shape}, the picture {size}", hint="make them equal")
        mask = torch.from_numpy(prompt.astype(np.float32))[None, None]
        small = torch.nn.functional.interpolate(
            mask, (side, side), mode="bilinear", align_corners=False, antialias=True
        )
        if not (small > 0.5).any():
            raise InputError(f"the mask of {name!r} is empty, or too small to see", hint="mark the object's pixels")
        return (small > 0.5).float()
    places = [*prompt.positive, *prompt.negative]
    labels = [1] * len(prompt.positive) + [0] * len(prompt.negative)
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        if not (x1 - x0 >= 1 and y1 - y0 >= 1):
            raise InputError(f"the box of {name!r} is empty", hint="give x0, y0, x1, y1 in pixels")
        places, labels = [(x0, y0), (x1, y1), *places], [*BOX_CORNERS, *labels]
    if not any(label > 0 for label in labels):
        raise InputError(f"the prompt of {name!r} marks nothing", hint="give a point on the object, a box or a mask")
    points = np.array(places, np.float32)
    if not np.isfinite(points).all() or (points < 0).any() or (points > (width, height)).any():
        raise InputError(
            f"the prompt of {name!r} isn't inside the picture ({width} x {height})", hint="give pixels of the picture"
        )
    scaled = points * (side / width, side / height)
    return {
        "point_coords": torch.from_numpy(scaled.astype(np.float32))[None, None],
        "point_labels": torch.tensor(labels, dtype=torch.int32)[None, None],
    }
