"""How a box looks, as one vector: a re-identification network in an ONNX file, or the embedded Lite0."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from perception.encoders import runtime
from perception.trackers.boxes import Boxes
from perception.trackers.features import GridFeatures, Lite0Maps
from streammem.errors import ConfigError, ModelUnavailable

if TYPE_CHECKING:
    import onnxruntime

MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


class Appearance(Protocol):
    """Boxes of a picture -> unit vectors."""

    @property
    def name(self) -> str: ...
    @property
    def alike(self) -> float:
        """Cosine from which two boxes may be the same thing. It depends on the network."""
        ...

    def describe(self, image: np.ndarray, found: Boxes) -> np.ndarray:
        """(h, w, 3) uint8 RGB -> (n, d) float32."""
        ...


class ReidOnnx:
    """OSNet and its like: (n, 3, 256, 128) RGB crops, standardised as for ImageNet -> vectors. People only."""

    alike = 0.85

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelUnavailable(f"there is no network at {self.path}", hint="give the path of an ONNX file")
        self._lock = threading.Lock()
        self._session: onnxruntime.InferenceSession = runtime.open_session(self.path)
        given = self._session.get_inputs()[0]
        if len(given.shape) != 4 or not all(isinstance(size, int) for size in given.shape[1:]):
            raise ConfigError(f"{self.path}: takes {given.shape}, not crops (n, 3, h, w)", hint="export a fixed size")
        self._input, self._size = given.name, (int(given.shape[2]), int(given.shape[3]))

    @property
    def name(self) -> str:
        return self.path.stem

    def describe(self, image: np.ndarray, found: Boxes) -> np.ndarray:
        """One crop at a time: the file's batch is 1."""
        vectors = []
        for box in found.xyxy:
            crop = cv2.resize(_crop(image, box), self._size[::-1], interpolation=cv2.INTER_LINEAR)
            planes = ((crop.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)[None]
            with self._lock:
                vectors.append(self._session.run(None, {self._input: np.ascontiguousarray(planes)})[0][0])
        return _unit(np.stack(vectors)) if vectors else np.zeros((0, 0), np.float32)


class Lite0Boxes:
    """Without such a network: the embedded Lite0's stride 8 and 16 maps and the colour, averaged over the middle of
    the box. One pass for the picture, whatever the number of boxes. Weak between people, good between kinds."""

    name = "efficientnet-lite0"
    alike = 0.93

    def __init__(self, features: GridFeatures | None = None) -> None:
        self._features = features or Lite0Maps("float32")  # what the thresholds were measured with
        self._mean: np.ndarray | None = None
        self._scale: np.ndarray | None = None

    def describe(self, image: np.ndarray, found: Boxes) -> np.ndarray:
        """Raises ModelUnavailable where Lite0's weights are missing."""
        grid = self._features.grid(image)
        rows, columns = grid.shape[:2]
        if self._mean is None:
            # Standardised by the first picture: without it all boxes have a cosine above 0.95.
            flat = grid.reshape(-1, grid.shape[2])
            self._mean, self._scale = flat.mean(axis=0), 1 / (flat.std(axis=0) + 1e-6)
        height, width = image.shape[:2]
        vectors = np.zeros((len(found), grid.shape[2]), np.float32)
        for at, (x0, y0, x1, y1) in enumerate(found.xyxy):
            inset = 0.15 * (x1 - x0)  # the borders of a box show what is behind the thing
            left, right = int((x0 + inset) / width * columns), int(np.ceil((x1 - inset) / width * columns))
            top, bottom = int(y0 / height * rows), int(np.ceil(y1 / height * rows))
            left, top = min(left, columns - 1), min(top, rows - 1)
            part = grid[top : max(bottom, top + 1), left : max(right, left + 1)]
            vectors[at] = (part.mean(axis=(0, 1)) - self._mean) * self._scale
        return _unit(vectors)


def open_appearance(model: str) -> Appearance:
    """``lite0`` or ``PATH.onnx``. Raises ModelUnavailable, ConfigError."""
    if model == "lite0":
        return Lite0Boxes()
    if model.lower().endswith(".onnx"):
        return ReidOnnx(model)
    raise ConfigError(f"{model!r} doesn't describe boxes", hint="lite0, or the path of an ONNX network")


def _crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    x0, y0 = int(np.clip(box[0], 0, width - 1)), int(np.clip(box[1], 0, height - 1))
    x1, y1 = int(np.clip(np.ceil(box[2]), x0 + 1, width)), int(np.clip(np.ceil(box[3]), y0 + 1, height))
    return image[y0:y1, x0:x1]


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = (vectors / np.maximum(norms, 1e-9)).astype(np.float32)
    return unit
