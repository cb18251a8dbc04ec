"""Opening a video file with PyAV, and saying in one line why one can't be opened."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from streammem.errors import NoVideoStream, SourceError, SourceNotFound

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

READABLE = "mp4, mov, mkv, webm, avi, ts, gif and whatever else FFmpeg reads"
# Formats that are lists of other files, or that turn any text into pictures. A file is one file: what it names is
# never opened, so that a playlist in disguise can't make us read other files or call a server.
_LISTS = frozenset({"hls", "concat", "dash", "imf", "webm_dash", "sdp"})
_REFUSED = _LISTS | {"tty", "lavfi", "image2", "ffmetadata", "rtsp"}


def check_file(path: str) -> None:
    """Raises SourceNotFound or SourceError for whatever is wrong before the first byte is parsed."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFound(f"nothing is at {path!r}", hint="check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{path!r} can't be read: {reason}", hint="check the path and its permissions") from error
    if stat.S_ISDIR(found.st_mode):
        raise SourceError(f"{path!r} is a directory, not a video", hint="give a file, or a folder with pictures")
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(f"{path!r} is not a regular file", hint="copy it to a file first")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path!r} can't be read: permission denied", hint="chmod +r, or run as its owner")
    if found.st_size == 0:
        raise SourceError(f"{path!r} is empty (0 bytes)", hint="copy or download it again")


def open_video(path: str) -> InputContainer:
    """The container, checked. Raises SourceNotFound or SourceError."""
    import av

    check_file(path)
    # The protocol in front keeps names with ':' or a leading '-' from being read as something else.
    url = "file:" + os.path.abspath(path)
    try:
        # What the container's text says is never used, so bytes of any encoding will do.
        container = av.open(url, options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError, OSError, UnicodeError) as error:
        message, hint = _why(path, error)
        raise SourceError(message, hint=hint) from error
    refused = set(container.format.name.split(",")) & _REFUSED
    if refused:
        container.close()
        raise SourceError(
            f"{path!r} is not a video: it is {_called(min(refused))}", hint=f"give a video file ({READABLE})"
        )
    return container


def pick_video_stream(container: InputContainer, path: str) -> av.VideoStream:
    """The first stream of moving pictures; a cover picture in a sound file is none. Raises NoVideoStream."""
    import av

    for stream in container.streams.video:
        cover = bool(stream.disposition & av.stream.Disposition.attached_pic)
        if not cover and stream.codec_context is not None:
            return stream
    if container.streams.audio:
        raise NoVideoStream(f"{path!r} holds sound but no pictures", hint="give a video, or a folder with pictures")
    raise NoVideoStream(f"{path!r} holds no pictures", hint=f"give a video file ({READABLE})")


def _why(path: str, error: BaseException) -> tuple[str, str]:
    with open(path, "rb") as file:
        head = file.read(4096)
    if head[4:8] in (b"ftyp", b"mdat", b"wide", b"free"):
        return (
            f"{path!r} is cut off: the index of the mp4 (its moov box) is missing",
            "copy or download it again; a recorder that was switched off may be repaired with `untrunc`",
        )
    if _is_text(head):
        return (f"{path!r} is a text file, not a video", f"give a video file ({READABLE})")
    reason = getattr(error, "strerror", None) or str(error)
    return (f"{path!r} is not a video that can be read: {reason}", f"readable are {READABLE}")


def _is_text(head: bytes) -> bool:
    try:
        text = head[:4000].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return bool(text) and all(char.isprintable() or char in "\r\n\t\f" for char in text)


def _called(name: str) -> str:
    return f"a list of other files ({name})" if name in _LISTS else f"read as {name}"
