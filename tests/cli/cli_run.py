"""The command as people run it: how it is called, what comes back, and a clip whose truth is known."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Exactly one JSON document, and nothing else, was on stdout."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


Run = Callable[..., Done]


def command() -> list[str]:
    return [sys.executable, "-m", "streammem"]


def environment(**extra: str) -> dict[str, str]:
    """This process's, without anything that could change an outcome."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("STREAMMEM") and k not in ("NO_COLOR", "COLUMNS")}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH", "")]))
    return kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "120", **extra}


def write_clip(path: Path, *, seconds: int = 6, fps: int = 10, size: tuple[int, int] = (320, 240)) -> Path:
    """An mp4 whose truth is known: a sign that says OPEN on blue for the first half, plain green for the second."""
    import av
    import cv2

    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 2_000_000
        for number in range(seconds * fps):
            picture = np.empty((height, width, 3), np.uint8)
            picture[:] = (30, 60, 200) if number < seconds * fps // 2 else (40, 160, 60)
            if number < seconds * fps // 2:
                cv2.rectangle(picture, (40, 70), (280, 170), (255, 255, 255), -1)
                cv2.putText(picture, "OPEN", (65, 145), cv2.FONT_HERSHEY_SIMPLEX, 2.2, (0, 0, 0), 6)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path
