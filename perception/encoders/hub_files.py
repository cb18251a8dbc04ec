"""The files of one hub model: found on this machine, or fetched where that was allowed.

A model is named by a folder, or by ``owner/name`` on the Hugging Face hub (``hf:owner/name`` and
``owner/name@revision`` work too). The order is: the folder, the local hub cache, a download. A download happens only
when it was asked for (``allow_download`` or ``STREAMMEM_ALLOW_DOWNLOAD=1``) and ``HF_HUB_OFFLINE`` is not set: a robot
must not start to load 600 MB over its radio because somebody asked a question. Only safetensors and JSON are read,
never pickles or code.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from perception.encoders.weights import models_dir, sha256_of, write_atomically
from streammem.errors import ConfigError, ModelUnavailable

REQUIRED = ("config.json", "preprocessor_config.json", "tokenizer.json")
NEW_PIXELS = "processor_config.json"
"""Where transformers 5 puts the image processor's settings when it saves a processor."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
WANTED = (*REQUIRED, NEW_PIXELS, WEIGHTS, INDEX, "model-*.safetensors", "tokenizer_config.json")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_TRUE = {"1", "true", "yes", "on"}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A complete folder. ``model`` is the name it was asked for by, ``revision`` the hub's commit or empty;
    ``weights_sha256`` names the content, whichever way it came."""

    folder: Path
    model: str
    revision: str
    weights_sha256: str

    def read_json(self, name: str) -> dict[str, Any]:
        """A JSON object of the folder; ``{}`` where an optional file is absent.

        Raises ModelUnavailable for bad JSON."""
        path = self.folder / name
        if not path.exists() and name not in REQUIRED:
            return {}
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.MsgspecError) as error:
            raise ModelUnavailable(f"{path} can't be read: {error}", hint="fetch the model again") from error

    def pixel_settings(self) -> dict[str, Any]:
        """The image processor's settings. Raises ModelUnavailable for bad JSON."""
        if (self.folder / REQUIRED[1]).exists():
            return self.read_json(REQUIRED[1])
        settings = self.read_json(NEW_PIXELS).get("image_processor")
        return settings if isinstance(settings, dict) else {}


