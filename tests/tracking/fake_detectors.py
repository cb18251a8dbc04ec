"""Stand-ins for detectors: ultralytics' result contract, and an ONNX file in YOLOv8's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class FakeBoxes:
    """``Results.boxes``: tensors ``xyxy`` (n, 4), ``conf`` (n,), ``cls`` (n,) on some device, and a length."""

    def __init__(self, rows: np.ndarray) -> None:
        import torch

        tensor = torch.from_numpy(np.asarray(rows, np.float32).reshape(-1, 6))
        self.xyxy, self.conf, self.cls = tensor[:, :4], tensor[:, 4], tensor[:, 5]

    def __len__(self) -> int:
        return len(self.xyxy)


class FakeResults:
    """One picture's answer."""

    names = {0: "person", 2: "car"}  # noqa: RUF012

    def __init__(self, rows: np.ndarray | None) -> None:
        self.boxes = None if rows is None else FakeBoxes(rows)


class FakeYolo:
    """``ultralytics.YOLO`` as far as detection goes: ``predict(bgr, conf=, verbose=)`` -> one result a picture. It
    finds the brightest blue pixel's row and column, so that swapped colours are noticed."""

    def __init__(self, rows: np.ndarray | None = None, *, broken: bool = False) -> None:
        self.rows, self.broken = rows, broken
        self.asked: list[dict[str, Any]] = []

    def predict(self, source: np.ndarray, **options: Any) -> list[Any]:
        self.asked.append(options)
        if self.broken:
            return [None, None]
        if self.rows is not None or not source.any():
            return [FakeResults(self.rows)]
        y, x = np.unravel_index(int(source[:, :, 0].argmax()), source.shape[:2])
        return [FakeResults(np.array([[x, y, x + 10, y + 20, 0.8, 2]]))]


def write_yolo_onnx(path: Path, *, rows: list[list[float]], side: int = 64, names: str = "") -> Path:
    """A file that answers ``rows`` (cx, cy, w, h, one score a class) whatever the picture, as (1, 4 + classes, n)
    with n cells. Its answer hangs on the picture by a zero, so that the input is used."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    cells = sum((side // stride) ** 2 for stride in (8, 16, 32))
    table = np.zeros((1, len(rows[0]), cells), np.float32)
    table[0, :, : len(rows)] = np.array(rows, np.float32).T
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["table", "nothing"], ["output0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "yolo",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, list(table.shape))],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.zeros((), np.float32), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if names:
        helper.set_model_props(model, {"names": names})
    onnx.save(model, path)
    return path
