"""Event logs as observations: what others wrote down of who moved what, when.

A log entry becomes one observation without a picture, with one :class:`StateFact` that has an end. Its ``seq`` is its
place in the log sorted by time, so that reading the same log twice writes it once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from streammem.errors import SourceError, SourceNotFound
from streammem.model import Observation, Producer, StateFact, StreamInfo

MOVED = "moved"
SESSION = "log"
MOST_BYTES = 256 << 20
PRODUCER = Producer("streammem.eventlog", "object-movements", "1")


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


def read_movements(path: str | Path) -> list[Movement]:
    """The movements of a kitchen log (HD-EPIC: ``{video: {object id: {name, tracks: [{track_id, time_segment}]}}}``, in
    seconds), sorted by video and time. Raises SourceNotFound, or SourceError for a file that isn't such a log."""
    file = Path(path)
    if not file.is_file():
        raise SourceNotFound(f"{path}: no such file", hint="give the JSON file of an object movement log")
    if file.stat().st_size > MOST_BYTES:
        raise SourceError(f"{path}: has {file.stat().st_size} bytes, the limit is {MOST_BYTES}")
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


def streams_of(movements: list[Movement], source: str = "") -> list[StreamInfo]:
    """One stream a video."""
    ends: dict[str, int] = {}
    for movement in movements:
        ends[movement.video] = max(movement.t_end_ns, ends.get(movement.video, 0))
    return [StreamInfo(stream=name, source=source, clock="media", duration_ns=end) for name, end in ends.items()]


def observations_of(movements: list[Movement]) -> Iterator[Observation]:
    """One observation a movement, in the order given. ``value`` is the track's id."""
    count: dict[str, int] = {}
    for movement in movements:
        seq = count[movement.video] = count.get(movement.video, -1) + 1
        fact = StateFact(movement.entity, MOVED, movement.track, kind=movement.kind, until_ns=movement.t_end_ns)
        yield Observation(
            stream=movement.video,
            session=SESSION,
            seq=seq,
            capture_ns=movement.t_start_ns,
            media_ns=movement.t_start_ns,
            states=(fact,),
            producer=PRODUCER,
        )
