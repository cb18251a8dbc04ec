"""Where things are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir(configured: str = "") -> Path:
    """The cache directory: the configured one, ``$STREAMMEM_CACHE``, ``$XDG_CACHE_HOME/streammem`` or
    ``~/.cache/streammem``. It isn't created here."""
    chosen = configured or os.environ.get("STREAMMEM_CACHE", "")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "streammem"


def config_dir() -> Path:
    """Where a person's own files for streammem are (keys): ``$XDG_CONFIG_HOME/streammem`` or ``~/.config/streammem``.
    It isn't created here."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base else Path.home() / ".config") / "streammem"
