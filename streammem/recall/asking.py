"""What a question asks of the structured banks, read from its words: a shape, and the things it is about.

"When did the man in the red jacket come back?" has the shape ``back`` and one thing: a man, red, jacket. Pure text
work: no bank, no model, no memory; 80 patterns, 0.1 ms. A question that fits no shape is None and is searched for as
before. Whether anything of that kind is known is ``facts.py``'s to say.

Questions of what is written, said or quoted are never read here: their answer is the words themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from streammem.recall.noun_phrases import Thing, thing_of
from streammem.recall.query import clean, fold
from streammem.recall.when import without_times

Shape = Literal[
    "appear", "leave", "back", "seen", "stay", "gone", "often", "count", "most", "where", "last", "near", "changed",
    "route", "first", "final", "which", "names", "still", "during", "together", "room",
]  # fmt: skip

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
    for opens, shape, pattern, event in _PATTERNS:
        match = _compiled(pattern).match(rest) if first in opens else None
        if match is None:
            continue
        asked = _asked(shape, match, event, timed)
        if asked is not None:
            return asked
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
    r"?(?=tell|show|find|list|count)|"
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
    return re.sub(r"\s(?:please|exactly|actually|then|today|so far|at all)$", "", text)


_AUX = r"(?:do|does|did|is|are|was|were|has|have|had|will|would|can|could)"
_WHEN = (
    r"(?:when|(?:at |around )?(?:what|which) (?:time|times|moment|moments|point|second|minute|hour)"
    rf"(?: in time)?)(?: (?:{_AUX}))?"
)
_YOU = r"(?:you|we|i|one|anyone|the camera|the robot)"
_SEE = r"(?:see|saw|seen|spot|spotted|notice|noticed|observe|observed|meet|met)"
_IN = (
    r"(?: (?:in|into|from|out of|of|on) (?:the |this )?(?:picture|view|video|scene|frame|camera|screen|room|image|"
    r"footage|clip|house|building|shot|street)| here| there| with us)?"
)
_IN_ONE = r"(?:(?:in|into) (?:the )?(?:picture|view|scene|frame|room)|(?:visible|present|there|here|around|in view))"
_APPEAR = (
    rf"(?:(?:first )?(?:appear(?:s|ed|ing)?|show(?:s|ed)? up|enter(?:s|ed)?(?: the \w+)?|arriv(?:e|es|ed)|"
    rf"c[oa]me(?:s)?(?: in| into view| along)?|turn(?:s|ed)? up|emerge(?:s|d)?|get here|got here)|"
    rf"(?:first|initially) (?:{_SEE}|there|visible)|{_SEE} (?:first|for the first time)){_IN}(?: "
    r"first| for the first time)?"
)
_LEAVE = (
    r"(?:(?:leave|leaves|left|disappear(?:s|ed)?|vanish(?:es|ed)?|depart(?:s|ed)?|exit(?:s|ed)?|"
    r"(?:go|goes|went|walk(?:s|ed)?|run|runs|ran|drive|drives|drove) (?:away|out|off|out of (?:view|sight))|"
    r"get lost|got lost|gone missing|go missing|went missing)(?: the \w+)?" + _IN + ")"
)
_BACK = (
    r"(?:(?:c[oa]me(?:s)?|g[eo]t(?:s)?|walk(?:s|ed)?|been|is|was|be|turn(?:ed)? up|go|went) back(?: again| in)?|"
    r"return(?:s|ed)?|re-?appear(?:s|ed)?|re-?enter(?:s|ed)?|(?:show(?:s|ed)? up|turn(?:s|ed)? up|appear(?:s|ed)?|"
    rf"(?:{_SEE}|there|visible|c[oa]me|found|back)(?: in)?) again|re-?found|back)" + _IN
)
_SEEN = (
    rf"(?:{_SEE}|{_IN_ONE}|on (?:the )?screen|pass(?:es|ed)?(?: by| through)?|(?:walk|drive|go|run|"
    r"ride)(?:s|ed)? (?:by|past)|"
    rf"(?:went|drove|came|ran|rode) (?:by|past))" + _IN
)
_STAY = (
    r"(?:stay(?:s|ed)?|remain(?:s|ed)?|last(?:s|ed)?|wait(?:s|ed)?|stand|stood|sit|sat|park(?:ed)"
    r"?|hang around|hung around|"
    r"linger(?:s|ed)?|keep still|spend|spent|be|been)"
)
_GONE = r"(?:gone|away|missing|absent|lost|hidden|out of (?:view|sight)|not (?:there|visible|seen))"
_MOVE = r"(?:mov(?:e|es|ed)|been moved|chang(?:e|es|ed)(?: place)?)"
_LONG = r"(?:for )?how (?:long|much time|many (?:seconds|minutes|hours))"
_MANY = r"(?:how (?:often|many times|frequently)|the number of times)"
_NUMBER = r"(?:how many|count(?: up)?(?: all)?(?: the)?|(?:what is |what was )?the (?:number|count) of|number of)"
_ALL = r"(?:different|distinct|separate|unique|individual)"
_TAIL = (
    rf"(?: (?:{_AUX}|you|we|i|ever|{_SEE}|there|here|visible|in|all|total|altogether|be|been|pass|"
    r"passed|past|by|went|"
    r"came|come|the|picture|video|room|scene|view|frame|appear|appeared|walked|walk|drove|show|"
    r"showed|up|track|tracked|"
    r"know|remember|count|mainly|involved|filmed|recorded|captured|that|film|clip|house|street|overall|go|around))*"
)
_ONCE = (
    r"(?:at once|at the same time|simultaneously|together|at (?:any )?one time|at a time|in parallel|at any (?:one )?"
    r"(?:time|moment)|all at once)"
)
_NEAR = r"(?:right |just )?(?:near|next to|close to|beside|besides|nearby|by|around|in the vicinity of|alongside)"
_SOME = (
    r"(?:who|what|(?:which|what) (?:things?|tracks?|objects?|persons?|people|ones?)|anything|"
    r"anybody|anyone|something|"
    r"which one)"
)
_FROM = r"(?:(?: it)? from (?P<a>.+?))?"


_WHO = "who what which"
_WHO_ANY = f"{_WHO} anything anybody anyone something"
_WHERE = "where in to which what"
_TIME = "when at around what which"
_NUMBER_OF = "how for count the number at what which maximum largest"
_DO = "take bring lead guide navigate can could find locate show give get"
_AUX_FIRST = "do does did is are was were has have had will would can could"
_ANY = f"{_WHO} where show find give the a shortest best way route path list name"
"""First words of a question, by which its patterns are chosen: the others aren't even compiled (0.4 ms each)."""


