"""One object in one frame, as a tracker reports it, and the small nouns around it.

Any tracker can fill a :class:`FrameRecord`: SAM 2 from its decoder, label propagation from its winners, a detector
from a box and a descriptor. What is heavy (feature maps, memory tokens) stays with the tracker, under the frame's
number ``t``; the record states its bytes, and the tracker frees it when the memory drops the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np

from streammem.errors import CorruptData
from streammem.model import Box

Role = Literal["prompt", "recent", "long"]
Action = Literal["add", "drop", "refuse", "refresh"]
CONDITIONING = 0
"""The temporal row of SAM 2 that prompts and long-term frames are read with (row 6 of 7; offset 0 in transformers)."""
ROW_BYTES = 400
"""RAM of a record besides its arrays: one Python object of slots, a tuple, numbers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameRecord:
    """One object in one frame.

    ``t`` is the tracker's frame number, ``t_ns`` the capture time. ``presence_logit`` > 0 means visible. ``pred_iou``
    is the tracker's own estimate of its mask's IoU in [0, 1]; ``alt_ious`` those of the rejected hypotheses. ``box``
    is in fractions of the picture, None where the mask is empty; ``area`` is the mask's share of the picture.
    ``mask`` (h, w) bool and ``alt_masks`` (k, h, w) bool at any small size are looked at when the frame is offered and
    not kept. ``desc_map`` (c, h, w) describes the whole frame with its mask (SAM 2's memory map), ``desc_obj`` (d,)
    the object, ``desc_back`` (d,) what is around it. ``motion_iou`` is the overlap with a motion model's box.
    ``quality`` is IoU(refined, coarse) where a mask was refined. ``payload_bytes`` is what the tracker keeps for it.
    """

    obj: str
    t: int
    t_ns: int = 0
    is_prompt: bool = False
    presence_logit: float = 0.0
    pred_iou: float = 1.0
    alt_ious: tuple[float, ...] = ()
    box: Box | None = None
    area: float = 0.0
    motion_iou: float | None = None
    quality: float = 1.0
    mask: np.ndarray | None = None
    alt_masks: np.ndarray | None = None
    desc_map: np.ndarray | None = None
    desc_obj: np.ndarray | None = None
    desc_back: np.ndarray | None = None
    payload_bytes: int = 0

    @property
    def visible(self) -> bool:
        """Seen, and not an empty mask."""
        return self.presence_logit > 0 and self.box is not None

    @property
    def bytes(self) -> int:
        """RAM that keeping it costs, the tracker's payload included."""
        arrays = (self.mask, self.alt_masks, self.desc_map, self.desc_obj, self.desc_back)
        return ROW_BYTES + self.payload_bytes + sum(array.nbytes for array in arrays if array is not None)

    def kept(self) -> FrameRecord:
        """As a memory keeps it: without the masks, descriptors copied (a view would keep a whole frame in RAM)."""
        return replace(
            self,
            mask=None,
            alt_masks=None,
            desc_map=None if self.desc_map is None else np.array(self.desc_map, dtype=np.float16),
            desc_obj=None if self.desc_obj is None else np.array(self.desc_obj, dtype=np.float32),
            desc_back=None if self.desc_back is None else np.array(self.desc_back, dtype=np.float32),
        )


class Read(msgspec.Struct, frozen=True):
    """One entry that the tracker should attend to for a frame. ``tpos`` 0 is the conditioning row, 1 to 6 an age or
    a rank, 1 the newest. ``weight`` scales its keys (1 everywhere but in SAM2Long-like policies)."""

    t: int
    tpos: int
    role: Role
    weight: float = 1.0
    why: str = ""


class Change(msgspec.Struct, frozen=True, array_like=True):
    """What became of a frame, and why. The audit of a memory is a list of these; ``at`` is the frame that caused it."""

    t: int
    action: Action
    role: Role
    reason: str
    at: int


class Limits(msgspec.Struct, frozen=True):
    """What one object may keep: records besides its prompts, prompts, and bytes of both (0: no cap of its own)."""

    frames: int
    prompts: int = 16
    bytes: int = 0


class Hypothesis(msgspec.Struct, frozen=True):
    """One of several masks that a tracker could choose for a frame. ``inside`` and ``ring`` are the mean descriptors
    (d,) of the mask and of a ring around it, where the tracker has features."""

    pred_iou: float
    box: Box | None = None
    area: float = 0.0
    inside: Any = None
    ring: Any = None


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two arrays of one shape, flattened, in [-1, 1]; 0 where one of them is zero."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norm if norm > 0 else 0.0


def box_iou(a: Box | None, b: Box | None) -> float:
    """Intersection over union of two boxes; 0 where one is missing."""
    if a is None or b is None:
        return 0.0
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / union if union > 0 else 0.0


def mask_box(mask: np.ndarray) -> Box | None:
    """The box of a mask (h, w) in fractions of the picture, pixel edges included; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    height, width = mask.shape
    x0, y0, x1, y1 = (int(edge) for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return (x0 / width, y0 / height, x1 / width, y1 / height)


_ARRAYS = ("desc_map", "desc_obj", "desc_back")
_NUMBERS = (
    "obj", "t", "t_ns", "is_prompt", "presence_logit", "pred_iou", "alt_ious", "box", "area", "motion_iou", "quality",
    "payload_bytes",
)  # fmt: skip


def pack_records(records: Sequence[FrameRecord]) -> list[dict[str, Any]]:
    """Records as plain types, for msgpack."""
    packed = []
    for record in records:
        plain: dict[str, Any] = {name: getattr(record, name) for name in _NUMBERS}
        for name in _ARRAYS:
            array = getattr(record, name)
            if array is not None:
                plain[name] = (array.dtype.str, array.shape, array.tobytes())
        packed.append(plain)
    return packed


def unpack_records(packed: Sequence[dict[str, Any]]) -> list[FrameRecord]:
    """The records again. Raises CorruptData."""
    records = []
    try:
        for plain in packed:
            fields = dict(plain)
            for name in _ARRAYS:
                if name in fields:
                    dtype, shape, data = fields[name]
                    if dtype not in ("<f2", "<f4"):
                        raise ValueError(f"an array of {dtype!r}")
                    fields[name] = np.frombuffer(data, np.dtype(dtype)).reshape(shape).copy()
            fields["alt_ious"] = tuple(fields["alt_ious"])
            fields["box"] = None if fields["box"] is None else tuple(fields["box"])
            records.append(FrameRecord(**fields))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptData(f"a saved frame of a track can't be read: {error}") from error
    return records