def require_transformers() -> None:
    """Raises ModelUnavailable where the ``models`` extra is not installed. Imports nothing."""
    missing = [name for name in ("transformers", "huggingface_hub", "PIL") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelUnavailable(
            f"hub models need {', '.join(missing)}, which is not installed", hint="run: pip install 'streammem[models]'"
        )


def find_model(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    allow_download: bool | None = None,
    hub_cache: str | os.PathLike[str] | None = None,
    required: tuple[str, ...] = REQUIRED,
) -> ModelFiles:
    """Find ``model``; see the top of this file. ``allow_download=None`` asks the environment; ``required`` are the
    files that it must have besides the weights.

    Raises ConfigError for a name that is neither a folder nor ``owner/name``, ModelUnavailable where files are missing:
    the message lists them, the hint is the command that gets them."""
    name = os.fspath(model)
    path = Path(name.removeprefix("file:")).expanduser()
    if path.is_dir():
        return _checked(path, name, "", f"put them into {path}", required)
    if name.startswith(("file:", "/", "./", "../", "~")):
        raise ModelUnavailable(
            f"there is no folder {path}", hint="name a folder that holds config.json and model.safetensors"
        )
    repository, _, pinned = name.removeprefix("hf:").partition("@")
    if not _REPOSITORY.fullmatch(repository):
        raise ConfigError(f"{name!r} is neither a folder nor a model of the hub", hint="write owner/name or a path")
    if pinned and revision and pinned != revision:
        raise ConfigError(f"{name!r} and revision={revision!r} contradict each other", hint="give one of them")
    revision = pinned or revision
    command = f"hf download {repository}{f' --revision {revision}' if revision else ''} " + " ".join(
        f"--include '{pattern}'" for pattern in ("*.json", "model*.safetensors")
    )
    require_transformers()
    cache = None if hub_cache is None else Path(hub_cache)
    folder = _from_cache(repository, revision, cache)
    incomplete = folder is not None and bool(_missing(folder, required))
    if folder is None or incomplete:
        allowed, why_not = _may_download(allow_download)
        if allowed:
            folder = _download(repository, revision, cache, command)
        elif folder is None:
            needs = ", ".join((*required, WEIGHTS))
            raise ModelUnavailable(
                f"model {repository} isn't on this machine (needed: {needs}), and no download: {why_not}",
                hint=f"with a network, run: {command}; or give a folder",
            )
    return _checked(folder, repository, folder.name, f"run: {command}", required)


def _from_cache(repository: str, revision: str | None, hub_cache: Path | None) -> Path | None:
    """The snapshot in the local hub cache, complete or not."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, "config.json", cache_dir=hub_cache, revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _may_download(asked: bool | None) -> tuple[bool, str]:
    if asked is None:
        asked = os.environ.get("STREAMMEM_ALLOW_DOWNLOAD", "").strip().lower() in _TRUE
        if not asked:
            return False, "it takes allow_download=True or STREAMMEM_ALLOW_DOWNLOAD=1"
    if not asked:
        return False, "allow_download is False"
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").strip().lower() in _TRUE:
            return False, f"{variable} is set"
    return True, ""


def _download(repository: str, revision: str | None, hub_cache: Path | None, command: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(repository, revision=revision, cache_dir=hub_cache, allow_patterns=list(WANTED))
    except Exception as error:
        raise ModelUnavailable(
            f"model {repository} couldn't be downloaded: {type(error).__name__}: {error}", hint=f"later, run: {command}"
        ) from error
    return Path(folder)


def _missing(folder: Path, required: tuple[str, ...]) -> list[str]:
    missing = [name for name in required if not (folder / name).is_file()]
    if (folder / NEW_PIXELS).is_file() and REQUIRED[1] in missing:
        missing.remove(REQUIRED[1])
    return missing if _weight_files(folder) else [*missing, WEIGHTS]


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files, one or the shards of the index; empty where any of them is missing."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    try:
        index = msgspec.json.decode((folder / INDEX).read_bytes(), type=dict[str, Any])
        names = sorted({str(name) for name in index["weight_map"].values()})
    except (OSError, msgspec.MsgspecError, KeyError, AttributeError):
        return []
    files = [folder / Path(name).name for name in names]  # a shard lies beside its index, whatever the index says
    return files if all(file.is_file() for file in files) else []


def _checked(folder: Path, model: str, revision: str, hint: str, required: tuple[str, ...]) -> ModelFiles:
    missing = _missing(folder, required)
    if missing == [WEIGHTS] and list(folder.glob("*.bin")):
        raise ModelUnavailable(
            f"{folder} has no {WEIGHTS}, only .bin weights, which are pickles and never read",
            hint="use a revision or another checkpoint that has safetensors (on the hub, see the model's refs/pr/...)",
        )
    if missing:
        raise ModelUnavailable(f"model {model} is incomplete: {folder} lacks {', '.join(missing)}", hint=hint)
    digest = hashlib.sha256("\n".join(_sha256(file) for file in _weight_files(folder)).encode()).hexdigest()
    return ModelFiles(folder, model, revision, digest)


class _Known(msgspec.Struct, array_like=True):
    size: int
    mtime_ns: int
    sha256: str


def _sha256(path: Path) -> str:
    """The SHA-256 of a weight file. The hub cache names large files by it; for others it is computed once and noted
    with size and time, since 600 MB take about a second."""
    target = path.resolve()
    if target.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", target.name):
        return target.name
    stat = target.stat()
    note = models_dir() / "checked" / f"{hashlib.sha256(str(target).encode()).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        known = msgspec.json.decode(note.read_bytes(), type=_Known)
        if (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return known.sha256
    digest = sha256_of(target)
    # A cache that can't be written costs a second hash at the next start, nothing else.
    with contextlib.suppress(OSError):
        write_atomically(note, msgspec.json.encode(_Known(stat.st_size, stat.st_mtime_ns, digest)))
    return digest
