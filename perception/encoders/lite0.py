"""EfficientNet-Lite0 through ONNX Runtime: ImageNet logits, the pooled vector and feature maps at stride 8 and 16.

Two precisions of the same weights. ``int8`` is what pictures are watched with: 4.4 ms a crop where float32 takes 10.6
(one core with VNNI), its logits correlate .989 with float32's. ``float32`` has the feature maps, and differs from the
same layers in torch by less than 1e-4.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from perception.encoders import lite0_graph, runtime, weights
from perception.encoders.lite0_graph import CLASSES, POOLED

if TYPE_CHECKING:
    import onnxruntime

SIZE = 224
Precision = Literal["int8", "float32"]
_FLOAT_RECIPE, _INT8_RECIPE = "lite0-1", "lite0-int8-1"


Make = Callable[[], tuple[str, Callable[[], bytes]]]
"""Recipe and builder of a graph: another recipe is another file."""


class Graph:
    """One graph of these weights, built once on a machine and opened at first use. Thread-safe: ONNX Runtime sessions
    may run from several threads."""

    def __init__(self, make: Make, *, cache: Path | None = None) -> None:
        self._make = make
        self._cache = cache
        self._lock = threading.Lock()
        self._session: onnxruntime.InferenceSession | None = None

    def run(self, pixels: np.ndarray, *outputs: str) -> list[np.ndarray]:
        """``pixels`` (n, h, w, 3) uint8 RGB -> the named outputs. Raises ModelUnavailable."""
        return self.session.run(list(outputs), {"pixels": pixels})

    @property
    def session(self) -> onnxruntime.InferenceSession:
        with self._lock:
            if self._session is None:
                recipe, build = self._make()

                def write(folder: Path) -> None:
                    (folder / "model.onnx").write_bytes(build())

                folder = weights.prepared(weights.LITE0, recipe, ("model.onnx",), write, cache=self._cache)
                self._session = runtime.open_session(folder / "model.onnx")
            return self._session


class Lite0(Graph):
    """The whole network. Outputs: ``logits`` (n, 1000), ``pooled`` (n, 1280), ``stride8`` (n, 40, 28, 28),
    ``stride16`` (n, 112, 14, 14), all float32, for pixels of 224 x 224. ``int8`` has no maps. For the maps alone,
    height and width may be any multiples of 32."""

    def __init__(self, precision: Precision = "int8", *, cache: Path | None = None) -> None:
        super().__init__(_float if precision == "float32" else _int8, cache=cache)


def _float() -> tuple[str, Callable[[], bytes]]:
    return _FLOAT_RECIPE, lambda: lite0_graph.float32(load_state())


def _int8() -> tuple[str, Callable[[], bytes]]:
    """Other ranges make another graph."""
    ranges = lite0_graph.load_ranges()
    return f"{_INT8_RECIPE}-{ranges_digest(ranges)}", lambda: lite0_graph.int8(load_state(), ranges)


def ranges_digest(ranges: lite0_graph.Ranges) -> str:
    """A short hash that tells graphs of different ranges apart."""
    return hashlib.sha256(repr(sorted(ranges.items())).encode()).hexdigest()[:8]


def load_state() -> dict[str, np.ndarray]:
    """The checked weights by layer name, float32. Imports torch: once in the life of a machine."""
    import torch

    content = weights.read_verified(weights.LITE0)
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {name: tensor.numpy().astype(np.float32) for name, tensor in state.items() if tensor.ndim}


__all__ = ["CLASSES", "POOLED", "SIZE", "Graph", "Lite0", "Precision", "load_state", "ranges_digest"]
