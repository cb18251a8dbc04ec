"""Detectors behind one protocol: YOLOX-style ONNX files through onnxruntime, and ultralytics where it is installed.

Ultralytics is AGPL-3.0: whoever ships it with a product takes on its terms. Nothing here depends on it; it is imported
when it is asked for (extra ``yolo``).
"""

from __future__ import annotations

import ast
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from perception.encoders import runtime
from perception.encoders.claim import COCO
from perception.trackers.boxes import Boxes, boxes
from streammem.errors import ConfigError, InputError, ModelUnavailable

if TYPE_CHECKING:
    import onnxruntime

LEAST_SCORE = 0.1
"""Detections below it are noise even for the second stage of an association."""
SAME_BOX = 0.6
"""Overlap from which two boxes of one class are one thing (non-maximum suppression)."""
GREY = 114
"""What the YOLO family pads pictures with."""
STRIDES = (8, 16, 32)


class Detector(Protocol):
    """Pictures -> boxes."""

    @property
    def name(self) -> str:
        """What made them, for the record's provenance."""
        ...

    def detect(self, image: np.ndarray) -> Boxes:
        """(h, w, 3) uint8 RGB -> boxes in its pixels."""
        ...


class OnnxDetector:
    """A YOLOX- or YOLO-style network in one ONNX file. Both layouts are told apart by their shapes:

    * YOLOX: (1, n, 5 + classes), raw offsets on grids of stride 8, 16 and 32, BGR bytes, letterboxed top left;
    * YOLOv8 and later: (1, 4 + classes, n), boxes in pixels, RGB in [0, 1], letterboxed in the middle.

    ``names`` are the classes; without them the file's own (ultralytics writes them) or COCO's where there are 80."""

    def __init__(
        self,
        path: str | Path,
        *,
        names: Sequence[str] | None = None,
        least_score: float = LEAST_SCORE,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelUnavailable(f"there is no detector at {self.path}", hint="give the path of an ONNX file")
        self._least = least_score
        self._wanted = frozenset(classes) if classes else None
        self._lock = threading.Lock()
        self._session: onnxruntime.InferenceSession = runtime.open_session(self.path)
        given = self._session.get_inputs()[0]
        shape = given.shape
        if len(shape) != 4 or shape[1] != 3 or len(self._session.get_outputs()) < 1:
            raise ConfigError(f"{self.path}: takes {shape}, not pictures (1, 3, h, w)", hint="export it without extras")
        self._input = given.name
        # A free size becomes 640, what these networks are trained at.
        self._side = tuple(size if isinstance(size, int) else 640 for size in shape[2:])
        self._names = tuple(names) if names is not None else self._own_names()

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its classes, in its order."""
        return self._names

    def detect(self, image: np.ndarray) -> Boxes:
        """(h, w, 3) uint8 RGB -> boxes in its pixels, the surest first. Raises InputError for another array, and
        ConfigError where the network's answer has no known layout."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(f"a picture is {image.shape} of {image.dtype}", hint="give (h, w, 3) uint8 RGB")
        height, width = self._side
        cells = sum((height // stride) * (width // stride) for stride in STRIDES)
        yolox = self._layout(cells)
        pixels, scale, (dx, dy) = _letterbox(image, height, width, middle=not yolox)
        planes = pixels[:, :, ::-1].astype(np.float32) if yolox else pixels.astype(np.float32) / 255
        with self._lock:
            answer = self._session.run(None, {self._input: np.ascontiguousarray(planes.transpose(2, 0, 1)[None])})[0]
        xyxy, scores, kinds = _yolox(answer, height, width) if yolox else _yolo(answer)
        xyxy = (xyxy - [dx, dy, dx, dy]) / scale
        return self._chosen(xyxy, scores, kinds, image.shape[:2])

    def _layout(self, cells: int) -> bool:
        """Whether it is YOLOX's: rows are places, and there are as many as cells of the three grids."""
        shape = self._session.get_outputs()[0].shape
        if len(shape) == 3 and shape[1] == cells:
            return True
        if len(shape) == 3 and (shape[2] == cells or isinstance(shape[2], str)):
            return False
        raise ConfigError(f"{self.path}: answers {shape}, neither YOLOX nor YOLO", hint="export it without extras")

    def _own_names(self) -> tuple[str, ...]:
        text = self._session.get_modelmeta().custom_metadata_map.get("names", "")
        try:
            told = ast.literal_eval(text) if text else {}
        except (ValueError, SyntaxError):
            told = {}
        if isinstance(told, dict) and told and all(isinstance(number, int) for number in told):
            return tuple(str(told.get(number, f"class {number}"))[:80] for number in range(max(told) + 1))
        return COCO

    def _chosen(self, xyxy: np.ndarray, scores: np.ndarray, kinds: np.ndarray, size: tuple[int, int]) -> Boxes:
        kept = np.flatnonzero((scores >= self._least) & np.isfinite(xyxy).all(axis=1))
        labels = [self._names[kind] if kind < len(self._names) else f"class {kind}" for kind in kinds[kept]]
        if self._wanted is not None:
            inside = [at for at, label in enumerate(labels) if label in self._wanted]
            kept, labels = kept[inside], [labels[at] for at in inside]
        xywh = np.concatenate([xyxy[kept, :2], xyxy[kept, 2:] - xyxy[kept, :2]], axis=1)
        order = cv2.dnn.NMSBoxesBatched(
            xywh.tolist(), scores[kept].tolist(), kinds[kept].tolist(), self._least, SAME_BOX
        )
        chosen = np.asarray(order, int).reshape(-1)
        limits = np.array([size[1], size[0], size[1], size[0]])
        return boxes(np.clip(xyxy[kept][chosen], 0, limits), scores[kept][chosen], [labels[at] for at in chosen])


class UltralyticsDetector:
    """A model of ``ultralytics`` (AGPL-3.0, extra ``yolo``): a path of weights that are there, or a loaded model."""

    def __init__(
        self,
        model: Any,
        *,
        least_score: float = LEAST_SCORE,
        classes: Sequence[str] | None = None,
    ) -> None:
        self._least = least_score
        self._wanted = frozenset(classes) if classes else None
        if isinstance(model, (str, Path)):
            if not Path(model).is_file():
                # It would download what it doesn't find.
                raise ModelUnavailable(f"there are no weights at {model}", hint="download them first")
            try:
                from ultralytics import YOLO
            except (ImportError, RuntimeError) as error:
                raise ModelUnavailable(
                    f"ultralytics can't be imported: {error}",
                    hint="pip install 'streammem[yolo]' (AGPL-3.0), or export the model to ONNX",
                ) from error
            self._name, model = Path(model).stem, YOLO(str(model))
        else:
            self._name = type(model).__name__
        self._model = model

    @property
    def name(self) -> str:
        return self._name

    def detect(self, image: np.ndarray) -> Boxes:
        """(h, w, 3) uint8 RGB -> boxes in its pixels. Raises InputError where the model answers something else."""
        # Arrays are taken as BGR there.
        results = self._model.predict(np.ascontiguousarray(image[:, :, ::-1]), conf=self._least, verbose=False)
        if not isinstance(results, Sequence) or len(results) != 1 or not hasattr(results[0], "boxes"):
            raise InputError("the model didn't answer one result with boxes", hint="give a detection model")
        found, names = results[0].boxes, results[0].names
        if found is None or not len(found):
            return boxes(np.zeros((0, 4)), [], [])
        kinds = _plain(found.cls).astype(int)
        labels = [str(names[int(kind)]) for kind in kinds]
        all_boxes = boxes(_plain(found.xyxy), _plain(found.conf), labels)
        if self._wanted is None:
            return all_boxes
        return all_boxes.take([at for at, label in enumerate(labels) if label in self._wanted])


def open_detector(model: str, *, classes: Sequence[str] | None = None) -> Detector:
    """``PATH.onnx`` or ultralytics' ``PATH.pt``. Raises ModelUnavailable, ConfigError."""
    if model.lower().endswith(".onnx"):
        return OnnxDetector(model, classes=classes)
    if model.lower().endswith(".pt"):
        return UltralyticsDetector(model, classes=classes)
    raise ConfigError(f"{model!r} is no detector that can be opened", hint="PATH.onnx, or PATH.pt with ultralytics")


def _letterbox(
    image: np.ndarray, height: int, width: int, *, middle: bool
) -> tuple[np.ndarray, float, tuple[int, int]]:
    """The picture scaled into (height, width), the rest grey; the scale and where its corner is."""
    scale = min(height / image.shape[0], width / image.shape[1])
    rows, columns = round(image.shape[0] * scale), round(image.shape[1] * scale)
    dx, dy = ((width - columns) // 2, (height - rows) // 2) if middle else (0, 0)
    canvas = np.full((height, width, 3), GREY, np.uint8)
    canvas[dy : dy + rows, dx : dx + columns] = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return canvas, scale, (dx, dy)


def _yolox(answer: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(1, n, 5 + classes): offsets from a cell's corner in strides, logarithms of sizes, objectness, classes."""
    rows = answer[0].astype(np.float64)
    places, steps = [], []
    for stride in STRIDES:
        ys, xs = np.mgrid[: height // stride, : width // stride]
        places.append(np.stack([xs.ravel(), ys.ravel()], axis=1))
        steps.append(np.full(xs.size, stride))
    step = np.concatenate(steps)[:, None]
    centres = (rows[:, :2] + np.concatenate(places)) * step
    # exp of a broken answer would overflow: a box larger than any picture is cut off later.
    halves = np.exp(np.minimum(rows[:, 2:4], 20)) * step / 2
    sure = rows[:, 5:] * rows[:, 4:5]
    kinds = sure.argmax(axis=1)
    return np.concatenate([centres - halves, centres + halves], axis=1), sure.max(axis=1), kinds


def _yolo(answer: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(1, 4 + classes, n): centre and size in pixels, classes."""
    rows = answer[0].T.astype(np.float64)
    centres, halves, sure = rows[:, :2], rows[:, 2:4] / 2, rows[:, 4:]
    return np.concatenate([centres - halves, centres + halves], axis=1), sure.max(axis=1), sure.argmax(axis=1)


def _plain(tensor: Any) -> np.ndarray:
    """A torch tensor on any device, or an array, as float64."""
    for step in ("detach", "cpu", "numpy"):
        tensor = getattr(tensor, step)() if hasattr(tensor, step) else tensor
    return np.asarray(tensor, np.float64)
