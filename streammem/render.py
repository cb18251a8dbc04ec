"""The contact sheet: a question, its answer, and the frames that prove it, as one PNG for people.

All words are drawn by OpenCV 5's own outline fonts, which cover Latin, Cyrillic, Greek, Arabic and CJK; what they lack
is drawn as "?". No font file of the machine is needed, so that the sheet looks the same everywhere.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from streammem.clock import StreamClock, format_ranges
from streammem.errors import StorageError
from streammem.model import Evidence, Why
from streammem.printable import printable

WIDTH = 1600
"""Pixels: fits a laptop's screen, and a sheet of five moments stays under 1 MB."""
_MARGIN = 40
_GAP = 28
# Longest side of a picture in pixels: larger ones are only scaled down again, and a wall of 4k tiles fills the RAM.
_LONGEST_HEIGHT = 620
_WIDEST = 900
_STRIP = 4
"""Frames beside the best one, shown small."""

Colour = tuple[int, int, int]
PAPER: Colour = (250, 249, 246)
INK: Colour = (28, 30, 36)
GREY: Colour = (112, 116, 124)
DARK: Colour = (24, 25, 29)
STATUS: dict[str, Colour] = {"found": (22, 128, 74), "unsure": (176, 112, 8), "not_seen": (120, 124, 132)}

FrameAt = Callable[[str, int], "np.ndarray | None"]


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One moment. ``pictures`` are (h, w, 3) uint8 RGB, best first; empty where no frame is left."""

    pictures: Sequence[np.ndarray]
    when: str
    score: str = ""
    why: str = ""
    stream: str = ""


def tiles_of(
    evidence: Sequence[Evidence],
    *,
    thumbnail: Callable[[int], bytes | None],
    frame_at: FrameAt | None = None,
    clock_of: Callable[[str], StreamClock] = lambda _: "media",
    name_streams: bool = False,
    scores: bool = True,
) -> list[Tile]:
    """A tile for each piece of evidence. Its best frame is decoded again through ``frame_at`` (sharper than a
    thumbnail) where that gives one; else the kept thumbnail is shown."""
    times = format_ranges([(item.t_start_ns, item.t_end_ns, clock_of(item.stream)) for item in evidence])
    return [
        Tile(
            pictures=_pictures(item, thumbnail, frame_at),
            when=when,
            score=score_text(item) if scores else "",
            why=why_text(item.why),
            stream=item.stream if name_streams else "",
        )
        for item, when in zip(evidence, times, strict=True)
    ]


def _pictures(item: Evidence, thumbnail: Callable[[int], bytes | None], frame_at: FrameAt | None) -> list[np.ndarray]:
    pictures: list[np.ndarray] = []
    for number, frame in enumerate(item.frames[: 1 + _STRIP]):
        picture = frame_at(frame.stream, frame.t_ns) if frame_at is not None and number == 0 else None
        if picture is None:
            picture = decode_jpeg(thumbnail(frame.record_id))
        if picture is None and frame_at is not None and number:
            picture = frame_at(frame.stream, frame.t_ns)
        if picture is not None:
            pictures.append(picture)
    return pictures


def decode_jpeg(data: bytes | None) -> np.ndarray | None:
    """JPEG -> (h, w, 3) uint8 RGB, or None where there is none or it can't be decoded."""
    if not data:
        return None
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if picture is None else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def score_text(item: Evidence) -> str:
    """``83 %`` where the score is a calibrated probability, else the bare score."""
    return f"{item.calibrated:.0%}".replace("%", " %") if item.calibrated is not None else f"score {item.score:.2f}"


def why_text(reasons: Sequence[Why]) -> str:
    """``label: hare, wood rabbit · text: “EXIT”``: which signals speak for a moment."""
    shown = []
    for reason in reasons:
        detail = printable(reason.detail, 80)
        if reason.signal in ("text", "speech") and detail:
            detail = f"“{detail}”"
        shown.append(f"{reason.signal}: {detail}" if detail else f"{reason.signal} {reason.score:.2f}")
    return " · ".join(shown)


