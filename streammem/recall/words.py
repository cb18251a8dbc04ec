"""Matching words: a question's words against text seen in the scene, or against speech.

Text in the scene is misread by one or two letters as a rule, so words match by edit distance, with a strictness that
grows as words get shorter: one wrong letter in "TAXI" is another word, in "RESTAURANT" it is a reading error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streammem.recall.query import Query, fold, tokens

ANY_WORDS = 0.75
"""Coverage of any text at all where the words themselves are asked for: less than words that were named."""


@dataclass(frozen=True, slots=True)
class WordMatch:
    """``coverage`` in [0, 1]: the share of the asked words (weighted by length) that stand there, times how well.
    ``exact``: every matched word matched to the letter. ``detail`` is the text as it was read."""

    coverage: float
    exact: bool
    detail: str


def word_similarity(asked: str, seen: str) -> float:
    """Similarity of two folded words in [0, 1]; 0 unless they are plausibly the same word.

    Up to 3 letters must be equal; 4 to 6 may differ by plural or one letter in six; longer ones by one in five."""
    if asked == seen:
        return 1.0
    if len(asked) <= 3 or len(seen) <= 2 or asked.isdigit() or seen.isdigit():
        return 0.0
    short, long_ = sorted((asked, seen), key=len)
    if long_ in (short + "s", short + "es"):
        return 0.95
    from rapidfuzz import fuzz  # 10 ms, and most questions meet no text

    ratio = fuzz.ratio(asked, seen) / 100.0
    needed = 0.85 if min(len(asked), len(seen)) <= 6 else 0.8
    return ratio if ratio >= needed else 0.0


def match_words(asked: Sequence[str], text: str) -> WordMatch:
    """How much of ``asked`` (folded words) stands in ``text``."""
    seen = tokens(text)
    if not asked or not seen:
        return WordMatch(0.0, False, "")
    # Words run together when read ("SLOWCARSPASS"): a long asked word inside a long seen one counts a little less.
    total = sum(len(w) for w in asked)
    got = 0.0
    exact = True
    for word in asked:
        best = max(word_similarity(word, s) for s in seen)
        if best < 0.9 and len(word) >= 5 and any(word in s for s in seen):
            best = 0.9
        if 0.0 < best < 1.0:
            exact = False
        got += best * len(word)
    return WordMatch(got / total, exact and got > 0, text)


def match_phrase(phrase: str, text: str) -> WordMatch:
    """A quoted phrase against a text: 1.0 when it stands there, else the best alignment above 0.8, else nothing."""
    a, b = fold(phrase), fold(text)
    if not a or not b:
        return WordMatch(0.0, False, "")
    if a in b:
        return WordMatch(1.0, True, text)
    if len(a) > len(b) * 1.25:
        return WordMatch(0.0, False, "")
    from rapidfuzz import fuzz

    ratio = fuzz.partial_ratio(a, b) / 100.0
    return WordMatch(ratio, False, text) if ratio >= 0.8 and len(a) >= 4 else WordMatch(0.0, False, "")


def match_query(query: Query, texts: Sequence[str]) -> WordMatch:
    """The best match of a query against the texts of one record, taken one by one and all together."""
    if query.asks_words and texts:
        return WordMatch(ANY_WORDS, False, " ".join(texts))
    best = WordMatch(0.0, False, "")
    joined = " ".join(texts)
    for text in [*texts, joined] if len(texts) > 1 else texts:
        if query.quoted:
            candidate = max((match_phrase(q, text) for q in query.quoted), key=lambda m: m.coverage)
        else:
            candidate = match_words(query.words, text)
        if candidate.coverage > best.coverage:
            best = candidate
    return best
