"""The hub profile on tiny models of the true classes: random weights, real files, real tokenizers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("transformers", reason="the extra `models` isn't installed")

import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from perception.encoders import hub_files
from perception.encoders.hub import HubSpace, open_clip, open_siglip2
from perception.encoders.hub_files import find_model
from streammem.errors import ConfigError, ModelUnavailable, ObservationError, QueryError
from streammem.spaces import Calibration, EmbeddingSpace, Ragged

SENTENCES = ["a red car on the road", "two dogs play in the park", "a cup on a wooden table", "the quick brown fox"]
CLIP_PIXELS = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True, "size": {"shortest_edge": 32}, "resample": 3, "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32}, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_convert_rgb": True,
}  # fmt: skip
SIGLIP_PIXELS = {
    "image_processor_type": "SiglipImageProcessor",
    "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 2, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    "do_convert_rgb": None,
}  # fmt: skip
NAFLEX_PIXELS = {
    "image_processor_type": "Siglip2ImageProcessor", "do_resize": True, "resample": 2, "do_rescale": True,
    "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    "patch_size": 8, "max_num_patches": 16,
}  # fmt: skip
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def clip_tokenizer() -> Tokenizer:
    """Byte-level BPE with CLIP's begin and end tokens, trained on a few sentences."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    special = ["<|startoftext|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    first, last = (tokenizer.token_to_id(token) for token in special)
    tokenizer.post_processor = processors.RobertaProcessing(
        (special[1], last), (special[0], first), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def siglip_tokenizer(*, own_padding: bool = True) -> Tokenizer:
    """BPE with byte fallback and <eos> at the end, padded to 16 like SigLIP2's to 64."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=400, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", tokenizer.token_to_id("<eos>"))]
    )
    if own_padding:
        tokenizer.enable_padding(direction="right", length=16, pad_id=0, pad_token="<pad>")
    return tokenizer


def save(folder: Path, model: Any, tokenizer: Tokenizer, pixels: dict[str, Any]) -> Path:
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return folder


def make_clip(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    last = tokenizer.token_to_id("<|endoftext|>")
    config = transformers.CLIPConfig(
        text_config={
            **TOWER, "vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 40, "eos_token_id": last,
            "bos_token_id": last - 1, "pad_token_id": last,
        },
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )  # fmt: skip
    return save(folder, transformers.CLIPModel(config), tokenizer, CLIP_PIXELS)


def make_siglip(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    tokenizer = siglip_tokenizer()
    text = {**TOWER, "vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 16, "projection_size": 32}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
    _give_scale(model)
    return save(folder, model, tokenizer, SIGLIP_PIXELS)


def make_naflex(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    tokenizer = siglip_tokenizer()
    text = {**TOWER, "vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 16, "projection_size": 32}
    vision = {**TOWER, "num_patches": 16, "patch_size": 8}
    model = transformers.Siglip2Model(transformers.Siglip2Config(text_config=text, vision_config=vision))
    _give_scale(model)
    return save(folder, model, tokenizer, NAFLEX_PIXELS)


def _give_scale(model: Any) -> None:
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-3.0)


MAKERS: dict[str, tuple[Callable[[Path], Path], Callable[..., HubSpace]]] = {
    "clip": (make_clip, open_clip),
    "siglip": (make_siglip, open_siglip2),
    "naflex": (make_naflex, open_siglip2),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: maker(root / name) for name, (maker, _) in MAKERS.items()}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cache of this machine, no permission of this shell."""
    monkeypatch.setenv("STREAMMEM_CACHE", str(tmp_path / "cache"))
    for name in ("STREAMMEM_ALLOW_DOWNLOAD", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=list(MAKERS))
def space(request: pytest.FixtureRequest, folders: dict[str, Path]) -> HubSpace:
    return MAKERS[request.param][1](folders[request.param])


def pictures(n: int = 5) -> list[np.ndarray]:
    """Pictures of several shapes with structure: random colour fields, not noise."""
    rng = np.random.default_rng(0)
    shapes = [(48, 64), (64, 48), (33, 100), (32, 32), (120, 90)]
    return [
        np.kron(rng.integers(0, 256, (h // 8 + 1, w // 8 + 1, 3)), np.ones((8, 8, 1)))[:h, :w].astype(np.uint8)
        for h, w in shapes[:n]
    ]


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
    low = -1.0 if space.name == "clip" else 0.0
    assert scores.shape == (3,) and scores.dtype == np.float32 and scores[1] == low
    each = space.score("a red car", {"vector": Ragged(vectors.astype(np.float16), np.arange(4))}, None)
    assert scores[0] == each[0] and scores[2] == max(each[1:])
    assert space.score("a", {"other": Ragged(np.zeros((4, 1)), np.array([0, 4]))}, None).tolist() == [low]
    assert space.score("a", {}, None).shape == (0,)


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


# ---- what can be wrong with a model


def test_offline_error_names_files_and_command(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        open_clip(hub_cache=tmp_path)
    assert str(caught.value) == (
        "model openai/clip-vit-base-patch32 isn't on this machine (needed: config.json, preprocessor_config.json, "
        "tokenizer.json, model.safetensors), and no download: it takes allow_download=True or "
        "STREAMMEM_ALLOW_DOWNLOAD=1 (with a network, run: hf download openai/clip-vit-base-patch32 "
        "--revision c237dc49a33fc61debc9276459120b7eac67e7ef --include '*.json' --include 'model*.safetensors'; "
        "or give a folder)"
    )


def test_hub_offline_wins_over_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("STREAMMEM_ALLOW_DOWNLOAD", "1")
    with pytest.raises(ModelUnavailable, match=r"google/siglip2-base-patch16-224.*HF_HUB_OFFLINE is set"):
        open_siglip2(hub_cache=tmp_path)
    with pytest.raises(ModelUnavailable, match="allow_download is False"):
        open_siglip2(hub_cache=tmp_path, allow_download=False)


def in_cache(root: Path, source: Path, repository: str, commit: str) -> Path:
    """``source`` as the hub cache keeps it: blobs named by hash, a snapshot of links, a ref."""
    base = root / f"models--{repository.replace('/', '--')}"
    snapshot = base / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (base / "blobs").mkdir()
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(commit)
    for file in source.iterdir():
        name = hub_files.sha256_of(file) if file.suffix == ".safetensors" else f"{abs(hash(file.name)):040x}"[:40]
        shutil.copy(file, base / "blobs" / name)
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / name)
    return snapshot


def test_model_of_the_local_hub_cache(folders: dict[str, Path], tmp_path: Path) -> None:
    commit = "a" * 40
    snapshot = in_cache(tmp_path, folders["clip"], "tiny/clip", commit)
    for name in ("tiny/clip", "hf:tiny/clip", f"tiny/clip@{commit}"):
        space = open_clip(name, hub_cache=tmp_path)
        assert space.id == open_clip(folders["clip"]).id  # the same content, the same space
        assert space.identity().model == "tiny/clip" and space.identity().revision == commit
    assert np.isfinite(space.embed_text(["a cup"])).all()
    with pytest.raises(ModelUnavailable, match="--revision v9"):
        open_clip("tiny/clip@v9", hub_cache=tmp_path)
    (snapshot / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"lacks tokenizer\.json \(run: hf download tiny/clip"):
        open_clip("tiny/clip", hub_cache=tmp_path)


def test_failed_download_is_one_clear_error(tmp_path: Path) -> None:
    """In a process of its own: the hub library reads its address when it is imported. Nothing listens on port 9."""
    program = (
        "from perception.encoders.hub import open_clip\n"
        "from streammem.errors import ModelUnavailable\n"
        "try: open_clip('tiny/clip', allow_download=True)\n"
        "except ModelUnavailable as error: print(error)\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120)
    assert "model tiny/clip couldn't be downloaded" in done.stdout and "hf download tiny/clip" in done.stdout


@pytest.mark.parametrize("missing", ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"])
def test_incomplete_folder(folders: dict[str, Path], tmp_path: Path, missing: str) -> None:
    copy = Path(shutil.copytree(folders["clip"], tmp_path / "copy"))
    (copy / missing).unlink()
    with pytest.raises(ModelUnavailable, match=f"lacks {missing}"):
        open_clip(copy)


def test_pickled_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders["clip"], tmp_path / "copy"))
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match="pickles and never read"):
        open_clip(copy)


def test_wrong_folders(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"type 'siglip'; the space clip needs clip"):
        open_clip(folders["siglip"])
    with pytest.raises(ModelUnavailable, match=r"type 'clip'; the space siglip2 needs siglip or siglip2"):
        open_siglip2(folders["clip"])
    with pytest.raises(ModelUnavailable, match="there is no folder"):
        open_clip(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="neither a folder nor a model"):
        open_clip("just-a-word")
    with pytest.raises(ConfigError, match="neither a folder nor a model"):
        open_clip("etc/passwd/../x\x00")
    with pytest.raises(ConfigError, match="contradict"):
        find_model("a/b@one", revision="two")


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.json", b"{", "can't be read"),
        ("config.json", b"[]", "can't be read"),
        ("config.json", b'{"model_type": "clip", "vision_config": {"hidden_size": "x"}}', "can't be used"),
        ("preprocessor_config.json", b'{"size": "large"}', "can't be used"),
        ("tokenizer.json", b"{}", "can't be read"),
        ("model.safetensors", b"\x00" * 100, "can't be loaded"),
    ],
)
def test_damaged_files(folders: dict[str, Path], tmp_path: Path, file: str, content: bytes, says: str) -> None:
    copy = Path(shutil.copytree(folders["clip"], tmp_path / "copy"))
    (copy / file).write_bytes(content)
    with pytest.raises(ModelUnavailable, match=says):
        open_clip(copy).embed_frames(pictures(1))


def test_weights_of_another_model_are_not_filled_with_random_numbers(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders["clip"], tmp_path / "copy"))
    shutil.copy(folders["siglip"] / "model.safetensors", copy / "model.safetensors")
    with pytest.raises(ModelUnavailable, match="can't be loaded"):
        open_clip(copy).embed_text(["a"])
    config = json.loads((copy / "config.json").read_text())
    config["projection_dim"] = 12
    (copy / "config.json").write_text(json.dumps(config))
    shutil.copy(folders["clip"] / "model.safetensors", copy / "model.safetensors")
    with pytest.raises(ModelUnavailable, match="can't be loaded"):
        open_clip(copy).embed_text(["a"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "tpu"}, "unknown device"),
        ({"threads": 0}, "threads is 0"),
        ({"prompt": "a photo"}, "no place for the query"),
    ],
)
def test_bad_options(folders: dict[str, Path], options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_clip(folders["clip"], **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        open_clip(folders["clip"], device="cuda").embed_text(["a"])
    assert np.isfinite(open_clip(folders["clip"], device="auto").embed_text(["a"])).all()


def test_missing_extra(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = hub_files.importlib.util.find_spec
    monkeypatch.setattr(
        hub_files.importlib.util, "find_spec", lambda name, *rest: None if name == "transformers" else real(name, *rest)
    )
    with pytest.raises(ModelUnavailable, match=r"need transformers.*pip install 'streammem\[models\]'"):
        open_clip(folders["clip"])


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
