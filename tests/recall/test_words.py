"""Words of a question against text that a camera misreads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streammem.recall.query import parse_query
from streammem.recall.words import match_phrase, match_query, match_words, word_similarity


@pytest.mark.parametrize(
    ("asked", "seen", "same"),
    [
        ("taxi", "taxi", True),
        ("taxi", "taxl", False),  # one letter in four is another word
        ("car", "cars", False),  # three letters must be equal: "cat" is not "cats" by accident of reading
        ("taxi", "taxis", True),
        ("restaurant", "restuarant", True),
        ("restaurant", "restaurent", True),
        ("restaurant", "resting", False),
        ("2024", "2025", False),  # numbers are never nearly right
        ("exit", "exist", True),
    ],
)
def test_word_similarity(asked: str, seen: str, same: bool) -> None:
    assert (word_similarity(asked, seen) > 0) is same


def test_run_together_words_are_found() -> None:
    assert match_words(["slow"], "SLOWCARS").coverage == 0  # four letters inside a longer word prove nothing
    assert match_words(["restaurant"], "THERESTAURANT").coverage == pytest.approx(0.9)


def test_a_quoted_phrase_must_stand_there() -> None:
    query = parse_query('the sign "no parking"')
    assert match_query(query, ["NO PARKING"]).coverage == 1.0
    assert match_query(query, ["NO", "PARKING"]).coverage == 1.0  # read as two boxes
    assert match_query(query, ["PARKING"]).coverage == 0.0
    assert match_phrase("no parking", "N0 PARKING").coverage >= 0.8


def test_accents_and_case_do_not_matter() -> None:
    assert match_query(parse_query("cafe"), ["CAFÉ"]).exact


@given(st.lists(st.text(min_size=1, max_size=20), max_size=4), st.text(max_size=60))
def test_coverage_is_a_share(asked: list[str], text: str) -> None:
    match = match_words([a.casefold() for a in asked], text)
    assert 0.0 <= match.coverage <= 1.0
