"""Time: int64 nanoseconds inside, words that people type outside.

A stream's clock is ``media`` (zero at the first frame of a file) or ``wall`` (nanoseconds since the Unix epoch, UTC).

    form            on a media clock           on a wall clock
    now             the stream's end           the present
    -10m, -1h30m    before now                 before now
    +5s             after now                  after now
    90, 1.5s, 2m    from the first frame       not allowed: from where?
    14:22.5         14 min 22.5 s              not allowed (14:22 is a time of day)
    00:14:22        14 min 22 s                that time of day, on the day of now
    2026-11-22...   not allowed                ISO-8601; a date alone is its midnight (or its end)

Wall times without a zone are read in ``zone``, which is UTC unless told: a recording is often looked at far from where
it was made. All arithmetic is on integers, so that nothing is rounded.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Literal, Protocol

from streammem.errors import TimeSyntaxError

StreamClock = Literal["media", "wall"]

NS = 1_000_000_000
MIN_NS = -(2**63)
MAX_NS = 2**63 - 1
# Longest time that is read. The longest sensible one, an ISO time with nanoseconds and an offset, has 35 characters.
LONGEST_TEXT = 64

UNITS = {
    "w": 604_800 * NS,
    "d": 86_400 * NS,
    "h": 3_600 * NS,
    "m": 60 * NS,
    "min": 60 * NS,
    "s": NS,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}

_EXAMPLES = {
    "media": "examples: 90, 1.5s, 14:22.5, 00:14:22, -10m, now",
    "wall": "examples: 2026-11-22T14:30:00Z, 2026-11-22T14:30:00.5+01:00, 2026-11-22, 14:30, -10m, now",
}

# [0-9] and not \d: digits of other scripts would pass \d and then mean something else to other readers of the text.
_PART = re.compile(r"([0-9]+)(?:\.([0-9]+))?(min|ms|us|ns|[wdhms])")
_NUMBER = re.compile(r"([0-9]+)(?:\.([0-9]+))?")
_CLOCK = re.compile(r"(-)?(?:([0-9]+):)?([0-9]{1,2}):([0-9]{2})(?:\.([0-9]+))?")
_DAYTIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?")
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?\s?([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
_EPOCH_DAY = date(1970, 1, 1).toordinal()


def parse_time(
    text: str,
    *,
    now_ns: int | None,
    clock: StreamClock = "wall",
    zone: tzinfo = UTC,
    edge: Literal["start", "end"] = "start",
) -> int:
    """A time that a person typed -> int64 ns on the stream's ``clock``.

    ``now_ns`` is the present on that clock (for a file: its end), or None where there is none. ``edge`` says which end
    of a range it is: a date alone is its first or its last nanosecond. Raises TimeSyntaxError, with examples."""
    words = text.strip().replace("\u2212", "-") if len(text) <= LONGEST_TEXT else ""
    if not words:
        raise _bad(text, clock, "is empty" if not text.strip() else "is too long for a time")
    if words.lower() == "now":
        return _within(_now(now_ns, text, clock), text, clock)
    sign = {"-": -1, "+": 1}.get(words[0])
    if ":" not in words and "-" not in words[1:]:
        length = _duration(words[1:] if sign else words, text, clock)
        if sign:
            return _within(_now(now_ns, text, clock) + sign * length, text, clock)
        if clock == "wall":
            raise _bad(text, clock, f"has no starting point on a wall clock (did you mean -{words}?)")
        return _within(length, text, clock)
    if clock == "media":
        return _within(_media(words, text), text, clock)
    return _within(_wall(words, text, now_ns, zone, edge), text, clock)


def parse_between(
    start: str, end: str, *, now_ns: int | None, clock: StreamClock = "wall", zone: tzinfo = UTC
) -> tuple[int, int]:
    """Two times -> a closed interval ``(t_start_ns, t_end_ns)``. Raises TimeSyntaxError where the end comes first."""
    lo = parse_time(start, now_ns=now_ns, clock=clock, zone=zone, edge="start")
    hi = parse_time(end, now_ns=now_ns, clock=clock, zone=zone, edge="end")
    if hi < lo:
        raise TimeSyntaxError(
            f"the range ends before it starts: {format_time(lo, clock)} to {format_time(hi, clock)}",
            hint="give the earlier time first",
        )
    return lo, hi


def parse_duration(text: str) -> int:
    """A length of time (``90``, ``1.5s``, ``1h30m``) -> ns, never negative. Raises TimeSyntaxError."""
    words = text.strip()
    if not words or len(text) > LONGEST_TEXT:
        raise _bad(text, "media", "isn't a length of time")
    return _within(_duration(words, text, "media"), text, "media")


def _now(now_ns: int | None, text: str, clock: StreamClock) -> int:
    if now_ns is None:
        raise _bad(text, clock, "needs a present, and this memory is empty")
    return now_ns


def _duration(words: str, text: str, clock: StreamClock) -> int:
    number = _NUMBER.fullmatch(words)
    if number:
        return _scaled(number[1], number[2], NS, text, clock)
    total, at, last = 0, 0, None
    while at < len(words):
        part = _PART.match(words, at)
        if part is None:
            raise _bad(text, clock, "isn't a time")
        unit = UNITS[part[3]]
        if last is not None and unit >= last:
            raise _bad(text, clock, "has its units out of order")
        total += _scaled(part[1], part[2], unit, text, clock)
        at, last = part.end(), unit
    return total


def _scaled(whole: str, fraction: str | None, unit: int, text: str, clock: StreamClock) -> int:
    digits = fraction or ""
    value, rest = divmod(int(whole + digits) * unit, 10 ** len(digits))
    if rest:
        raise _bad(text, clock, "is finer than a nanosecond")
    return value


def _media(words: str, text: str) -> int:
    match = _CLOCK.fullmatch(words)
    if match is None:
        if _ISO.fullmatch(words):
            raise _bad(text, "media", "is a date, but this stream's clock starts at zero with its first frame")
        raise _bad(text, "media", "isn't a time")
    hours, minutes, seconds = int(match[2] or 0), int(match[3]), int(match[4])
    if seconds > 59 or (match[2] is not None and minutes > 59):
        raise _bad(text, "media", "has more than 59 minutes or seconds")
    value = (hours * 3600 + minutes * 60) * NS + _scaled(match[4], match[5], NS, text, "media")
    return -value if match[1] else value


def _wall(words: str, text: str, now_ns: int | None, zone: tzinfo, edge: str) -> int:
    daytime = _DAYTIME.fullmatch(words)
    if daytime:
        now = datetime.fromtimestamp(_now(now_ns, text, "wall") // NS, tz=zone)
        return _local(
            now.year, now.month, now.day, int(daytime[1]), int(daytime[2]), daytime[3], daytime[4], text, zone
        )
    match = _ISO.fullmatch(words)
    if match is None:
        raise _bad(text, "wall", "isn't a time")
    year, month, day = int(match[1]), int(match[2]), int(match[3])
    if match[4] is None:
        start = _local(year, month, day, 0, 0, None, None, text, zone)
        if edge == "start":
            return start
        _within(start, text, "wall")
        following = _calendar(year, month, day, text) + timedelta(days=1)
        return _local(following.year, following.month, following.day, 0, 0, None, None, text, zone) - 1
    return _local(
        year, month, day, int(match[4]), int(match[5]), match[6], match[7], text, _offset(match[8], text) or zone
    )


def _offset(text: str | None, whole: str) -> tzinfo | None:
    if text is None:
        return None
    if text in "Zz":
        return UTC
    digits = text[1:].replace(":", "")
    hours, minutes = int(digits[:2]), int(digits[2:] or 0)
    if hours > 23 or minutes > 59:
        raise _bad(whole, "wall", "has an impossible offset")
    length = timedelta(hours=hours, minutes=minutes)
    return timezone(-length if text[0] == "-" else length)


def _calendar(year: int, month: int, day: int, text: str) -> date:
    try:
        return date(year, month, day)
    except ValueError:
        raise _bad(text, "wall", "isn't a day of the calendar") from None


def _local(
    year: int,
    month: int,
    day: int,
    hour: int,
    minute: int,
    second: str | None,
    fraction: str | None,
    text: str,
    zone: tzinfo,
) -> int:
    """A civil time in ``zone`` -> ns since the epoch. A time that the clocks skip or repeat is refused, not guessed."""
    days = _calendar(year, month, day, text).toordinal() - _EPOCH_DAY
    if hour > 23 or minute > 59 or int(second or 0) > 59:
        # Leap seconds too: Unix time has no number for them, so two instants would share one.
        raise _bad(text, "wall", "isn't a time of day")
    try:
        civil = datetime(year, month, day, hour, minute, int(second or 0))
        first, second_pass = civil.replace(tzinfo=zone).utcoffset(), civil.replace(tzinfo=zone, fold=1).utcoffset()
    except OverflowError:
        raise _bad(text, "wall", "is out of range") from None
    if first != second_pass:
        happens = "twice" if (first or timedelta()) > (second_pass or timedelta()) else "never"
        raise _bad(text, "wall", f"happens {happens} in {zone} because the clocks change: add the offset, as in +01:00")
    seconds = days * 86_400 + hour * 3600 + minute * 60
    shift = first or timedelta()
    shift_ns = (shift.days * 86_400 + shift.seconds) * NS + shift.microseconds * 1000
    return seconds * NS + _scaled(second or "0", fraction, NS, text, "wall") - shift_ns


def _within(value: int, text: str, clock: StreamClock) -> int:
    if not MIN_NS <= value <= MAX_NS:
        raise _bad(text, clock, "is out of range: times reach from the year 1677 to 2262")
    return value


def _bad(text: str, clock: StreamClock, what: str) -> TimeSyntaxError:
    shown = repr(text if len(text) <= LONGEST_TEXT else text[:32] + "...")
    return TimeSyntaxError(f"the time {shown} {what}", hint=_EXAMPLES[clock])


def format_time(t_ns: int, clock: StreamClock = "media", digits: int | None = None) -> str:
    """``00:14:22.5`` on a media clock, ``2026-11-22T14:30:00.5Z`` on a wall clock.

    ``digits`` of the second are shown (0 to 9, cut, not rounded, so that a time never moves to the next frame); None
    shows as many as it takes: then ``parse_time`` gives the same number back. Wall times are always UTC."""
    sign, t_ns = ("-", -t_ns) if clock == "media" and t_ns < 0 else ("", t_ns)
    seconds, rest = divmod(t_ns, NS)
    fraction = f"{rest:09d}"[:digits] if digits is not None else f"{rest:09d}".rstrip("0")
    tail = f".{fraction}" if fraction else ""
    days, second = divmod(seconds, 86_400)
    if clock == "wall":
        day = date.fromordinal(days + _EPOCH_DAY)
        return f"{day.isoformat()}T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}{tail}Z"
    return f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{tail}"


def format_range(t_start_ns: int, t_end_ns: int, clock: StreamClock = "media", digits: int = 0) -> str:
    """``00:00:04–00:00:06``; one time where both ends look the same; the day once on a wall clock."""
    start, end = format_time(t_start_ns, clock, digits), format_time(t_end_ns, clock, digits)
    if start == end:
        return start
    if clock == "wall" and start[:11] == end[:11]:
        return f"{start[:-1]}–{end[11:]}"
    return f"{start}–{end}"


def format_ranges(ranges: Sequence[tuple[int, int, StreamClock]]) -> list[str]:
    """:func:`format_range` for rows of one list: whole seconds, or tenths where two rows would look the same."""
    whole = [format_range(start, end, clock) for start, end, clock in ranges]
    return (
        whole if len(set(whole)) == len(whole) else [format_range(start, end, clock, 1) for start, end, clock in ranges]
    )


def format_duration(length_ns: int) -> str:
    """A length of time for people, to two figures of its two largest units: ``1h 12m``, ``4m 05s``, ``3.2 s``."""
    sign, length = ("-", -length_ns) if length_ns < 0 else ("", length_ns)
    if length < NS:
        return f"{sign}{length / 1e6:.0f} ms"
    if length < 60 * NS:
        return f"{sign}{length / NS:.1f} s" if length < 10 * NS else f"{sign}{length // NS} s"
    minutes, seconds = divmod(length // NS, 60)
    if minutes < 60:
        return f"{sign}{minutes}m {seconds:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}h {minutes:02d}m" if hours < 48 else f"{sign}{hours // 24}d {hours % 24}h"


def stamp_from_ns(t_ns: int) -> tuple[int, int]:
    """ns -> the ROS pair ``(sec, nanosec)``, ``0 <= nanosec < 1e9`` also for times before the epoch."""
    return divmod(t_ns, NS)


def ns_from_stamp(sec: int, nanosec: int) -> int:
    """The ROS pair -> ns. Raises TimeSyntaxError for a nanosec outside [0, 1e9) and for what int64 can't hold."""
    value = sec * NS + nanosec
    if not 0 <= nanosec < NS or not MIN_NS <= value <= MAX_NS:
        raise TimeSyntaxError(
            f"the stamp sec={sec} nanosec={nanosec} is out of range", hint="nanosec is at least 0 and below 1000000000"
        )
    return value


