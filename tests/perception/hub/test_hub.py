"""The hub spaces against transformers itself, on tiny models of the true classes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("transformers", reason="the extra `models` isn't installed")

import torch
import transformers
from PIL import Image
from tiny_hub_models import CLIP_PIXELS, MAKERS, NAFLEX_PIXELS, SENTENCES, make_clip, pictures, siglip_tokenizer
from tokenizers import Tokenizer

from perception.encoders.hub import HubSpace, open_clip, open_siglip2
from streammem.errors import ConfigError, ModelUnavailable, ObservationError, QueryError
from streammem.spaces import Calibration, EmbeddingSpace, Ragged


def test_it_is_an_embedding_space(space: HubSpace) -> None:
    assert isinstance(space, EmbeddingSpace)
    assert space.id == f"{space.name}@{space.version}"
    assert not space.can_abstain and space.calibration() is None and space.statistics({}) is None
    vectors = [e.vector for e in space.embed_frames(pictures())]
    texts = space.embed_text(SENTENCES)
    for array in (np.stack(vectors), texts):
        assert array.shape[1] == space.dim and array.dtype == np.float32
        assert np.allclose(np.linalg.norm(array, axis=1), 1, atol=1e-6)
    assert space.embed_frames([]) == [] and space.embed_text([]).shape == (0, space.dim)
    assert space.identity().parameters == space.version


def test_clip_equals_transformers_with_pixels_made_by_hand(folders: dict[str, Path]) -> None:
    model = transformers.CLIPModel.from_pretrained(folders["clip"]).eval()
    space = open_clip(folders["clip"])
    tiny = np.random.default_rng(1).integers(0, 256, (3, 5, 3)).astype(np.uint8)  # its height isn't its channels
    for frame in [*pictures(), tiny]:
        image = Image.fromarray(frame)
        size = tuple(32 * side // min(image.size) for side in image.size)
        image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (image.size[0] - 32) // 2, (image.size[1] - 32) // 2
        pixels = np.asarray(image.crop((left, top, left + 32, top + 32)), np.float32) / 255
        pixels = (pixels - CLIP_PIXELS["image_mean"]) / CLIP_PIXELS["image_std"]
        with torch.no_grad():
            want = model.get_image_features(torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32))
        _same(space.embed_frames([frame])[0].vector, want.pooler_output[0])
    tokenizer = Tokenizer.from_file(str(folders["clip"] / "tokenizer.json"))
    for text in SENTENCES:
        with torch.no_grad():
            want = model.get_text_features(torch.tensor([tokenizer.encode(text).ids]))
        _same(space.embed_text([text])[0], want.pooler_output[0])


def test_siglip_equals_transformers_with_pixels_made_by_hand(folders: dict[str, Path]) -> None:
    model = transformers.SiglipModel.from_pretrained(folders["siglip"]).eval()
    space = open_siglip2(folders["siglip"])
    frame = pictures()[0]
    pixels = np.asarray(Image.fromarray(frame).resize((32, 32), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
    ids = siglip_tokenizer().encode("a red car").ids
    assert len(ids) == 16
    with torch.no_grad():
        whole = model(input_ids=torch.tensor([ids]), pixel_values=torch.tensor(pixels.transpose(2, 0, 1)[None].copy()))
    _same(space.embed_frames([frame])[0].vector, whole.image_embeds[0])
    _same(space.embed_text(["A Red CAR"])[0], whole.text_embeds[0])  # trained on lower case
    vector = space.embed_frames([frame])[0].vector[None]
    score = space.score("a red car", {"vector": Ragged(vector, np.array([0, 1]))}, None)
    assert score[0] == pytest.approx(float(torch.sigmoid(whole.logits_per_image[0, 0])), abs=1e-5)


def test_naflex_equals_transformers(folders: dict[str, Path]) -> None:
    model = transformers.Siglip2Model.from_pretrained(folders["naflex"]).eval()
    processor = transformers.models.siglip2.image_processing_pil_siglip2.Siglip2ImageProcessorPil(
        **{key: value for key, value in NAFLEX_PIXELS.items() if key != "image_processor_type"}
    )
    space = open_siglip2(folders["naflex"])
    for frame in pictures(3):
        with torch.no_grad():
            want = model.get_image_features(**processor(images=Image.fromarray(frame), return_tensors="pt"))
        _same(space.embed_frames([frame])[0].vector, want.pooler_output[0])


def _same(vector: np.ndarray, features: torch.Tensor) -> None:
    wanted = features.numpy() / np.linalg.norm(features.numpy())
    assert np.abs(vector - wanted).max() < 2e-5


def test_colour_order_is_rgb(folders: dict[str, Path]) -> None:
    """Swapping red and blue must give what swapping CLIP's red and blue weights and means gives."""
    frame = pictures()[0]
    space = open_clip(folders["clip"])
    straight = space.embed_frames([frame])[0].vector
    swapped = space.embed_frames([np.ascontiguousarray(frame[..., ::-1])])[0].vector
    assert np.abs(straight - swapped).max() > 1e-3
    model = transformers.CLIPModel.from_pretrained(folders["clip"]).eval()
    weight = model.vision_model.embeddings.patch_embedding.weight
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    pixels = (red / 255.0 - CLIP_PIXELS["image_mean"]) / CLIP_PIXELS["image_std"]
    assert weight.shape[1] == 3 and pixels[0, 0, 0] > pixels[0, 0, 2]  # channel 0 is the red one
    with torch.no_grad():
        want = model.get_image_features(torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32))
    _same(space.embed_frames([red])[0].vector, want.pooler_output[0])


