"""``qwen``: the compressor of InternLM-XComposer2.5-OmniLive, loaded from its released folder and run by transformers.

The folder is ``memory`` of the hub's ``internlm/internlm-xcomposer2d5-ol-7b`` (``GroundQwenForCausalLM``, model type
``ground_qwen``): a causal Qwen2 of width 1536, a two-layer projector from 4096, ``resolution`` N and ``pool_num`` P in
its ``config.json``. Its tokens are those of its own vision tower (CLIP ViT-L/14, class token dropped): a producer sends
them as ``Observation.tokens`` (4N, 1024). The vision tower itself isn't opened here: perception's models see pictures.

Pass 1: [text with the clip's seconds; projected tokens; pooled slots; pooled mean]; slots and summary are what comes
out at the last places. Pass 2: [all slots; all summaries], the last k. Question: [long-term; question], the last token.
Facts: the report's section 3.2 and the released ``llava_arch.py``, ``builder_projector.py``, ``modeling_qwen.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streammem.banks.compressors.base import Compressed, unit
from streammem.banks.compressors.grid import space_to_depth
from streammem.banks.compressors.pool import PoolCompressor
from streammem.errors import ModelUnavailable, ObservationError, QueryError

if TYPE_CHECKING:
    import torch

TIME_TEXT = "This contains a clip sampled in {start} to {end} seconds"
"""What the released code says of a clip; the weights were trained with these words."""
NOMINAL_FRAMES = 16
_EDGE = 1 << 20
_HUB = "hub id internlm/internlm-xcomposer2d5-ol-7b, folder memory; set clips.model to where it is"


class QwenCompressor:
    """``folder``: ``config.json``, the tokenizer's files, weights as safetensors (whole or in shards) or as
    ``pytorch_model.bin``. Nothing is read before the first clip. On CPU in float32, with CUDA in float16.

    Raises ModelUnavailable where the folder isn't one, now or at the first clip."""

    name = "qwen"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ModelUnavailable(
                f"the compressor qwen has no weights in {str(folder)!r}: {error}", hint=_HUB
            ) from error
        missing = [
            key for key in ("resolution", "pool_num", "hidden_size", "mm_hidden_size") if key not in self._config
        ]
        if missing or self._config.get("model_type") != "ground_qwen":
            raise ModelUnavailable(
                f"{str(folder / 'config.json')!r} is not that of a ground_qwen model (missing: {missing})", hint=_HUB
            )
        self.resolution, self.slots = int(self._config["resolution"]), int(self._config["pool_num"])
        self._width = int(self._config["mm_hidden_size"])
        self.context = int(self._config.get("max_position_embeddings", 32768))
        self.longest = max(1, self.context // (NOMINAL_FRAMES * self.slots + 1))
        self._files = _weight_files(folder)
        self._pool = PoolCompressor(self.slots)
        self._loaded: _Loaded | None = None

    @property
    def identity(self) -> str:
        """Over the configuration and each weight file's size and first and last megabyte: 4 GB take 10 s to read."""
        state = hashlib.blake2b(json.dumps(self._config, sort_keys=True).encode(), digest_size=8)
        for path in self._files:
            size = path.stat().st_size
            with path.open("rb") as file:
                state.update(f"{path.name} {size}".encode() + file.read(_EDGE))
                file.seek(max(0, size - _EDGE))
                state.update(file.read())
        return state.hexdigest()

    def accepts(self, count: int, width: int) -> bool:
        return (count, width) == (4 * self.resolution, self._width)

    def compress(self, tokens: np.ndarray, t_start_s: float, t_end_s: float) -> Compressed:
        frames, count, width = tokens.shape
        mixed = space_to_depth(tokens.astype(np.float32))
        if not self.accepts(count, width):
            raise ObservationError(
                f"tokens: shape {(count, width)}, the model wants {(4 * self.resolution, self._width)}",
                field="tokens",
                hint="send the patch tokens of its own vision tower, without the class token",
            )
        pooled = self._pool.compress(mixed, t_start_s, t_end_s)
        model = self._model()
        text = TIME_TEXT.format(start=round(t_start_s), end=round(t_end_s))
        rows = np.concatenate([mixed.reshape(-1, mixed.shape[2]), pooled.slots, pooled.summary[None]])
        hidden = model.run([model.words(text), model.project(rows)])
        slots = frames * self.slots
        return Compressed(hidden[-slots - 1 : -1], hidden[-1], pooled.counts, pooled.spans)

    def integrate(self, slots: Sequence[np.ndarray], summaries: np.ndarray) -> np.ndarray:
        length = sum(len(own) for own in slots) + len(summaries)
        if length > self.context:
            raise QueryError(
                f"pass 2 of {len(summaries)} clips has {length} tokens, the model takes {self.context}",
                hint="narrow the time range",
            )
        model = self._model()
        return model.run([model.tensor(np.concatenate([*slots, summaries]))])[-len(summaries) :]

    def question(self, long_term: np.ndarray, query: str | np.ndarray) -> np.ndarray:
        if not isinstance(query, str):
            return np.asarray(query, np.float32)
        model = self._model()
        return model.run([model.tensor(long_term), model.words(query)])[-1]

    def score(self, question: np.ndarray, slots: Sequence[np.ndarray], summaries: np.ndarray) -> np.ndarray:
        return (unit(summaries.astype(np.float64)) @ unit(question.astype(np.float64))).astype(np.float64)

    def _model(self) -> _Loaded:
        if self._loaded is None:
            self._loaded = _Loaded(self.folder, self._config, self._files)
        return self._loaded


class _Loaded:
    """The language model, the projector and the tokenizer."""

    def __init__(self, folder: Path, config: dict[str, Any], files: Sequence[Path]) -> None:
        try:
            import torch
            from transformers import AutoTokenizer, Qwen2Config, Qwen2Model
        except ImportError as error:
            raise ModelUnavailable(
                f"the compressor qwen needs transformers: {error}", hint='pip install "streammem[models]"'
            ) from error
        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._dtype = torch.float16 if self._device == "cuda" else torch.float32
        state = _read(files)
        width, wide = int(config["hidden_size"]), 4 * int(config["mm_hidden_size"])
        gelu = torch.nn.GELU()
        self._projector = torch.nn.Sequential(torch.nn.Linear(wide, width), gelu, torch.nn.Linear(width, width))
        # Without its own name, so that transformers takes the ordinary architecture: the released one adds only losses.
        settings = {
            key: value for key, value in config.items() if key not in ("model_type", "architectures", "auto_map")
        }
        self._qwen: Any = Qwen2Model(Qwen2Config.from_dict(settings))
        self._embeddings: Any = self._qwen.get_input_embeddings()
        rows = state.get("model.embed_tokens.weight")
        if rows is not None and rows.shape[0] != self._qwen.config.vocab_size:
            self._embeddings = self._qwen.resize_token_embeddings(rows.shape[0])  # special tokens were added
        projector = _below(state, "model.mm_projector.mlp.")
        own = {k: v for k, v in _below(state, "model.").items() if not k.startswith(("mm_projector.", "vision_tower."))}
        for part, weights, where in (
            (self._projector, projector, "model.mm_projector.mlp."),
            (self._qwen, own, "model."),
        ):
            try:
                part.load_state_dict(weights, strict=True)
            except RuntimeError as error:
                lines = " ".join(str(error).split())[:300]
                raise ModelUnavailable(
                    f"the weights {where}* in {str(folder)!r} don't fit: {lines}", hint=_HUB
                ) from error
            part.eval().to(self._device, self._dtype)
        self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)

    def tensor(self, rows: np.ndarray) -> torch.Tensor:
        return self._torch.from_numpy(np.ascontiguousarray(rows, np.float32)).to(self._device, self._dtype)

    def words(self, text: str) -> torch.Tensor:
        ids = self._tokenizer(text, return_tensors="pt")["input_ids"][0].to(self._device)
        with self._torch.inference_mode():
            return self._embeddings(ids)

    def project(self, rows: np.ndarray) -> torch.Tensor:
        with self._torch.inference_mode():
            return self._projector(self.tensor(rows))

    def run(self, pieces: Sequence[torch.Tensor]) -> np.ndarray:
        """Embeddings one after the other, causal, positions from 0 -> (n, width) float32 after the final norm."""
        with self._torch.inference_mode():
            embeds = self._torch.cat(list(pieces))[None]
            hidden = self._qwen(inputs_embeds=embeds, use_cache=False).last_hidden_state[0]
        return hidden.float().cpu().numpy()


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        files = [folder / Path(name).name for name in names]
    else:
        files = [folder / name for name in ("model.safetensors", "pytorch_model.bin") if (folder / name).is_file()][:1]
    missing = [path.name for path in files if not path.is_file()]
    if not files or missing:
        raise ModelUnavailable(
            f"no weights are in {str(folder)!r} (missing: {missing or 'model.safetensors'})", hint=_HUB
        )
    return files


def _read(files: Sequence[Path]) -> dict[str, torch.Tensor]:
    """All tensors by name; never code."""
    import torch
    from safetensors.torch import load_file

    state: dict[str, torch.Tensor] = {}
    for path in files:
        if path.suffix == ".safetensors":
            state.update(load_file(path))
        else:
            state.update(torch.load(path, map_location="cpu", weights_only=True))
    return state


def _below(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
