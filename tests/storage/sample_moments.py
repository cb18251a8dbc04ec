"""Observations for tests: number i of a stream is the same in every process."""

from __future__ import annotations

import struct

import numpy as np

from streammem.config import BudgetConfig, Config, MemoryConfig
from streammem.model import Detection, Intrinsics, Label, Observation, Pose, Producer, Speech, TextSpan

SECOND = 10**9
SPACE = "test-space@1"


def tiny_jpeg(number: int, size: int = 400) -> bytes:
    """A JPEG as far as its header says (8 x 8 pixels), filled up with bytes that depend on ``number``."""
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, 8, 8, 1) + b"\x01\x11\x00"
    noise = np.random.default_rng(number).integers(0, 255, size, dtype=np.uint8).tobytes()
    return b"\xff\xd8\xff\xe0\x00\x04\x00\x00" + frame + b"\xff\xda" + noise + b"\xff\xd9"


def observation(number: int, stream: str = "cam", *, dim: int = 32, jpeg: int = 400, **changes: object) -> Observation:
    """A full observation: vector, parts, thumbnail, words, pose. ``changes`` replace fields."""
    rng = np.random.default_rng([number, len(stream)])
    vector = rng.normal(size=dim).astype(np.float32)
    vector /= np.linalg.norm(vector)
    fields: dict[str, object] = {
        "stream": stream,
        "session": "s",
        "seq": number,
        "capture_ns": number * SECOND,
        "media_ns": number * SECOND,
        "space": SPACE,
        "embedding": vector,
        "parts": {"scores": rng.normal(size=(number % 5, 4)).astype(np.float32)},
        "thumbnail": tiny_jpeg(number, jpeg),
        "labels": (Label(f"thing {number % 7}", 0.5),),
        "detections": (Detection("cup", 0.75, (0.1, 0.1, 0.5, 0.5), track="t1"),),
        "texts": (TextSpan(f"GATE {number}", 0.875),) if number % 3 == 0 else (),
        "speech": (Speech(f"word number {number}", number * SECOND, (number + 1) * SECOND),) if number % 4 == 0 else (),
        "pose": Pose((1.0, 2.0, float(number)), (0.0, 0.0, 0.0, 1.0)),
        "intrinsics": Intrinsics(500.0, 500.0, 320.0, 240.0, 640, 480),
        "stats": {"gray": 0.5},
        "producer": Producer("test", "model", "1", "abc"),
    }
    fields.update(changes)
    return Observation(**fields)  # type: ignore[arg-type]


OFF: dict[str, dict[str, bool]] = {
    name: {"on": False}
    for name, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and "on" in getattr(field.annotation, "model_fields", {})
}
"""Banks that can be switched off are: what the tests of the engine count is the engine's own."""


def small_config(seal_bytes: int = 16384, disk_bytes: int = 0, **memory: object) -> Config:
    """Seals often, so that a few hundred observations make many segments."""
    return Config(
        memory=MemoryConfig(seal_bytes=seal_bytes, **memory),  # type: ignore[arg-type]
        budget=BudgetConfig(disk_bytes=disk_bytes),
        **OFF,  # type: ignore[arg-type]
    )
