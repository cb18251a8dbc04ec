"""The source grammar: what a person types -> a :class:`~perception.frames.Source`.

video.mp4  folder/  "shots/*.jpg"  picture.jpg      files: whatever exists at that path always wins
0, 1, ...                                           camera number
rtsp://...  http(s)://...  rtmp://...  udp://...     through the same decoder as files
rgbd:FOLDER                                         colour, depth and poses: 7-Scenes, Open3D, TUM
synthetic:SCENARIO                                  a generated scene whose truth is known
env:NAME                                            what that environment variable holds: no password in `ps`
SCHEME:REST                                         whatever an installed package registered
"""

from __future__ import annotations

import glob
import os
import re
from importlib.metadata import entry_points
from typing import Protocol, cast

from perception.frames import Source
from streammem.config import Config, LiveConfig, PerceptionConfig
from streammem.errors import SourceError, SourceNotFound
from streammem.printable import printable
from streammem.redact import redact

ENTRY_POINTS = "streammem.sources"
"""A package adds a scheme by registering ``name = "module:open"`` here; ``open(rest, config)`` gives a Source."""

_ADDRESSES = ("rtsp", "rtsps", "http", "https", "rtmp", "udp", "tcp")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)
_MAX_TEXT = 4096
"""Longest source text: Linux's own limit for a path."""


class _Opener(Protocol):
    def __call__(self, rest: str, config: PerceptionConfig) -> Source: ...


def known_schemes() -> list[str]:
    """Every scheme that can be used here, sorted."""
    installed = (point.name for point in entry_points(group=ENTRY_POINTS))
    return sorted({*_ADDRESSES, "env", "rgbd", "synthetic", *installed})


def open_source(text: str, config: Config | PerceptionConfig | None = None) -> Source:
    """Open what ``text`` names. A path that exists wins over every other reading of it.

    Raises SourceNotFound where nothing is, NoVideoStream for a file without pictures, SourceError for all else; each
    says what, where and what to do."""
    settings = config.perception if isinstance(config, Config) else config or PerceptionConfig()
    cache = config.cache_dir if isinstance(config, Config) else ""
    if not text.strip():
        raise SourceError("the source is empty", hint="give a video file, a folder, a camera number or an address")
    live = config.live if isinstance(config, Config) else LiveConfig()
    if len(text) > _MAX_TEXT:
        raise SourceError(f"the source is {len(text)} characters long", hint=f"at most {_MAX_TEXT} are allowed")
    if "\0" in text:
        raise SourceError(f"the source {_shown(text)} holds a zero byte", hint="check the path")
    if os.path.lexists(text):
        return _open_path(text, settings, cache)
    if text.startswith("env:"):
        return open_source(_from_environment(text[4:]), config)
    if text.isascii() and text.isdigit():
        from perception.sources.camera import Camera

        return Camera(int(text), fps=settings.fps, config=live)
    match = _SCHEME.fullmatch(text)
    if match and len(match[1]) > 1:
        return _open_scheme(match[1].lower(), match[2], text, settings, live)
    if any(char in text for char in "*?["):
        from perception.sources.images import ImageSequence, natural_order

        found = [path for path in glob.glob(text, recursive=True) if os.path.isfile(path)]
        if found:
            return ImageSequence(sorted(found, key=natural_order), text=text, fps=settings.fps, cache=cache)
        raise SourceNotFound(f"no file matches {_shown(text)}", hint="put the pattern in quotes and check the folder")
    raise SourceNotFound(f"nothing is at {_shown(text)}", hint=_near(text))


def _open_path(path: str, settings: PerceptionConfig, cache: str) -> Source:
    from perception.sources.images import ImageSequence, is_image, pictures_in

    if os.path.isdir(path):
        return ImageSequence(pictures_in(path), text=path, folder=path, fps=settings.fps, cache=cache)
    if is_image(path):
        return ImageSequence([path], text=path, fps=settings.fps, cache=cache)
    from perception.sources.file import VideoFile

    return VideoFile(path, fps=settings.fps, decoder=settings.decoder, cache=cache)


def _open_scheme(scheme: str, rest: str, text: str, settings: PerceptionConfig, live: LiveConfig) -> Source:
    if scheme in _ADDRESSES and rest.startswith("//"):
        from perception.sources.address import AddressSource

        return AddressSource(text, fps=settings.fps, config=live)
    if scheme == "synthetic":
        from perception.sources.synthetic import SyntheticSource

        return SyntheticSource(rest, fps=settings.fps)
    if scheme == "rgbd":
        from perception.sources.rgbd import open_rgbd

        return open_rgbd(rest, settings)
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == scheme:
            try:
                opener = cast(_Opener, point.load())
            except ImportError as error:
                raise SourceError(
                    f"the source {scheme!r} is registered by {point.value!r} but can't be loaded: {error}",
                    hint="install what it needs",
                ) from error
            return opener(rest, settings)
    if "/" in scheme or os.sep in rest or not rest:
        raise SourceNotFound(f"nothing is at {_shown(text)}", hint=_near(text))
    raise SourceError(
        f"no source is called {scheme!r}, and no file {_shown(text)}", hint=f"known are {', '.join(known_schemes())}"
    )


def _from_environment(name: str) -> str:
    found = os.environ.get(name, "")
    if not found.strip() or found.startswith("env:"):
        raise SourceError(f"the environment variable {_shown(name)} names no source", hint="set it to an address")
    return found


def _near(text: str) -> str:
    """The closest existing name, or the deepest folder that exists."""
    import difflib

    folder, name = os.path.split(os.path.abspath(text))
    try:
        names = os.listdir(folder)[:10_000]
    except OSError:
        while folder != os.path.dirname(folder) and not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        return f"the folder doesn't exist; {_shown(folder)} does"
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {_shown(close[0])}?" if close else "check the path"


def _shown(text: str) -> str:
    short = text if len(text) <= 200 else text[:200] + "..."
    return f"'{redact(printable(short))}'"
