"""SAM 2 and EdgeTAM as transformers has them, with the memory read by a policy (extra ``models``).

Nothing is copied or patched. A subclass of the stock video model answers three questions differently, and only for a
session that carries ``frame_memory`` (without one it is the stock model, bit for bit):

* which frames are attended to (``_gather_memory_frame_outputs``) and whose pointers (``_get_object_pointers``): what
  the policy selects. Stock models keep the newest conditioning frames where there are too many and can lose the first
  prompt; a :class:`FrameMemory` never does.
* which of the decoder's masks is taken, and from which presence logit on an object counts as there: a forward hook on
  the mask decoder sees all masks with their predicted IoUs, which the stock model throws away.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from perception.encoders.hub_files import find_model, require_transformers
from streammem.banks.policies import FrameMemory, Hypothesis
from streammem.banks.policies.record import mask_box
from streammem.errors import ConfigError, ModelUnavailable

SAM2_DEFAULT = "facebook/sam2.1-hiera-tiny"
REQUIRED = ("config.json",)
"""What must lie beside the weights. The processor isn't used: it can't be built without torchvision."""


@dataclass(frozen=True, slots=True)
class _Family:
    """Where transformers keeps the classes of one ``model_type``."""

    module: str
    model: str
    session: str


FAMILIES = {
    "sam2_video": _Family("sam2_video.modeling_sam2_video", "Sam2VideoModel", "Sam2VideoInferenceSession"),
    "edgetam_video": _Family(
        "edgetam_video.modeling_edgetam_video", "EdgeTamVideoModel", "EdgeTamVideoInferenceSession"
    ),
}


@dataclass(slots=True)
class Heard:
    """What the mask decoder said about one object in one frame. ``masks`` (k, h, w) bool, ``ious`` one each,
    ``chosen`` the index that was taken, ``presence`` the logit before any threshold."""

    masks: np.ndarray
    ious: tuple[float, ...]
    chosen: int
    presence: float


class ReadsByPolicy:
    """What is mixed into a stock video model; see the module."""

    _session: Any = None
    heard: Heard | None = None
    """Of the last frame that was decoded; None where a mask was given (then nothing was predicted)."""

    def __init__(self, config: Any) -> None:
        cast("Any", super()).__init__(config)
        cast("Any", self).mask_decoder.register_forward_hook(self._listen)

    def _gather_memory_frame_outputs(
        self, inference_session: Any, obj_idx: int, frame_idx: int, track_in_reverse_time: bool = False
    ) -> list[tuple[int, dict[str, Any]]]:
        memory: FrameMemory | None = getattr(inference_session, "frame_memory", None)
        if memory is None:
            stock = cast("Any", super())
            return cast(
                "list[tuple[int, dict[str, Any]]]",
                stock._gather_memory_frame_outputs(inference_session, obj_idx, frame_idx, track_in_reverse_time),
            )
        payload = payload_of(inference_session, obj_idx)
        return [(read.tpos, payload[read.t]) for read in memory.select(frame_idx)]

    def _get_object_pointers(
        self,
        inference_session: Any,
        obj_idx: int,
        frame_idx: int,
        num_total_frames: int,
        device: Any,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[list[int], list[Any], int]:
        memory: FrameMemory | None = getattr(inference_session, "frame_memory", None)
        if memory is None:
            stock = cast("Any", super())
            return cast(
                "tuple[list[int], list[Any], int]",
                stock._get_object_pointers(
                    inference_session, obj_idx, frame_idx, num_total_frames, device, *args, **kwargs
                ),
            )
        payload = payload_of(inference_session, obj_idx)
        chosen = memory.pointers(frame_idx)
        tokens = [payload[record.t]["object_pointer"].to(device) for _, record in chosen]
        return [dt for dt, _ in chosen], tokens, cast("Any", self).config.max_object_pointers_in_encoder

    def _run_single_frame_inference(self, inference_session: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self.heard = None
        # With a mask as the prompt the decoder runs only to make a pointer: there is nothing to choose.
        by_mask = kwargs.get("mask_inputs") is not None
        self._session = None if by_mask else inference_session
        try:
            stock = cast("Any", super())
            return cast("dict[str, Any]", stock._run_single_frame_inference(inference_session, *args, **kwargs))
        finally:
            self._session = None

    def _listen(self, module: Any, args: Any, output: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The hook: remember every mask, and let the policy choose by raising its choice above the others."""
        memory: FrameMemory | None = getattr(self._session, "frame_memory", None)
        if memory is None:
            return None
        masks, ious, tokens, presence = output
        found = (masks[0, 0] > 0).cpu().numpy()
        scores = [float(value) for value in ious[0, 0].float().cpu()]
        best = int(ious[0, 0].argmax())
        chosen = best
        if len(scores) > 1:
            chosen = memory.choose([_hypothesis(mask, score) for mask, score in zip(found, scores, strict=True)])
        self.heard = Heard(found, tuple(scores), chosen, float(presence.reshape(-1)[0]))
        threshold = float(getattr(memory.policy, "presence_threshold", 0.0))
        if chosen == best and not threshold:
            return None
        raised = ious.clone()
        raised[0, 0, chosen] = ious.max() + 1
        # Stock code asks "logit > 0"; a policy with another threshold gets its answer by a shift.
        return masks, raised, tokens, presence - threshold


