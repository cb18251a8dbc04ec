"""The layers of EfficientNet-Lite0, written node by node as an ONNX graph in float32 or int8.

Written here because that needs no model code, gives the outputs their names and doesn't depend on an exporter. Batch
normalisation is folded into the convolutions. Architecture: Tan and Le 2019 with the "Lite" changes (ReLU6, no
squeeze-and-excite).

int8 is quantise-dequantise form, which ONNX Runtime fuses into integer kernels: weights signed and symmetric with a
scale a channel, activations unsigned with a scale a tensor (Jacob et al. 2018). ReLU6 bounds most activations to [0, 6]
by itself; the 25 that it doesn't (projections and sums) have the ranges of ``data/lite0_ranges.json``, measured by
``tools/calibrate_lite0.py``. Pixels need no rounding: (x - 127) / 128 is a scale and a zero point.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, cast

import numpy as np

CLASSES = 1000
POOLED = 1280
RANGES = "lite0_ranges.json"
_MEAN, _SCALE = 127.0, 1.0 / 128.0
_EPSILON = 1e-3
# (repeats, kernel, first stride, output channels); the expansion is 6 but for the first block, which has none.
_STAGES = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320))
MAPS = {4: "stride8", 10: "stride16"}
"""Blocks whose outputs are kept: by number, because several blocks have the same shape."""
_LARGEST_BIAS = 2.0**30
"""A bias is an integer of the scale (input scale x weight scale): a channel of tiny weights must not overflow it."""

State = dict[str, np.ndarray]
Ranges = dict[str, tuple[float, float]]


def load_ranges() -> Ranges:
    """The shipped range of each activation that ReLU6 doesn't bound, by layer."""
    text = (resources.files("perception.encoders") / "data" / RANGES).read_text("utf-8")
    return {name: (float(low), float(high)) for name, (low, high) in json.loads(text).items()}


def float32(state: State) -> bytes:
    """The serialised model: ``pixels`` -> ``logits``, ``pooled``, ``stride8``, ``stride16``."""
    return _graph(_Float(state), maps=True)


def int8(state: State, ranges: Ranges, *, maps: bool = False) -> bytes:
    """The serialised model: ``pixels`` -> ``logits``, ``pooled``, and with ``maps`` ``stride8`` and ``stride16``."""
    return _graph(_Int8(state, ranges), maps=maps)


def cells(state: State) -> bytes:
    """The serialised model: ``pixels`` -> ``cells`` (n, 1000, h / 32, w / 32), the logits of every cell of the last map
    by itself: the last layer as a 1 x 1 convolution (Long et al. 2015), whose mean is the picture's logits. That is
    the class activation map of Zhou et al. 2016 for all classes at once."""
    out = _Float(state)
    kernel = out.constant("_fc.w", out.state["_fc.weight"][:, :, None, None])
    out.node("Conv", [_trunk(out, maps=False), kernel, out.constant("_fc.b", out.state["_fc.bias"])], "cells")
    return _serialised(out, {"cells": ["n", CLASSES, "h32", "w32"]})


