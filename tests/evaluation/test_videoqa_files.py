"""Readers on small hand-made files in each published schema, and the scores, strict and official."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streammem.evaluation.items import AnnotationError, Item, bare_option, index_of, shuffled
from streammem.evaluation.loaders import BENCHMARKS, load
from streammem.evaluation.scorers import Given, constant, correct, judge_score, read_letter, recall_and_iou, score

EGO = {"videoID": "DAY1", "question": "which?", "options": ["A. one", "B. two", "C. three", "D. four"]}
FILES: dict[str, tuple[str, Any]] = {
    "egomem": (
        "EgoMem.json",
        [
            {**EGO, "question_id": 1, "type": "Event", "answer": "B"},
            {**EGO, "question_id": 2, "type": "Event", "answer": "A"},
            {**EGO, "question_id": 141, "type": "Detail", "answer": ""},
            {**EGO, "question_id": 354, "type": "Event", "answer": "E"},
        ],
    ),
    "videomme": (
        "mme.jsonl",
        [
            {
                "video_id": "001", "duration": "short", "domain": "Life", "sub_category": "Pets", "url": "x",
                "videoID": "fFj", "question_id": "001-1", "task_type": "Counting", "question": "how many?",
                "options": ["A. 1.", "B. 2.", "C. 3.", "D. 4."], "answer": "C",
            }
        ],
    ),
    "mlvu": (
        "3_ego.json",
        [
            {
                "video": "ego_1.mp4", "duration": 480.0, "question": "Where is the cup?",
                "candidates": ["on it", "in it"], "answer": "in it", "question_type": "ego",
            }
        ],
    ),
    "lvbench": (
        "video_info.meta.jsonl",
        [
            {
                "key": "Cm73ma6Ibcs", "type": "cartoon",
                "qa": [
                    {
                        "uid": "0", "question": "What year appears?\n(A) 1636\n(B) 1366\n(C) 1363\n(D) 1633",
                        "answer": "D", "question_type": ["key information retrieval", "reasoning"],
                        "time_reference": "00:15-00:19",
                    }
                ],
            }
        ],
    ),
    "ovobench": (
        "ovo_bench_new.json",
        [
            {
                "id": 0, "task": "EPM", "video": "a.mp4", "realtime": 90, "question": "what?", "answer": "two",
                "options": ["one", "two"], "gt": 1,
            },
            {
                "id": 1, "task": "REC", "video": "b.mp4", "activity": "jumping",
                "test_info": [{"realtime": 5, "type": 0, "count": 2}, {"realtime": 9, "type": 1, "count": 3}],
            },
            {
                "id": 2, "task": "CRR", "video": "c.mp4", "question": "why?", "answer": "x", "ask_time": 3,
                "clue_time": 20, "test_info": [{"realtime": 10, "type": 0}, {"realtime": 25, "type": 1}],
            },
            {
                "id": 3, "task": "SSR", "video": "d.mp4", "tutorial": "tea",
                "test_info": [{"realtime": 10, "step": "pour", "type": 1}],
            },
        ],
    ),
    "streamingbench": (
        "questions_real.json",
        [
            {
                "time": "[0:00:00 - 0:02:08]", "video_categories": "Life", "video_path": "v1.mp4",
                "questions": [
                    {
                        "task_type": "Object Perception", "question": "what now?", "time_stamp": "00:01:30",
                        "answer": "B", "options": ["A. red", "B. blue", "C. green", "D. none"],
                        "required_ability": "episodic memory",
                    }
                ],
            }
        ],
    ),
    "openeqa": (
        "open-eqa-v0.json",
        [
            {
                "question": "What is on the bed?", "answer": "a blanket", "category": "object recognition",
                "question_id": "q1", "episode_history": "scannet-v0/002", "extra_answers": ["a quilt"],
            }
        ],
    ),
}  # fmt: skip


def written(folder: Path, name: str) -> Path:
    if name == "nextqa":
        (folder / "questions.csv").write_text(
            "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
            '10,100,640,480,"why, then, does it run",2,7,CW,a,b,c,d,e\n'
        )
        return folder
    if name == "navqa":
        (folder / "data.csv").write_text(
            "UUID,Seq ID,Question,answer clock time(s),type,text answer,parsable answer,category\n"
            "u1,3,Is there a bench?,,binary,yes,yes,x\nu2,3,Where is it?,10:02,position,there,,y\n"
        )
        inner = folder / "navqa" / "3"
        inner.mkdir(parents=True)
        entry = {"id": "u1", "length_category": "short", "length": 95.0, "start_time": 1.0, "end_time": 96.0}
        (inner / "qa_unfilled.json").write_text(json.dumps({"data": [{**entry, "file_info": {}}]}))
        return folder
    file, value = FILES[name]
    path = folder / file
    path.write_text("\n".join(map(json.dumps, value)) if path.suffix == ".jsonl" else json.dumps(value))
    return path


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_schema_is_read(name: str, tmp_path: Path) -> None:
    items = load(name, written(tmp_path, name))
    assert items and all(item.benchmark == name and item.question and item.video for item in items)
    assert len({item.id for item in items}) == len(items)


def test_what_the_readers_know(tmp_path: Path) -> None:
    ego = load("egomem", written(tmp_path, "egomem"))
    assert [item.kind for item in ego] == ["event order", "temporal judge", "detail", "temporal align"]
    assert [bool(item.extra.get("defect")) for item in ego] == [False, False, True, True]
    assert ego[0].options[1] == "two"
    (lv,) = load("lvbench", written(tmp_path, "lvbench"))
    assert (lv.question, lv.options[3], lv.answer, lv.spans) == ("What year appears?", "1633", 3, ((15.0, 19.0),))
    ovo = load("ovobench", written(tmp_path, "ovobench"))
    assert [(item.kind, item.text, item.asked_s) for item in ovo] == [
        ("EPM", "", 90.0), ("REC", "2", 5.0), ("REC", "3", 9.0), ("CRR", "No", 10.0), ("CRR", "Yes", 25.0),
        ("SSR", "Yes", 10.0),
    ]  # fmt: skip
    (streaming,) = load("streamingbench", written(tmp_path, "streamingbench"))
    assert (streaming.asked_s, streaming.letter, streaming.category) == (90.0, "B", "episodic memory")
    nav = load("navqa", written(tmp_path, "navqa"))
    assert [(item.asked_s, item.text) for item in nav] == [(95.0, "yes"), (None, "there")]


WRONG = [
    ("nothing there", "mlvu", None, "no annotations are here"),
    ("no JSON", "openeqa", "{", "is no JSON"),
    ("an empty list", "openeqa", "[]", "holds no questions"),
    ("an empty file", "mlvu", "", "is empty"),
    ("an object", "ovobench", '{"a": 1}', "not a list of questions"),
    ("a missing field", "openeqa", '[{"question": "x"}]', "entry 1 has no 'question_id'"),
    ("an unknown task", "ovobench", '[{"task": "XYZ"}]', "has the task 'XYZ'"),
    (
        "an option that isn't there",
        "ovobench",
        '[{"task":"EPM","id":1,"video":"v","options":["a"],"gt":3}]',
        "has gt 3",
    ),
    ("no column", "nextqa", "video,question\n1,2\n", "has no column 'answer'"),
    (
        "an answer out of range",
        "nextqa",
        "video,question,answer,type,a0,a1,a2,a3,a4\n1,q,9,CW,a,b,c,d,e\n",
        "row 1 has",
    ),
]


@pytest.mark.parametrize(("what", "name", "content", "message"), WRONG, ids=[row[0] for row in WRONG])
def test_wrong_files_are_named(what: str, name: str, content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AnnotationError) as caught:
        load(name, path)
    assert message in str(caught.value) and caught.value.hint


def test_an_unknown_benchmark_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="no benchmark is called 'imagenet'"):
        load("imagenet", tmp_path)


def mc(benchmark: str, number: int, answer: int, kind: str = "k", category: str = "c") -> Item:
    return Item(
        benchmark=benchmark, id=f"real/{number}", video="v", question="q", kind=kind, category=category,
        options=("one", "two", "three", "four"), answer=answer,
    )  # fmt: skip


def test_strict_counts_what_is_missing_as_wrong() -> None:
    items = [mc("videomme", 0, 0), mc("videomme", 1, 1), mc("videomme", 2, 2)]
    answers = {"real/0": Given(option=0), "real/1": Given("Something else")}
    assert score(items, answers).value == pytest.approx(1 / 3)


QUIRKS = [
    ("streamingbench", [Given("B, I think"), None], 1.0, 0.5, "the missing one leaves the denominator"),
    ("streamingbench", [Given("The answer is B"), Given(option=1)], 0.5, 1.0, "only the first character is read"),
    ("ovobench", [Given("I do not know. Bye"), Given(option=1)], 1.0, 0.5, "a letter inside a word counts"),
    ("lvbench", [Given("(B) two"), None], 1.0, 0.5, "missing answers shrink the denominator"),
    ("mlvu", [Given("the best is (B)"), Given("two")], 0.5, 0.5, "the letter stands in brackets"),
]


@pytest.mark.parametrize(("name", "said", "official", "strict", "why"), QUIRKS, ids=[f"{q[0]}: {q[4]}" for q in QUIRKS])
def test_official_quirks(name: str, said: list[Given | None], official: float, strict: float, why: str) -> None:
    kind = "EPM" if name == "ovobench" else "k"
    items = [mc(name, number, 1, kind, "backward") for number in range(len(said))]
    answers = {f"real/{number}": one for number, one in enumerate(said) if one is not None}
    assert score(items, answers, "official").value == pytest.approx(official), why
    assert score(items, answers).value == pytest.approx(strict), why


def test_ovo_is_the_mean_of_categories() -> None:
    """Two tasks in one category and one in another: (mean(1, 0) + 1) / 2."""
    items = [
        mc("ovobench", 0, 0, "EPM", "backward"),
        mc("ovobench", 1, 0, "ASI", "backward"),
        mc("ovobench", 2, 0, "OCR", "now"),
    ]
    answers = {"real/0": Given(option=0), "real/1": Given(option=1), "real/2": Given(option=0)}
    assert score(items, answers).value == score(items, answers, "official").value == 0.75


def test_navqa_divides_by_one_more() -> None:
    items = [Item(benchmark="navqa", id=str(i), video="3", question="?", kind="binary", text="yes") for i in range(3)]
    answers = {"0": Given("yes"), "1": Given("Yes"), "2": Given("perhaps")}
    assert score(items, answers, "official").value == pytest.approx(2 / 3)
    assert score(items, answers).value == pytest.approx(2 / 3)
    assert score(items, answers, "official").count == 2


def test_openeqa_marks() -> None:
    assert judge_score({"a": 5.0, "b": 1.0, "c": 3.0, "d": None}, 4) == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    assert judge_score({"a": 9.0}, 1) == 1.0


def test_constant_letters_are_told() -> None:
    items = [mc("egomem", number, 0 if number < 6 else 2) for number in range(10)]
    assert constant(items) == ("A", 0.6)
    assert constant([]) == ("", 0.0)


def test_shuffling_keeps_the_answer_and_is_the_same_again() -> None:
    item = mc("egomem", 1, 2)
    again = shuffled(item, 7)
    assert again == shuffled(item, 7)
    assert again.options[again.answer or 0] == "three" and sorted(again.options) == sorted(item.options)
    assert len({shuffled(mc("egomem", n, 0), 7).answer for n in range(40)}) == 4


READ = [
    ("B", 1), ("(B)", 1), ("B. two", 1), ("The answer is (C)", 2), ("answer: d", 3), ("two", 1), ("Two.", 1),
    ("Both of them", None), ("Z", None), ("", None), ("I think it is red", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), READ)
def test_a_reply_is_read_as_one_option(text: str, expected: int | None) -> None:
    assert read_letter(text, ("one", "two", "three", "four")) == expected


@given(st.text(max_size=60))
def test_no_reply_breaks_a_score(text: str) -> None:
    for name in ("streamingbench", "ovobench", "lvbench", "mlvu", "videomme", "egomem"):
        item = mc(name, 0, 1, "EPM", "backward")
        for profile in ("strict", "official"):
            assert 0 <= score([item], {"real/0": Given(text)}, profile).value <= 1  # type: ignore[arg-type]
    assert correct(item, Given(text)) in (True, False)
    assert index_of(text, 4) in (None, 0, 1, 2, 3)
    assert isinstance(bare_option(text), str)


SPANS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 9)).map(lambda p: (float(p[0]), float(p[0] + p[1]))), max_size=5
)


@given(SPANS, SPANS)
def test_overlap_against_brute_force(found: list[tuple[float, float]], truth: list[tuple[float, float]]) -> None:
    recall, iou = recall_and_iou(found, truth, 0.0)
    cells = [{c for a, b in spans for c in range(int(a), int(b))} for spans in (found, truth)]
    union = len(cells[0] | cells[1])
    if truth and union:
        assert iou == pytest.approx(len(cells[0] & cells[1]) / union)
    assert 0 <= recall <= 1
    assert recall_and_iou(truth, truth) == (1.0, pytest.approx(1.0))
