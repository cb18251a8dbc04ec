"""all-MiniLM-L6-v2: a sentence -> one vector of 384 numbers, through ONNX Runtime, without torch.

Cold start decides how fast a second question is answered, so the model is laid out for it: the 47 MB table of word
vectors stays outside the graph as a memory-mapped array (a sentence touches a few of its rows), and the six layers are
stored after optimisation, their 43 MB of weights in a file of their own, which ONNX Runtime maps instead of parsing (26
ms to open, not 56). Sentences run one by one without padding: a vector never depends on its batch.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perception.encoders import runtime, weights
from streammem.errors import ModelUnavailable

if TYPE_CHECKING:
    import onnxruntime
    import tokenizers

DIM = 384
MAX_TOKENS = 256
"""What the model was trained for; the rest of a longer text is cut off."""
_LAYERS, _HEADS, _HEAD_DIM = 6, 12, 32
_EPSILON = 1e-12
_RECIPE = "minilm-2"
_WEIGHTS = "layers.bin"
_FILES = ("layers.onnx", _WEIGHTS, "words.npy", "positions.npy", "tokenizer.json")


@dataclass(frozen=True, slots=True)
class _Opened:
    session: onnxruntime.InferenceSession
    tokenizer: tokenizers.Tokenizer
    words: np.ndarray
    positions: np.ndarray


_open_lock = threading.Lock()
_opened: dict[Path, _Opened] = {}


class MiniLM:
    """The sentence encoder, opened at first use, once a process and cache folder. Thread-safe."""

    def __init__(self, *, cache: Path | None = None) -> None:
        self._cache = cache

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> (n, 384) float32, L2-normalised. Text after 256 tokens is ignored. Raises ModelUnavailable."""
        out = np.empty((len(texts), DIM), dtype=np.float32)
        if not texts:
            return out
        model = _open(self._cache)
        for row, text in enumerate(texts):
            # A lone surrogate can't be encoded as UTF-8, and the tokenizer refuses it.
            ids = model.tokenizer.encode(text.encode("utf-8", "replace").decode("utf-8")).ids
            x = model.words[ids].astype(np.float32) + model.positions[: len(ids)]
            out[row] = model.session.run(["sentence"], {"x": x})[0]
        return out

    def prefetch(self) -> None:
        """Open it in a thread, beside what else a question has to load: reading the weights holds no lock of Python's.
        What is wrong with it is raised where it is used."""

        def work() -> None:
            with contextlib.suppress(ModelUnavailable, ImportError):
                _open(self._cache)

        if not weights.prepared_folder(weights.MINILM, _RECIPE, cache=self._cache).is_dir():
            return  # the conversion takes seconds: not for a command that may end with a word about a missing file
        # Not a daemon: a thread inside ONNX Runtime would crash an interpreter that goes down around it.
        threading.Thread(target=work, name="minilm").start()


def _open(cache: Path | None) -> _Opened:
    folder = weights.prepared_folder(weights.MINILM, _RECIPE, cache=cache)
    with _open_lock:
        if folder not in _opened:
            _opened[folder] = _load(cache)
        return _opened[folder]


def _load(cache: Path | None) -> _Opened:
    import tokenizers

    folder = weights.prepared(weights.MINILM, _RECIPE, _FILES, _build, cache=cache)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        words = np.load(folder / "words.npy", mmap_mode="r", allow_pickle=False)
        positions = np.load(folder / "positions.npy", allow_pickle=False)
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelUnavailable(
            f"the converted MiniLM is damaged: {folder}: {error}", hint=f"delete {folder}"
        ) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    session = runtime.open_session(folder / "layers.onnx", optimise=False)
    return _Opened(session, tokenizer, words, positions)


