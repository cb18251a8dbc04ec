"""What a question claims to be visible, taken apart by the two vocabularies: ImageNet's classes and COCO's kinds.

Every content word is one of: part of a *thing* that can be looked for; a colour; *soft*, a word that names no thing
("leaning", "wooden", "two") or qualifies one ("kitchen table"), which nothing here checks; or a thing that no
vocabulary knows ("grapes", "robot"). A question with a word of the last sort, or with a negation, claims something
that can't be checked at all: no evidence is given for it, so the answer stays ``unsure``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from perception.encoders import colours, vocabulary
from perception.encoders.vocabulary import singular

COCO = tuple(
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush".split(",")
)
"""The 80 kinds of things of the data set COCO, in its order: what a detector's labels are compared with."""

# What people call them besides; a kind of kinds ("animal") is any of its members.
_ALSO = {
    "person": "human somebody someone anybody anyone pedestrian",
    "bicycle": "bike cycle", "motorcycle": "motorbike moped", "airplane": "aeroplane plane jet", "truck": "lorry",
    "cat": "kitten kitty", "dog": "puppy doggy", "cow": "cattle", "sheep": "lamb", "horse": "pony",
    "backpack": "rucksack", "handbag": "purse", "tie": "necktie", "sports ball": "ball", "cup": "mug",
    "donut": "doughnut", "couch": "sofa settee", "dining table": "table", "tv": "television telly monitor screen",
    "laptop": "notebook", "cell phone": "phone cellphone smartphone mobile", "oven": "stove", "refrigerator": "fridge",
    "potted plant": "plant houseplant", "chair": "armchair", "remote": "remote control", "boat": "ship",
    "mouse": "computer mouse", "keyboard": "computer keyboard", "hair drier": "hairdryer",
}  # fmt: skip
_KINDS = {
    "animal": "bird cat dog horse sheep cow elephant bear zebra giraffe",
    "vehicle": "bicycle car motorcycle airplane bus train truck boat",
    "fruit": "banana apple orange",
    "furniture": "chair couch bed dining_table bench",
}
_PERSON = (COCO.index("person"),)
_OF_PERSON = frozenset(
    """man woman boy girl child kid lady guy worker baby toddler adult cyclist rider driver dancer player passenger
    customer visitor crowd""".split()
)
"""A detector sees that somebody is there, not who: such a word also counts as one that isn't checked."""
# "A road with no cars" isn't shown by a car, nor "the bottle is missing" by a bottle.
_NEGATIONS = frozenset(
    "no not without never nobody nothing none neither nor except missing gone absent empty disappear vanish".split()
)
# Words that ask or measure nothing that could be wrong: they need no check.
_FREE = frozenset(
    """small big large little tiny huge some any another one single lot bunch couple whole nice old new bit pair few
    several can be ever visible seen show shown see picture appear time moment same view place past s""".split()
)
# What is written is read, not recognised: the signal `text` is for it.
_WRITTEN = frozenset("word letter sign title caption text writing subtitle poster label logo name".split())
_SHADES = frozenset("light dark bright pale".split())
_DETERMINERS = frozenset("a an the this that these those any some every each another his her its their my our".split())


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """A thing that a question names. ``classes`` (k,) int64 of ImageNet, ``kinds`` numbers of COCO; either may be
    empty, not both. Tokens ``first`` to ``last`` of the question are its name."""

    word: str
    classes: np.ndarray
    kinds: tuple[int, ...]
    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """``things`` all at once, in ``colours`` (numbers of the colour terms that are no part of a thing's name).
    ``soft``: content words that nothing checks. ``blind``: words that name a thing which no vocabulary knows, and
    negations."""

    things: tuple[Thing, ...]
    colours: tuple[int, ...] = ()
    soft: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()

    @property
    def negated(self) -> bool:
        return any(_any_form(word, _NEGATIONS) for word in self.blind)


def read_claim(phrase: str, function_words: frozenset[str]) -> Claim:
    """Take a question's content phrase apart."""
    tokens = vocabulary.split(phrase)
    asked = colours.asked(phrase)
    things = _things(tokens, asked)
    used = {position for thing in things for position in range(thing.first, thing.last + 1)}
    starts = {thing.first for thing in things}
    soft = [token for thing in things if (token := tokens[thing.last]) and singular(token) in _OF_PERSON]
    blind = []
    for position, token in enumerate(tokens):
        if position in used:
            continue
        if _any_form(token, _NEGATIONS) or singular(token) in _WRITTEN:
            blind.append(token)
        elif token in function_words or singular(token) in _FREE or colours.asked(token):
            continue
        elif token in _SHADES or _names_no_thing(token) or position + 1 in starts:
            soft.append(token)
        else:
            blind.append(token)
    rest = " ".join(token for position, token in enumerate(tokens) if position not in used)
    return Claim(things, colours.asked(rest), tuple(soft), tuple(blind))


