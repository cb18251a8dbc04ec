"""Event logs as observations: what others wrote down of who moved what, when.

A log entry becomes one observation without a picture, with one :class:`StateFact` that has an end. Its ``seq`` is its
place in the log sorted by time, so that reading the same log twice writes it once.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from streammem.errors import SourceError, SourceNotFound
from streammem.model import Observation, Producer, StateFact, StreamInfo

MOVED = "moved"
SESSION = "log"
MOST_BYTES = 256 << 20
PRODUCER = Producer("streammem.eventlog", revision="1")


class _Track(msgspec.Struct):
    track_id: str
    time_segment: tuple[float, float]


class _Object(msgspec.Struct):
    name: str
    tracks: list[_Track]


class Movement(NamedTuple):
    """One thing was moved from then to then, both on the clock of its video, in ns."""

    video: str
    t_start_ns: int
    t_end_ns: int
    entity: str
    kind: str
    track: str

    def fact(self) -> StateFact:
        return StateFact(self.entity, MOVED, self.track, kind=self.kind, until_ns=self.t_end_ns)


class Narration(NamedTuple):
    """Somebody did something with a thing, as it was told afterwards: "wash plate"."""

    video: str
    t_start_ns: int
    t_end_ns: int
    noun: str
    verb: str
    text: str

    def fact(self) -> StateFact:
        return StateFact(self.noun, self.verb, self.text, until_ns=self.t_end_ns)


def read_movements(path: str | Path) -> list[Movement]:
    """The movements of a kitchen log (HD-EPIC: ``{video: {object id: {name, tracks: [{track_id, time_segment}]}}}``, in
    seconds), sorted by video and time. Raises SourceNotFound, or SourceError for a file that isn't such a log."""
    file = _checked(path, "the JSON file of an object movement log")
    try:
        log = msgspec.json.decode(file.read_bytes(), type=dict[str, dict[str, _Object]])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: isn't an object movement log: {error}") from error
    found: list[Movement] = []
    for video, objects in log.items():
        for entity, thing in objects.items():
            for track in thing.tracks:
                start, end = track.time_segment
                if not (math.isfinite(start) and math.isfinite(end)) or end < start:
                    raise SourceError(f"{path}: track {track.track_id!r} of {video!r} lasts from {start} to {end} s")
                found.append(Movement(video, round(start * 1e9), round(end * 1e9), entity, thing.name, track.track_id))
    return sorted(found)


def read_narrations(path: str | Path) -> list[Narration]:
    """Timed narrations (EPIC-KITCHENS-100's CSV: ``video_id, start_timestamp, stop_timestamp, narration, verb, noun``,
    times as HH:MM:SS.ss), sorted by video and time. Raises SourceNotFound, or SourceError for another file."""
    file = _checked(path, "the CSV file of timed narrations")
    found: list[Narration] = []
    try:
        with open(file, encoding="utf-8", newline="") as handle:
            for line, row in enumerate(csv.DictReader(handle), 2):
                start, end = _stamp_ns(row["start_timestamp"]), _stamp_ns(row["stop_timestamp"])
                if end < start:
                    raise SourceError(f"{path}: line {line} ends before it starts")
                found.append(Narration(row["video_id"], start, end, row["noun"], row["verb"], row["narration"]))
    except (KeyError, AttributeError, ValueError, csv.Error) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path}: isn't a file of timed narrations: {error!r}") from error
    return sorted(found)


def _stamp_ns(text: str) -> int:
    hours, minutes, seconds = text.split(":")
    return (int(hours) * 3600 + int(minutes) * 60) * 10**9 + round(float(seconds) * 1e9)


def _checked(path: str | Path, what: str) -> Path:
    file = Path(path)
    if not file.is_file():
        raise SourceNotFound(f"{path}: no such file", hint=f"give {what}")
    if file.stat().st_size > MOST_BYTES:
        raise SourceError(f"{path}: has {file.stat().st_size} bytes, the limit is {MOST_BYTES}")
    return file


def streams_of(movements: Sequence[Movement | Narration], source: str = "") -> list[StreamInfo]:
    """One stream a video."""
    ends: dict[str, int] = {}
    for movement in movements:
        ends[movement.video] = max(movement.t_end_ns, ends.get(movement.video, 0))
    return [StreamInfo(stream=name, source=source, clock="media", duration_ns=end) for name, end in ends.items()]


def observations_of(entries: Iterable[Movement | Narration]) -> Iterator[Observation]:
    """One observation an entry, in the order given. A movement is an episode ``moved`` whose value is the track's id, a
    narration an episode of its verb whose value is what was told."""
    count: dict[str, int] = {}
    for entry in entries:
        seq = count[entry.video] = count.get(entry.video, -1) + 1
        yield Observation(
            stream=entry.video,
            session=SESSION,
            seq=seq,
            capture_ns=entry.t_start_ns,
            media_ns=entry.t_start_ns,
            states=(entry.fact(),),
            producer=PRODUCER,
        )