def test_a_frame_never_depends_on_its_batch(space: HubSpace) -> None:
    frames = pictures()
    together = [e.vector.tobytes() for e in space.embed_frames(frames)]
    alone = [space.embed_frames([frame])[0].vector.tobytes() for frame in frames]
    assert together == alone == [e.vector.tobytes() for e in space.embed_frames(frames[::-1])][::-1]
    texts = space.embed_text(SENTENCES)
    assert texts.tobytes() == b"".join(space.embed_text([text]).tobytes() for text in SENTENCES)


@pytest.mark.slow
def test_another_process_gives_the_same_bytes(folders: dict[str, Path]) -> None:
    program = (
        "import sys, hashlib, numpy as np\n"
        "from perception.encoders.hub import open_clip\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        f"space = open_clip({str(folders['clip'])!r})\n"
        "frame = np.arange(40 * 50 * 3).reshape(40, 50, 3).astype(np.uint8)\n"
        "out = space.embed_frames([frame])[0].vector.tobytes() + space.embed_text(['a red car']).tobytes()\n"
        "assert 'torchvision' not in sys.modules\n"
        "print(space.id, hashlib.sha256(out).hexdigest())\n"
    )
    done = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True) for _ in range(2)]
    assert all(run.returncode == 0 for run in done), done[0].stderr
    assert done[0].stdout == done[1].stdout and done[0].stdout.startswith("clip@")


def test_threads_share_a_space(space: HubSpace) -> None:
    frames = pictures()
    want = [e.vector.tobytes() for e in space.embed_frames(frames)]
    got: dict[int, list[bytes]] = {}
    threads = [
        threading.Thread(target=lambda i=i: got.update({i: [e.vector.tobytes() for e in space.embed_frames(frames)]}))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[i] for i in range(4)] == [want] * 4


def test_the_number_of_torch_threads_is_put_back(space: HubSpace) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        space.embed_text(["a cup"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_score_of_rows_with_no_vector_or_several(space: HubSpace) -> None:
    vectors = np.stack([e.vector for e in space.embed_frames(pictures(3))])
    column = Ragged(vectors.astype(np.float16), np.array([0, 1, 1, 3]))
    scores = space.score("a red car", {"vector": column}, None)
    assert scores.shape == (3,) and scores.dtype == np.float32 and scores[1] == -np.inf
    each = space.score("a red car", {"vector": Ragged(vectors.astype(np.float16), np.arange(4))}, None)
    assert scores[0] == each[0] and scores[2] == max(each[1:])
    assert space.score("a", {"other": Ragged(np.zeros((4, 1)), np.array([0, 4]))}, None).tolist() == [-np.inf]
    assert space.score("a", {}, None).shape == (0,)
    signals = space.signals("a red car", {"vector": column}, None)
    assert list(signals) == ["vision"] and signals["vision"].tobytes() == scores.tobytes()


def test_ranking_follows_the_cosine(space: HubSpace) -> None:
    vectors = np.stack([e.vector for e in space.embed_frames(pictures())])
    scores = space.score("two dogs", {"vector": Ragged(vectors, np.arange(6))}, None)
    cosines = vectors @ space.embed_text(["two dogs"])[0]
    assert np.argsort(-scores).tolist() == np.argsort(-cosines).tolist()
    assert (scores >= -1).all() and (scores <= 1).all()


@pytest.mark.parametrize("text", ["", " ", "日本語の質問", "\x00\x1b[31m", "<eos><pad><|endoftext|>", "word " * 1500])
def test_odd_texts_give_finite_vectors(space: HubSpace, text: str) -> None:
    assert np.isfinite(space.embed_text([text])).all()


def test_prompt_wraps_the_query(folders: dict[str, Path]) -> None:
    plain, prompted = open_clip(folders["clip"]), open_clip(folders["clip"], prompt="a photo of {}")
    assert prompted.embed_text(["a cup {0}"]).tobytes() == plain.embed_text(["a photo of a cup {0}"]).tobytes()
    assert prompted.id == plain.id  # the stored vectors are the same


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((1, 101, 3), np.uint8),
    ],
    ids=["gray", "alpha", "float", "empty", "line"],
)
def test_frames_that_are_no_pictures(folders: dict[str, Path], frame: np.ndarray) -> None:
    with pytest.raises(ObservationError):
        open_clip(folders["clip"]).embed_frames([frame])


