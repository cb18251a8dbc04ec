"""From a clip's patch tokens to a few slots and one summary: ``pool``, ``merge``, ``qwen`` behind one protocol."""

from __future__ import annotations

from pathlib import Path

from streammem.banks.compressors.base import Compressor
from streammem.errors import ConfigError

NAMES = ("pool", "merge", "qwen")


def open_compressor(name: str, *, slots: int = 4, model: str | Path = "") -> Compressor:
    """``slots``: P, slots a frame (``qwen`` has its own). ``model``: the folder of the weights, for ``qwen``.

    Raises ConfigError for an unknown name, ModelUnavailable where the weights are missing."""
    if name == "pool":
        from streammem.banks.compressors.pool import PoolCompressor

        return PoolCompressor(slots)
    if name == "merge":
        from streammem.banks.compressors.merge import MergeCompressor

        return MergeCompressor(slots)
    if name == "qwen":
        from streammem.banks.compressors.qwen import QwenCompressor

        return QwenCompressor(Path(model))
    raise ConfigError(f"no compressor is called {name!r}", hint=f"known: {', '.join(NAMES)}")
