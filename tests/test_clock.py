"""Times in, times out: exact to the nanosecond, and never guessed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streammem import clock
from streammem.clock import NS, ManualClock, SystemClock, format_time, parse_between, parse_time
from streammem.errors import TimeSyntaxError

NOW = int(datetime(2026, 11, 22, 14, 30, tzinfo=UTC).timestamp()) * NS
END = 600 * NS
int64 = st.integers(clock.MIN_NS, clock.MAX_NS)


@pytest.mark.parametrize(
    ("situation", "text", "expected"),
    [
        ("the end of the stream", "now", END),
        ("upper case", "NOW", END),
        ("before the end", "-10m", 0),
        ("two units", "-1h30m", END - 5400 * NS),
        ("a typographic minus", "\u221210m", 0),
        ("after the end", "+5s", 605 * NS),
        ("seconds", "90", 90 * NS),
        ("spaces around", "  90 ", 90 * NS),
        ("fraction with unit", "1.5s", 1_500_000_000),
        ("a tenth of a second, exact", "0.1", 100_000_000),
        ("one nanosecond", "0.000000001", 1),
        ("zeros beyond the nanosecond", "0.1000000000000", 100_000_000),
        ("half an hour", "0.5h", 1800 * NS),
        ("every unit", "1w1d1h1m1s1ms1us1ns", (604800 + 86400 + 3600 + 61) * NS + 1_001_001),
        ("min for minutes", "2min", 120 * NS),
        ("hours, minutes, seconds", "00:14:22", 862 * NS),
        ("minutes and seconds", "14:22.5", 862_500_000_000),
        ("more than a day", "99:00:00", 99 * 3600 * NS),
        ("ninety minutes without hours", "90:00", 5400 * NS),
        ("before the first frame", "-00:00:01.5", -1_500_000_000),
        ("nanoseconds", "00:00:00.000000001", 1),
    ],
)
def test_media_times(situation: str, text: str, expected: int) -> None:
    assert parse_time(text, now_ns=END, clock="media") == expected, situation


def wall(year: int, month: int, day: int, *rest: int) -> int:
    return int(datetime(year, month, day, *rest, tzinfo=UTC).timestamp()) * NS


@pytest.mark.parametrize(
    ("situation", "text", "expected"),
    [
        ("the present", "now", NOW),
        ("ten minutes ago", "-10m", NOW - 600 * NS),
        ("Zulu", "2026-11-22T14:30:00Z", NOW),
        ("lower case and a space", "2026-11-22 14:30:00z", NOW),
        ("an offset", "2026-11-22T15:30:00+01:00", NOW),
        ("an offset without colon", "2026-11-22T15:30+0100", NOW),
        ("an offset of hours", "2026-11-22T09:30-05", NOW),
        ("an offset with minutes", "2026-11-22T20:00+05:30", NOW),
        ("nanoseconds", "2026-11-22T14:30:00.000000001Z", NOW + 1),
        ("a comma, as ISO prefers", "2026-11-22T14:30:00,5Z", NOW + NS // 2),
        ("a date is its midnight", "2026-11-22", wall(2026, 11, 22)),
        ("no zone means UTC", "2026-11-22T14:30", NOW),
        ("a time of day is today", "14:22", wall(2026, 11, 22, 14, 22)),
        ("with seconds", "04:05:06.5", wall(2026, 11, 22, 4, 5, 6) + NS // 2),
        ("before the epoch", "1969-12-31T23:59:59.999999999Z", -1),
        ("a leap day", "2024-02-29", wall(2024, 2, 29)),
        ("the first nanosecond there is", "1677-09-21T00:12:43.145224192Z", clock.MIN_NS),
        ("the last one", "2262-04-11T23:47:16.854775807Z", clock.MAX_NS),
    ],
)
def test_wall_times(situation: str, text: str, expected: int) -> None:
    assert parse_time(text, now_ns=NOW, clock="wall") == expected, situation


@pytest.mark.parametrize(
    ("situation", "text", "stream_clock", "words"),
    [
        ("nothing", "", "media", "is empty"),
        ("blank", "  ", "media", "is empty"),
        ("no time at all", "yesterday", "media", "isn't a time"),
        ("a unit alone", "m", "media", "isn't a time"),
        ("an unknown unit", "3y", "media", "isn't a time"),
        ("units out of order", "3m2h", "media", "out of order"),
        ("a unit twice", "3m2m", "media", "out of order"),
        ("sixty seconds", "00:00:60", "media", "59"),
        ("sixty minutes", "00:60:00", "media", "59"),
        ("a day on a media clock", "2026-11-22", "media", "starts at zero"),
        ("finer than ns", "0.0000000001", "media", "finer than a nanosecond"),
        ("an exponent", "1e3", "media", "isn't a time"),
        ("infinity", "inf", "media", "isn't a time"),
        ("not a number", "nan", "media", "isn't a time"),
        ("digits of another script", "\u0661\u0662", "media", "isn't a time"),
        ("too long", "9" * 65, "media", "too long"),
        ("over int64", "9" * 20, "media", "out of range"),
        ("over int64 in hours", "99999999:00:00", "media", "out of range"),
        ("over int64 before now", "-999999w", "media", "out of range"),
        ("no starting point", "90", "wall", "did you mean -90?"),
        ("the 30th of February", "2026-02-30", "wall", "calendar"),
        ("year nought", "0000-01-01", "wall", "calendar"),
        ("the far future", "9999-12-31", "wall", "out of range"),
        ("just over the end", "2262-04-11T23:47:16.854775808Z", "wall", "out of range"),
        ("a leap second", "2016-12-31T23:59:60Z", "wall", "time of day"),
        ("hour 24", "2026-11-22T24:00Z", "wall", "time of day"),
        ("an impossible offset", "2026-11-22T14:30+25:00", "wall", "offset"),
        ("an American date", "11/22/2026", "wall", "isn't a time"),
        ("control characters", "1\x1b[2Js", "media", "isn't a time"),
    ],
)
def test_what_is_refused(situation: str, text: str, stream_clock: clock.StreamClock, words: str) -> None:
    with pytest.raises(TimeSyntaxError) as caught:
        parse_time(text, now_ns=NOW, clock=stream_clock)
    assert words in str(caught.value), situation
    assert "examples:" in caught.value.hint
    assert "\x1b" not in str(caught.value)


def test_the_end_of_the_last_representable_day_is_refused_not_wrapped() -> None:
    with pytest.raises(TimeSyntaxError, match="out of range"):
        parse_time("9999-12-31", now_ns=NOW, clock="wall", edge="end")


def test_an_empty_memory_has_no_present() -> None:
    with pytest.raises(TimeSyntaxError, match="needs a present"):
        parse_time("-10m", now_ns=None, clock="wall")


def test_when_the_clocks_change() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    with pytest.raises(TimeSyntaxError, match="happens never"):
        parse_time("2026-03-29T02:30", now_ns=NOW, zone=berlin)
    with pytest.raises(TimeSyntaxError, match="happens twice"):
        parse_time("2026-10-25T02:30", now_ns=NOW, zone=berlin)
    assert parse_time("2026-10-25T02:30+02:00", now_ns=NOW, zone=berlin) == wall(2026, 10, 25, 0, 30)
    assert parse_time("2026-10-25T02:30+01:00", now_ns=NOW, zone=berlin) == wall(2026, 10, 25, 1, 30)
    # The day on which the clocks go back has 25 hours.
    lo, hi = parse_between("2026-10-25", "2026-10-25", now_ns=NOW, clock="wall", zone=berlin)
    assert hi - lo + 1 == 25 * 3600 * NS


def test_between() -> None:
    assert parse_between("-5m", "now", now_ns=END, clock="media") == (300 * NS, END)
    lo, hi = parse_between("2026-11-22", "2026-11-22", now_ns=NOW, clock="wall")
    assert hi - lo + 1 == 86_400 * NS
    with pytest.raises(TimeSyntaxError, match="ends before it starts: 00:00:05 to 00:00:04"):
        parse_between("5", "4", now_ns=END, clock="media")


@given(int64)
def test_media_text_gives_the_same_number_back(t_ns: int) -> None:
    assert parse_time(format_time(t_ns, "media"), now_ns=0, clock="media") == t_ns


@given(int64)
def test_wall_text_gives_the_same_number_back(t_ns: int) -> None:
    assert parse_time(format_time(t_ns, "wall"), now_ns=0, clock="wall") == t_ns


@given(int64)
def test_a_ros_stamp_gives_the_same_number_back(t_ns: int) -> None:
    sec, nanosec = clock.stamp_from_ns(t_ns)
    assert 0 <= nanosec < NS
    assert clock.ns_from_stamp(sec, nanosec) == t_ns
    assert clock.parse_stamp(clock.stamp_text(t_ns)) == t_ns


def test_a_ros_stamp_is_padded_with_zeros() -> None:
    assert clock.stamp_text(clock.ns_from_stamp(12, 34)) == "12.000000034"
    for text in ("12.34", "12", "12.0000000345", "12.00000003x"):
        with pytest.raises(TimeSyntaxError):
            clock.parse_stamp(text)
    for pair in ((0, NS), (0, -1), (2**40, 0)):
        with pytest.raises(TimeSyntaxError):
            clock.ns_from_stamp(*pair)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, NS - 1))
def test_clock_text_against_arithmetic(hours: int, minutes: int, seconds: int, nanos: int) -> None:
    text = f"{hours:02d}:{minutes:02d}:{seconds:02d}.{nanos:09d}"
    assert parse_time(text, now_ns=0, clock="media") == (hours * 3600 + minutes * 60 + seconds) * NS + nanos


@given(st.datetimes(datetime(1678, 1, 1), datetime(2262, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_iso_text_against_the_standard_library(civil: datetime, offset_minutes: int) -> None:
    from datetime import timezone

    moment = civil.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    expected = (since.days * 86_400 + since.seconds) * NS + since.microseconds * 1000
    assert parse_time(moment.isoformat(), now_ns=None, clock="wall") == expected


@given(st.text(max_size=80), st.sampled_from(["media", "wall"]))
def test_any_text_is_a_time_or_a_typed_error(text: str, stream_clock: clock.StreamClock) -> None:
    try:
        value = parse_time(text, now_ns=NOW, clock=stream_clock)
    except TimeSyntaxError as error:
        assert "\n" not in str(error)
    else:
        assert clock.MIN_NS <= value <= clock.MAX_NS


def test_shown_digits_are_cut_never_rounded_up() -> None:
    assert format_time(59_999_999_999, "media", 0) == "00:00:59"
    assert format_time(59_999_999_999, "media", 2) == "00:00:59.99"


@pytest.mark.parametrize(
    ("start", "end", "stream_clock", "expected"),
    [
        (4 * NS, 6 * NS, "media", "00:00:04–00:00:06"),
        (4 * NS, 4 * NS + 1, "media", "00:00:04"),
        (NOW, NOW + 60 * NS, "wall", "2026-11-22T14:30:00–14:31:00Z"),
        (NOW, NOW + 86_400 * NS, "wall", "2026-11-22T14:30:00Z–2026-11-23T14:30:00Z"),
    ],
)
def test_ranges(start: int, end: int, stream_clock: clock.StreamClock, expected: str) -> None:
    assert clock.format_range(start, end, stream_clock) == expected


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (4_000_000, "4 ms"),
        (3_200_000_000, "3.2 s"),
        (42 * NS, "42 s"),
        (245 * NS, "4m 05s"),
        (4320 * NS, "1h 12m"),
        (72 * 3600 * NS, "3d 0h"),
        (-42 * NS, "-42 s"),
    ],
)
def test_lengths(length: int, expected: str) -> None:
    assert clock.format_duration(length) == expected


def test_lengths_are_read() -> None:
    assert clock.parse_duration("1h30m") == 5400 * NS
    for text in ("", "-5m", "now", "9" * 30):
        with pytest.raises(TimeSyntaxError):
            clock.parse_duration(text)


def test_a_manual_clock_moves_only_when_told() -> None:
    manual = ManualClock(100)
    manual.advance(5)
    manual.set(50)
    assert (manual.now_ns(), manual.monotonic_ns()) == (50, 5)
    with pytest.raises(ValueError, match="at least 0"):
        manual.advance(-1)


def test_the_system_clock_is_now() -> None:
    system = SystemClock()
    before = system.monotonic_ns()
    assert abs(system.now_ns() - int(datetime.now(UTC).timestamp() * 1e9)) < 60 * NS
    assert system.monotonic_ns() >= before
