"""Days by their names: "yesterday", "the third day", "the day 4 days ago", "2026-01-03"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from nav.findingdory.instructions import nth_of
from streammem.errors import InputError


def date_of(t_ns: int) -> date:
    """The day of a capture time, in the clock's own zone (the benchmark's is UTC)."""
    return datetime.fromtimestamp(t_ns // 10**9, UTC).date()


def day_meant(words: str, days: Sequence[date]) -> date | None:
    """The day that ``words`` name, of the days (rising) on which anything was seen; None where it is none of them.
    "Yesterday" is the last of them. Raises InputError for words that name no day."""
    plain = " ".join(words.lower().split())
    found: date | None = None
    if plain in ("yesterday", "the last day"):
        found = days[-1] if days else None
    elif match := re.fullmatch(r"the day (\d+) days? ago", plain):
        found = days[-1] - timedelta(int(match[1]) - 1) if days else None
    elif match := re.fullmatch(r"\d{4}-\d{2}-\d{2}", plain):
        try:
            found = date.fromisoformat(match[0])
        except ValueError:
            raise InputError(f"{words!r} is no date", hint="write it as 2026-01-31") from None
    elif match := re.fullmatch(r"the (\w+) day", plain):
        try:
            n = nth_of(match[1])
        except ValueError:
            raise InputError(f"the words {words!r} name no day", hint='say "the first day" or a date') from None
        found = days[n - 1] if 1 <= n <= len(days) else None
    else:
        raise InputError(f"the words {words!r} name no day", hint='say "yesterday", "the first day" or a date')
    return found if found in days else None
