"""From pictures to an answer: what a tracker says of colours, returns and ghosts is kept, and can be asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import streammem.memory
from perception.encoders.colours import box_shares
from perception.trackers.boxes import Boxes
from perception.trackers.detecting import follow_detections
from streammem.colours import TERMS
from streammem.memory import Memory
from streammem.model import Detection, Observation, show_id

DATA = Path(__file__).parents[3] / "shared" / "data"
CLIP = DATA / "mot/TUD-Stadtmitte/TUD-Stadtmitte.mp4"
YOLOX, OSNET = DATA / "models/yolox_nano.onnx", DATA / "models/osnet_x0_25_msmt17.onnx"
needs_data = pytest.mark.skipif(not (CLIP.is_file() and YOLOX.is_file()), reason=f"needs {DATA}/models and /mot")
RGB = {"red": (200, 20, 20), "blue": (20, 40, 200), "green": (20, 160, 40)}


def painted(*things: tuple[str, tuple[int, int, int, int]]) -> np.ndarray:
    """A gray picture (120, 160) with boxes in plain colours."""
    image = np.full((120, 160, 3), 128, np.uint8)
    for colour, (x0, y0, x1, y1) in things:
        image[y0:y1, x0:x1] = RGB[colour]
    return image


def test_shares_of_a_box_and_of_a_mask() -> None:
    image = painted(("red", (10, 10, 40, 60)), ("blue", (10, 60, 40, 110)))
    red, blue, gray = (TERMS.index(term) for term in ("red", "blue", "gray"))
    upper, all_of_it, outside = box_shares(
        image, np.array([[10, 10, 40, 110], [10, 10, 40, 60], [150, 110, 400, 300]], np.float32)
    ).astype(float)
    assert 0.65 < upper[red] < 0.8 and all_of_it[red] == 1.0 and outside[gray] == 1.0
    mask = np.zeros((120, 160), bool)
    mask[60:110, 10:40] = True
    masked = box_shares(image, np.array([[10.0, 10, 40, 110]]), [mask])[0].astype(float)
    assert masked[blue] == 1.0 and np.isclose(masked.sum(), 1.0)
    assert box_shares(image, np.zeros((0, 4))).shape == (0, 11)


class Painted:
    """A detector that finds plain red, blue and green boxes."""

    name = "painted"

    def detect(self, image: np.ndarray) -> Boxes:
        found = []
        for colour, rgb in RGB.items():
            rows, columns = np.nonzero((np.abs(image.astype(int) - rgb) < 60).all(axis=2))
            if len(rows) > 200:
                box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
                found.append((colour, box))
        xyxy = np.array([box for _, box in found], np.float32).reshape(-1, 4)
        return Boxes(xyxy, np.full(len(found), 0.9, np.float32), tuple("person" for _ in found))


def film(folder: Path) -> str:
    """6 s at 10 a second: red stands all the time, blue is there for 2 s and then never again."""
    import cv2

    folder.mkdir()
    for n in range(60):
        things = [("red", (10, 10, 40, 110))] + ([("blue", (100, 10, 130, 110))] if n < 20 else [])
        assert cv2.imwrite(str(folder / f"{n:03d}.png"), painted(*things)[:, :, ::-1])
    return str(folder / "*.png")


def test_a_followed_film_answers_by_colour_and_knows_that_it_looked(tmp_path: Path) -> None:
    from perception.sources import open_source
    from streammem.config import Config

    source = open_source(film(tmp_path / "film"), Config())
    with streammem.memory.open(tmp_path / "m") as memory:
        report = follow_detections(source, memory, Painted(), fps=source.info.fps)
        assert set(report.seen) == {"1", "2"}
        tracks = {t["track"]: t for t in memory.query("tracks", "tracks")}
        blue = next(name for name, track in tracks.items() if track["colours"].get("blue", 0) > 0.9)
        assert tracks[blue]["gone_ns"] is not None and not tracks[blue]["open"]
        kinds = {fact["kind"] for fact in memory.query("entities", "entities")["facts"]}
        assert kinds == {"person"}, "tracks feed the entities"
        told = memory.ask("when did the person in blue leave?")
        assert told.status == "found" and f"Track {blue} (person) left" in told.text
        assert "its place was looked at until" in told.text and "it wasn't there" in told.text
        assert memory.thumbnail(told.evidence[0].frames[0].record_id)
        assert memory.ask("is the person in red still there?").status == "found"
        assert memory.ask("who was in green?").status != "found"
        assert memory.ask("how many people were there at once?").text.startswith("At most 2 people")
    with streammem.memory.open(tmp_path / "m") as memory:
        again = {t["track"]: t["colours"] for t in memory.query("tracks", "tracks")}
        assert again == {name: track["colours"] for name, track in tracks.items()}, "a restart keeps the colours"
    from streammem.cli.main import run

    place, number = str(tmp_path / "m"), show_id(told.evidence[0].frames[0].record_id)
    assert run(["show", place, "--record", number, "-o", str(tmp_path / "one.png")]) == 0
    assert (tmp_path / "one.png").stat().st_size > 1000
    assert run(["show", place, "--record", "zz"]) == run(["show", place, "--record", "ff", "--at", "0:01"]) == 2


def coloured(n: int, term: str, *, rows: int = 1, stats: dict[str, float] | None = None) -> Observation:
    shares = np.array([[float(each == term) for each in TERMS]] * rows, np.float16)
    found = (Detection("person", 0.9, (0.1, 0.1, 0.2, 0.9), "1"),)
    return Observation(
        stream="cam", seq=n, capture_ns=n * 10**9, detections=found, parts={"track_colours": shares}, stats=stats or {}
    )


def colours_of(memory: Memory) -> dict[str, float]:
    return dict(memory.query("tracks", "track", track="1")[0]["colours"])


def test_colours_are_means_and_forgetting_takes_them(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path) as memory:
        memory.write([coloured(n, "red" if n < 3 else "blue") for n in (0, 1, 2, 10)])
        assert colours_of(memory) == {"red": 0.75, "blue": 0.25}
        memory.forget(between=(0, 1 * 10**9))
        assert len(memory.query("tracks", "track", track="1")[0]["intervals"]) == 1
        assert colours_of(memory) == {}, "a mean can't be taken apart"


def test_parts_that_don_t_fit_are_worth_nothing(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path) as memory:
        memory.write([coloured(0, "red", rows=2), coloured(1, "red")])
        assert colours_of(memory) == {"red": 1.0}
        memory.write(coloured(2, "red", stats={"gone:1": 1.0, "gone:9": 1.0, "refound:9": 0.5}))
        assert memory.query("tracks", "track", track="1")[0]["gone_ns"] is None, "it is seen in that very look"


@needs_data
@pytest.mark.slow
def test_the_woman_in_the_red_coat(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A real street, YOLOX and OSNet: she is on the left for the first second, and the only one in red."""
    from streammem.cli.main import run

    prompt = f"detector:{YOLOX},looks={OSNET},label=person"
    place = str(tmp_path / "m")
    assert run(["watch", str(CLIP), "--memory", place, "--track-fps", "10", "--track", prompt]) == 0
    capfd.readouterr()
    with streammem.memory.open(place, mode="read") as memory:
        answer = memory.ask("when did the person in red leave?")
        assert answer.status == "found" and 0.5e9 < answer.evidence[0].t_end_ns < 1.5e9
        assert answer.evidence[0].frames[0].where == "memory"
        things = memory.query("entities", "entities")["facts"]
        assert len([fact for fact in things if fact["entity"].startswith("#")]) == len(memory.query("tracks", "tracks"))
        assert memory.search("the person in red", k=1)[0].record_ids == answer.evidence[0].record_ids
        assert memory.ask("a person in green").status != "found"
