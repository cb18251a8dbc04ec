"""The stored calibration of the default space: thresholds measured on questions about absent things.

``data/calibration.json`` is made by ``tools/calibrate.py``; it says on which clips and questions.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import msgspec

from streammem.spaces import Calibration

FILE = "calibration.json"


@cache
def load(space_id: str) -> Calibration | None:
    """The calibration of ``name@version``, or None where none was measured for exactly this space."""
    path = resources.files("perception.encoders") / "data" / FILE
    if not path.is_file():
        return None
    stored = msgspec.json.decode(path.read_bytes(), type=Calibration)
    return stored if f"{stored.space}@{stored.version}" == space_id else None
