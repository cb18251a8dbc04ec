"""The question file is sound, its split follows its rule, and joined videos keep the times that the file states."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # tools/ is no installed package

from tools import queries as tool

WHOLE = tool.load_queries(only_existing=False)
HAVE_DATA = tool.data_root().is_dir()
needs_data = pytest.mark.skipif(not HAVE_DATA, reason="the shared recordings are absent")


def test_there_are_enough_questions_of_every_kind_on_both_sides() -> None:
    assert len(WHOLE.present) >= 60
    assert len(WHOLE.absent) >= 100
    for questions in (WHOLE.present, WHOLE.absent):
        for split in tool.SPLITS:
            assert {q.kind for q in questions if q.split == split} == set(tool.KINDS)
        share = sum(q.split == "dev" for q in questions) / len(questions)
        assert 0.65 <= share <= 0.75


def test_splits_are_disjoint_and_ids_are_unique() -> None:
    everything = [*WHOLE.present, *WHOLE.absent]
    assert len({q.id for q in everything}) == len(everything)
    dev, test = WHOLE.select("dev"), WHOLE.select("test")
    asked = [{(q.source.name, q.query) for q in (*side.present, *side.absent)} for side in (dev, test)]
    assert not asked[0] & asked[1]
    assert len(asked[0]) + len(asked[1]) == len(everything), "the same question is asked twice of one source"


def test_no_question_is_both_present_and_absent() -> None:
    assert not {(q.source.name, q.query) for q in WHOLE.present} & {(q.source.name, q.query) for q in WHOLE.absent}


def test_spans_lie_inside_their_source_and_do_not_overlap() -> None:
    for question in WHOLE.present:
        end_before = -1.0
        for start, end in question.spans:
            assert 0.0 <= start < end <= question.source.duration_s + 1e-6, question.id
            assert start >= end_before, f"{question.id}: spans overlap"
            end_before = end
        covered = sum(end - start for start, end in question.spans)
        assert covered <= 0.95 * question.source.duration_s, f"{question.id}: always true, so no test of finding it"


def test_offsets_of_a_joined_source_are_the_sums_of_the_durations() -> None:
    source = WHOLE.sources["outdoors"]
    assert [part.clip.name for part in source.parts[:3]] == ["swan", "car", "retriever"]
    assert source.parts[1].offset_s == pytest.approx(2.083333)
    assert source.parts[2].offset_s == pytest.approx(2.083333 + 30.16)
    red = next(q for q in WHOLE.present if q.query == "a red car" and q.source is source)
    assert red.hit(2.083333 + 16.0)
    assert not red.hit(16.0 - 2.083333)


TINY = """\
version: 1
clips:
  a: {path: a, glob: "*.png", fps: 10, duration_s: 0.5}
  b: {path: b, glob: "*.png", fps: 3, duration_s: 1.0}
joined: {ab: [a, b]}
present:
  - {id: one, split: dev, kind: colour, wording: name, source: ab, query: "red", at: {a: all, b: [[0.4, 1.0]]}}
absent:
  - {id: two, split: dev, kind: object, wording: name, source: ab, query: "a cat"}
