"""Follow objects with SAM 2 or EdgeTAM, frame by frame, with any policy of :mod:`streammem.banks.policies`.

Every object has a session of its own; the picture's features are computed once for all. So an object that comes, goes
or is mended can't change another one: the stock batch binarises the memory of *all* objects in a frame where one of
them is prompted. What a session holds is pruned after each frame to what the policy keeps, exactly: FIFO with 15 frames
kept equals the model that keeps everything, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import msgspec
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from perception.trackers import sam2_model
from perception.trackers.propagation import Tracked
from perception.trackers.sam2_prompts import SamPrompt, inputs, pixels
from streammem.banks.policies import FrameMemory, FrameRecord, make_policy
from streammem.banks.policies.record import mask_box
from streammem.errors import CorruptData, InputError

OBJECT = 1
"""The only object's id in its session."""
KEPT = ("maskmem_features", "maskmem_pos_enc", "object_pointer", "object_score_logits")
"""What later frames read. The masks (4 MB each at 1024 pixels) aren't read again."""
MAP_POLICIES = ("resurg", "resurg_release")
"""Policies that compare whole memory maps; the others compare the object's own features, a hundredth of the bytes."""
WRONG_PROMPT = "prompt another place, or give a mask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sam2Settings:
    """``prune=False`` keeps every frame's payload, as the stock session does (for comparison only).
    ``non_overlapping`` gives each pixel to one object in what is returned; the memories aren't touched by it."""

    policy: str = "diverse"
    non_overlapping: bool = True
    prune: bool = True
    max_objects: int = 32


@dataclass(slots=True)
class _Object:
    memory: FrameMemory
    session: Any
    logits: np.ndarray | None = None
    """Of the newest frame (h, w) float32, in the size of the picture."""


