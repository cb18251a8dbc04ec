"""What an instruction asks for, read from its words alone: rules, no task number, no list of what the house holds.

``read("Go to the object that you moved right after the mug.")`` -> an :class:`Instruction` that says which
interactions count, which side of them is meant (the thing, the receptacle, the room) and which one of several.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from streammem.errors import InputError

Role = Literal["", "touched", "untouched", "picked", "placed"]

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_NTH = "(?:" + "|".join(_ORDINALS) + r"|\d+(?:st|nd|rd|th))"


@dataclass(frozen=True, slots=True)
class Anchor:
    """The ``nth`` (from 1) thing of a category that was carried."""

    category: str
    nth: int = 1


@dataclass(frozen=True, slots=True)
class Instruction:
    """``target``: what to go to. ``role``: picked from, placed on, either (``touched``), neither (``untouched``), or
    whatever there is (empty). ``category`` of the target; ``thing``: category of the carried thing that is meant;
    ``start``: category of the receptacle it was picked from; ``value`` of any attribute. ``nth`` from 1; ``anchors``
    with ``offset`` interactions after the first of them (0: between the two). ``minute`` of the day. ``extreme``:
    farthest, longest, shortest, busiest, unvisited. ``every``: all of them; ``order``: interactions from 1.
    ``day``: the words for the one day that is meant (``dates.day_meant``); empty: all that is remembered."""

    target: Literal["object", "receptacle", "room"]
    role: Role = ""
    category: str = ""
    thing: str = ""
    start: str = ""
    value: str = ""
    nth: int = 0
    anchors: tuple[Anchor, ...] = ()
    offset: int = 0
    minute: int = -1
    extreme: str = ""
    every: bool = False
    order: tuple[int, ...] = ()
    day: str = ""


def nth_of(word: str) -> int:
    """``third`` -> 3, ``11th`` -> 11."""
    return _ORDINALS.index(word) + 1 if word in _ORDINALS else int(re.sub(r"\D", "", word))


def anchor_of(words: str) -> Anchor:
    """``mug``; ``second mug``."""
    found = re.fullmatch(rf"({_NTH}) (.+)", words)
    return Anchor(found[2], nth_of(found[1])) if found else Anchor(words)


_DID = {
    "interacted with": "touched",
    "did not interact with": "untouched",
    "interact with": "touched",
    "picked from": "picked",
    "placed on": "placed",
    "picked an object from": "picked",
    "placed an object on": "placed",
    "picked objects from": "picked",
    "placed objects on": "placed",
    "moved": "touched",
}
_DONE = "|".join(sorted(_DID, key=len, reverse=True))
_A = r"(?:a|an|any|the)"
_KIND = r"(?P<target>object|receptacle|room)"

_RULES: tuple[tuple[str, dict[str, Any]], ...] = (
    (rf"revisit the {_KIND}s that you (?P<did>{_DONE}) in this order: the (?P<order>.+)", {"every": True}),
    (rf"revisit all {_KIND}s that you (?P<did>{_DONE})", {"every": True}),
    (rf"revisit every (?P<category>.+?) that you (?P<did>{_DONE})", {"target": "receptacle", "every": True}),
    (rf"go to the room in which you (?P<hand>picked|placed) the (?P<nth>{_NTH}) object", {"target": "room"}),
    (r"go to the room in which you (?P<hand>picked|placed) the (?P<thing>.+)", {"target": "room"}),
    (r"go to a room that you did not visit\b.*", {"target": "room", "extreme": "unvisited"}),
    (r"go to the room in which you spent (?:the )?most time", {"target": "room", "extreme": "busiest"}),
    (rf"go to the farthest {_KIND} that you (?P<did>{_DONE})", {"extreme": "farthest"}),
    (rf"go to the {_KIND} that took you (?P<extreme>longest|shortest) to move", {}),
    (rf"go to the {_KIND} that you interacted with at (?P<time>\d+:\d\d)", {}),
    (rf"go to the receptacle that the (?P<nth>{_NTH}) object came from", {"target": "receptacle", "role": "picked"}),
    (rf"go to the object that you took from the (?P<nth>{_NTH}) receptacle", {"target": "object"}),
    (rf"go to {_A} {_KIND} that you (?P<did>{_DONE}) between the (?P<a>.+) and the (?P<b>.+)", {}),
    (rf"go to {_A} {_KIND} that you (?P<did>{_DONE}) right (?P<way>after|before) (?:you (?:began|were done) with )?"
     r"the (?P<a>.+)", {}),
    (rf"go to {_A} {_KIND} that you (?P<did>{_DONE}) (?P<m>\d+) interactions (?P<way>after|before) the (?P<a>.+)", {}),
    (rf"go to the (?P<nth>{_NTH}) {_KIND} that you (?P<did>{_DONE})", {}),
    (r"go to the receptacle that you (?P<hand>picked|placed) the (?P<thing>.+) (?:from|on)", {"target": "receptacle"}),
    (r"go to an object that you picked from the (?P<start>.+)", {"target": "object"}),
    (rf"go to {_A} {_KIND} that you (?P<did>{_DONE})", {}),
    (rf"go to {_A} object (?:with an? (?P<design>.+) design|made of (?P<material>.+)|used for (?P<use>.+)) that you "
     r"interacted with", {"target": "object", "role": "touched"}),
    (rf"go to {_A} (?P<value>.+) object that you interacted with", {"target": "object", "role": "touched"}),
    (rf"go to {_A} (?P<category>.+?) that you (?P<did>{_DONE})", {"target": ""}),
    (rf"go to {_A} (?P<category>.+)", {"target": ""}),
)  # fmt: skip

FURNITURE = frozenset(
    "armchair bathtub bed bench bookcase bookshelf cabinet chair chest chest_of_drawers counter couch cupboard"
    " desk drawer dresser filing_cabinet fridge nightstand ottoman rack serving_cart shelf shelves shoe_rack sideboard"
    " sink sofa stand stool table trunk tv_stand wardrobe washer_dryer washstand".replace("_", " ").split(" ")
) | {"chest of drawers", "filing cabinet", "serving cart", "shoe rack", "tv stand", "washer dryer", "coffee table"}
"""Names of what things are put on. Common knowledge, no list of any house; words of longer names count too."""


def is_furniture(category: str) -> bool:
    """Whether things are put on such a thing: "wooden table" too, but not "table lamp"."""
    words = category.lower().replace("_", " ")
    return words in FURNITURE or words.rpartition(" ")[2] in FURNITURE


def read(text: str) -> Instruction:
    """Raises InputError for words that no rule covers."""
    plain = " ".join(text.strip().rstrip(".").split())
    about = re.fullmatch(r"about ([^:]+): (.+)", plain, re.IGNORECASE)
    if about:
        return replace(read(about[2]), day=about[1])
    for pattern, fixed in _RULES:
        found = re.fullmatch(pattern, plain, re.IGNORECASE)
        if found:
            return _made(found.groupdict(), fixed)
    raise InputError(f"the instruction {text!r} can't be read", hint='say it as "Go to the ... that you ..."')


def _made(said: dict[str, str | None], fixed: dict[str, Any]) -> Instruction:
    words = {name: value for name, value in said.items() if value}
    given: dict[str, Any] = {
        key: words[key] for key in ("category", "thing", "start", "value", "extreme") if key in words
    }
    given |= {key: value for key, value in fixed.items() if key != "target"}
    given["target"] = words.get("target", fixed.get("target", "")).lower()
    if not given["target"]:
        given["target"] = "receptacle" if is_furniture(words["category"]) else "object"
    if "did" in words:
        given["role"] = _DID[words["did"].lower()]
    if "hand" in words:
        given["role"] = words["hand"].lower()
    for key in ("design", "material", "use"):
        if key in words:
            given["value"] = words[key]
    if "nth" in words:
        given["nth"] = nth_of(words["nth"].lower())
    if "a" in words:
        given["anchors"] = tuple(anchor_of(words[key]) for key in ("a", "b") if key in words)
        step = int(words.get("m", "1"))
        given["offset"] = 0 if "b" in words else step if words["way"].lower() == "after" else -step
    if "time" in words:
        hour, _, minute = words["time"].partition(":")
        given["minute"] = int(hour) * 60 + int(minute)
    if "order" in words:
        given["order"] = tuple(nth_of(word.lower()) for word in words["order"].split(", then the "))
    return Instruction(**given)