def contact_sheet(
    title: str, tiles: Sequence[Tile], *, subtitle: str = "", status: str = "", footer: str = "", width: int = WIDTH
) -> np.ndarray:
    """(h, width, 3) uint8 RGB. ``title`` is the question, ``subtitle`` the answer, ``status`` colours its mark."""
    inner = width - 2 * _MARGIN
    parts = [_heading(title, subtitle, status, inner)]
    columns = {0: 1, 1: 1, 2: 2, 4: 2}.get(len(tiles), 3)
    # One moment alone isn't blown up to the whole width: a thumbnail would show its pixels.
    tile_width = min(_WIDEST, inner) if columns == 1 else (inner - (columns - 1) * _GAP) // columns
    picture_height = _picture_height(tiles, tile_width)
    for start in range(0, len(tiles), columns):
        row = [
            _tile(tile, start + i + 1, tile_width, picture_height)
            for i, tile in enumerate(tiles[start : start + columns])
        ]
        height = max(part.shape[0] for part in row)
        strip = blank(height, inner)
        for i, part in enumerate(row):
            x = i * (tile_width + _GAP)
            strip[: part.shape[0], x : x + tile_width] = part
        parts += [strip, blank(_GAP, inner)]
    if not tiles:
        parts.append(text_block("No moment to show.", inner, 24, GREY))
    if footer:
        parts.append(text_block(footer, inner, 18, GREY, lines=2))
    body = np.vstack(parts)
    sheet = blank(body.shape[0] + 2 * _MARGIN, width)
    sheet[_MARGIN : _MARGIN + body.shape[0], _MARGIN : _MARGIN + inner] = body
    return sheet


def write_png(path: str | Path, picture: np.ndarray) -> Path:
    """Write (h, w, 3) uint8 RGB as a PNG: new, then renamed, so that a viewer never sees half a file.

    Raises StorageError where it can't be written."""
    path = Path(path).expanduser()
    if path.is_dir():
        raise StorageError(f"{path}: is a directory", hint="give a file name such as sheet.png")
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise StorageError(f"{path}: the picture can't be encoded as PNG", hint="show fewer moments")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data.tobytes())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(f"{path}: {error.strerror}", hint="choose another place with -o or --sheet") from None
    return path


def _heading(title: str, subtitle: str, status: str, width: int) -> np.ndarray:
    parts = [text_block(title, width, 40, INK, weight=650, lines=3), blank(6, width)]
    if subtitle:
        parts.append(text_block(subtitle, width, 26, STATUS.get(status, INK), lines=4))
    parts.append(blank(20, width))
    return np.vstack(parts)


def _picture_height(tiles: Sequence[Tile], width: int) -> int:
    """One height for all pictures: that of the tallest, between wide film (2.4:1) and 3:4, so that rows line up."""
    shapes = [tile.pictures[0].shape for tile in tiles if tile.pictures]
    share = max((shape[0] / shape[1] for shape in shapes), default=9 / 16)
    return min(_LONGEST_HEIGHT, round(width * min(max(share, 1 / 2.4), 4 / 3)))


def _tile(tile: Tile, rank: int, width: int, height: int) -> np.ndarray:
    parts = [_picture(tile.pictures[0] if tile.pictures else None, rank, width, height)]
    if len(tile.pictures) > 1:
        parts += [blank(6, width), _film(tile.pictures[1:], width)]
    parts.append(blank(10, width))
    line = text_block(tile.when, width, 26, INK, weight=650)
    if tile.score:
        room = _size(tile.when, 26, 650) + 24
        score = text_block(tile.score, max(width - room, 80), 22, GREY, right=True)
        # A time range on a wall clock can fill the line: then the score goes below it.
        if room + score.shape[1] <= width:
            height = min(line.shape[0], score.shape[0])
            line[:height, width - score.shape[1] :] = np.minimum(
                line[:height, width - score.shape[1] :], score[:height]
            )
        else:
            line = np.vstack([line, text_block(tile.score, width, 22, GREY)])
    parts.append(line)
    if tile.why:
        parts.append(text_block(tile.why, width, 20, GREY, lines=3))
    if tile.stream:
        parts.append(text_block(tile.stream, width, 18, GREY))
    return np.vstack(parts)


