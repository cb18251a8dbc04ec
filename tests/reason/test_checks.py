"""Sources against each other: contradiction lowers, agreement never raises, silence says nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for folder in ("recall", "reason"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from reason_samples import S, look, open_words  # noqa: E402
from word_space import JPEG, vector_of  # noqa: E402

from streammem.memory import Memory  # noqa: E402
from streammem.model import Answer, Detection, Evidence, Observation, StreamInfo, TextSpan  # noqa: E402
from streammem.reason.checks import Source, conflict, sources_of, weighed  # noqa: E402
from streammem.reason.looking import judge  # noqa: E402
from streammem.recall.search import find  # noqa: E402

BOX = (0.1, 0.1, 0.5, 0.5)
MOMENT = Evidence("cam", 0, 1, (), (1,), 1.0, ())
FOUND = Answer("a dog", "found", "A dog.", 0.8, (MOMENT,), (MOMENT,))


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    """A dog's picture at 20 s, one at 60 s where a detector sees a cat, a sign that says "dog" at 40 s."""
    opened = open_words(tmp_path / "m")
    opened.set_stream(StreamInfo(stream="cam", clock="media"))
    for second in range(80):
        thing = "dog" if second in (20, 60) else "tree"
        seen = {20: "dog", 60: "cat"}.get(second)
        sign = (TextSpan("beware of the dog", 0.95, BOX),) if second == 40 else ()
        detections = (Detection(seen, 0.9, BOX, str(second)),) if seen else ()
        opened.write(
            Observation(
                stream="cam", seq=second, capture_ns=second * S, space="words@1", embedding=vector_of(thing),
                thumbnail=JPEG, detections=detections, texts=sign,
            ),
            durable=False,
        )  # fmt: skip
    opened.flush()
    return opened


def said(memory: Memory, second: int) -> dict[str, bool | None]:
    (hit,) = find(memory, "a dog", k=1, between=(second * S, second * S)).hits
    return {source.kind: source.says for source in sources_of(memory, "a dog", hit.evidence, judge(memory, hit))}


def test_picture_and_tracker_agree(memory: Memory) -> None:
    assert said(memory, 20) == {"label": True, "tracker": True}


def test_a_detector_that_knows_dogs_and_names_a_cat_contradicts(memory: Memory) -> None:
    assert said(memory, 60) == {"label": True, "tracker": False}


def test_a_sign_that_says_dog_on_a_picture_without_one_is_contradicted(memory: Memory) -> None:
    assert said(memory, 40) == {"label": False, "text": True}


def test_a_detector_that_never_names_dogs_says_nothing(tmp_path: Path) -> None:
    with open_words(tmp_path / "m") as memory:
        memory.set_stream(StreamInfo(stream="cam", clock="media"))
        memory.write([look("dog" if second == 5 else "tree", second * S) for second in range(10)])
        assert said(memory, 5) == {"label": True}


def test_a_tie_is_no_finding_and_is_told() -> None:
    answer = weighed(FOUND, [Source("label", True, "x"), Source("tracker", False, "names cat then")])
    assert (answer.status, answer.evidence, answer.closest) == ("unsure", (), FOUND.closest)
    assert answer.confidence == 0.4
    assert "Sources disagree" in answer.text and "names cat then" in answer.text


def test_a_minority_only_lowers() -> None:
    sources = [Source("label", True), Source("speech", True), Source("tracker", False)]
    answer = weighed(FOUND, sources)
    assert (answer.status, answer.confidence) == ("found", pytest.approx(0.5333))
    assert conflict(sources) and not conflict(sources[:2])


SOURCES = st.lists(
    st.builds(
        Source, st.sampled_from(["label", "text", "speech", "tracker", "map"]), st.sampled_from([True, False, None])
    ),
    max_size=6,
)


@given(SOURCES, st.sampled_from(["found", "unsure", "not_seen"]))
def test_nothing_is_ever_made_surer(sources: list[Source], status: str) -> None:
    before = Answer("q", status, "t", 0.7, (MOMENT,) if status == "found" else (), (MOMENT,))  # type: ignore[arg-type]
    after = weighed(before, sources)
    rank = ["not_seen", "unsure", "found"]
    assert rank.index(after.status) <= rank.index(before.status)
    assert after.confidence <= before.confidence
    assert (after.status == "found") == bool(after.evidence)
    assert len(after.trace) == len(before.trace) + len(sources)
