"""A timeline as a picture: a strip of frames, the levels as bars over time, and the entries in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from streammem.clock import StreamClock, format_ranges
from streammem.render import DARK, GREY, INK, PAPER, WIDTH, Colour, blank, decode_jpeg, place, text_block

MARGIN, GAP = 40, 18
FRAMES = 12
"""Frames of the strip: 120 pixels wide each, the least at which a scene is recognised."""
BAR = 26
COLUMNS = 2
DIGITS = 26
"""Pixels of the narrowest block that gets its number."""
_TINTS: tuple[Colour, ...] = ((41, 98, 160), (88, 140, 190))

Entry = Mapping[str, Any]


def draw(
    coarse: Sequence[Entry],
    fine: Sequence[Entry],
    memory: Any,
    clock_of: Callable[[str], StreamClock],
    *,
    title: str,
) -> np.ndarray:
    """(h, 1600, 3) uint8 RGB. ``memory`` gives the thumbnails of the records that the entries name."""
    inner = WIDTH - 2 * MARGIN
    parts = [text_block(title, inner, 40, INK, weight=650), blank(GAP, inner)]
    for name in sorted({entry["stream"] for entry in coarse}):
        mine = [entry for entry in coarse if entry["stream"] == name]
        under = [entry for entry in fine if entry["stream"] == name]
        parts += _stream(name, mine, under, memory, clock_of(name), inner)
    body = np.vstack(parts)
    sheet = blank(body.shape[0] + 2 * MARGIN, WIDTH)
    sheet[MARGIN : MARGIN + body.shape[0], MARGIN : MARGIN + inner] = body
    return sheet


def _stream(
    name: str, coarse: Sequence[Entry], fine: Sequence[Entry], memory: Any, clock: StreamClock, width: int
) -> list[np.ndarray]:
    lo, hi = coarse[0]["t_start_ns"], max(entry["t_end_ns"] for entry in coarse)
    times = format_ranges([(entry["t_start_ns"], entry["t_end_ns"], clock) for entry in coarse])
    parts = [text_block(name, width, 22, GREY), _strip(coarse, memory, width), blank(6, width)]
    parts += [_bar(coarse, lo, hi, width, numbers=True), blank(3, width), _bar(fine, lo, hi, width), blank(GAP, width)]
    column = (width - (COLUMNS - 1) * 2 * GAP) // COLUMNS
    lines = [
        text_block(f"{number}   {when}   {entry['caption']}", column, 20, INK, lines=3)
        for number, (entry, when) in enumerate(zip(coarse, times, strict=True), 1)
    ]
    rows = -(-len(lines) // COLUMNS)
    stacks = [np.vstack([*lines[at : at + rows]]) for at in range(0, len(lines), rows)]
    words = blank(max(stack.shape[0] for stack in stacks), width)
    for number, stack in enumerate(stacks):
        x = number * (column + 2 * GAP)
        words[: stack.shape[0], x : x + column] = stack
    return [*parts, words, blank(2 * GAP, width)]


def _strip(entries: Sequence[Entry], memory: Any, width: int) -> np.ndarray:
    """Frames at even distances over the entries, dark where none was kept."""
    count = min(FRAMES, len(entries))
    cell = (width - (count - 1) * 4) // count
    strip = blank(cell * 9 // 16, width)
    shown: np.ndarray | None = None
    at = 0
    for number in range(count):
        frame = np.full((strip.shape[0], cell, 3), DARK, np.uint8)
        wanted = number * (len(entries) - 1) // max(count - 1, 1)
        # Looks without a picture of their own look like the last one that has it: that is why they have none.
        while at <= wanted:
            picture = _picture(entries[at].get("evidence", ()), memory)
            shown, at = picture if picture is not None else shown, at + 1
        if shown is not None:
            place(frame, shown)
        strip[:, number * (cell + 4) : number * (cell + 4) + cell] = frame
    return strip


def _picture(ids: Sequence[int], memory: Any) -> np.ndarray | None:
    """The first kept thumbnail below these records, walking down from nodes to moments."""
    todo, seen = list(ids), 0
    while todo and seen < 200:
        number, seen = todo.pop(0), seen + 1
        picture = decode_jpeg(memory.thumbnail(number))
        if picture is not None:
            return picture
        record = memory.record(number)
        if record is not None and record.bank == "timeline":
            todo = [*record.parents, *todo]
    return None


def _bar(entries: Sequence[Entry], lo: int, hi: int, width: int, *, numbers: bool = False) -> np.ndarray:
    """Entries as alternating blocks on one axis of time; where nothing was looked at, the paper shows."""
    bar = blank(BAR if numbers else BAR // 3, width)
    length = max(hi - lo, 1)
    for number, entry in enumerate(entries, 1):
        # A block is its clip of the grid, not only the time from its first look to its last.
        start = entry["t_start_ns"] // entry["scope_ns"] * entry["scope_ns"]
        x0, x1 = (round((min(max(t, lo), hi) - lo) / length * (width - 1)) for t in (start, start + entry["scope_ns"]))
        bar[:, x0 : max(x1, x0 + 2)] = _TINTS[number % 2]
        if numbers and x1 - x0 >= DIGITS:
            _number(bar, str(number), x0 + 4)
    return bar


def _number(bar: np.ndarray, text: str, x: int) -> None:
    """White digits on the bar."""
    dark = text_block(text, 40, 15, INK, weight=600)
    mask = np.abs(dark.astype(np.int16) - np.array(PAPER, np.int16)).max(axis=2).astype(np.float32) / 222.0
    height, width = min(bar.shape[0], dark.shape[0]), min(dark.shape[1], bar.shape[1] - x)
    share = np.clip(mask[:height, :width, None], 0, 1)
    region = bar[:height, x : x + width]
    region[:] = (region * (1 - share) + np.array(PAPER, np.float32) * share).astype(np.uint8)