def _build(folder: Path) -> None:
    import onnxruntime as ort
    from safetensors.numpy import load

    state = load(weights.read_verified(weights.MINILM))
    (folder / "tokenizer.json").write_bytes(weights.read_verified(weights.MINILM_TOKENIZER))
    np.save(folder / "words.npy", state["embeddings.word_embeddings.weight"])
    # There is one sentence, so the segment vector is the same everywhere: it is added to the positions once.
    segment = state["embeddings.token_type_embeddings.weight"][0]
    np.save(folder / "positions.npy", state["embeddings.position_embeddings.weight"] + segment)
    raw = folder / "raw.onnx"
    raw.write_bytes(graph(state))
    chosen = runtime.options()
    # EXTENDED, not ALL: what ALL adds depends on the processor, and a cache folder may be shared between machines.
    chosen.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    chosen.optimized_model_filepath = str(folder / "layers.onnx")
    chosen.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
    chosen.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    ort.InferenceSession(str(raw), chosen, providers=["CPUExecutionProvider"])
    raw.unlink()


def graph(state: dict[str, np.ndarray]) -> bytes:
    """The serialised ONNX model: ``x`` (tokens, 384), sums of word, position and segment vectors -> ``sentence``
    (384,), mean over the tokens, normalised."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: np.ndarray | np.floating[Any]) -> str:
        constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def linear(source: str, layer: str) -> str:
        product = node("MatMul", [source, constant(f"{layer}.w", state[f"{layer}.weight"].T)], f"{layer}.mul")
        return node("Add", [product, constant(f"{layer}.b", state[f"{layer}.bias"])], f"{layer}.out")

    def norm(source: str, layer: str) -> str:
        inputs = [
            source,
            constant(f"{layer}.w", state[f"{layer}.weight"]),
            constant(f"{layer}.b", state[f"{layer}.bias"]),
        ]
        return node("LayerNormalization", inputs, f"{layer}.out", axis=-1, epsilon=_EPSILON)

    heads = constant("heads", np.array([0, _HEADS, _HEAD_DIM], dtype=np.int64))
    joined = constant("joined", np.array([0, DIM], dtype=np.int64))
    scale = constant("scale", np.float32(_HEAD_DIM**-0.5))
    half = constant("half", np.float32(0.5))
    one = constant("one", np.float32(1.0))
    root2 = constant("root2", np.float32(2.0**0.5))
    x = norm("x", "embeddings.LayerNorm")
    for number in range(_LAYERS):
        layer = f"encoder.layer.{number}"
        split = {}
        for role in ("query", "key", "value"):
            y = linear(x, f"{layer}.attention.self.{role}")
            y = node("Reshape", [y, heads], f"{layer}.{role}.heads")
            split[role] = node(
                "Transpose", [y], f"{layer}.{role}.split", perm=[1, 2, 0] if role == "key" else [1, 0, 2]
            )
        y = node("MatMul", [split["query"], split["key"]], f"{layer}.products")
        y = node("Softmax", [node("Mul", [y, scale], f"{layer}.scaled")], f"{layer}.attention", axis=-1)
        y = node("Transpose", [node("MatMul", [y, split["value"]], f"{layer}.mixed")], f"{layer}.back", perm=[1, 0, 2])
        y = linear(node("Reshape", [y, joined], f"{layer}.joined"), f"{layer}.attention.output.dense")
        x = norm(node("Add", [y, x], f"{layer}.sum1"), f"{layer}.attention.output.LayerNorm")
        y = linear(x, f"{layer}.intermediate.dense")
        # GELU spelled out: ONNX Runtime fuses these five nodes into one when it stores the optimised graph.
        e = node("Erf", [node("Div", [y, root2], f"{layer}.gelu1")], f"{layer}.gelu2")
        y = node("Mul", [y, node("Add", [e, one], f"{layer}.gelu3")], f"{layer}.gelu4")
        y = linear(node("Mul", [y, half], f"{layer}.gelu5"), f"{layer}.output.dense")
        x = norm(node("Add", [y, x], f"{layer}.sum2"), f"{layer}.output.LayerNorm")
    x = node("ReduceMean", [x], "mean", axes=[0], keepdims=0)
    node("LpNormalization", [x], "sentence", axis=-1, p=2)
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "all-MiniLM-L6-v2",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", DIM])],
            [helper.make_tensor_value_info("sentence", TensorProto.FLOAT, [DIM])],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    checker.check_model(model)
    return model.SerializeToString()
