"""What a question asks of the structured banks, read from its words: a shape, and the things it is about.

"When did the man in the red jacket come back?" has the shape ``back`` and one thing: a man, red, jacket. Pure text
work: no bank, no model, no memory; 80 patterns, 0.1 ms. A question that fits no shape is None and is searched for as
before. Whether anything of that kind is known is ``facts.py``'s to say.

Questions of what is written, said or quoted are never read here: their answer is the words themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from streammem.recall.asking_cues import read_cues
from streammem.recall.asking_patterns import PATTERNS, Shape, compiled
from streammem.recall.noun_phrases import Thing, thing_of
from streammem.recall.query import clean, fold
from streammem.recall.when import without_times

BANKS: dict[Shape, tuple[str, ...]] = {
    **dict.fromkeys(
        ("appear", "leave", "back", "seen", "stay", "gone", "often", "count", "most", "which", "during", "together"),
        ("tracks", "entities"),
    ),
    "names": ("tracks", "entities"),
    "first": ("tracks", "entities"),
    "final": ("tracks", "entities"),
    "where": ("entities", "spatial", "tracks"),
    "still": ("entities", "spatial", "tracks"),
    "last": ("entities", "tracks", "spatial"),
    "near": ("spatial", "tracks"),
    "changed": ("entities", "spatial"),
    "route": ("spatial",),
    "room": ("spatial", "entities"),
    "happened": ("timeline",),
}
"""Which banks can know, by shape, the most specific first."""


@dataclass(frozen=True, slots=True)
class Asked:
    """``things`` in the order in which they are named, ``to`` a place or goal in words, ``event`` what was counted or
    ordered (``appear``, ``leave``, ``back``, ``move``), ``presumed`` that the things are taken to exist ("the")."""

    shape: Shape
    things: tuple[Thing, ...] = ()
    to: str = ""
    event: str = "appear"
    presumed: bool = True


@lru_cache(maxsize=64)
def read_asked(question: str) -> Asked | None:
    """The shape of a question, or None where no structured bank could answer it. Never raises."""
    text = clean(question)
    if len(text) > LONGEST:
        return None
    if re.search(r"[\"“”«»]", text):
        return None  # quoted words are looked for as they stand
    rest, timed = without_times(text)
    rest = _plain(rest)
    if _WORDS.search(rest):
        return None
    first = rest.partition(" ")[0]
    for opens, shape, pattern, event in PATTERNS:
        match = compiled(pattern).match(rest) if first in opens else None
        if match is None:
            continue
        asked = _asked(shape, match, event, timed)
        if asked is not None:
            return asked
    loose = read_cues(rest)
    if loose is not None and not loose[1].generic:
        shape, thing, event = loose
        return Asked(shape, (thing,), event=event)
    return _bare(rest)


LONGEST = 300
"""Characters: a longer question isn't one of these."""

_WORDS = re.compile(
    r"\b(?:say|says|said|written|writing|signs?|text|words?|letters?|caption|subtitles?|titles?|"
    r"reads?|spelled|mentions?|"
    r"mentioned|talks?|talked|speaks?|spoke|heard|hear|why|colou?r)\b"
)
_POLITE = re.compile(
    r"^(?:(?:please|hey|hi|ok|so|and|well|now)[,\s]+|(?:can|could|would|will) you (?:please )"
    r"?(?=tell|show|find|list|count|describe|summari|give)|"
    r"(?:i(?: would|'d) like to|i want to|i wonder|do you|i need to|let me) know (?:if |whether )?|"
    r"(?:please )?tell me (?:if |whether )?|do you remember (?:if |whether )?|do you know (?:if |whether )?|"
    r"(?:any|have you any|do you have any) idea )+"
)
_SHORT = (("what's", "what is"), ("where's", "where is"), ("who's", "who is"), ("when's", "when is"), ("'ve", " have"))


def _plain(text: str) -> str:
    """Lower case, contractions opened, politeness and punctuation gone."""
    text = fold(text).replace("’", "'")
    for short, long in _SHORT:
        text = text.replace(short, long)
    text = " ".join(re.sub(r"[?!.;:]+(?=\s|$)", " ", text).split()).strip(" ,")
    text = _POLITE.sub("", text).strip(" ,")
    text = re.sub(r"\s(?:please|exactly|actually|then|today|so far|at all|by any chance)$", "", text)
    text = _FILLER.sub("", re.sub(r"^(?:so|well|and|ok|hey)\s", "", text))
    text = re.sub(r"^(when|where|who|what) (?:is|was) it (?:that )?(?=\S+ \S)", r"\1 ", text)
    topic = _TOPIC.match(text)
    if topic is not None:  # "person 3, when did he leave"
        text = f"{topic['ask']} {topic['x']}{topic['rest']}"
    late = re.match(r"^(?P<rest>.+) (?P<ask>when|where)$", text)  # "the dog came back when?"
    return f"{late['ask']} {late['rest']}" if late is not None else text


_FILLER = re.compile(r"\b(?:damn|bloody|freaking|stupid|again that|just|really|ever so|kind of|probably|maybe) ")
_TOPIC = re.compile(
    r"^(?P<x>[^,]{2,60}), (?P<ask>(?:when|where|how long|how often|how many times)"
    r"(?: (?:do|does|did|is|are|was|were|has|have))?) (?:he|she|it|they)\b(?P<rest>.*)$"
)


def _asked(shape: Shape, match: re.Match[str], event: str, timed: bool) -> Asked | None:
    found = match.groupdict()
    things = []
    for name in ("x", "y", "a", "b"):
        words = found.get(name)
        if words is None:
            continue
        thing = thing_of(words)
        if thing is None:
            return None
        if len(thing.words) == 1 and thing.words[0].isdigit() and not thing.extra:
            thing = Thing(thing.text, track=thing.words[0])  # "when did 5 and 6 meet": only tracks are called so
        things.append(thing)
    goal = found.get("to") or ""
    if goal and (goal_thing := thing_of(goal)) is not None:
        goal = goal_thing.text
    elif goal:
        return None
    if shape == "first" and (who := found.get("who")) and " " in who:
        kind = thing_of(who.partition(" ")[2])
        things = [kind] if kind is not None and not kind.generic else []
    if shape == "during" and not timed:
        return None
    if shape == "changed" and "mov" in match.string:
        event = "move"
    if shape == "still" and re.search(r"\b(?:gone|left|away|missing)\b", match.string):
        event = "gone"
    if shape == "which" and not any(thing.colours or thing.track for thing in things):
        return None  # "a dog": what the pictures say is asked for, and calibrated
    return Asked(shape, tuple(t for t in things if not t.generic), goal, event, presumed=found.get("y") is None)


def _bare(text: str) -> Asked | None:
    """A few words without a verb, "the person in red": only with a colour or a number is it a thing to look up."""
    thing = thing_of(text)
    if thing is None or not (thing.track or (thing.colours and thing.words)):
        return None
    return Asked("which", (thing,), presumed=text.startswith(("the ", "track", "#")))