def payload_of(session: Any, obj_idx: int) -> dict[int, dict[str, Any]]:
    """What a session holds of an object, by frame."""
    outputs = session.output_dict_per_obj[obj_idx]
    return {**outputs["non_cond_frame_outputs"], **outputs["cond_frame_outputs"]}


def _hypothesis(mask: np.ndarray, score: float) -> Hypothesis:
    return Hypothesis(pred_iou=score, box=mask_box(mask), area=float(mask.mean()))


def policy_class(model_type: str) -> type:
    """The class for one ``model_type``. Raises ConfigError for another kind of model, ModelUnavailable without the
    ``models`` extra."""
    require_transformers()
    import importlib

    family = FAMILIES.get(model_type)
    if family is None:
        raise ConfigError(f"a {model_type!r} model doesn't follow objects", hint=f"one of: {', '.join(FAMILIES)}")
    stock = getattr(importlib.import_module(f"transformers.models.{family.module}"), family.model)
    return type(f"Policy{family.model}", (ReadsByPolicy, stock), {"__module__": __name__})


def build(config: Any) -> Any:
    """A model with random weights from a configuration of transformers: for tests and for loading a state dict."""
    return policy_class(config.model_type)(config).eval()


def new_session(model: Any) -> Any:
    """An empty session for ``model``, on its device and of its dtype."""
    import importlib

    family = FAMILIES[model.config.model_type]
    session = getattr(importlib.import_module(f"transformers.models.{family.module}"), family.session)
    device = next(model.parameters()).device
    # The default dtype of a session is the string "float32", which Tensor.to refuses.
    return session(
        inference_device=device, inference_state_device=device, video_storage_device=device, dtype=dtype(model)
    )


def dtype(model: Any) -> torch.dtype:
    """The dtype of a model's weights."""
    return cast("torch.dtype", next(model.parameters()).dtype)


def open_model(
    model: str | os.PathLike[str] = SAM2_DEFAULT,
    *,
    revision: str | None = None,
    allow_download: bool | None = None,
    device: str = "auto",
) -> Any:
    """Load SAM 2 or EdgeTAM from a folder or by ``owner/name[@revision]`` from the local hub cache.

    ``device``: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``. Only safetensors are read. Raises ModelUnavailable (files or
    the extra are missing: the message lists them, the hint is the command that gets them) and ConfigError."""
    files = find_model(model, revision=revision, allow_download=allow_download, required=REQUIRED)
    kind = str(files.read_json("config.json").get("model_type", ""))
    # The hub's image checkpoints of SAM 2 say "sam2_video" too; an older "sam2" has no memory.
    found = policy_class(kind)
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        loaded, report = cast("Any", found).from_pretrained(
            Path(files.folder), local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelUnavailable(f"{files.model} can't be loaded: {error}", hint="fetch the model again") from error
    missing = _names(report.get("missing_keys", ()))
    if missing:
        raise ModelUnavailable(
            f"{files.model} lacks {len(missing)} weights, the first {missing[0]}", hint="it is another model"
        )
    return loaded.to(chosen).eval()


def _names(keys: Sequence[str]) -> list[str]:
    return sorted(str(key) for key in keys)