"""


@pytest.mark.parametrize(
    ("situation", "old", "new", "message"),
    [
        ("a kind that is none", "kind: colour", "kind: smell", "one: kind is 'smell'"),
        ("a span beyond the end", "[[0.4, 1.0]]", "[[0.4, 1.2]]", "one: [0.4, 1.2] is no span of b (0 to 1.0 s)"),
        ("a part that is none", "{a: all,", "{c: all,", "one: ab has no part 'c'"),
        ("an id used twice", "id: two", "id: one", "the id one is used twice"),
        ("a split against the rule", "id: two, split: dev", "id: two, split: test", "two must be 'dev'"),
        ("plain spans on a joined source", "at: {a: all, b: [[0.4, 1.0]]}", "spans: [[0, 1]]", "takes `at`"),
        ("no spans for a present thing", ", at: {a: all, b: [[0.4, 1.0]]}", "", "needs spans"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, situation: str, old: str, new: str, message: str) -> None:
    assert old in TINY, situation
    file = tmp_path / "queries.yaml"
    file.write_text(TINY.replace(old, new, 1))
    with pytest.raises(tool.QueriesError) as error:
        tool.load_queries(file, root=tmp_path)
    assert message in str(error.value), situation


def test_what_is_absent_is_left_out_and_named(tmp_path: Path) -> None:
    file = tmp_path / "queries.yaml"
    file.write_text(TINY)
    queries = tool.load_queries(file, root=tmp_path)
    assert queries.missing == ("a", "b", "ab")
    assert (queries.present, queries.absent) == ((), ())


def test_a_joined_video_shows_each_part_at_its_time(tmp_path: Path) -> None:
    import cv2

    colours = {"a": (200, 30, 30), "b": (30, 30, 200)}  # RGB
    for name, count, shape in (("a", 5, (100, 100)), ("b", 3, (90, 320))):
        (tmp_path / name).mkdir()
        for number in range(count):
            picture = np.full((*shape, 3), colours[name][::-1], np.uint8)
            assert cv2.imwrite(str(tmp_path / name / f"{number}.png"), picture)
    file = tmp_path / "queries.yaml"
    file.write_text(TINY)
    queries = tool.load_queries(file, root=tmp_path)
    assert queries.present[0].spans == ((0.0, 0.5), (0.9, 1.5))
    out = tmp_path / "ab.mp4"
    # 1.5 s at 25 fps: instants 0, 0.04, ..., 1.48.
    assert tool.write_joined_video(queries.sources["ab"], out) == 38
    assert [p.name for p in tmp_path.glob("*.mp4")] == ["ab.mp4"]
    written = list(tool.read_frames(tool.Clip("ab", out, 1.5)))
    assert [t for t, _ in written] == pytest.approx([k / 25 for k in range(38)])
    for t_s, picture in written:
        assert picture.shape == (360, 640, 3)
        name = "a" if t_s < 0.5 else "b"
        assert np.abs(picture[180, 320].astype(int) - colours[name]).max() < 25, t_s
    assert written[0][1][180, 100].max() < 25, "a square picture is letterboxed, not stretched"


@pytest.mark.data
@needs_data
def test_stated_durations_are_the_decoded_ones() -> None:
    import av

    queries = tool.load_queries()
    clips = {part.clip.name: part.clip for source in queries.sources.values() for part in source.parts}
    assert len(clips) >= 24
    for clip in clips.values():
        if clip.glob:
            measured = len(list(clip.path.glob(clip.glob))) / clip.fps
        else:
            with av.open(str(clip.path)) as container:
                stream = container.streams.video[0]
                # Packets, not pictures: the same times for a hundredth of the work.
                times = sorted(float(p.pts * p.time_base) for p in container.demux(stream) if p.pts is not None)
            measured = times[-1] - times[0] + (times[-1] - times[0]) / (len(times) - 1)
        assert clip.duration_s == pytest.approx(measured, abs=2e-3), clip.name


@pytest.mark.data
@needs_data
def test_a_real_joined_source_is_written_with_true_times(tmp_path: Path) -> None:
    queries = tool.load_queries()
    whole = queries.sources["outdoors"]
    short = tool.Source("two", (whole.parts[0], tool.Part(whole.parts[2].clip, whole.parts[0].clip.duration_s)))
    out = tmp_path / "two.mp4"
    assert tool.write_joined_video(short, out) == int(short.duration_s * 25) + 1
    written = list(tool.read_frames(tool.Clip("two", out, short.duration_s)))
    assert written[-1][0] == pytest.approx((len(written) - 1) / 25)
    for instant in (1.0, 3.0):
        part = short.parts[int(instant >= short.parts[1].offset_s)]
        wanted = [f for t, f in tool.read_frames(part.clip) if part.offset_s + t <= instant + 5e-7][-1]
        got = next(f for t, f in written if t >= instant - 1e-6)
        assert np.abs(tool.letterbox(wanted).astype(int) - got).mean() < 8, "another moment than the file says"