def test_too_long_a_text(folders: dict[str, Path]) -> None:
    with pytest.raises(QueryError, match="10001 characters"):
        open_clip(folders["clip"]).embed_text(["x" * 10_001])


def test_version_names_content_not_place(folders: dict[str, Path], tmp_path: Path) -> None:
    first = open_clip(folders["clip"])
    copy = Path(shutil.copytree(folders["clip"], tmp_path / "elsewhere"))
    assert open_clip(copy).id == first.id
    (copy / "preprocessor_config.json").write_text(json.dumps({**CLIP_PIXELS, "resample": 2}))
    assert open_clip(copy).version.split("-")[0] == first.version.split("-")[0]
    assert open_clip(copy).id != first.id
    assert open_clip(make_clip(tmp_path / "other", seed=1)).version.split("-")[0] != first.version.split("-")[0]


def test_settings_as_old_and_new_releases_write_them(folders: dict[str, Path], tmp_path: Path) -> None:
    """OpenAI's files give sizes as numbers; transformers 5 saves one processor_config.json."""
    want = [e.vector.tobytes() for e in open_clip(folders["clip"]).embed_frames(pictures())]
    copy = Path(shutil.copytree(folders["clip"], tmp_path / "copy"))
    (copy / "preprocessor_config.json").write_text(json.dumps({**CLIP_PIXELS, "size": 32, "crop_size": 32}))
    assert [e.vector.tobytes() for e in open_clip(copy).embed_frames(pictures())] == want
    (copy / "preprocessor_config.json").unlink()
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": CLIP_PIXELS}))
    assert [e.vector.tobytes() for e in open_clip(copy).embed_frames(pictures())] == want
    assert open_clip(copy).id == open_clip(folders["clip"]).id


def test_padding_from_tokenizer_config(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders["siglip"], tmp_path / "copy"))
    siglip_tokenizer(own_padding=False).save(str(copy / "tokenizer.json"))
    (copy / "tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "<pad>"}, "padding_side": "left"}))
    want = open_siglip2(folders["siglip"]).embed_text(["a cup"])
    assert open_siglip2(copy).embed_text(["a cup"]).tobytes() == want.tobytes()


def test_sharded_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders["clip"], tmp_path / "copy"))
    (copy / "model.safetensors").unlink()
    transformers.CLIPModel.from_pretrained(folders["clip"]).save_pretrained(copy, max_shard_size="60KB")
    shards = sorted(copy.glob("model-*.safetensors"))
    assert len(shards) > 1
    frame = pictures(1)
    want = open_clip(folders["clip"]).embed_frames(frame)[0].vector
    assert open_clip(copy).embed_frames(frame)[0].vector.tobytes() == want.tobytes()
    shards[0].unlink()
    with pytest.raises(ModelUnavailable, match=r"lacks model\.safetensors"):
        open_clip(copy)


def test_calibration_must_be_of_this_version(folders: dict[str, Path], tmp_path: Path) -> None:
    space = open_clip(folders["clip"])
    path = tmp_path / "calibration.json"
    path.write_bytes(msgspec.json.encode(Calibration(space.name, space.version, "a test")))
    calibrated = open_clip(folders["clip"], calibration=path)
    assert calibrated.can_abstain and calibrated.calibration() == Calibration(space.name, space.version, "a test")
    path.write_bytes(msgspec.json.encode(Calibration(space.name, "old", "a test")))
    with pytest.raises(ConfigError, match="clip@old"):
        open_clip(folders["clip"], calibration=path)
    path.write_text("{")
    with pytest.raises(ConfigError, match="can't be read"):
        open_clip(folders["clip"], calibration=path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees_with_cpu(folders: dict[str, Path]) -> None:
    for name, (_, opener) in MAKERS.items():
        cpu, gpu = opener(folders[name]), opener(folders[name], device="cuda")
        assert cpu.id == gpu.id
        for a, b in zip(cpu.embed_frames(pictures()), gpu.embed_frames(pictures()), strict=True):
            assert np.abs(a.vector - b.vector).max() < 1e-3


@pytest.mark.hub
@pytest.mark.parametrize("opener", [open_clip, open_siglip2])
def test_real_weights_tell_red_from_blue(opener: Callable[..., HubSpace]) -> None:
    """Runs where the default checkpoints are in the local hub cache."""
    try:
        space = opener()
    except ModelUnavailable as error:
        pytest.skip(str(error))
    red, blue = np.zeros((2, 224, 224, 3), np.uint8)
    red[..., 0], blue[..., 2] = 220, 220
    vectors = np.stack([e.vector for e in space.embed_frames([red, blue])])
    similar = vectors @ space.embed_text(["a plain red picture", "a plain blue picture"]).T
    assert similar[0, 0] > similar[0, 1] and similar[1, 1] > similar[1, 0]
