"""Things as people name them: "the man in the red jacket", "track 7", "my coffee mug"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from streammem.recall.query import COLOUR_ALIASES, COLOURS, PEOPLE

GENERIC = frozenset(
    "track tracks thing things object objects item items one ones anything something everything".split()
)
ANYBODY = frozenset("who whoever anybody anyone somebody someone everybody everyone".split())
GARMENTS = frozenset(
    """jacket coat shirt shirts tshirt top sweater hoodie pullover jumper vest dress suit clothes clothing blouse
    uniform robe raincoat overcoat cardigan""".split()
)
"""What covers most of a body: its colour is the colour of the person's crop."""
_NUMBERED = frozenset("track object person id number no nr item thing people individual".split())
_ARTICLE = re.compile(
    r"^(?:(?:the|a|an|my|your|our|his|her|their|this|that|these|those|any|some|all|every|each|of|called|named)\s+)+"
)
_LINK = re.compile(
    r"\s+(?:in|with|wearing|wears|wore|dressed in|who wears|who wore|dressed|holding|carrying|that is)\s+"
)
_NUMBER = re.compile(r"^(?:(?P<kind>[a-z]+)\s+)?(?P<mark>number\s+|no\.?\s*|nr\.?\s*|id\s+|#\s*)?(?P<n>\d{1,9})$")
_HASH = re.compile(r"^#\s*(?P<n>[\w.-]{1,40})$")
_NAMED = re.compile(r"^track\s+(?:called\s+|named\s+)?(?P<n>[a-z][\w.-]{0,40})$")
_TAIL = re.compile(
    r"\s+(?:in|on|of|from) (?:the |this )?(?:picture|video|scene|film|clip|view|recording|footage|image)$"
)

_NOT_NOUNS = frozenset(
    """is are was were be been being do does did has have had will would can could should may might must the a an and or
    but not before after while when where what which how why whose that than then on at to for from by into onto over
    under up down off out through across along against between among during about as if so it he she they we you i me
    him them us there here ever never again first last second third next other same only just also very too
    picture video scene film clip view recording footage image camera screen frame moment time times
    place happening taken filmed put puts hold holds take takes see seen""".split()
)
"""Words that no name of a thing holds: with one of them it is a clause, and those are searched for."""
_NOUNS_IN_ING = frozenset(
    """ring building painting ceiling clothing string wing king railing thing swing spring earring pudding drawing
    sling awning icing coating packing lining""".split()
)
MOST_WORDS = 6


@dataclass(frozen=True, slots=True)
class Thing:
    """``words`` name it, the last one is the head; ``extra`` says more of it; ``track`` is a tracker's number or name.

    ``text`` is all of it without articles, for people and for banks that match words themselves."""

    text: str
    words: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    track: str = ""

    @property
    def generic(self) -> bool:
        """No thing in particular: "which *track*"."""
        return not self.track and not self.colours and bool(self.words) and set(self.words) <= GENERIC

    @property
    def people(self) -> bool:
        return bool(self.words) and (self.words[-1] in PEOPLE or self.words[-1] in ANYBODY)

    @property
    def key(self) -> str:
        """``#7``, or words and colours: how the lists of questions write it."""
        named = f"#{self.track}" if self.track else " ".join((*self.words, *self.extra))
        return "/".join((named, *self.colours))


