"""What a seal saves of a stream's map: ids of what is complete, and the open submap with every bit."""

from __future__ import annotations

import msgspec
import numpy as np

from streammem.banks.spatial.submap import Submap, arrays_of, submap_from


class OpenState(msgspec.Struct, frozen=True):
    """An open submap: arrays as (name, dtype, shape, bytes)."""

    frame_id: str
    arrays: list[tuple[str, str, list[int], bytes]]


class State(msgspec.Struct, frozen=True):
    """What a seal saves of a stream's map."""

    submaps: list[int]
    corrections: list[int]
    open: OpenState | None
    frame_id: str
    next_number: int
    depths: int
    rejected: dict[str, int]
    last: tuple[float, float, float] | None
    waiting: list[tuple[float, float, float]]
    current: int | None
    taken: int
    short: list[tuple[int, int | None, tuple[float, float, float], int, int, int]]


def pack(submap: Submap) -> OpenState:
    """An open submap, for the state."""
    arrays = arrays_of(submap, exact=True)
    packed = [
        (name, arrays[name].dtype.str, list(arrays[name].shape), arrays[name].tobytes()) for name in sorted(arrays)
    ]
    return OpenState(submap.frame_id, packed)


def unpack(state: OpenState) -> Submap:
    """The way back. Raises CorruptData."""
    arrays = {name: np.frombuffer(blob, dtype).reshape(shape) for name, dtype, shape, blob in state.arrays}
    return submap_from(arrays, state.frame_id, 0)
