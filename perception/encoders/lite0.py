"""EfficientNet-Lite0 as an ONNX graph: ImageNet logits, the pooled vector and feature maps at stride 8 and 16.

The graph is written node by node from the weights (batch normalisation folded into the convolutions), because that
needs no model code, gives the outputs their names and doesn't depend on an exporter. Against the same layers in torch
it differs by less than 1e-4. Architecture: Tan and Le 2019 with the "Lite" changes (ReLU6, no squeeze-and-excite).
"""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perception.encoders import runtime, weights

if TYPE_CHECKING:
    import onnxruntime

SIZE = 224
CLASSES = 1000
POOLED = 1280
_MEAN, _SCALE = 127.0, 1.0 / 128.0
_EPSILON = 1e-3
# (repeats, kernel, first stride, output channels); the expansion is 6 but for the first block, which has none.
_STAGES = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320))
_MAPS = {4: "stride8", 10: "stride16"}
"""Blocks whose outputs are kept: by number, because several blocks have the same shape."""
_RECIPE = "lite0-1"


class Lite0:
    """The network, opened once. Thread-safe: ONNX Runtime sessions may run from several threads."""

    def __init__(self, *, cache: Path | None = None) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._session: onnxruntime.InferenceSession | None = None

    def run(self, pixels: np.ndarray, *outputs: str) -> list[np.ndarray]:
        """``pixels`` (n, 224, 224, 3) uint8 RGB -> the named outputs: ``logits`` (n, 1000), ``pooled`` (n, 1280),
        ``stride8`` (n, 40, 28, 28), ``stride16`` (n, 112, 14, 14), all float32. For the maps alone, height and width
        may be any multiples of 32. Raises ModelUnavailable."""
        return self.session.run(list(outputs), {"pixels": pixels})

    @property
    def session(self) -> onnxruntime.InferenceSession:
        with self._lock:
            if self._session is None:
                folder = weights.prepared(weights.LITE0, _RECIPE, ("model.onnx",), _build, cache=self._cache)
                self._session = runtime.open_session(folder / "model.onnx")
            return self._session


def _build(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(graph(load_state()))


def load_state() -> dict[str, np.ndarray]:
    """The checked weights by layer name, float32. Imports torch: once in the life of a machine."""
    import torch

    content = weights.read_verified(weights.LITE0)
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {name: tensor.numpy().astype(np.float32) for name, tensor in state.items() if tensor.ndim}


class _Writer:
    """Collects nodes and weights of the graph."""

    def __init__(self, state: dict[str, np.ndarray]) -> None:
        self.state = state
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: np.ndarray | np.floating[Any]) -> str:
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def convolve(self, source: str, layer: str, norm: str, *, stride: int = 1, relu: bool = True) -> str:
        """Convolution with its batch normalisation folded in, TensorFlow's "same" padding for even sizes."""
        kernel = self.state[f"{layer}.weight"]
        scale = self.state[f"{norm}.weight"] / np.sqrt(self.state[f"{norm}.running_var"] + _EPSILON)
        bias = self.state[f"{norm}.bias"] - self.state[f"{norm}.running_mean"] * scale
        groups = kernel.shape[0] if kernel.shape[1] == 1 and "depthwise" in layer else 1
        extra = kernel.shape[2] - stride
        before, after = extra // 2, extra - extra // 2
        name = self.node(
            "Conv",
            [
                source,
                self.constant(f"{layer}.w", kernel * scale[:, None, None, None]),
                self.constant(f"{layer}.b", bias),
            ],
            f"{layer}.out",
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=groups,
        )
        return self.node("Clip", [name, "zero", "six"], f"{layer}.relu") if relu else name


def graph(state: dict[str, np.ndarray]) -> bytes:
    """The serialised ONNX model."""
    from onnx import TensorProto, checker, helper

    out = _Writer(state)
    out.constant("zero", np.float32(0.0))
    out.constant("six", np.float32(6.0))
    x = out.node("Cast", ["pixels"], "pixels.float", to=TensorProto.FLOAT)
    x = out.node("Sub", [x, out.constant("mean", np.float32(_MEAN))], "pixels.centred")
    x = out.node("Mul", [x, out.constant("scale", np.float32(_SCALE))], "pixels.scaled")
    x = out.node("Transpose", [x], "pixels.nchw", perm=[0, 3, 1, 2])
    x = out.convolve(x, "_conv_stem", "_bn0", stride=2)
    number, channels = 0, 32
    for repeats, _kernel, first_stride, width in _STAGES:
        for repeat in range(repeats):
            block, stride = f"_blocks.{number}", first_stride if repeat == 0 else 1
            y = x
            if f"{block}._expand_conv.weight" in state:
                y = out.convolve(y, f"{block}._expand_conv", f"{block}._bn0")
            y = out.convolve(y, f"{block}._depthwise_conv", f"{block}._bn1", stride=stride)
            y = out.convolve(y, f"{block}._project_conv", f"{block}._bn2", relu=False)
            if stride == 1 and channels == width:
                y = out.node("Add", [y, x], f"{block}.sum")
            x = out.node("Identity", [y], _MAPS[number]) if number in _MAPS else y
            number, channels = number + 1, width
    x = out.convolve(x, "_conv_head", "_bn1")
    x = out.node("GlobalAveragePool", [x], "pool")
    pooled = out.node("Flatten", [x], "pooled", axis=1)
    fc = [pooled, out.constant("_fc.w", state["_fc.weight"]), out.constant("_fc.b", state["_fc.bias"])]
    out.node("Gemm", fc, "logits", transB=1)

    def value(name: str, kind: int, shape: list[str | int]) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    model = helper.make_model(
        helper.make_graph(
            out.nodes,
            "efficientnet-lite0",
            [value("pixels", TensorProto.UINT8, ["n", "h", "w", 3])],
            [
                value("logits", TensorProto.FLOAT, ["n", CLASSES]),
                value("pooled", TensorProto.FLOAT, ["n", POOLED]),
                value("stride8", TensorProto.FLOAT, ["n", 40, "h8", "w8"]),
                value("stride16", TensorProto.FLOAT, ["n", 112, "h16", "w16"]),
            ],
            out.weights,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    checker.check_model(model)
    return model.SerializeToString()
