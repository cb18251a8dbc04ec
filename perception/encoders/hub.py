"""CLIP and SigLIP2 from a model hub as embedding spaces (extra ``models``: transformers 5, no torchvision).

Both give one vector a frame, so a search is one scan. A frame is always encoded alone, in a batch of one and on one
thread: a matrix product of another shape sums in another order, and a memory must not depend on which frames happened
to arrive together. ``transformers`` and ``torch`` are imported when the first frame or text comes, not before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from perception.encoders.hub_files import ModelFiles, find_model, require_transformers
from streammem.errors import ConfigError, ModelUnavailable, ObservationError, QueryError
from streammem.model import Producer
from streammem.spaces import Calibration, FrameEmbedding, Ragged

# The main branch of CLIP has only pickled weights (transformers then takes a community conversion without saying so):
# this is the commit of the hub's own safetensors conversion, refs/pr/66.
CLIP_DEFAULT = "openai/clip-vit-base-patch32@c237dc49a33fc61debc9276459120b7eac67e7ef"
SIGLIP2_DEFAULT = "google/siglip2-base-patch16-224"
PREPROCESSING = "pil-1"
"""Raise it when the code below turns the same settings into other pixels: it is part of every space's version."""
MAX_TEXT = 10_000
"""Characters. The models read 64 or 77 tokens; the tokenizer would still walk through all of a longer text."""
MAX_ASPECT = 100
"""CLIP scales the short side to 224: a line of 1 x 10,000 pixels would become 1.5 GB."""
# What of preprocessor_config.json changes pixels. The rest (class names, file versions) must not change the version.
PIXEL_SETTINGS = (
    "crop_size", "default_to_square", "do_center_crop", "do_convert_rgb", "do_normalize", "do_rescale", "do_resize",
    "image_mean", "image_std", "max_num_patches", "patch_size", "resample", "rescale_factor", "size",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Family:
    """The classes of transformers for one ``model_type``. ``pads``: texts are padded to the full length (SigLIP was
    trained so and reads its last position); otherwise a text keeps its own length."""

    config: str
    model: str
    processor: str
    pads: bool


FAMILIES = {
    "clip": _Family("CLIPConfig", "CLIPModel", "clip.image_processing_pil_clip.CLIPImageProcessorPil", False),
    "siglip": _Family(
        "SiglipConfig", "SiglipModel", "siglip.image_processing_pil_siglip.SiglipImageProcessorPil", True
    ),
    # The fixed-resolution SigLIP2 checkpoints say "siglip"; "siglip2" is the NaFlex variant with its own aspect ratio.
    "siglip2": _Family(
        "Siglip2Config", "Siglip2Model", "siglip2.image_processing_pil_siglip2.Siglip2ImageProcessorPil", True
    ),
}


def open_clip(
    model: str | os.PathLike[str] = CLIP_DEFAULT,
    *,
    revision: str | None = None,
    allow_download: bool | None = None,
    hub_cache: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    threads: int = 1,
    prompt: str = "{}",
    calibration: str | os.PathLike[str] | None = None,
) -> HubSpace:
    """CLIP as the space ``clip``. ``score`` is the cosine, in [-1, 1].

    ``model``: a folder or ``owner/name[@revision]``; ``device``: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``; ``threads``
    of torch (other numbers than 1 may change last digits); ``prompt`` wraps every query (``"a photo of {}"``);
    ``calibration``: a JSON file measured for this very version, which makes the space able to abstain.
    Raises ModelUnavailable (weights or the extra are missing; the hint has the command), ConfigError."""
    files = find_model(model, revision=revision, allow_download=allow_download, hub_cache=hub_cache)
    return HubSpace("clip", files, ("clip",), device, threads, prompt, calibration)


def open_siglip2(
    model: str | os.PathLike[str] = SIGLIP2_DEFAULT,
    *,
    revision: str | None = None,
    allow_download: bool | None = None,
    hub_cache: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    threads: int = 1,
    prompt: str = "{}",
    calibration: str | os.PathLike[str] | None = None,
) -> HubSpace:
    """SigLIP2 as the space ``siglip2``. ``score`` is the model's own pair probability, in (0, 1):
    ``sigmoid(scale * cosine + bias)``. It ranks; whether it can tell absence is a matter of calibration.

    The arguments and errors are those of :func:`open_clip`."""
    files = find_model(model, revision=revision, allow_download=allow_download, hub_cache=hub_cache)
    return HubSpace("siglip2", files, ("siglip", "siglip2"), device, threads, prompt, calibration)


class _Loaded:
    """The parts of transformers and tokenizers that do the work."""

    def __init__(self, model: Any, processor: Any, tokenizer: Any, device: str) -> None:
        self.model = model
        self.processor = processor
        self.tokenizer = tokenizer
        self.device = device
        self.scale = float(model.logit_scale.detach().exp())
        self.bias = float(model.logit_bias.detach()) if hasattr(model, "logit_bias") else None


class HubSpace:
    """A two-tower model as an EmbeddingSpace. Threads may use one at the same time.

    ``version`` names the content of the weights and the settings that make pixels, so that the same model is the same
    space whether it came from a folder or the hub."""

    def __init__(
        self,
        name: str,
        files: ModelFiles,
        accepted: tuple[str, ...],
        device: str = "cpu",
        threads: int = 1,
        prompt: str = "{}",
        calibration: str | os.PathLike[str] | None = None,
    ) -> None:
        require_transformers()
        if threads < 1:
            raise ConfigError(f"threads is {threads}", hint="use 1 or more")
        if "{}" not in prompt:
            raise ConfigError(
                f"the prompt {prompt!r} has no place for the query", hint='write {} in it: "a photo of {}"'
            )
        if device not in ("cpu", "auto", "cuda") and not device.startswith("cuda:"):
            raise ConfigError(f"unknown device {device!r}", hint="use cpu, cuda, cuda:N or auto")
        kind = files.read_json("config.json").get("model_type")
        if kind not in accepted:
            raise ModelUnavailable(
                f"{files.folder} holds a model of type {kind!r}; the space {name} needs {' or '.join(accepted)}",
                hint="name another model",
            )
        self.name = name
        self.files = files
        self._family = FAMILIES[kind]
        self._device, self._threads, self._prompt = device, threads, prompt
        self._config = self._read_config()
        if kind == "clip":
            self.dim = int(self._config.projection_dim)
        else:
            self.dim = int(self._config.vision_config.hidden_size)
        settings = files.pixel_settings()
        self._pixel_settings = {key: settings[key] for key in PIXEL_SETTINGS if settings.get(key) is not None}
        recipe = msgspec.json.encode((PREPROCESSING, kind, self._pixel_settings), order="deterministic")
        self.version = f"{files.weights_sha256[:12]}-{hashlib.sha256(recipe).hexdigest()[:8]}"
        self._calibration = self._read_calibration(calibration)
        self.can_abstain = self._calibration is not None
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"

    def identity(self) -> Producer:
        """Model, revision and a hash of what changes its output."""
        revision = self.files.revision or self.files.weights_sha256[:12]
        return Producer("perception.encoders.hub", self.files.model, revision, self.version)

    def embed_frames(self, frames: Sequence[np.ndarray]) -> list[FrameEmbedding]:
        """Pictures (h, w, 3) uint8 RGB -> one (dim,) float32 vector of norm 1 each, whatever else is in ``frames``.

        Raises ObservationError for another shape or dtype, ModelUnavailable where the weights can't be loaded."""
        for frame in frames:
            if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
                raise ObservationError(f"a frame is {frame.shape} {frame.dtype}", hint="give (h, w, 3) uint8 RGB")
            if max(frame.shape[:2]) > MAX_ASPECT * min(frame.shape[:2]):
                raise ObservationError(f"a frame is {frame.shape[1]} x {frame.shape[0]}", hint="crop the strip")
        if not frames:
            return []
        loaded = self._load()
        from PIL import Image

        result = []
        with self._inference():
            for frame in frames:
                # As a PIL image its channels can't be mistaken: a picture 3 pixels high would be, as an array.
                inputs = loaded.processor(images=Image.fromarray(np.ascontiguousarray(frame)), return_tensors="pt")
                # Copied: the last digits can depend on where in memory NumPy happened to put the pixels.
                tensors = {key: value.clone().to(loaded.device) for key, value in inputs.items()}
                output = loaded.model.get_image_features(**tensors)
                result.append(FrameEmbedding(_unit(output)))
        return result

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> (n, dim) float32 of norm 1. What the model can't read (beyond 64 or 77 tokens) is cut off.

        Raises QueryError for a text of more than 10,000 characters, ModelUnavailable like :meth:`embed_frames`."""
        for text in texts:
            if len(text) > MAX_TEXT:
                raise QueryError(f"the text has {len(text)} characters", hint=f"the limit is {MAX_TEXT}")
        if not texts:
            return np.empty((0, self.dim), np.float32)
        loaded = self._load()
        import torch

        vectors = []
        with self._inference():
            for text in texts:
                prompted = self._prompt.replace("{}", text)
                # SigLIP2 was trained on lower-case text; CLIP's own tokenizer lowers it.
                encoding = loaded.tokenizer.encode(prompted.lower() if self._family.pads else prompted)
                ids = torch.tensor([encoding.ids], device=loaded.device)
                vectors.append(_unit(loaded.model.get_text_features(input_ids=ids)))
        return np.stack(vectors)

    def score(self, query: str, columns: Mapping[str, Ragged], statistics: np.ndarray | None) -> np.ndarray:
        """(n,) float32: the cosine (CLIP) or the pair probability (SigLIP2) of each row's best vector; -inf for rows
        without one. An absolute scale, the same for every stream; ``statistics`` is not used."""
        if "vector" not in columns:
            return np.full(len(next(iter(columns.values()), ())), -np.inf, np.float32)
        column = columns["vector"]
        scores = np.full(len(column), -np.inf, np.float32)
        cosines = np.einsum("ij,j->i", column.values.astype(np.float32), self.embed_text([query])[0])
        np.maximum.at(scores, column.row_of, self._relevance(cosines).astype(np.float32))
        return scores

    def signals(
        self, query: str, columns: Mapping[str, Ragged], statistics: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """:meth:`score` as ``vision``: one signal is all that a single vector has to say."""
        return {"vision": self.score(query, columns, statistics)}

    def _relevance(self, cosines: np.ndarray) -> np.ndarray:
        loaded = self._load()
        if loaded.bias is None:
            return np.clip(cosines, -1.0, 1.0)
        logits = loaded.scale * cosines.astype(np.float64) + loaded.bias
        return np.exp(-np.logaddexp(0.0, -logits))  # sigmoid without overflow

    def statistics(self, columns: Mapping[str, Ragged]) -> np.ndarray | None:
        """None: the scores are absolute. Subtracting a stream's mean would move all its scores alike and punish a
        stream for showing one thing often."""
        return None

    def calibration(self) -> Calibration | None:
        """What was measured for this very version and given to ``open_...``; nothing is shipped."""
        return self._calibration

    def _read_calibration(self, path: str | os.PathLike[str] | None) -> Calibration | None:
        if path is None:
            return None
        try:
            found = msgspec.json.decode(Path(path).read_bytes(), type=Calibration)
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(f"the calibration {path} can't be read: {error}", hint="measure it again") from error
        if (found.space, found.version) != (self.name, self.version):
            raise ConfigError(
                f"the calibration {path} is for {found.space}@{found.version}, this is {self.id}",
                hint="measure it for this model",
            )
        return found

    def _read_config(self) -> Any:
        import transformers

        try:
            return getattr(transformers, self._family.config).from_pretrained(self.files.folder, local_files_only=True)
        except Exception as error:
            raise ModelUnavailable(
                f"{self.files.folder / 'config.json'} can't be used: {error}", hint="fetch the model again"
            ) from error

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        """No gradients, and this space's number of threads; torch keeps that number per process, so it is put back."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)

    def _load(self) -> _Loaded:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load_once()
            return self._loaded

    def _load_once(self) -> _Loaded:
        import torch
        import transformers

        device = self._device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ConfigError(f"device {device} was asked for, but torch sees no GPU", hint="use device=cpu")
        bars = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()  # the command line shows its own progress
        broken = f"the weights in {self.files.folder} can't be loaded"
        try:
            model, report = getattr(transformers, self._family.model).from_pretrained(
                self.files.folder,
                config=self._config,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except Exception as error:
            raise ModelUnavailable(f"{broken}: {error}", hint="fetch the model again") from error
        finally:
            if bars:
                transformers.utils.logging.enable_progress_bar()
        # transformers fills what is missing with random numbers and only logs it.
        wrong = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        if wrong:
            raise ModelUnavailable(
                f"{broken}: {len(wrong)} tensors are missing or of another shape, the first is {wrong[0]}",
                hint="config.json and the weights must be of the same model",
            )
        # Into torch's own aligned memory: mapped from a file, a tensor lies where the file's header ends, and the same
        # weights in two shards gave other last digits than in one file.
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        return _Loaded(model.eval().to(device), self._processor(), self._tokenizer(), device)

    def _processor(self) -> Any:
        """The PIL image processor with the settings of preprocessor_config.json."""
        from importlib import import_module

        module, _, cls = self._family.processor.rpartition(".")
        try:
            return getattr(import_module(f"transformers.models.{module}"), cls)(**self._pixel_settings)
        except (TypeError, ValueError, AttributeError) as error:
            raise ModelUnavailable(
                f"the image settings in {self.files.folder} can't be used: {error}", hint="fetch the model again"
            ) from error

    def _tokenizer(self) -> Any:
        """tokenizer.json as it is; not through AutoTokenizer, whose class for SigLIP2 pads on the other side."""
        from tokenizers import Tokenizer

        path = self.files.folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise ModelUnavailable(f"{path} can't be read: {error}", hint="fetch the model again") from error
        length = int(self._config.text_config.max_position_embeddings)
        tokenizer.enable_truncation(max_length=length)
        if not self._family.pads:
            tokenizer.no_padding()
            return tokenizer
        pad = _pad_token(tokenizer, self.files)
        number = tokenizer.token_to_id(pad)
        if number is None:
            raise ModelUnavailable(f"{path} doesn't know its padding token {pad!r}", hint="fetch the model again")
        # The model reads the last position, which is padding: the wrong side or token gives another vector.
        tokenizer.enable_padding(direction="right", length=length, pad_id=number, pad_token=pad)
        return tokenizer


def _pad_token(tokenizer: Any, files: ModelFiles) -> str:
    """As tokenizer.json says (SigLIP2's does), or else tokenizer_config.json."""
    if tokenizer.padding:
        return str(tokenizer.padding["pad_token"])
    named = files.read_json("tokenizer_config.json").get("pad_token", "<pad>")
    return str(named.get("content", "<pad>") if isinstance(named, dict) else named)


def _unit(output: Any) -> np.ndarray:
    """The pooled features of a batch of one as a vector of norm 1, (dim,) float32."""
    vector = output.pooler_output[0].detach().cpu().numpy().astype(np.float64)
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
