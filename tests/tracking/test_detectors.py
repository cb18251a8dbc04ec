"""Detectors: an ONNX file in either layout, ultralytics' contract, and a whole watch with YOLOX."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_detectors import FakeYolo, write_yolo_onnx

from perception.trackers.appearance import open_appearance
from perception.trackers.detectors import OnnxDetector, UltralyticsDetector, _yolox, open_detector
from streammem.errors import ConfigError, InputError, ModelUnavailable

DATA = Path(__file__).parents[3] / "shared" / "data"
YOLOX, OSNET = DATA / "models/yolox_nano.onnx", DATA / "models/osnet_x0_25_msmt17.onnx"
CLIP = DATA / "mot/TUD-Stadtmitte/TUD-Stadtmitte.mp4"
needs_data = pytest.mark.skipif(not (YOLOX.is_file() and CLIP.is_file()), reason=f"needs {DATA}/models and /mot")


def test_yolo_layout_letterbox_names_and_suppression(tmp_path: Path) -> None:
    rows = [[32, 32, 20, 10, 0.9, 0.0], [33, 32, 20, 10, 0.8, 0.0], [32, 32, 20, 10, 0.0, 0.7], [5, 5, 4, 4, 0.01, 0.0]]
    path = write_yolo_onnx(tmp_path / "tiny.onnx", rows=rows, names="{0: 'mug', 1: 'plate'}")
    detector = OnnxDetector(path)
    # 128 x 64 pixels go into 64 x 64 at half size, 16 rows of grey above and below.
    found = detector.detect(np.zeros((64, 128, 3), np.uint8))
    assert found.labels == ("mug", "plate") and found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert found.xyxy[0].tolist() == pytest.approx([44, 22, 84, 42])
    assert OnnxDetector(path, classes=["plate"]).detect(np.zeros((64, 128, 3), np.uint8)).labels == ("plate",)
    with pytest.raises(InputError, match="picture"):
        detector.detect(np.zeros((64, 128), np.uint8))


def test_nan_from_a_network_is_dropped(tmp_path: Path) -> None:
    rows = [[float("nan"), 3, 5, 5, 0.9], [30, 30, 10, 10, float("nan")], [30, 30, 10, 10, 0.6]]
    path = write_yolo_onnx(tmp_path / "nan.onnx", rows=rows)
    assert OnnxDetector(path).detect(np.zeros((64, 64, 3), np.uint8)).scores.tolist() == pytest.approx([0.6])


def test_yolox_decoding_golden() -> None:
    # 64 x 64: 64 cells of stride 8, then 16 of stride 16. Cell 10 of the first grid is row 1, column 2.
    answer = np.zeros((1, 84, 7), np.float32)
    answer[0, 10] = [0.5, 0.25, np.log(2), np.log(3), 0.8, 0.1, 0.5]
    xyxy, scores, kinds = _yolox(answer, 64, 64)
    assert xyxy[10].tolist() == pytest.approx([20 - 8, 10 - 12, 20 + 8, 10 + 12])
    assert scores[10] == pytest.approx(0.4) and kinds[10] == 1


def test_what_is_no_detector(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="no detector"):
        open_detector(str(tmp_path / "none.onnx"))
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(ModelUnavailable, match="can't open"):
        open_detector(str(tmp_path / "bad.onnx"))
    with pytest.raises(ConfigError, match="no detector that can be opened"):
        open_detector("yolo")
    with pytest.raises(ModelUnavailable, match="no weights"):
        open_detector(str(tmp_path / "yolo11n.pt"))


def test_ultralytics_contract() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[12, 34] = (10, 20, 250)  # RGB: the blue channel is the first in BGR
    picture[3, 4] = (255, 0, 0)
    model = FakeYolo()
    found = UltralyticsDetector(model).detect(picture)
    assert found.xyxy[0].tolist() == [34, 12, 44, 32] and found.labels == ("car",)
    assert model.asked == [{"conf": 0.1, "verbose": False}]
    assert len(UltralyticsDetector(model, classes=["person"]).detect(picture)) == 0
    assert len(UltralyticsDetector(FakeYolo()).detect(np.zeros((4, 4, 3), np.uint8))) == 0
    with pytest.raises(InputError, match="one result"):
        UltralyticsDetector(FakeYolo(broken=True)).detect(picture)


def test_real_ultralytics_where_it_is_installed(tmp_path: Path) -> None:
    try:
        from ultralytics import YOLO
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"ultralytics isn't usable here: {error}")
    model = YOLO("yolo11n.yaml")  # random weights: only the contract is looked at
    assert len(UltralyticsDetector(model).detect(np.zeros((64, 64, 3), np.uint8)).labels) >= 0


@pytest.mark.data
@needs_data
def test_yolox_finds_the_people() -> None:
    import av

    from perception.trackers.box_metrics import overlaps
    from perception.trackers.mot import find_mot

    (sequence,) = find_mot(CLIP.parent)
    with av.open(str(CLIP)) as container:
        picture = next(iter(container.decode(video=0))).to_ndarray(format="rgb24")
    found = OnnxDetector(YOLOX, classes=["person"]).detect(picture)
    like = overlaps(sequence.truth[0][1], found.xyxy[found.scores > 0.5].astype(float))
    assert (like.max(axis=1) > 0.5).mean() >= 0.8
    vectors = open_appearance(str(OSNET)).describe(picture, found)
    assert vectors.shape == (len(found), 512) and np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.data
@needs_data
def test_watch_with_a_detector_and_when_a_track_came_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import streammem.memory
    from perception.sources import open_source
    from perception.trackers.detecting import follow_detections
    from streammem.cli.main import main
    from streammem.config import Config

    place = tmp_path / "memory"
    with streammem.memory.open(place, config=Config(), mode="write") as memory:
        for _ in range(2):  # the second time nothing is written twice
            source = open_source(str(CLIP), Config())
            try:
                report = follow_detections(
                    source,
                    memory,
                    OnnxDetector(YOLOX, classes=["person"]),
                    appearance=open_appearance(str(OSNET)),
                    fps=5,
                )
            finally:
                source.close()
        assert report.frames == 36 and len(report.seen) >= 6
        assert memory.status().records <= 36 + len(report.seen)
        (track, *_) = sorted(report.seen, key=lambda name: -report.seen[name])
        spans = memory.query("tracks", "when_seen", track=track)
        assert spans and spans[0][1] == track
        info = memory.query("tracks", "track", track=track)[0]
        assert info["label"] == "person" and info["frames"] == report.seen[track]
        assert memory.query("tracks", "tracks", label="person")
    with pytest.raises(SystemExit) as done:
        main(["tracks", str(place), "--json"])
    assert done.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert {one["track"] for one in told["tracks"]} == set(report.seen)


@pytest.mark.slow
@pytest.mark.data
@needs_data
def test_idf1_on_the_shared_clips_does_not_fall() -> None:
    """Floors a little below what was measured on 2026-11-23 (docs/association.md)."""
    from perception.trackers.evaluate_boxes import OURS, detections, run_tracker
    from perception.trackers.mot import find_mot

    scores = {}
    for sequence in find_mot(DATA / "mot"):
        plain, _ = detections(sequence, None, None)
        scores[sequence.name] = run_tracker(sequence, OURS, plain).score.idf1
    # SORT has 0.590 and ByteTrack 0.601 on the same detections.
    assert np.mean(list(scores.values())) > 0.625, scores


def test_boxes_of_a_configured_detector_are_remembered(tmp_path: Path) -> None:
    """The part ``things``: first that somebody looked, then what was seen; the file's content is in the identity."""
    from perception.encoders.claim import COCO
    from perception.encoders.suite import EncoderSuite
    from perception.encoders.things import LOOKED
    from perception.identity import configuration_hash
    from streammem.config import PerceptionConfig

    rows = [[32, 32, 20, 10, 0.8, 0.0, 0.0], [10, 10, 4, 4, 0.0, 0.4, 0.0], [32, 32, 8, 8, 0.0, 0.0, 0.9]]
    path = write_yolo_onnx(tmp_path / "tiny.onnx", rows=rows, names="{0: 'person', 1: 'book', 2: 'gizmo'}")
    plain = PerceptionConfig(ocr=False, faces="off", speech="off")
    config = plain.model_copy(update={"detector": str(path)})
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    suite = EncoderSuite(config)
    suite.require()
    frame = suite.describe(picture, suite.glance(picture))
    things = frame.parts["things"].astype(float)
    assert things[0].tolist() == list(LOOKED)
    assert [COCO[int(n)] for n in things[1:, 0]] == ["person", "book"], "a gizmo is none of COCO's kinds"
    assert things[1, 1:].tolist() == pytest.approx([0.8, 22 / 64, 27 / 64, 42 / 64, 37 / 64], abs=1e-3)
    assert ("person", 0.8) in [(label.name, round(label.score, 1)) for label in frame.labels]
    off = EncoderSuite(plain)
    assert "things" not in off.describe(picture, off.glance(picture)).parts
    moved = write_yolo_onnx(tmp_path / "moved.onnx", rows=rows, names="{0: 'person', 1: 'book', 2: 'gizmo'}")
    sessions = [
        configuration_hash(c, EncoderSuite(c).identity())
        for c in (plain, config, plain.model_copy(update={"detector": str(moved)}))
    ]
    assert sessions[0] != sessions[1] == sessions[2]
    with pytest.raises(ModelUnavailable, match="no detector"):
        EncoderSuite(plain.model_copy(update={"detector": str(tmp_path / "gone.onnx")})).require()
    strange = write_yolo_onnx(tmp_path / "strange.onnx", rows=rows, names="{0: 'a', 1: 'b', 2: 'c'}")
    suite = EncoderSuite(plain.model_copy(update={"detector": str(strange)}))
    with pytest.raises(ConfigError, match="COCO"):
        suite.describe(picture, suite.glance(picture))
