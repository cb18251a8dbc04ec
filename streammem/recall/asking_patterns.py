"""The wordings of questions for the banks: patterns over lower-case words, each for one shape.

A pattern names things ``x``, ``y`` (``a``, ``b`` for the start of a way) and places ``to``. The first that fits, and
whose things are names of things, decides; so what is specific stands before what is general.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

Shape = Literal[
    "appear", "leave", "back", "seen", "stay", "gone", "often", "count", "most", "where", "last", "near", "changed",
    "route", "first", "final", "which", "names", "still", "during", "together", "room", "happened",
]  # fmt: skip

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
_LOSE = r"(?:lose|lost|stop(?:ped)? seeing|no longer see|not see any ?more)"
_GONE = r"(?:gone|away|missing|absent|lost|hidden|out of (?:view|sight)|not (?:there|visible|seen))"
_MOVE = r"(?:mov(?:e|es|ed)|been moved|chang(?:e|es|ed)(?: place)?)"
_LONG = r"(?:for )?how (?:long|much time|many (?:seconds|minutes|hours))"
_MANY = r"(?:how (?:often|many times|frequently)|the number of times)"
_NUMBER = (
    r"(?:how many|count(?: up)?(?: all)?(?: the)?|(?:what is |what was )?the (?:number|count) of|"
    r"(?:total )?(?:number|count) of|the total (?:number|count) of)"
)
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
_NUMBER_OF = "how for count the number total at what which maximum largest highest peak most record"
_DO = "take bring lead guide navigate can could find locate show give get"
_AUX_FIRST = "do does did is are was were has have had will would can could"
_ANY = f"{_WHO} where show find give the a shortest best way route path list name"
"""First words of a question, by which its patterns are chosen: the others aren't even compiled (0.4 ms each)."""


def _p(opens: str, shape: Shape, pattern: str, event: str = "appear") -> tuple[frozenset[str], Shape, str, str]:
    return frozenset(opens.split()), shape, f"^{pattern}$", event


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_FILM = (
    r"(?:(?:in|of|during) )?(?:the |this |that )?(?:whole |entire )?"
    r"(?:video|clip|film|movie|recording|footage|stream|scene|memory)"
)
_HAPPEN = r"(?:happen(?:s|ed|ing)?|going on|go(?:es)? on|went on|t(?:akes?|ook) place|occur(?:s|red)?)"
_THEN = r"(?: there| here| now| right now| currently| at the moment)?"

