"""Decoders: from a video file to chosen pictures with exact times."""

from __future__ import annotations

from perception.decoders.pictures import MAX_SIDE
from perception.frames import Decoder
from streammem.errors import ConfigError

DECODERS = ("pyav", "decord", "opencv")

__all__ = ["DECODERS", "MAX_SIDE", "open_decoder"]


def open_decoder(name: str, path: str, *, max_side: int = MAX_SIDE, threads: int | None = None) -> Decoder:
    """The decoder called ``name`` on the file at ``path``.

    Raises ConfigError for an unknown name, SourceError where the file can't be read."""
    if name == "pyav":
        from perception.decoders.pyav import PyAVDecoder

        return PyAVDecoder(path, max_side=max_side, threads=threads)
    if name == "decord":
        from perception.decoders.decord_reader import DecordDecoder

        return DecordDecoder(path, max_side=max_side, threads=threads)
    if name == "opencv":
        from perception.decoders.opencv_reader import OpenCVDecoder

        return OpenCVDecoder(path, max_side=max_side)
    raise ConfigError(f"no decoder is called {name!r}", hint=f"use one of {', '.join(DECODERS)}")