def thing_of(text: str) -> Thing | None:
    """A thing in lower-case words, or None for what isn't the name of one (a clause, nothing, seven words)."""
    text = _TAIL.sub("", _ARTICLE.sub("", text.strip(" ,"))).strip(" ,")
    numbered = _NUMBER.match(text)
    kind = (numbered["kind"] or "") if numbered is not None else ""
    if numbered is not None and (kind or numbered["mark"]) and kind not in ("room", "place", "floor"):
        return Thing(text, () if kind in _NUMBERED or not kind else (kind,), track=str(int(numbered["n"])))
    named = _HASH.match(text) or _NAMED.match(text)
    if named is not None and named["n"] not in _NOT_NOUNS:
        return Thing(text, track=named["n"])
    head, *more = _LINK.split(re.sub(r"^(who|which person|which people)\s+(?:is|was|are|were)\s+", r"\1 ", text))
    words, colours = _sorted_words(head)
    extra: list[str] = []
    for part in more:
        others, of_it = _sorted_words(_ARTICLE.sub("", part))
        extra += others
        colours += of_it
    every = [*words, *extra]
    if words and words[-1].endswith("ing") and words[-1] not in _NOUNS_IN_ING:
        return None  # "the girl playing": a clause
    if not words or len(every) > MOST_WORDS or any(word in _NOT_NOUNS for word in every):
        return None
    return Thing(text, tuple(words), tuple(dict.fromkeys(colours)), tuple(extra))


def _sorted_words(text: str) -> tuple[list[str], list[str]]:
    tokens = re.findall(r"[^\W_]+(?:-[^\W_]+)*", text.replace("t-shirt", "tshirt"))
    names = [COLOUR_ALIASES.get(token, token) for token in tokens]
    return [t for t, n in zip(tokens, names, strict=True) if n not in COLOURS], [n for n in names if n in COLOURS]


_IRREGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse", "knives": "knife",
    "scissors": "scissors", "glasses": "glasses", "keys": "key", "geese": "goose", "feet": "foot", "teeth": "tooth",
    "shelves": "shelf", "buses": "bus", "loaves": "loaf", "leaves": "leaf", "dress": "dress", "glass": "glass",
}  # fmt: skip


def singular(word: str) -> str:
    """The singular of an English noun, by rule: "boxes" is "box", "bus" stays."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("ches", "shes", "xes", "sses", "zes")) else word[:-1]


_SAME: tuple[frozenset[str], ...] = tuple(
    frozenset(part.strip() for part in group.split(","))
    for group in (
        "bike, bicycle, cycle", "motorbike, motorcycle", "phone, cell phone, mobile phone, smartphone, mobile",
        "sofa, couch", "tv, television, tvmonitor", "plane, aeroplane, airplane", "fridge, refrigerator",
        "table, dining table, diningtable", "plant, potted plant, pottedplant", "bin, trash can, dustbin",
        "cellar, basement", "cupboard, cabinet", "telly, tv", "remote, remote control", "doughnut, donut",
        "person, pedestrian, human, people, anybody, anyone, somebody, someone, who, individual",
    )
)  # fmt: skip
_KINDS = {
    "vehicle": ("car", "truck", "bus", "motorcycle", "van", "bicycle", "train"),
    "animal": ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    "bag": ("handbag", "backpack", "suitcase"),
    "person": ("man", "woman", "child", "boy", "girl"),
}
"""What a word means besides itself: a dog is an animal."""


def names_for(thing: Thing) -> tuple[list[str], list[str]]:
    """Names under which a bank may know a thing. The first list is what was said, in other words; the second is wider
    than that: a detector's "person" for "man", the head alone for "coffee mug"."""
    words = [singular(word) for word in thing.words]
    said = list(dict.fromkeys([" ".join(thing.words), " ".join(words), *(_same(" ".join(words)))]))
    head = words[-1] if words else ""
    wide = _same(head) if len(words) > 1 else []
    if head in PEOPLE and head not in _SAME[-1]:
        wide = [*wide, *sorted(_SAME[-1] - ANYBODY)]
    for name in list(said):
        said += _KINDS.get(name, ())
    return list(dict.fromkeys(name for name in said if name)), [n for n in dict.fromkeys(wide) if n not in said]


def _same(name: str) -> list[str]:
    group = next((sorted(group) for group in _SAME if name in group), [])
    more = [kind for one in (name, *group) for kind in _KINDS.get(one, ())]
    return [each for each in dict.fromkeys([name, *group, *more]) if each not in ANYBODY]