def _things(tokens: list[str], asked: tuple[int, ...]) -> tuple[Thing, ...]:
    """Names and kinds that stand in the tokens word for word (singular or plural), longest first, no overlaps."""
    table = vocabulary.load()
    words = [singular(token) for token in tokens]
    found: list[Thing] = []
    used = [False] * len(words)
    for length in range(min(4, len(words)), 0, -1):
        for start in range(len(words) - length + 1):
            span = range(start, start + length)
            word = " ".join(words[i] for i in span)
            classes, kinds = table.classes_of(word), _coco_words().get(word, ())
            if kinds == _PERSON:
                # ImageNet's only people are a diver, a ball player and a groom: they say nothing of anybody else.
                classes = classes[:0]
            if (not len(classes) and not kinds) or any(used[i] for i in span):
                continue
            if length == 1 and _is_no_noun_here(tokens, start):
                continue
            found.append(Thing(word, _of_colour(classes, asked, table.names), kinds, start, start + length - 1))
            for i in span:
                used[i] = True
    return tuple(sorted(found, key=lambda thing: thing.first))


def _is_no_noun_here(tokens: list[str], at: int) -> bool:
    """ "Nuts and fruit fly" shows no fly: after a noun such a word is a verb. "An orange ring" shows no orange: before
    another word it is a colour."""
    token = tokens[at]
    if colours.asked(token):
        return at + 1 < len(tokens) and tokens[at + 1] not in _DETERMINERS | _PREPOSITIONS
    if at == 0 or token not in _other_words():
        return False
    before = tokens[at - 1]
    return not (before in _DETERMINERS | _PREPOSITIONS or colours.asked(before) or _names_no_thing(before))


_PREPOSITIONS = frozenset(
    "in on at to from by with and or of over under near into onto beside behind above below is are".split()
)


def _of_colour(classes: np.ndarray, asked: tuple[int, ...], names: tuple[str, ...]) -> np.ndarray:
    """A class whose name holds another colour than the asked one isn't meant: no black swan for "a white swan"."""
    if not asked:
        return classes
    kept = [c for c in classes if not (named := colours.asked(names[c])) or set(named) & set(asked)]
    return np.array(kept, dtype=np.int64)


def _names_no_thing(token: str) -> bool:
    return token.isdigit() or token.endswith("ly") or _any_form(token, _other_words())


def _any_form(token: str, words: frozenset[str]) -> bool:
    """Whether a form of the word is listed: "leaning", "holds", "stopped", "biggest"."""
    forms = {token, singular(token)}
    for ending in ("s", "es", "ed", "ing", "er", "est"):
        stem = token.removesuffix(ending)
        if stem != token and len(stem) > 1:
            forms |= {stem, stem + "e"}
            if len(stem) > 2 and stem[-1] == stem[-2]:
                forms.add(stem[:-1])
    return not forms.isdisjoint(words)


@cache
def _other_words() -> frozenset[str]:
    """English words that name no thing: ``data/other_words.txt``, made by ``tools/build_words.py``."""
    data = resources.files("perception.encoders") / "data" / "other_words.txt"
    return frozenset(data.read_text("ascii").split())


@cache
def _coco_words() -> dict[str, tuple[int, ...]]:
    """Kinds by singular word or phrase."""
    words: dict[str, tuple[int, ...]] = {}
    for number, name in enumerate(COCO):
        for word in (name, *_aliases(name)):
            words[" ".join(singular(token) for token in word.split())] = (number,)
    for word in _OF_PERSON:
        words[word] = _PERSON
    for word, members in _KINDS.items():
        words[word] = tuple(COCO.index(member.replace("_", " ")) for member in members.split())
    return words


def _aliases(name: str) -> list[str]:
    also = _ALSO.get(name, "")
    # An alias of two words is the only one of its kind.
    return [also] if also in ("remote control", "computer mouse", "computer keyboard") else also.split()