PATTERNS = (
    # nothing in particular, before everything that names a thing
    _p(
        "what",
        "happened",
        rf"what(?: else)?(?: is| was| has| did| does)?(?: been)? {_HAPPEN}{_THEN}(?: {_FILM})?{_THEN}",
    ),
    _p("what", "happened", rf"what (?:is|was) (?:(?:this|that|it)|{_FILM}) about"),
    _p("what", "happened", rf"what (?:do|did|can|could) {_YOU} {_SEE}{_THEN}(?: {_FILM})?"),
    _p("what", "happened", r"what (?:did|have) (?:i|we) miss(?:ed)?"),
    _p(
        "describe summarize summarise",
        "happened",
        rf"(?:describe|summari[sz]e)(?: (?:it|everything|what (?:{_HAPPEN}|you (?:see|saw))|{_FILM}))?",
    ),
    _p(
        "give write show a an the",
        "happened",
        r"(?:(?:give|write|show)(?: me)? )?(?:an?|the) (?:short |brief )?(?:summary|overview|description)"
        rf"(?: {_FILM}| of it| of what {_HAPPEN})?",
    ),
    _p(
        "did has is",
        "happened",
        rf"(?:did|has|is) (?:anything|something)(?: interesting| new)? {_HAPPEN}(?: there| here)?(?: {_FILM})?",
    ),
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
    _p(
        "directions route way",
        "route",
        rf"(?:directions|route|way){_FROM} (?:to|into|for) (?P<to>.+?)(?: from (?P<b>.+))?",
    ),
    _p(_NUMBER_OF, "route", rf"how (?:to|(?:do|can|could) {_YOU}) (?:reach|find) (?P<to>.+?)(?: from (?P<b>.+))?"),
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
        f"{_AUX_FIRST} anything something things",
        "changed",
        r"(?:(?:did|has|have|is|was) )?(?:anything|something|things|any thing)(?: been)? (?:chang(?:e|ed)|"
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
        r"(?:at most |(?:what|which) (?:is|was) )?(?:the )?(?:maximum|largest|highest|greatest|peak|"
        rf"biggest)(?: number| count)? of (?P<x>.+?){_TAIL}(?: {_ONCE})?",
    ),
    _p(_NUMBER_OF, "most", rf"(?:what (?:is|was) )?(?:the )?(?:most|record) (?P<x>.+?){_TAIL} {_ONCE}"),
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
    _p(_NUMBER_OF, "gone", rf"{_LONG}(?: {_AUX})? (?:nobody|no one|no-one) {_SEE} (?P<x>.+?)"),
    _p(_NUMBER_OF, "gone", rf"{_LONG}(?: {_AUX})? {_YOU} not {_SEE} (?P<x>.+?)"),
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
    _p(_TIME, "leave", rf"{_WHEN} {_YOU} {_LOSE} (?:sight of )?(?P<x>.+?)"),
    _p("until till", "leave", rf"(?:until|till) when(?: {_AUX})? (?P<x>.+?) (?:{_SEEN}|{_STAY})"),
    _p("since", "appear", rf"since when(?: {_AUX})? (?P<x>.+?) (?:{_SEEN}|{_STAY})"),
    _p(_TIME, "together", rf"{_WHEN} (?P<x>.+?) and (?P<y>.+?) (?:{_ONCE}|meet|met)"),
    _p(_TIME, "leave", rf"{_WHEN} (?P<x>.+?) {_LEAVE}"),
    _p(_AUX_FIRST, "leave", rf"(?:did|has|have|does) (?P<x>.+?) (?:ever |already )?{_LEAVE}(?: yet| already)?"),
    _p(_AUX_FIRST, "appear", rf"(?:did|has|have|does) (?P<x>.+?) (?:ever |already )?{_APPEAR}(?: yet| already)?"),
    _p(_TIME, "appear", rf"{_WHEN} {_YOU} first {_SEE} (?P<x>.+?)"),
    _p(_TIME, "appear", rf"{_WHEN} (?P<x>.+?) {_APPEAR}"),
    _p(_TIME, "seen", rf"{_WHEN}(?: there| {_YOU} {_SEE}) (?P<x>.+?)"),
    _p(_TIME, "seen", rf"{_WHEN} (?P<x>.+?) {_SEEN}"),
    _p(
        f"{_WHO_ANY} is",
        "near",
        rf"(?:is there )?{_SOME}(?: is| was| were| are| lies| lay| stands| stood)?(?: there)? {_NEAR} (?P<x>.+)",
    ),
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
    _p(_DO, "where", r"locate (?P<x>.+?)"),
    _p(
        "i we",
        "where",
        r"(?:i|we) (?:can't|cannot|can not|couldn't|could not|don't|do not) "
        r"(?:find|see|locate) (?P<x>.+?)(?: anywhere| any more)?",
    ),
    _p("i we", "where", r"(?:i am|i'm|we are) (?:looking|searching) for (?P<x>.+?)"),
    _p("i we", "where", r"(?:i|we) (?:lost|misplaced|forgot|need) (?P<x>(?:my|our|the) .+?)"),
    _p("whereabouts the location", "where", r"(?:the )?(?:whereabouts|location|position) of (?P<x>.+?)"),
    _p(_WHO, "last", r"what (?:has )?(?:happened|became|become) (?:to|of) (?P<x>.+?)"),
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
    _p("all every", "which", r"(?P<x>(?:all|every) .+)"),
    _p(_AUX_FIRST, "which", r"(?:is|are|was|were) there(?: ever)? (?P<y>.+)"),
    _p(_AUX_FIRST, "which", rf"(?:did|have|do|has|can|could) {_YOU}(?: ever)? {_SEE} (?P<y>.+)"),
)
