"""Taking a question apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streammem.errors import QueryError
from streammem.recall.query import clean, content_phrase, fold, parse_query


@pytest.mark.parametrize(
    ("question", "phrase"),
    [
        ("When does the butterfly land on the apple?", "the butterfly land on the apple"),
        ("a red car", "a red car"),
        ("is there a dog?", "a dog"),
        ("Can you see a giraffe in the video?", "a giraffe"),
        ("do we ever see an airplane?", "an airplane"),
        ("When is a bicycle visible", "a bicycle"),
        ("show me the moment when the man falls", "the man falls"),
        ("how many times does the robot pick up a banana", "the robot pick up a banana"),
        ("Where does it say PEACH?", "PEACH"),
        ("isolated islands", "isolated islands"),
        ("whenever", "whenever"),
        ("who is there?", "who is there"),
    ],
)
def test_the_frame_of_a_question_is_not_its_content(question: str, phrase: str) -> None:
    assert content_phrase(question) == phrase


@pytest.mark.parametrize(
    ("question", "what"),
    [
        ("", "the question is empty"),
        ("   \n\t ", "the question is empty"),
        ("???", "the question has no words"),
        ("\x00\x1b\x07", "the question is empty"),
        ("x" * 10_000, "the question has 10000 characters, at most 2000 are read"),
    ],
)
def test_a_question_that_cannot_be_asked_says_why(question: str, what: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_query(question)
    assert caught.value.message == what
    assert caught.value.hint


def test_other_scripts_are_questions_too() -> None:
    for text in ("猫在哪里", "где собака?", "أين القطة", "כלב", "猫はどこ"):
        assert parse_query(text).words


def test_control_characters_and_overrides_are_removed() -> None:
    assert clean("a\x1b[31m red\u202e car\u200b\x00") == "a[31m red car"
    assert parse_query("a \x1b red \u202ecar").words == ("red", "car")


def test_signals_that_could_know() -> None:
    assert parse_query("a woman in a red coat").people
    assert parse_query("a woman in a grey coat").colours == ("gray",)
    assert parse_query("where is the TAXI sign").wants_text
    assert parse_query("where is the TAXI sign").words == ("taxi",)
    assert parse_query("who says 'hello there'").quoted == ("hello there",)
    assert not parse_query("a boat").people


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        query = parse_query(text)
    except QueryError:
        return
    assert query.words
    assert query.phrase
    assert all(word == fold(word) for word in query.words)
    assert not any(ord(c) < 32 for c in query.raw)