def _p(opens: str, shape: Shape, pattern: str, event: str = "appear") -> tuple[frozenset[str], Shape, str, str]:
    return frozenset(opens.split()), shape, f"^{pattern}$", event


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_PATTERNS = (
    # in order: which of two, routes and rooms before plain "where" and "what"
    _p(
        _WHO,
        "first",
        rf"(?:which|what|who)(?: one| of (?:them|these|the two))? {_APPEAR}(?: first)?,? (?P<x>.+?) or "
        r"(?P<y>.+)",
    ),
    _p(
        _AUX_FIRST,
        "first",
        rf"(?:{_AUX}) (?P<x>.+?) (?:{_APPEAR}|{_SEEN}) (?:before|earlier than) (?P<y>.+?)(?: (?:{_AUX}))?",
    ),
    _p(
        _AUX_FIRST,
        "final",
        rf"(?:{_AUX}) (?P<x>.+?) (?:{_APPEAR}|{_SEEN}) (?:after|later than) (?P<y>.+?)(?: (?:{_AUX}))?",
    ),
    _p(
        _AUX_FIRST,
        "first",
        rf"(?:{_AUX}) (?P<x>.+?) {_LEAVE} (?:before|earlier than) (?P<y>.+?)(?: (?:{_AUX}))?",
        "leave",
    ),
    _p(
        _WHO,
        "first",
        rf"(?P<who>who|what|which \w+|what \w+)(?: {_AUX})? (?:the )?first(?: one| person| thing)? to "
        rf"(?:{_APPEAR}|{_SEEN})",
    ),
    _p(
        _WHO,
        "first",
        rf"(?P<who>who|what|which \w+|what \w+)(?: {_AUX})? (?:the )?first(?: one| person| thing)? to "
        rf"{_LEAVE}",
        "leave",
    ),
    _p(
        _WHO,
        "final",
        rf"(?P<who>who|what|which \w+|what \w+)(?: {_AUX})? (?:the )?last(?: one| person| thing)? to "
        rf"{_LEAVE}",
        "leave",
    ),
    _p(
        _WHO,
        "final",
        rf"(?P<who>who|what|which \w+|what \w+)(?: {_AUX})? (?:the )?last(?: one| person| thing)? to "
        rf"(?:{_APPEAR}|{_SEEN})",
    ),
    _p(_WHO, "first", rf"(?P<who>who|what|which \w+|what \w+)(?: {_AUX})? (?:{_APPEAR}|{_SEEN}) first"),
    _p(_WHO, "first", rf"(?P<who>who|what|which \w+|what \w+)(?: {_AUX})? {_LEAVE} first", "leave"),
    _p(_WHO, "final", rf"(?P<who>who|what|which \w+|what \w+)(?: {_AUX})? {_LEAVE} last", "leave"),
    _p(_WHO, "final", rf"(?P<who>who|what|which \w+|what \w+)(?: {_AUX})? (?:{_APPEAR}|{_SEEN}) last"),
    _p(_WHO, "first", rf"(?P<who>who|what|which \w+|what \w+)(?: {_AUX})? {_APPEAR}(?<=first)"),
    _p(
        _NUMBER_OF,
        "route",
        rf"(?:how (?:do|can|could|would|should) {_YOU} (?:get|go|walk|drive|come)|how to get){_FROM} "
        r"(?:to|into) (?P<to>.+?)(?: from (?P<b>.+))?",
    ),
    _p(
        _ANY,
        "route",
        r"(?:(?:what|which|where) is |show (?:me )?|find (?:me )?|give me )?(?:the |a )?(?:shortest |"
        rf"best )?(?:way|route|path){_FROM} (?:to|into) (?P<to>.+?)(?: from (?P<b>.+))?",
    ),
    _p(_WHO, "route", rf"(?:which|what) way is it{_FROM} to (?P<to>.+)"),
    _p(_NUMBER_OF, "route", rf"how far is (?:it|the way){_FROM} to (?P<to>.+)"),
    _p(_DO, "route", r"(?:take|bring|lead|guide|navigate) (?:me |us )?to (?P<to>.+)"),
    _p(
        _WHO,
        "changed",
        r"(?:what|which things?|what things?)(?: is| has| have| was| were)?(?: been)? (?:chang(?:e|ed|"
        r"es)|different|new|mov(?:ed|es)|moved around|changed place)(?: here| there)?(?: since| from| "
        r"until)?",
    ),
    _p(
        _AUX_FIRST,
        "changed",
        r"(?:did|has|have|is|was) (?:anything|something|things|any thing)(?: been)? (?:chang(?:e|ed)|"
        r"different|new|mov(?:e|ed))(?: here| there)?(?: since| from)?",
    ),
    _p(
        _AUX_FIRST,
        "together",
        rf"(?:were|was|are|is|did|do)(?: {_YOU})?(?: ever)?(?: see| notice)? (?P<x>.+?) and (?P<y>.+?) "
        rf"(?:ever )?(?:{_IN_ONE} )?(?:{_ONCE}|meet|met)",
    ),
    _p(
        _NUMBER_OF,
        "most",
        r"(?:at most |(?:what|which) (?:is|was) )?(?:the )?(?:maximum|largest|highest|greatest|"
        rf"biggest)(?: number| count)? of (?P<x>.+?){_TAIL}(?: {_ONCE})?",
    ),
    _p(_NUMBER_OF, "most", rf"at (?:most|the most) how many (?P<x>.+?){_TAIL}(?: {_ONCE})?"),
    _p(_NUMBER_OF, "most", rf"{_NUMBER} (?P<x>.+?){_TAIL} {_ONCE}"),
    _p(_NUMBER_OF, "often", rf"{_MANY}(?: {_AUX})? (?P<x>.+?) {_BACK}", "back"),
    _p(_NUMBER_OF, "often", rf"{_MANY}(?: {_AUX})? (?P<x>.+?) {_LEAVE}", "leave"),
    _p(_NUMBER_OF, "often", rf"{_MANY}(?: {_AUX})? (?P<x>.+?) {_MOVE}", "move"),
    _p(_NUMBER_OF, "often", rf"{_MANY}(?: {_AUX})? {_YOU} {_SEE} (?P<x>.+?)"),
    _p(
        _NUMBER_OF, "often", rf"{_MANY}(?: {_AUX})? (?P<x>.+?) (?:{_APPEAR}|{_SEEN}|come by|came by|visit(?:ed)?|there)"
    ),
    _p(_NUMBER_OF, "gone", rf"{_LONG}(?: {_AUX})? (?P<x>.+?) {_GONE}{_IN}"),
    _p(_NUMBER_OF, "stay", rf"{_LONG}(?: {_AUX})? {_YOU} {_SEE} (?P<x>.+?)"),
    _p(_NUMBER_OF, "stay", rf"{_LONG}(?: {_AUX})? (?P<x>.+?) (?:{_STAY}(?: around)?{_IN}|(?:{_STAY} )?{_SEEN})"),
    _p(_NUMBER_OF, "count", rf"{_NUMBER}(?: {_ALL})? (?P<x>.+?){_TAIL}"),
    _p(_TIME, "back", rf"{_WHEN} (?P<x>.+?) {_BACK}"),
    _p(_AUX_FIRST, "back", rf"(?:did|has|have|does) (?P<x>.+?) (?:ever |since )?{_BACK}(?: since| yet)?"),
    _p(_TIME, "last", rf"{_WHEN} {_YOU} last {_SEE} (?P<x>.+?)"),
    _p(_TIME, "last", rf"{_WHEN} (?P<x>.+?) last (?:{_SEE}|{_IN_ONE}|appear(?:ed)?)"),
    _p(_TIME, "last", rf"{_WHEN} (?P<x>.+?) (?:{_SEE}|{_IN_ONE}) (?:last|for the last time)"),
    _p(_TIME, "last", rf"{_WHEN} the last time (?:that )?{_YOU} {_SEE} (?P<x>.+?)"),
    _p(_TIME, "last", rf"{_WHEN} the last time (?:that )?(?P<x>.+?) (?:{_AUX}) (?:{_SEE}|{_IN_ONE})"),
    _p(
        _WHO,
        "last",
        rf"(?:what is|what was) the last time (?:that )?(?:{_YOU} {_SEE} (?P<x>.+?)|(?P<y>.+?) "
        rf"(?:{_AUX}) (?:{_SEE}|{_IN_ONE}))",
    ),
    _p(_TIME, "leave", rf"{_WHEN} (?P<x>.+?) {_LEAVE}"),
    _p(_TIME, "appear", rf"{_WHEN} {_YOU} first {_SEE} (?P<x>.+?)"),
    _p(_TIME, "appear", rf"{_WHEN} (?P<x>.+?) {_APPEAR}"),
    _p(_TIME, "seen", rf"{_WHEN}(?: there| {_YOU} {_SEE}) (?P<x>.+?)"),
    _p(_TIME, "seen", rf"{_WHEN} (?P<x>.+?) {_SEEN}"),
    _p(_WHO_ANY, "near", rf"{_SOME}(?: is| was| were| are| lies| lay| stands| stood)?(?: there)? {_NEAR} (?P<x>.+)"),
    _p(
        _WHERE,
        "where",
        rf"(?:in |to )?(?:which|what) (?:room|place|part of the \w+)(?: {_AUX}) (?:{_YOU} (?:last )"
        rf"?{_SEE} )?(?P<x>.+?)(?: in| now| last| {_SEE})*",
    ),
    _p(
        _WHERE,
        "where",
        rf"where(?: {_AUX})? {_YOU} (?:last |see |have |had |to )*(?:leave|left|put|place|placed|lose|"
        rf"lost|forget|forgot|find|{_SEE}|get) (?P<x>.+?)(?: last)?",
    ),
    _p(
        _WHERE,
        "where",
        rf"where(?: {_AUX})? (?P<x>.+?)(?: (?:last|now|{_SEE}|be|been|go|gone|went|left|put|placed|are|"
        r"is|was|located|kept|lying))*",
    ),
    _p(
        _AUX_FIRST,
        "where",
        rf"(?:have|did) {_YOU} (?:seen|found|see) (?P<x>(?:my|our) .+?)(?: anywhere| somewhere| lately)?",
    ),
    _p(_DO, "where", r"(?:(?:can|could) you )?(?:find|locate) (?P<x>(?:my|our) .+?)"),
    _p(
        _AUX_FIRST,
        "still",
        rf"(?:is|are) (?P<x>.+?) still (?:{_IN_ONE}|(?:in|on|at|under|near) (?:the |my )?(?P<to>.+?))"
        r"(?: now)?",
    ),
    _p(
        _AUX_FIRST,
        "still",
        r"(?:is|are|has|have) (?P<x>.+?) (?:gone|left|away|missing|still there|there now|here now)(?: "
        r"now| already)?",
    ),
    _p(
        _ANY,
        "names",
        r"(?:(?:which|what) (?:tracks?|things|objects|entities)(?: (?:are|were|do|did|have))? "
        r"(?:there|known|you (?:know|follow(?:ed)?|track(?:ed)?|remember|see|seen)|tracked|followed)|"
        r"(?:list|show(?: me)?|name)(?: all)?(?: of)?(?: the)? (?:tracks|things|objects|entities))",
    ),
    _p(_WHO, "during", rf"(?P<who>who|what|which (?P<x>\w+)|what (?P<y>\w+)) (?:is|was|were|are) {_IN_ONE}"),
    _p(
        _WHO,
        "room",
        r"(?:what|(?:which|what) (?:things|objects))(?: (?:is|are|was|were|lies))?(?: (?:do|did|can|"
        rf"could) {_YOU} (?:see|find))?(?: there)? (?:in|inside) (?P<to>.+)",
    ),
    _p(_WHO, "which", r"(?:which|what) (?:track|object|thing|person|one) (?:is|was|are|were) (?P<x>.+)"),
    _p(
        _WHO,
        "which",
        r"(?P<x>(?:who|which person|which people)(?: (?:is|was|are|were))? (?:wear(?:s|ing)?|wore|"
        r"dressed|in) .+)",
    ),
    _p(_DO, "which", r"(?:show|find|give|get)(?: me)? (?P<x>.+)"),
    _p(_AUX_FIRST, "which", r"(?:is|are|was|were) there(?: ever)? (?P<y>.+)"),
    _p(_AUX_FIRST, "which", rf"(?:did|have|do|has|can|could) {_YOU}(?: ever)? {_SEE} (?P<y>.+)"),
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
