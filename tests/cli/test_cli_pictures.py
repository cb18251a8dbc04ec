"""The contact sheet, words made safe to print, bars and sizes: the parts of the output that need no video."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streammem.cli.present import bar, plain, size
from streammem.errors import StorageError
from streammem.model import Cost, Evidence, FrameRef, Why
from streammem.printable import printable
from streammem.render import PAPER, Tile, contact_sheet, decode_jpeg, tiles_of, why_text, write_png

RED = np.full((240, 320, 3), (200, 30, 30), np.uint8)
BLUE = np.full((240, 320, 3), (30, 30, 200), np.uint8)


def jpeg(picture: np.ndarray) -> bytes:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert done
    return bytes(data)


def share(sheet: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(sheet.astype(int) - colour).max(axis=2) < 12).mean())


def evidence(*frames: FrameRef, score: float = 1.0, calibrated: float | None = None) -> Evidence:
    why = (Why("text", 1.0, "OPEN"), Why("colour", 0.5))
    return Evidence("cam", 4_000_000_000, 6_000_000_000, frames, (1,), score, why, calibrated)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 24])
def test_sheets_of_any_length_are_1600_wide(count: int) -> None:
    sheet = contact_sheet("a question?", [Tile([RED], "00:00:04", "83 %", "text: x")] * count, subtitle="an answer")
    assert sheet.shape[1:] == (1600, 3)
    assert sheet.dtype == np.uint8
    assert (share(sheet, (200, 30, 30)) > 0.05) == (count > 0)
    assert (sheet[:20] == PAPER).all(), "the margin stays free"


def test_colours_are_not_swapped_on_the_way_to_the_file(tmp_path: Path) -> None:
    path = write_png(tmp_path / "s.png", contact_sheet("?", [Tile([RED], "now")]))
    back = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert share(back, (200, 30, 30)) > 0.05
    assert share(back, (30, 30, 200)) == 0


def test_the_best_frame_is_decoded_again_and_the_others_come_from_thumbnails() -> None:
    asked: list[tuple[str, int]] = []

    def frame_at(stream: str, t_ns: int) -> np.ndarray:
        asked.append((stream, t_ns))
        return RED

    frames = [FrameRef("cam", n, n, "memory") for n in range(3)]
    (tile,) = tiles_of([evidence(*frames)], thumbnail=lambda _: jpeg(BLUE), frame_at=frame_at)
    assert asked == [("cam", 0)]
    assert [int(picture[0, 0, 0]) > 100 for picture in tile.pictures] == [True, False, False]
    assert (tile.when, tile.score, tile.why) == ("00:00:04–00:00:06", "score 1.00", "text: “OPEN” · colour 0.50")


def test_without_a_source_thumbnails_are_shown_and_without_those_words() -> None:
    frames = (FrameRef("cam", 0, 1, "memory"),)
    (tile,) = tiles_of([evidence(*frames)], thumbnail=lambda _: jpeg(BLUE), frame_at=lambda *_: None)
    assert len(tile.pictures) == 1
    (tile,) = tiles_of([evidence(*frames, calibrated=0.834)], thumbnail=lambda _: None)
    assert (list(tile.pictures), tile.score) == ([], "83 %")
    assert share(contact_sheet("?", [tile]), (24, 25, 29)) > 0.05


def test_a_thumbnail_that_is_no_jpeg_is_no_picture() -> None:
    assert decode_jpeg(b"\xff\xd8 not really") is None
    assert decode_jpeg(None) is None


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_can_be_drawn(title: str, why: str) -> None:
    sheet = contact_sheet(title, [Tile([], title[:40], why[:20], why)], subtitle=why, status="unsure", width=800)
    assert sheet.shape[1] == 800


@pytest.mark.parametrize("text", ["日本語の質問", "вопрос", "ερώτηση", "سؤال", "한국어", "Ärger – “ok”"])
def test_scripts_are_drawn_not_replaced(text: str) -> None:
    """Each script leaves other ink than question marks would."""
    drawn = contact_sheet(text, [], width=800)
    assert not np.array_equal(drawn, contact_sheet("?" * len(text), [], width=800))


def test_portrait_pictures_and_tiny_ones_fit() -> None:
    for shape in ((1920, 1080), (1, 1), (3, 2000), (2000, 3)):
        picture = np.full((*shape, 3), 77, np.uint8)
        assert contact_sheet("?", [Tile([picture] * 3, "t")]).shape[1] == 1600


def test_where_a_sheet_can_not_be_written(tmp_path: Path) -> None:
    sheet = contact_sheet("?", [])
    (tmp_path / "file").write_text("")
    for bad in (tmp_path, tmp_path / "file" / "s.png"):
        with pytest.raises(StorageError):
            write_png(bad, sheet)
    path = write_png(tmp_path / "new" / "s.png", sheet)
    assert [item.name for item in path.parent.iterdir()] == ["s.png"], "no half files are left"


@given(st.text(max_size=400), st.integers(1, 400))
def test_printable_text_is_one_line_that_drives_nothing(text: str, limit: int) -> None:
    safe = printable(text, limit)
    assert len(safe) <= max(limit, 1)
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u2028\u2029\u202e\u2066\ufeff" for c in safe)
    safe.encode("utf-8")


def test_printable_keeps_what_people_write() -> None:
    for text in ("plain", "Ärger – ok", "日本語", "👩‍🚀", "[bold]x[/]", "نیم‌فاصله"):
        assert printable(text) == text
    assert printable("a\tb\nc") == "a b c"
    assert printable("\x1b[31m") == "\u241b[31m"
    assert printable("caf\udce9") == "caf\ufffd"


def test_bars_and_sizes() -> None:
    assert bar(1.0) == "████████"
    assert bar(0.0).strip() == ""
    assert bar(0.001).strip() != ""
    assert {len(bar(i / 100)) for i in range(-10, 120)} == {8}
    assert [size(n) for n in (0, 1023, 1024, 3_400_000, 5 << 30, 9 << 40)] == [
        "0 B", "1023 B", "1.0 kB", "3.2 MB", "5.0 GB", "9216 GB",
    ]  # fmt: skip


def test_reasons_fence_untrusted_words() -> None:
    assert why_text((Why("text", 1.0, "ignore\x1b[2J all"),)) == "text: “ignore\u241b[2J all”"


def test_reports_become_plain_values() -> None:
    assert plain({("cam", "late"): Cost(seconds=1.0)}) == {
        "cam/late": {"seconds": 1.0, "records": 0, "calls": 0, "tokens": 0}
    }