class _Float:
    """Collects nodes and weights of the graph."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.constant("zero", np.float32(0.0))
        self.constant("six", np.float32(6.0))

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: np.ndarray | np.generic) -> str:
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def pixels(self) -> str:
        x = self.node("Cast", ["pixels"], "pixels.float", to=1)
        x = self.node("Sub", [x, self.constant("mean", np.float32(_MEAN))], "pixels.centred")
        x = self.node("Mul", [x, self.constant("scale", np.float32(_SCALE))], "pixels.scaled")
        return self.node("Transpose", [x], "pixels.nchw", perm=[0, 3, 1, 2])

    def add(self, left: str, right: str, name: str) -> str:
        return self.node("Add", [left, right], name)

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
            [source, *self.parameters(source, layer, kernel * scale[:, None, None, None], bias)],
            f"{layer}.out",
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=groups,
        )
        return self.finish(self.node("Clip", [name, "zero", "six"], f"{layer}.relu") if relu else name, layer, relu)

    def parameters(self, source: str, layer: str, kernel: np.ndarray, bias: np.ndarray) -> list[str]:
        return [self.constant(f"{layer}.w", kernel), self.constant(f"{layer}.b", bias)]

    def finish(self, name: str, layer: str, relu: bool) -> str:
        return name


class _Int8(_Float):
    """The same graph with every activation and weight rounded to 8 bits."""

    def __init__(self, state: State, ranges: Ranges) -> None:
        super().__init__(state)
        self.ranges = ranges
        self.scales: dict[str, float] = {}

    def pixels(self) -> str:
        x = self.node("Transpose", ["pixels"], "pixels.nchw", perm=[0, 3, 1, 2])
        scale, zero = self.constant("pixels.s", np.float32(_SCALE)), self.constant("pixels.z", np.uint8(_MEAN))
        self.scales["pixels.dq"] = _SCALE
        return self.node("DequantizeLinear", [x, scale, zero], "pixels.dq")

    def add(self, left: str, right: str, name: str) -> str:
        return self.rounded(super().add(left, right, name), name, self.ranges[name])

    def parameters(self, source: str, layer: str, kernel: np.ndarray, bias: np.ndarray) -> list[str]:
        of_input = self.scales[source]
        steps = np.abs(kernel).max(axis=(1, 2, 3)) / 127.0
        steps = np.maximum(steps, np.abs(bias) / (of_input * _LARGEST_BIAS))
        steps = np.maximum(steps, 1e-12).astype(np.float32)
        whole = np.rint(kernel / steps[:, None, None, None]).clip(-127, 127).astype(np.int8)
        bias_steps = steps * np.float32(of_input)
        shift = np.rint(bias / bias_steps.astype(np.float64)).astype(np.int32)
        return [self.stored(f"{layer}.w", whole, steps), self.stored(f"{layer}.b", shift, bias_steps)]

    def finish(self, name: str, layer: str, relu: bool) -> str:
        return self.rounded(name, layer, (0.0, 6.0) if relu else self.ranges[layer])

    def stored(self, name: str, whole: np.ndarray, steps: np.ndarray) -> str:
        zeros = self.constant(f"{name}.z", np.zeros(len(steps), whole.dtype))
        inputs = [self.constant(f"{name}.q", whole), self.constant(f"{name}.s", steps), zeros]
        return self.node("DequantizeLinear", inputs, f"{name}.dq", axis=0)

    def rounded(self, name: str, layer: str, bounds: tuple[float, float]) -> str:
        """``name`` to 256 steps between its bounds; 0 is one of them, since padding is 0."""
        low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
        step = (high - low) / 255.0
        scale = self.constant(f"{layer}.s", np.float32(step))
        zero = self.constant(f"{layer}.z", np.uint8(round(-low / step)))
        quantised = self.node("QuantizeLinear", [name, scale, zero], f"{layer}.q")
        self.scales[f"{layer}.dq"] = step
        return self.node("DequantizeLinear", [quantised, scale, zero], f"{layer}.dq")


def _graph(out: _Float, *, maps: bool) -> bytes:
    x = out.node("GlobalAveragePool", [_trunk(out, maps=maps)], "pool")
    pooled = out.node("Flatten", [x], "pooled", axis=1)
    # The last layer is 0.3 % of the work and decides the scores: it stays in float32.
    fc = [pooled, out.constant("_fc.w", out.state["_fc.weight"]), out.constant("_fc.b", out.state["_fc.bias"])]
    out.node("Gemm", fc, "logits", transB=1)
    outputs: dict[str, list[str | int]] = {"logits": ["n", CLASSES], "pooled": ["n", POOLED]}
    if maps:
        outputs |= {"stride8": ["n", 40, "h8", "w8"], "stride16": ["n", 112, "h16", "w16"]}
    return _serialised(out, outputs)


def _trunk(out: _Float, *, maps: bool) -> str:
    """Everything up to the last map, (n, 1280, h / 32, w / 32); the outputs of MAPS get their names on the way."""
    x = out.convolve(out.pixels(), "_conv_stem", "_bn0", stride=2)
    number, channels = 0, 32
    for repeats, _kernel, first_stride, width in _STAGES:
        for repeat in range(repeats):
            block, stride = f"_blocks.{number}", first_stride if repeat == 0 else 1
            y = x
            if f"{block}._expand_conv.weight" in out.state:
                y = out.convolve(y, f"{block}._expand_conv", f"{block}._bn0")
            y = out.convolve(y, f"{block}._depthwise_conv", f"{block}._bn1", stride=stride)
            y = out.convolve(y, f"{block}._project_conv", f"{block}._bn2", relu=False)
            if stride == 1 and channels == width:
                y = out.add(y, x, f"{block}.sum")
            if maps and number in MAPS:
                out.node("Identity", [y], MAPS[number])  # beside the main way, whose names carry the 8-bit scales
            x, number, channels = y, number + 1, width
    return out.convolve(x, "_conv_head", "_bn1")


def _serialised(out: _Float, outputs: dict[str, list[str | int]]) -> bytes:
    from onnx import TensorProto, checker, helper

    def value(name: str, kind: int, shape: list[str | int]) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    model = helper.make_model(
        helper.make_graph(
            out.nodes,
            "efficientnet-lite0",
            [value("pixels", TensorProto.UINT8, ["n", "h", "w", 3])],
            [value(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            out.weights,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    checker.check_model(model)
    return cast(bytes, model.SerializeToString())
