"""Made-up frames of one object for the tests of policies."""

from __future__ import annotations

import numpy as np

from streammem.banks.policies import FrameRecord

BOX = (0.2, 0.2, 0.5, 0.5)


def far_piece(apart: bool) -> tuple[np.ndarray, np.ndarray]:
    """A mask (16, 16) and one rejected hypothesis: the same mask, with a second object in the far corner or not."""
    mask = np.zeros((16, 16), bool)
    mask[3:8, 3:8] = True
    other = mask.copy()
    if apart:
        other[11:15, 11:15] = True
    return mask, other[None]


def frame(
    t: int,
    *,
    prompt: bool = False,
    logit: float = 4.0,
    iou: float = 0.97,
    vector: np.ndarray | None = None,
    area: float = 0.09,
    apart: bool = False,
    box: tuple[float, float, float, float] | None = BOX,
) -> FrameRecord:
    mask, others = far_piece(apart)
    vector = np.ones(4, np.float32) if vector is None else vector
    return FrameRecord(
        obj="o",
        t=t,
        t_ns=t * 1000,
        is_prompt=prompt,
        presence_logit=logit,
        pred_iou=iou,
        box=box if logit > 0 else None,
        area=area,
        mask=mask,
        alt_masks=others,
        desc_map=np.tile(np.asarray(vector, np.float32)[:, None, None], (1, 2, 3)),
        desc_obj=np.asarray(vector, np.float32),
        desc_back=np.asarray(vector[::-1], np.float32),
    )