class Sam2Tracker:
    """Objects of one stream. Not for several threads at once. ``model`` is from ``sam2_model.open_model`` or
    ``build``; it may be shared by trackers that take turns."""

    def __init__(self, model: Any, settings: Sam2Settings | None = None) -> None:
        self.settings = settings or Sam2Settings()
        make_policy(self.settings.policy)
        self._model = model
        self._device = next(model.parameters()).device
        self._dtype = sam2_model.dtype(model)
        self._side = _side(model.config.image_size)
        self._objects: dict[str, _Object] = {}
        self._size: tuple[int, int] | None = None
        self._pixels: torch.Tensor | None = None
        self._places: torch.Tensor | None = None
        """The sine code of places, the same for every frame: one copy."""
        self._cache = sam2_model.new_session(model).cache
        self.last: int | None = None
        self.last_ns = 0
        self.dropped: dict[str, int] = {}
        """Frames that weren't taken in, by reason."""

    @property
    def objects(self) -> list[str]:
        return sorted(self._objects)

    def memory(self, obj: str) -> FrameMemory:
        """The memory of an object. Raises InputError for one that isn't tracked."""
        return self._known(obj).memory

    def logits(self, obj: str) -> np.ndarray | None:
        """Mask logits (h, w) float32 of the newest frame; above 0 is the object. None before the first."""
        return self._known(obj).logits

    def remove(self, obj: str) -> None:
        """Stop following an object, visible or not; the others aren't affected. Raises InputError."""
        self._known(obj)
        del self._objects[obj]

    def step(
        self, image: np.ndarray, *, t: int, t_ns: int = 0, prompts: Mapping[str, np.ndarray | SamPrompt] | None = None
    ) -> Tracked:
        """Take in the next frame: follow every object, and start or mend those in ``prompts`` (by name).

        A frame that isn't newer than the last, or of another size, is dropped and counted. Raises InputError for a
        prompt that can't be used or one object too many; nothing is changed then, but for a point or box in which the
        model finds nothing: that prompt alone is not taken."""
        prompts = dict(prompts or {})
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(f"a frame is {image.shape} of {image.dtype}", hint="give (h, w, 3) uint8 RGB")
        given = {name: inputs(one, name, image.shape[:2], self._side) for name, one in prompts.items()}
        if len({*self._objects, *prompts}) > self.settings.max_objects:
            raise InputError(f"more than {self.settings.max_objects} objects", hint="remove one first")
        refused = self._refusal(image, t)
        if refused:
            self.dropped[refused] = self.dropped.get(refused, 0) + 1
            return Tracked(t, refused=refused)
        self.last, self.last_ns, self._size = t, t_ns, image.shape[:2]
        self._pixels = pixels(image, self._side, self._device, self._dtype)
        self._cache.clear_all()
        records = {name: self._follow(name) for name in self.objects if name not in given}
        for name, one in given.items():
            records[name] = self._prompt(name, one)
        return self._tracked(records)

    def prompt(self, obj: str, prompt: np.ndarray | SamPrompt) -> Tracked:
        """Start or mend an object in the frame that was just taken in (a person saw the result and clicked).

        Raises InputError before the first frame, and for a prompt that can't be used."""
        if self._size is None or self._pixels is None:
            raise InputError(f"no frame to prompt {obj!r} in", hint="call step with a frame first")
        if len({*self._objects, obj}) > self.settings.max_objects:
            raise InputError(f"more than {self.settings.max_objects} objects", hint="remove one first")
        return self._tracked({obj: self._prompt(obj, inputs(prompt, obj, self._size, self._side))})

    def ram_bytes(self) -> int:
        """Bytes of all memories and of the newest frame, on whichever device."""
        kept = [entry for one in self._objects.values() for entry in sam2_model.payload_of(one.session, 0).values()]
        payload = sum(_size(value) for entry in kept for key, value in entry.items() if key != "maskmem_pos_enc")
        records = sum(
            record.bytes - record.payload_bytes
            for one in self._objects.values()
            for _, record in one.memory.held().values()
        )
        return payload + records + sum(_size(part) for part in (self._places, self._pixels))

    # one object in the newest frame

    def _known(self, obj: str) -> _Object:
        if obj not in self._objects:
            raise InputError(f"object {obj!r} isn't tracked", hint=f"tracked: {', '.join(self.objects) or 'none'}")
        return self._objects[obj]

    def _refusal(self, image: np.ndarray, t: int) -> str:
        if self.last is not None and t <= self.last:
            return "duplicate frame" if t == self.last else "out of order"
        if self._size is not None and image.shape[:2] != self._size and self._objects:
            return "another frame size"
        return ""

    def _new(self, name: str) -> _Object:
        session = sam2_model.new_session(self._model)
        session.cache = self._cache
        session.obj_id_to_idx(OBJECT)
        memory = FrameMemory(make_policy(self.settings.policy), obj=name)
        session.frame_memory = memory
        return _Object(memory, session)

    def _follow(self, name: str) -> FrameRecord:
        one = self._objects[name]
        logits = self._run(one)
        record = self._record(name, one, logits, is_prompt=False)
        one.memory.observe(record)
        self._prune(one)
        return record

    def _prompt(self, name: str, given: dict[str, torch.Tensor] | torch.Tensor) -> FrameRecord:
        assert self.last is not None
        one = self._objects.get(name) or self._new(name)
        outputs = one.session.output_dict_per_obj[0]
        before = {key: dict(value) for key, value in outputs.items()}
        # Without an output of this frame the model takes it as one that is conditioned on.
        for entries in outputs.values():
            entries.pop(self.last, None)
        one.session.frames_tracked_per_obj[0].pop(self.last, None)
        if isinstance(given, dict):
            one.session.add_point_inputs(0, self.last, given)
        else:
            one.session.add_mask_inputs(0, self.last, given)
        one.session.obj_with_new_inputs = [OBJECT]
        old = one.logits
        try:
            record = self._record(name, one, self._run(one), is_prompt=True)
            if record.box is None:
                raise InputError(f"the model finds nothing where {name!r} is prompted", hint=WRONG_PROMPT)
            one.memory.start(record)
        except InputError:
            outputs.update(before)
            one.logits = old
            raise
        finally:
            one.session.point_inputs_per_obj[0].clear()
            one.session.mask_inputs_per_obj[0].clear()
            one.session.obj_with_new_inputs = []
        self._objects[name] = one
        self._prune(one)
        return record

    def _run(self, one: _Object) -> torch.Tensor:
        """The model on the newest frame: mask logits (1, 1, s, s) at the decoder's size."""
        done = self._model(one.session, frame=self._pixels, frame_idx=self.last)
        logits: torch.Tensor = done.pred_masks
        height, width = self._size or (0, 0)
        shown = torch.nn.functional.interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)
        one.logits = shown[0, 0].cpu().numpy()
        return logits

    def _record(self, name: str, one: _Object, logits: torch.Tensor, *, is_prompt: bool) -> FrameRecord:
        assert self.last is not None and one.logits is not None
        kept = sam2_model.payload_of(one.session, 0)[self.last]
        heard = self._model.heard
        mask = (logits[0, 0] > 0).cpu().numpy()
        inside, around = self._described(one.session, mask)
        others = [at for at in range(len(heard.ious)) if at != heard.chosen] if heard is not None else []
        shown = one.logits > 0
        return FrameRecord(
            obj=name,
            t=self.last,
            t_ns=self.last_ns,
            is_prompt=is_prompt,
            # A mask that was given is certain: the decoder ran for the pointer only.
            presence_logit=heard.presence if heard is not None else float(kept["object_score_logits"].reshape(-1)[0]),
            pred_iou=min(max(heard.ious[heard.chosen], 0.0), 1.0) if heard is not None else 1.0,
            alt_ious=tuple(heard.ious[at] for at in others) if heard is not None else (),
            box=mask_box(shown),
            area=float(shown.mean()),
            mask=mask,
            alt_masks=heard.masks[others] if heard is not None and others else None,
            desc_map=_map(kept["maskmem_features"]) if self.settings.policy in MAP_POLICIES else None,
            desc_obj=inside,
            desc_back=around,
            payload_bytes=sum(_size(kept.get(key)) for key in KEPT if key != "maskmem_pos_enc"),
        )

    def _described(self, session: Any, mask: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Mean features (d,) of the mask and of a ring around it, unit length; None for an empty mask."""
        assert self.last is not None
        if not mask.any():
            return None, None
        features = session.cache.get_vision_features(self.last)["vision_feats"][-1][:, 0].float().cpu().numpy()
        rows = int(len(features) ** 0.5)
        soft = cv2.resize(mask.astype(np.float32), (rows, rows), interpolation=cv2.INTER_AREA)
        ring = cv2.dilate((soft > 0).astype(np.uint8), np.ones((7, 7), np.uint8)) * (soft == 0)
        inside, around = soft.ravel() @ features, ring.ravel().astype(np.float32) @ features
        return _unit(inside), _unit(around)

    def _prune(self, one: _Object) -> None:
        assert self.last is not None
        times = one.memory.times()
        for entries in one.session.output_dict_per_obj[0].values():
            if self.settings.prune:
                for t in [t for t in entries if t not in times]:
                    del entries[t]
            for t, entry in entries.items():
                entries[t] = {key: self._shared(entry[key]) if key == KEPT[1] else entry[key] for key in KEPT}
        # Only the newest frame is asked for; these two grow by one entry a frame otherwise.
        one.session.processed_frames = None
        if self.settings.prune:
            one.session.frames_tracked_per_obj[0] = {}

    def _shared(self, places: torch.Tensor) -> torch.Tensor:
        if self._places is None or not torch.equal(self._places, places):
            self._places = places
        return self._places

    def _tracked(self, records: dict[str, FrameRecord]) -> Tracked:
        assert self.last is not None
        planes = {name: self._objects[name].logits for name in records if self._objects[name].logits is not None}
        masks = {name: plane > 0 for name, plane in planes.items() if plane is not None}
        if self.settings.non_overlapping and len(masks) > 1:
            names = sorted(masks)
            best = np.argmax(np.stack([planes[name] for name in names]), axis=0)  # type: ignore[misc]
            masks = {name: masks[name] & (best == at) for at, name in enumerate(names)}
        visible = {name: mask for name, mask in masks.items() if mask.any() and records[name].presence_logit > 0}
        return Tracked(self.last, masks=visible, records={n: replace(r, mask=None) for n, r in records.items()})

    # saving

    def state(self) -> bytes:
        """Everything needed to go on with the next frame: memories and their payloads, no code."""
        names = self.objects
        objects = []
        tensors: dict[str, torch.Tensor] = {}
        for at, name in enumerate(names):
            one = self._objects[name]
            objects.append(_SavedObject(name, one.memory.state()))
            for kind, entries in one.session.output_dict_per_obj[0].items():
                for t, entry in entries.items():
                    for key in KEPT:
                        if key != KEPT[1]:
                            tensors[f"{at}/{kind}/{t}/{key}"] = entry[key].contiguous().clone()
        if self._places is not None:
            tensors["places"] = self._places.contiguous()
        saved = _Saved(self.settings.policy, self.last, self.last_ns, self._size, objects, save_tensors(tensors))
        return msgspec.msgpack.encode(saved)

    def load(self, state: bytes) -> None:
        """Take up a saved state of the same policy and model. Raises CorruptData; nothing is changed then."""
        try:
            saved = msgspec.msgpack.decode(state, type=_Saved)
            tensors = load_tensors(saved.tensors)
        except (msgspec.DecodeError, msgspec.ValidationError, SafetensorError) as error:
            raise CorruptData(f"the saved state of a SAM 2 tracker can't be read: {error}") from error
        if saved.policy != self.settings.policy:
            raise CorruptData(f"it was saved with the policy {saved.policy!r}, not {self.settings.policy!r}")
        places = tensors.pop("places", None)
        objects = {one.name: self._new(one.name) for one in saved.objects}
        for one in saved.objects:
            objects[one.name].memory.load(one.memory)
        names = [one.name for one in saved.objects]
        places = places if places is None else places.to(self._device)
        try:
            for key, tensor in tensors.items():
                at, kind, t, what = key.split("/")
                entries = objects[names[int(at)]].session.output_dict_per_obj[0][kind]
                entry = entries.setdefault(int(t), {KEPT[1]: places})
                entry[what] = tensor.to(self._device)
        except (KeyError, ValueError, IndexError) as error:
            raise CorruptData(f"the saved state of a SAM 2 tracker can't be used: {error}") from error
        for name, found in objects.items():
            if not found.memory.times() <= set(sam2_model.payload_of(found.session, 0)):
                raise CorruptData(f"the saved state lacks frames of object {name!r}")
        self._objects, self._places = objects, places
        self.last, self.last_ns, self._size, self._pixels = saved.last, saved.last_ns, saved.size, None


class _SavedObject(msgspec.Struct, array_like=True):
    name: str
    memory: bytes


class _Saved(msgspec.Struct):
    policy: str
    last: int | None
    last_ns: int
    size: tuple[int, int] | None
    objects: list[_SavedObject]
    tensors: bytes


def _side(size: int | list[int] | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else size[0]


def _size(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0


def _unit(vector: np.ndarray) -> np.ndarray:
    return (vector / max(float(np.linalg.norm(vector)), 1e-9)).astype(np.float32)


def _map(features: torch.Tensor) -> np.ndarray:
    """A frame's memory (places, 1, channels), or (1, places, channels) in EdgeTAM -> (channels, rows, columns)."""
    flat = features.reshape(-1, features.shape[-1]).float().cpu().numpy()
    rows = int(len(flat) ** 0.5)
    shape = (rows, rows) if rows * rows == len(flat) else (len(flat), 1)
    return np.ascontiguousarray(flat.T).reshape(-1, *shape)
