"""The picture of ``streammem tracks``: a row for each object, its stretches on a line of time, its frames below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from streammem.clock import format_time
from streammem.render import GREY, INK, blank, decode_jpeg, place, text_block

if TYPE_CHECKING:
    from streammem.cli.present import ClockOf
    from streammem.render import Colour, FrameAt

WIDTH, MARGIN = 1600, 40
TILE, TILE_HEIGHT, GAP = 205, 154, 14
MOST_ROWS, MOST_TILES = 12, 7
COLOURS: tuple[Colour, ...] = (
    (38, 98, 168),
    (196, 84, 22),
    (30, 132, 73),
    (126, 63, 152),
    (176, 112, 8),
    (180, 40, 74),
)


def draw_tracks(
    found: Sequence[dict[str, Any]],
    thumbnail: Callable[[int], bytes | None],
    frame_at: FrameAt,
    clock_of: ClockOf,
    *,
    title: str,
) -> np.ndarray:
    """(h, 1600, 3) uint8 RGB of what the bank's question ``tracks`` gave; at most 12 objects, 7 frames of each."""
    inner = WIDTH - 2 * MARGIN
    shown = list(found[:MOST_ROWS])
    start = min(part[0] for one in shown for part in one["intervals"])
    end = max(max(part[1] for one in shown for part in one["intervals"]), start + 1)
    more = f", the latest {len(shown)} of {len(found)}" if len(found) > len(shown) else ""
    clock = clock_of(shown[0]["stream"])
    span = f"{format_time(start, clock, 0)} to {format_time(end, clock, 0)}"
    parts = [
        text_block(f"Tracks of {title}", inner, 38, INK, weight=650),
        text_block(
            f"{_counted(len(shown), 'object', 'objects')}{more} · {span} · below each line the frames that are kept",
            inner,
            20,
            GREY,
        ),
        blank(16, inner),
    ]
    for number, one in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        parts += [_row(one, colour, inner, start, end, thumbnail, frame_at, clock_of), blank(26, inner)]
    body = np.vstack(parts)
    sheet = blank(body.shape[0] + 2 * MARGIN, WIDTH)
    sheet[MARGIN : MARGIN + body.shape[0], MARGIN : MARGIN + inner] = body
    return sheet


def _counted(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def _row(
    one: dict[str, Any],
    colour: Colour,
    width: int,
    start: int,
    end: int,
    thumbnail: Callable[[int], bytes | None],
    frame_at: FrameAt,
    clock_of: ClockOf,
) -> np.ndarray:
    clock = clock_of(one["stream"])
    name = one["label"] if one["label"] == one["track"] else f"{one['label']} {one['track']}"
    stretches = _counted(len(one["intervals"]), "stretch", "stretches")
    words = f"{name} · {_counted(one['frames'], 'frame', 'frames')} in {stretches} · {one['bytes'] / 1e3:.0f} KB"
    head = text_block(words, width, 24, INK, weight=600)
    bar = blank(34, width)
    cv2.rectangle(bar, (0, 12), (width - 1, 20), (226, 224, 218), -1)

    def at(t_ns: int) -> int:
        return round((t_ns - start) / (end - start) * (width - 1))

    for part in one["intervals"]:
        cv2.rectangle(bar, (at(part[0]), 8), (max(at(part[1]), at(part[0]) + 2), 24), colour, -1)
    kept = sorted(one["kept"], key=lambda frame: frame["t_ns"])
    if len(kept) > MOST_TILES:
        kept = [kept[at_] for at_ in np.linspace(0, len(kept) - 1, MOST_TILES).round().astype(int)]
    strip = blank(TILE_HEIGHT + 34, width)
    for number, frame in enumerate(kept):
        x = at(frame["t_ns"])
        cv2.circle(bar, (min(max(x, 6), width - 7), 16), 6, (250, 249, 246), -1, cv2.LINE_AA)
        cv2.circle(bar, (min(max(x, 6), width - 7), 16), 6, INK, 2, cv2.LINE_AA)
        left = number * (TILE + GAP)
        strip[:TILE_HEIGHT, left : left + TILE] = _tile(one["stream"], frame, colour, thumbnail, frame_at)
        label = f"{format_time(frame['t_ns'], clock, 1)} {frame['role']}"
        words_here = text_block(label, TILE, 17, GREY)[:30]
        strip[TILE_HEIGHT + 4 : TILE_HEIGHT + 4 + len(words_here), left : left + TILE] = words_here
    return np.vstack([head, bar, strip])


def _tile(
    stream: str, frame: dict[str, Any], colour: Colour, thumbnail: Callable[[int], bytes | None], frame_at: FrameAt
) -> np.ndarray:
    """The kept frame with the object's box; gray where neither a thumbnail nor the source is left."""
    canvas = np.full((TILE_HEIGHT, TILE, 3), 32, np.uint8)
    picture = decode_jpeg(thumbnail(frame["record_id"]))
    if picture is None:
        picture = frame_at(stream, frame["t_ns"])
    if picture is None:
        canvas[:] = (200, 198, 192)
        return canvas
    picture = np.ascontiguousarray(picture)
    if frame["box"] is not None:
        height, width = picture.shape[:2]
        x0, y0, x1, y1 = (round(value * side) for value, side in zip(frame["box"], (width, height) * 2, strict=True))
        thick = max(2, round(width / 110))
        cv2.rectangle(picture, (x0, y0), (x1, y1), (255, 255, 255), thick + 2, cv2.LINE_AA)
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, thick, cv2.LINE_AA)
    place(canvas, picture)
    return canvas
