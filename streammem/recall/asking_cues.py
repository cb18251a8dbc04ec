"""Questions in a looser order of words: a cue for the shape, and one name of a thing. Nothing else may be left over.

"Has the red van shown up again", "what is the total time person 2 was here": every word is a function word, part of a
cue, or of one run of words that names the thing. So a question that says more than that ("when does the robot put the
egg into the pan?") is never read here, and what is read is only answered where a bank knows that thing.
"""

from __future__ import annotations

import re
from functools import cache

from streammem.recall.asking_patterns import Shape
from streammem.recall.noun_phrases import Thing, thing_of

_ASKS = re.compile(
    r"^(?:did|does|do|has|have|had|was|were|is|are|will|could|can|list|give|name|show|tell|find|check|count|"
    r"(?:the )?(?:first|last) (?:time|sighting)|(?:the )?duration|roughly)\b|"
    r"\b(?:when|where|how|who|which|what|until|since|position|whereabouts)\b"
)
_FUNCTION = frozenset(
    """a an the is are was were be been being do does did done has have had will would can could might may i you we they
    he she it one anyone anybody someone somebody everybody nobody that this there here then so if it's in on at to of
    for from by with into out and or me us my our your not any more ever yet now already all what when where who which
    how whether time times point moment until till since camera picture video view scene screen frame sight see saw
    seen seeing notice noticed spot spotted know known tell give get got show shown us list name did something anything
    again over very about around check whether if wonder roughly exactly exact find found else while lying given during
    ask please passed between moments""".split()
)
_LONG = (
    r"\b(?:how long|how many (?:seconds|minutes|hours)|for long|total time|how much time|"
    r"duration(?: of the (?:visit|stay))?)\b"
)
_AWAY = r"\b(?:gone|away|missing|absent)\b"
_MANY = r"\b(?:how many|number|more than \w+|fewer than \w+)\b"
_ONCE = r"\b(?:at once|at the same time|together|simultaneously|at a time)\b"
_CUES: tuple[tuple[Shape, str, str], ...] = (
    ("often", r"how often|how many (?:separate |different )?times|how frequently", "appear"),
    ("back", r"\b(?:back|again|return(?:s|ed|ing)?|re-?appear(?:s|ed)?|once more)\b", "back"),
    ("gone", rf"{_LONG}(?=.*{_AWAY})|{_AWAY}(?=.*{_LONG})", "appear"),
    ("stay", _LONG, "appear"),
    ("most", rf"{_MANY}(?=.*{_ONCE})|\b(?:maximum|most|peak|largest)\b", "appear"),
    ("count", r"\b(?:how many|number of|count)\b", "appear"),
    ("where", r"\b(?:where|position|location|whereabouts|somewhere|which room|what room)\b", "appear"),
    ("near", r"\b(?:near|close to|next to|beside|alongside|by the|nearby)\b", "appear"),
    (
        "last",
        r"\b(?:last (?:see|saw|seen|time|there|spotted|noticed|sighting)|the last time|lastly)\b",
        "appear",
    ),
    (
        "appear",
        r"\b(?:first (?:see|saw|seen|time|there|appear\w*|sighting)|how soon|arriv\w+|enter\w*|appear\w*|"
        r"show(?:n|ed|s)? up|turn\w* up|came|come in)\b",
        "appear",
    ),
    (
        "leave",
        r"\b(?:left|leav(?:e|es|ing)|disappear\w*|vanish\w*|went away|walk\w* (?:off|out|away)|depart\w*|los[et])\b",
        "leave",
    ),
    ("still", r"\b(?:still|right now|at the moment|now)\b", "appear"),
)


@cache
def _cues() -> tuple[tuple[Shape, re.Pattern[str], str], ...]:
    return tuple((shape, re.compile(pattern), event) for shape, pattern, event in _CUES)


def read_cues(text: str) -> tuple[Shape, Thing, str] | None:
    """(shape, thing, event) of plain lower-case words, or None."""
    if _ASKS.search(text) is None:
        return None
    for shape, pattern, event in _cues():
        match = pattern.search(text)
        if match is None:
            continue
        rest = text
        for _, other, _ in _cues():
            rest = other.sub(" | ", rest)
        rest = re.sub(r"\b(?:gone|away|missing|absent|at once|together|still)\b", " | ", rest)
        thing = _only_thing(rest)
        return None if thing is None else (shape, thing, event)
    return None


def _only_thing(text: str) -> Thing | None:
    """The thing that one run of words names, where nothing else is said."""
    runs: list[str] = []
    for piece in text.split("|"):
        words = piece.split()
        while words and words[0] in _FUNCTION:
            words.pop(0)
        while words and words[-1] in _FUNCTION:
            words.pop()
        if words:
            runs.append(" ".join(words))
    return thing_of(runs[0]) if len(runs) == 1 else None