def stamp_text(t_ns: int) -> str:
    """``12.000000034``: seconds with nine digits. Joining sec and nanosec without the zeros would read as 12.34 s."""
    sign = "-" if t_ns < 0 else ""
    return f"{sign}{abs(t_ns) // NS}.{abs(t_ns) % NS:09d}"


def parse_stamp(text: str) -> int:
    """What :func:`stamp_text` wrote -> ns. Raises TimeSyntaxError unless there are exactly nine digits."""
    match = re.fullmatch(r"(-?)([0-9]{1,12})\.([0-9]{9})", text)
    if match is None:
        raise TimeSyntaxError(f"the stamp {text[:64]!r} isn't seconds with nine digits", hint="example: 12.000000034")
    value = int(match[2]) * NS + int(match[3])
    return _within(-value if match[1] else value, text, "wall")


class Clock(Protocol):
    """Where the present comes from. It is passed in, so that a replay and a test can choose it."""

    def now_ns(self) -> int:
        """ns since the Unix epoch."""
        ...

    def monotonic_ns(self) -> int:
        """ns that never go back; only differences mean something."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


class ManualClock:
    """A clock that stands still until it is moved: for tests and replays."""

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns
        self._monotonic_ns = 0

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def advance(self, length_ns: int) -> None:
        """Move both clocks on. Raises ValueError for a negative length: use :meth:`set` for a clock that jumps."""
        if length_ns < 0:
            raise ValueError("a clock advances by a length of at least 0")
        self._now_ns += length_ns
        self._monotonic_ns += length_ns

    def set(self, now_ns: int) -> None:
        """Let the wall clock jump, as after a correction by NTP; the monotonic one doesn't."""
        self._now_ns = now_ns
