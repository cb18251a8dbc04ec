"""A question, cleaned and taken apart: what is asked for, in which words, and which signals could know.

Nothing here decides an answer; it only says where to look. The input is a person's text: control characters are
removed, the length is capped, and no part of it is ever interpreted as a command.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from streammem.colours import TERMS
from streammem.errors import QueryError

# Words that carry no content in a question about a video. Prepositions are kept out of `words` but stay in `phrase`,
# because the text encoder reads "a dog on a boat" better than "dog boat".
_STOP = frozenset(
    """a an the of in on at to for from by with and or is are was were be been being do does did done has have had
    there here this that these those it its their his her our your my when where what which who whom whose why how
    many much long often first last time times moment moments scene part video film clip frame frames see seen show
    shown shows showing appear appears appeared visible look looks looking find any some someone something anything
    anywhere somewhere ever i you we they he she can could will would should me us them into onto over under up down
    out as if then than so no not only just also very while during before after about say says said happen happens
    camera picture image screen please tell give kind type sort get gets go goes going come comes being""".split()
)

PEOPLE = frozenset(
    """person people man men woman women boy boys girl girls child children kid kids human humans someone somebody
    anyone anybody face faces pedestrian pedestrians guy guys lady ladies crowd worker workers baby toddler adult
    adults cyclist cyclists rider riders driver dancer dancers player players passenger customer visitor""".split()
)

COLOURS = frozenset(TERMS)
COLOUR_ALIASES = {"grey": "gray", "violet": "purple", "golden": "yellow", "silver": "gray", "beige": "brown"}

_WANTS_TEXT = re.compile(
    r"\b(text|word|words|written|writing|letters?|sign|signs|says|said|say|caption|title|titles|logo|label(?:led|ed)?"
    r"|subtitle|credits?|reads?|printed|spelled|number ?plate|licen[cs]e plate|name on)\b",
    re.IGNORECASE,
)
_WANTS_SPEECH = re.compile(
    r"\b(speak|speaks|spoke|spoken|talk|talks|talked|say|says|said|mention|mentions|mentioned|hear|heard|voice|"
    r"tell|told|ask|asks|asked|sentence)\b",
    re.IGNORECASE,
)
_TEXT_NOUNS = frozenset("text word words letter letters sign signs logo title titles caption".split())
_ASKS_WORDS = re.compile(
    r"^\s*what\b.*\b(say|says|said|reads?|written|text|words?|titles?|printed|called|spell(?:s|ed)?)\b", re.IGNORECASE
)
_QUOTED = re.compile(r"[\"“”«»]([^\"“”«»]{1,200})[\"“”«»]|(?<!\w)'([^']{2,200})'(?!\w)")

# Frames of a question around its content: "when does X", "is there a X", "show me X", "what time is X visible".
_AUX = r"(?:do|does|did|is|are|was|were|has|have|had|can|could|will|would)\b"
_FRAME = re.compile(
    r"^\s*(?:please\s+)?(?:"
    r"(?:can|could|do|did|will)\s+you\s+(?:see|find|show(?:\s+me)?|tell\s+me|remember)\b|"
    r"(?:show|find|give|get|tell)\b(?:\s+me\b)?(?:\s+(?:when|where|every|the\s+moments?\s+(?:when|where|with)))?|"
    rf"(?:at\s+)?(?:when|where|what\s+time|which\s+(?:moment|part|scene))\b(?:\s+{_AUX})?(?:\s+(?:we|you|i|one)\s+see\b)?|"
    rf"how\s+(?:many|often|long)\b(?:\s+times\b)?(?:\s+{_AUX})?|"
    r"(?:is|are|was|were)\s+there\b(?:\s+ever\b)?(?:\s+any\b|\s+a\s+moment\s+(?:when|where|with)\b)?|"
    rf"{_AUX}\s+(?:we|you|i|one|the\s+(?:camera|robot|video))\s+(?:ever\s+)?(?:see|show)\b|"
    rf"(?:who|what)\b(?:\s+{_AUX})?|"
    rf"{_AUX}"
    r")\s+",
    re.IGNORECASE,
)
# "where does it say PEACH": what is left of the frame after "where does".
_SAYS = re.compile(r"^(?:it|this|that|anything|something)\s+(?:says?|reads?)\s+", re.IGNORECASE)
_TAIL = re.compile(
    r"\s+(?:(?:in|on|at|during|of)\s+(?:the|this|that)\s+(?:video|film|clip|movie|recording|scene|picture|image|footage|stream)|"
    r"(?:be\s+)?(?:visible|seen|shown|appear(?:s|ing)?|present|on\s+screen|in\s+view|happen(?:s|ing)?))\s*$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Query:
    """``phrase`` is the content for the embedding space, ``words`` its content words (lower case, NFKC), ``quoted``
    what stood between quotation marks. ``people``, ``colours``, ``wants_text``, ``wants_speech`` say which signals
    could know."""

    raw: str
    phrase: str
    words: tuple[str, ...]
    quoted: tuple[str, ...]
    colours: tuple[str, ...]
    people: bool
    wants_text: bool
    wants_speech: bool
    asks_words: bool
    """The words themselves are asked for ("what does the sign say?"): any text there is an answer."""


def clean(text: str) -> str:
    """NFKC, control and format characters (bidirectional overrides, zero widths) removed, white space folded."""
    kept = "".join(
        " " if c in "\t\n\r\v\f\u2028\u2029" else c
        for c in unicodedata.normalize("NFKC", text)
        if c in "\t\n\r\v\f" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    )
    return " ".join(kept.split())


def fold(text: str) -> str:
    """Lower case, without accents: what words are compared by."""
    plain = unicodedata.normalize("NFKD", clean(text).casefold())
    return "".join(c for c in plain if not unicodedata.combining(c))


def tokens(text: str) -> list[str]:
    """Words and numbers of a text, folded. Scripts without spaces come as one token a run."""
    return re.findall(r"[^\W_]+", fold(text), re.UNICODE)


def content_phrase(text: str) -> str:
    """The question without its frame: "When does the man sit down?" -> "the man sit down"."""
    phrase = text.strip(" ?!.,;:¿¡")
    stripped = _FRAME.sub("", phrase, count=1)
    stripped = _SAYS.sub("", _TAIL.sub("", stripped))
    # A frame that swallowed everything ("who is there?") was the content after all.
    return stripped if any(t not in _STOP for t in tokens(stripped)) else phrase


def content_words(text: str) -> list[str]:
    """The words of a text that say what is looked for; empty for "what happens?"."""
    return [t for t in tokens(text) if t not in _STOP and (len(t) > 1 or t.isdigit())]


def parse_query(raw: str, *, limit: int = 2000) -> Query:
    """Take a question apart. Raises QueryError when it is empty or longer than ``limit`` characters."""
    if len(raw) > limit:
        raise QueryError(
            f"the question has {len(raw)} characters, at most {limit} are read", hint="ask for one thing at a time"
        )
    text = clean(raw)
    if not any(c.isalnum() for c in text):
        what = "is empty" if not text else "has no words"
        raise QueryError(f"the question {what}", hint='write what to look for, for example "a red car"')
    quoted = tuple(a or b for a, b in _QUOTED.findall(text))
    all_tokens = tokens(text)
    phrase = content_phrase(text)
    words = tuple(dict.fromkeys(t for t in tokens(phrase) if t not in _STOP and (len(t) > 1 or t.isdigit())))
    # "the TAXI sign" asks for the letters T A X I, not for the letters S I G N.
    words = tuple(w for w in words if w not in _TEXT_NOUNS) or words
    colours = tuple(dict.fromkeys(COLOUR_ALIASES.get(t, t) for t in all_tokens if COLOUR_ALIASES.get(t, t) in COLOURS))
    return Query(
        raw=text,
        phrase=phrase,
        words=words or tuple(t for t in all_tokens if t not in _STOP) or tuple(all_tokens),
        quoted=quoted,
        colours=colours,
        people=any(t in PEOPLE for t in all_tokens) or bool(re.match(r"\s*who\b", text, re.IGNORECASE)),
        wants_text=bool(quoted) or bool(_WANTS_TEXT.search(text)),
        wants_speech=bool(_WANTS_SPEECH.search(text)),
        asks_words=bool(_ASKS_WORDS.search(text)) and not quoted,
    )
