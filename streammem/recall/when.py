"""Time expressions in a question: found, read on the stream's clock, and taken out of it.

Civil words ("yesterday", "last Tuesday") count days of the zone, which have 23, 24 or 25 hours. A time that its zone
skips or repeats is not guessed: it is left in the question and noted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Literal

from streammem.clock import NS, StreamClock, parse_time
from streammem.errors import TimeSyntaxError
from streammem.recall.query import tokens

Relation = Literal["before", "after", "while", "between"]


@dataclass(frozen=True, slots=True)
class Range:
    """A closed stretch of capture time that the question names; ``why`` are its words."""

    t_start_ns: int
    t_end_ns: int
    why: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """A time given by an event that has to be found first: ``before`` "the man sits down"."""

    relation: Relation
    event: str
    until: str = ""
    """The second event of "between A and B"."""


_NUMBERS = {
    name: number
    for number, name in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split()
    )
} | {"a": 1, "an": 1, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "couple of": 2, "few": 3, "half an": 0}
_ORDINALS = {
    name: number
    for number, name in enumerate("first second third fourth fifth sixth seventh eighth ninth tenth".split(), 1)
} | {"last": -1, "final": -1, "1st": 1, "2nd": 2, "3rd": 3, "4th": 4, "5th": 5}
_UNIT_NS = {"second": NS, "sec": NS, "minute": 60 * NS, "min": 60 * NS, "hour": 3600 * NS}
_HOURS = {"morning": (5, 12), "afternoon": (12, 18), "evening": (17, 23), "night": (20, 30)}
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()

_N = (
    r"(?P<n>\d+(?:\.\d+)?|half an|a couple of|couple of|a few|few|an?|"
    + "|".join(name for name in _NUMBERS if name.isalpha() and len(name) > 2 and name != "few")
    + r")"
)
_UNIT = r"(?P<unit>seconds?|secs?|minutes?|mins?|hours?|days?|weeks?)"
_T = r"(?:\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:?\d{2})?)?|\d{1,2}:\d{2}(?::\d{2})?(?:\.\d+)?)"

_HALF = r"(?:\s?(?P<{}>[ap])\.?m\.?)?"
_DAY = r"(?P<day>" + "|".join(_DAYS) + ")"
_WHOLE = r"(?:\s+of\s+the\s+(?:video|film|clip|recording|stream|day))?"


def _compiled(*patterns: tuple[str, str]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in patterns)


_PATTERNS = _compiled(
    (
        "between",
        rf"\b(?:between|from)\s+(?P<a>{_T}){_HALF.format('pa')}\s+(?:and|to|until)\s+(?P<b>{_T}){_HALF.format('pb')}",
    ),
    ("ago", rf"\b(?:about\s+|around\s+)?{_N}\s+{_UNIT}\s+ago\b"),
    ("recent", rf"\b(?:in|during|over|within)\s+the\s+(?P<side>last|past|first|next)\s+(?:{_N}\s+)?{_UNIT}\b"),
    ("recent", rf"\bthe\s+(?P<side>last|past|first)\s+{_N}\s+{_UNIT}\b"),
    ("day", rf"\b(?:on\s+)?(?:(?P<which>last|this)\s+)?{_DAY}(?:\s+(?P<part>morning|afternoon|evening|night))?\b"),
    ("near", r"\b(?P<near>today|yesterday|tonight|this morning|this afternoon|this evening|last night)\b"),
    ("week", r"\b(?P<which>this|last)\s+week\b"),
    ("edge", rf"\b(?P<side>before|after|since|until)\s+(?P<a>{_T}){_HALF.format('pa')}(?![\d:])"),
    ("at", rf"\b(?:at|around|about)\s+(?P<a>{_T}){_HALF.format('pa')}(?![\d:])"),
    ("minute", r"\b(?:at|in)\s+(?:minute|second)\s+(?P<m>\d+)\b"),
    ("part", rf"\b(?:at|in|near|towards?)\s+the\s+(?P<part>(?:very\s+)?(?:beginning|start)|middle|end)\b{_WHOLE}"),
)
_STOP = r"(?=[?.!,]|$)"
_EVENTS = _compiled(
    ("between", rf"\bbetween\s+(?P<a>(?:the|a|an|when)\s.+?)\s+and\s+(?P<b>(?:the|a|an|when)\s.+?){_STOP}"),
    ("before", rf"\b(?:right\s+|just\s+|shortly\s+)?before\s+(?P<a>(?!now\b).+?){_STOP}"),
    ("after", rf"\b(?:right\s+|just\s+|shortly\s+)?after\s+(?P<a>(?!all\b).+?){_STOP}"),
    ("while", rf"\b(?:while|during|as)\s+(?P<a>(?:the|a|an|he|she|it|they)\s.+?){_STOP}"),
)
# "the second time", "for the first time", "last appear": never "10 seconds", never "at last", whole words only
# (VideoLucy's code tests substrings: "second" hits "seconds", "last" hits "plastic").
_ORDINAL = re.compile(
    r"\b(?:for\s+the\s+|the\s+)?(?P<o>" + "|".join(_ORDINALS) + r")\s+(?:time|occurrence|appearance|one|moment)\b"
    r"|\b(?P<l>first|last)\s+(?:seen|see|appears?|appeared|visible|shown|there|happens?|happened|saw|spotted)\b",
    re.IGNORECASE,
)


def without_times(text: str) -> tuple[str, bool]:
    """The text without its time expressions, and whether it had one. Ordinals and events stay: "first", "before X"."""
    rest = text
    for _, pattern in _PATTERNS:
        rest = pattern.sub(" ", rest)
    return rest, rest != text


class WhenReader:
    """Takes time expressions out of a text, left to right of what it knows best."""

    def __init__(
        self, text: str, clock: StreamClock, now: int | None, lo: int | None, hi: int | None, zone: tzinfo
    ) -> None:
        self.rest = text
        self.clock: StreamClock = clock
        self.now, self.lo, self.hi, self.zone = now, lo, hi, zone
        self.ranges: list[Range] = []
        self.anchor: Anchor | None = None
        self.ordinal: int | None = None
        self.notes: list[str] = []

    def read(self) -> None:
        for name, pattern in _PATTERNS:
            match = pattern.search(self.rest)
            if match is None:
                continue
            try:
                found = getattr(self, f"_{name}")(match)
            except (TimeSyntaxError, OverflowError, ValueError) as error:
                self.notes.append(f"“{match[0].strip()}” wasn't used: {error}")
                found = None
            if found is not None:
                self.ranges.append(Range(min(found), max(found), match[0].strip()))
                self._cut(match)
        match = _ORDINAL.search(self.rest)
        if match is not None:
            self.ordinal = _ORDINALS[(match["o"] or match["l"]).lower()]
            if match["o"]:
                self._cut(match)
        if self.ranges:
            return
        for relation, pattern in _EVENTS:
            match = pattern.search(self.rest)
            if match is not None and len(tokens(match["a"])) > 0:
                until = match["b"].strip() if relation == "between" else ""
                self.anchor = Anchor(relation, match["a"].strip(), until)  # type: ignore[arg-type]
                self._cut(match)
                return

    def _cut(self, match: re.Match[str]) -> None:
        self.rest = f"{self.rest[: match.start()]} {self.rest[match.end() :]}"

    def _present(self) -> int:
        if self.now is None:
            raise TimeSyntaxError("it needs a present, and nothing is remembered")
        return self.now

    def _number(self, text: str) -> float:
        word = re.sub(r"^a\s+(?=couple|few)", "", text.lower())
        if word == "half an":
            return 0.5
        return float(_NUMBERS[word]) if word in _NUMBERS else float(word)

    def _length(self, number: str | None, unit: str) -> int:
        name = unit.lower().rstrip("s")
        count = self._number(number) if number else 1.0
        return round(count * {"day": 86_400 * NS, "week": 604_800 * NS, **_UNIT_NS}[name])

    def _ago(self, match: re.Match[str]) -> tuple[int, int]:
        """An instant with a margin of a fifth of the distance, at least five seconds: nobody means it to the second."""
        length = self._length(match["n"], match["unit"])
        if match["unit"].lower().rstrip("s") in ("day", "week") and self.clock == "wall":
            return self._civil_day(-round(length / (86_400 * NS)))
        at = self._present() - length
        margin = max(length // 5, 5 * NS)
        return at - margin, min(at + margin, self._present())

    def _recent(self, match: re.Match[str]) -> tuple[int, int]:
        length = self._length(match.group("n"), match["unit"])
        if match["side"].lower() == "first":
            start = self.lo if self.lo is not None else 0
            return start, start + length
        if match["side"].lower() == "next":
            return self._present() + 1, self._present() + length
        return self._present() - length, self._present()

    def _time(self, text: str, half: str | None, edge: Literal["start", "end"] = "start") -> int:
        if half and ":" in text and "-" not in text:
            hour, _, rest = text.partition(":")
            if not 1 <= int(hour) <= 12:
                raise TimeSyntaxError(f"{text} {half}m isn't a time of day")
            text = f"{int(hour) % 12 + (12 if half.lower() == 'p' else 0):02d}:{rest}"
        return parse_time(text, now_ns=self.now, clock=self.clock, zone=self.zone, edge=edge)

    def _between(self, match: re.Match[str]) -> tuple[int, int]:
        # "between 2:10 and 3:00 pm": the half of the day that is said once holds for both.
        a, b = match["pa"] or match["pb"], match["pb"]
        lo, hi = self._time(match["a"], a), self._time(match["b"], b, "end")
        return lo, hi

    def _edge(self, match: re.Match[str]) -> tuple[int, int]:
        at = self._time(match["a"], match["pa"])
        if match["side"].lower() in ("before", "until"):
            return min(self.lo if self.lo is not None else at, at), at
        return at, max(self._present(), at)

    def _at(self, match: re.Match[str]) -> tuple[int, int]:
        at = self._time(match["a"], match["pa"])
        # A time that is told without seconds means its minute on a wall clock.
        exact = self.clock == "media" or match["a"].count(":") == 2
        return (at - 5 * NS, at + 5 * NS) if exact else (at - 60 * NS, at + 120 * NS)

    def _minute(self, match: re.Match[str]) -> tuple[int, int] | None:
        if self.clock != "media":
            return None
        unit = 60 * NS if "minute" in match[0].lower() else NS
        start = int(match["m"]) * unit
        return (start, start + unit) if unit > NS else (start - 2 * NS, start + 2 * NS)

    def _part(self, match: re.Match[str]) -> tuple[int, int] | None:
        if self.lo is None or self.hi is None:
            return None
        third = (self.hi - self.lo) // 3
        part = match["part"].lower().split()[-1]
        if part in ("beginning", "start"):
            return self.lo, self.lo + third
        return (self.hi - third, self.hi) if part == "end" else (self.lo + third, self.hi - third)

    # civil time: days are as long as the zone makes them (23, 24 or 25 hours)

    def _midnight(self, day: datetime) -> int:
        civil = day.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        return int(civil.timestamp()) * NS

    def _civil(self) -> datetime:
        if self.clock != "wall":
            raise TimeSyntaxError("this stream's clock starts at zero and has no days")
        return datetime.fromtimestamp(self._present() // NS, tz=self.zone)

    def _civil_day(self, shift: int, first: int = 0, last: int = 24) -> tuple[int, int]:
        day = self._civil().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=shift)
        if (first, last) == (0, 24):
            return self._midnight(day), self._midnight(day + timedelta(days=1)) - 1
        end = day + timedelta(days=last // 24)
        return int(day.replace(hour=first).timestamp()) * NS, int(end.replace(hour=last % 24).timestamp()) * NS - 1

    def _day(self, match: re.Match[str]) -> tuple[int, int]:
        """The most recent such day; "last Tuesday" on a Tuesday is a week ago, "Tuesday" is today."""
        today = self._civil().weekday()
        back = (today - _DAYS.index(match["day"].lower())) % 7
        if back == 0 and (match["which"] or "").lower() == "last":
            back = 7
        return self._civil_day(-back, *_HOURS.get((match["part"] or "").lower(), (0, 24)))

    def _near(self, match: re.Match[str]) -> tuple[int, int]:
        words = match["near"].lower()
        if words in ("today", "yesterday"):
            return self._civil_day(0 if words == "today" else -1)
        part = "night" if words in ("tonight", "last night") else words.split()[-1]
        return self._civil_day(-1 if words == "last night" else 0, *_HOURS[part])

    def _week(self, match: re.Match[str]) -> tuple[int, int]:
        monday = -self._civil().weekday() - (7 if match["which"].lower() == "last" else 0)
        return self._civil_day(monday)[0], self._civil_day(monday + 6)[1]