def _picture(picture: np.ndarray | None, rank: int, width: int, height: int) -> np.ndarray:
    canvas = np.full((height, width, 3), DARK, np.uint8)
    if picture is None:
        text = "no frame is left"
        x = (width - _size(text, 22, 400)) // 2
        _draw(canvas, text, x, height // 2, 22, GREY, 400)
    else:
        place(canvas, picture)
    radius = 20
    cv2.circle(canvas, (radius + 12, radius + 12), radius, DARK, -1, cv2.LINE_AA)
    cv2.circle(canvas, (radius + 12, radius + 12), radius, PAPER, 2, cv2.LINE_AA)
    label = str(rank)
    _draw(canvas, label, radius + 12 - _size(label, 22, 650) // 2, radius + 20, 22, PAPER, 650)
    return canvas


def _film(pictures: Sequence[np.ndarray], width: int) -> np.ndarray:
    cell = (width - (_STRIP - 1) * 6) // _STRIP
    strip = blank(cell * 9 // 16, width)
    for i, picture in enumerate(pictures[:_STRIP]):
        x = i * (cell + 6)
        frame = np.full((strip.shape[0], cell, 3), DARK, np.uint8)
        place(frame, picture)
        strip[:, x : x + cell] = frame
    return strip


def place(canvas: np.ndarray, picture: np.ndarray) -> None:
    """Scale ``picture`` into the middle of ``canvas``, whole and undistorted."""
    height, width = canvas.shape[:2]
    scale = min(width / picture.shape[1], height / picture.shape[0])
    w, h = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    # Rounding must not leave a dark line at the border of a picture that fills its frame.
    w, h = (width if width - w <= 2 else w), (height if height - h <= 2 else h)
    scaled = cv2.resize(picture, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    y, x = (height - h) // 2, (width - w) // 2
    canvas[y : y + h, x : x + w] = scaled


def blank(height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB of paper."""
    return np.full((height, width, 3), PAPER, np.uint8)


def text_block(
    text: str, width: int, size: int, colour: Colour, *, weight: int = 400, lines: int = 1, right: bool = False
) -> np.ndarray:
    """Text wrapped to ``width`` and cut after ``lines`` lines."""
    wrapped = _wrap(printable(text, 2000), width, size, weight, lines)
    step = round(size * 1.35)
    canvas = blank(step * len(wrapped) + size // 3, width)
    for number, line in enumerate(wrapped):
        x = width - _size(line, size, weight) - 2 if right else 0
        _draw(canvas, line, x, step * number + size, size, colour, weight)
    return canvas


def _wrap(text: str, width: int, size: int, weight: int, lines: int) -> list[str]:
    done: list[str] = []
    rest = text.strip()
    while rest and len(done) < lines:
        fits = _fitting(rest, width, size, weight)
        if fits < len(rest) and len(done) < lines - 1:
            space = rest.rfind(" ", 0, fits + 1)
            # Scripts without spaces, and words longer than a line, are cut where the line is full.
            fits = space if space > fits // 2 else fits
        elif fits < len(rest):
            cut = max(1, _fitting(rest, width - size, size, weight))
            done.append(rest[:cut].rstrip() + "…")
            return done
        done.append(rest[:fits].rstrip())
        rest = rest[fits:].lstrip()
    return done or [""]


def _fitting(text: str, width: int, size: int, weight: int) -> int:
    """How many characters from the start fit; at least one. Bisection: measuring costs about 20 us a call."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if _size(text[:middle], size, weight) <= width:
            low = middle
        else:
            high = middle - 1
    return low


def _font() -> cv2.FontFace:
    # Not shared: a FontFace keeps glyph caches that two threads must not fill at once.
    return cv2.FontFace("sans")


def _size(text: str, size: int, weight: int) -> int:
    """Width of a line in pixels."""
    if not text:
        return 0
    x, _, w, _ = cv2.getTextSize((1 << 15, 1 << 10), text, (0, 0), _font(), size, weight)
    return int(x + w)


def _draw(canvas: np.ndarray, text: str, x: int, y: int, size: int, colour: Colour, weight: int) -> None:
    if text:
        cv2.putText(canvas, text, (int(x), int(y)), colour, _font(), size, weight)
