"""What was tracked: each object's stretches of being seen, where it was, and a few frames that show how it looked.

Trackers name objects: a detection with ``track`` set belongs to one. For each the bank keeps its first frame and the
frames that add something (a memory without repetition, ``policies/smart.py``), each with the reason; a thinned path of
boxes; and intervals. Everything is capped, so that an object costs the same after an hour as after a year. When an
object has not been seen for ``gap_seconds`` its stretch becomes a record of the bank.

Descriptors come in the part ``track_vectors`` (n, d), one row for each detection that has a ``track``, in their
order. Without them the moment's own vector is used, and without that the box: frames differ then by where the object
was, not by how it looked. The part ``track_colours`` (n, 11) has the share of each colour term on it
(``colours.TERMS``), ``stats`` what the tracker knows of returns: ``refound:NAME`` the score, ``alike:NAME`` the
likeness, and ``gone:NAME`` where it looked and did not see it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from streammem.banks.base import Question, Reader, Recall
from streammem.banks.policies import FrameMemory, FrameRecord
from streammem.banks.policies.composite import Composite
from streammem.banks.policies.smart import NonRedundant
from streammem.banks.track_records import (
    AuditLine,
    Interval,
    KeptFrame,
    Stream,
    Track,
    TrackInfo,
    TracksSize,
    add_colours,
    colours_of,
    label_of,
    lengthen,
    merge_closest,
)
from streammem.config import TracksConfig
from streammem.errors import CorruptData, QueryError
from streammem.model import Detection, Label, Record, record_id

VECTORS = "track_vectors"
COLOURS = "track_colours"
LONGEST_VECTOR = 256
"""Numbers of a descriptor that are kept; a re-identification vector has 128 to 512."""
LABELS = 4
AUDIT = 48
OVERHEAD = 1000
"""RAM of a track's own objects and colours besides its frames, path and intervals."""


class TracksBank:
    """All streams. ``TracksConfig`` says how much is kept of how many objects."""

    name = "tracks"

    def __init__(self, config: TracksConfig) -> None:
        self._config = config
        self._streams: dict[str, Stream] = {}
        self._memories: dict[tuple[str, str], FrameMemory] = {}

    # taking in

    def observe(self, record: Record) -> Sequence[Record]:
        stream = self._streams.get(record.stream)
        seen = [one for one in record.detections if one.track]
        if stream is None and not seen:
            return ()
        if stream is None:
            stream = self._streams[record.stream] = Stream()
        stream.now_ns = max(stream.now_ns, record.t_end_ns)
        made = self._close_old(record.stream, stream, {one.track for one in seen}, record.t_start_ns)
        vectors, colours = _rows(record, VECTORS, len(seen)), _rows(record, COLOURS, len(seen))
        for row, detection in enumerate(seen):
            vector = vectors[row] if vectors is not None else record.vector
            track = self._see(record, stream, detection, vector, made)
            if track is not None and colours is not None:
                add_colours(track, colours[row])
        for name in [name[5:] for name in record.stats if name.startswith("gone:")]:
            if name in stream.tracks and stream.tracks[name].last_ns < record.t_start_ns:
                stream.tracks[name].gone_ns = record.t_start_ns
        return made

    def _see(
        self, record: Record, stream: Stream, detection: Detection, vector: np.ndarray | None, made: list[Record]
    ) -> Track | None:
        name, t_ns = detection.track or "", record.t_start_ns
        track = stream.tracks.get(name)
        if track is None:
            if len(stream.tracks) >= self._config.max_objects:
                self._push_out(record.stream, stream, made)
            track = stream.tracks[name] = Track(name, record.session, labels={}, intervals=[], path=[], moments={})
            self._memories[record.stream, name] = self._new_memory(name)
        elif t_ns <= track.last_ns:
            stream.late += 1
            return None
        track.n += 1
        fresh = not track.intervals or not track.open
        if fresh:
            stats = record.stats
            track.intervals.append(
                Interval(t_ns, t_ns, 0, 0.0, stats.get(f"refound:{name}"), stats.get(f"alike:{name}"))
            )
            merge_closest(track.intervals)
        track.open, track.gone_ns = True, None
        current = track.intervals[-1]
        current.t_end_ns, current.frames = t_ns, current.frames + 1
        current.score = max(current.score, detection.score)
        track.last_ns, track.box = t_ns, detection.box
        track.labels[detection.label] = track.labels.get(detection.label, 0) + 1
        if len(track.labels) > LABELS:
            del track.labels[min(track.labels, key=lambda label: (track.labels[label], label))]
        lengthen(track, t_ns, detection.box)
        self._offer(record, track, detection, vector)
        return track

    def _offer(self, record: Record, track: Track, detection: Detection, vector: np.ndarray | None) -> None:
        memory = self._memories[record.stream, track.name]
        x0, y0, x1, y1 = detection.box
        if vector is None:
            # Centred, so that opposite corners differ: two boxes a third of the picture apart have a cosine below 0.9.
            vector = np.array([x0 + x1 - 1, y0 + y1 - 1, x1 - x0, y1 - y0, 0.5], np.float32)
        frame = FrameRecord(
            obj=track.name,
            t=track.n,
            t_ns=record.t_start_ns,
            is_prompt=not memory.started,
            presence_logit=1.0,
            pred_iou=detection.score,
            box=detection.box,
            area=max(0.0, (x1 - x0) * (y1 - y0)),
            desc_obj=np.asarray(vector[:LONGEST_VECTOR], np.float32),
        )
        (memory.observe if memory.started else memory.start)(frame)
        track.moments[track.n] = (record.record_id, record.t_start_ns)
        if len(track.moments) > 2 * (AUDIT + self._config.frames):
            told = {change.t for change in memory.audit()} | memory.times()
            track.moments = {n: moment for n, moment in track.moments.items() if n in told}

    def _new_memory(self, name: str) -> FrameMemory:
        long = NonRedundant(keeps=self._config.frames, duplicate=self._config.duplicate)
        return FrameMemory(Composite(long=long, name="tracks"), obj=name, audit=AUDIT)

    def _close_old(self, name: str, stream: Stream, seen: set[str | None], now_ns: int) -> list[Record]:
        gap = int(self._config.gap_seconds * 1e9)
        made = []
        for track in stream.tracks.values():
            if track.open and now_ns - track.last_ns > gap:
                made.append(self._closed(name, stream, track))
        return made

    def _closed(self, name: str, stream: Stream, track: Track) -> Record:
        """The stretch that ended, as a record; its parents are the kept frames that lie in it."""
        track.open = False
        last = track.intervals[-1]
        stream.seq += 1
        memory = self._memories[name, track.name]
        held = sorted(memory.times())
        parents = [track.moments[n][0] for n in held if n in track.moments and track.moments[n][1] >= last.t_start_ns]
        return Record(
            record_id=record_id(self.name, name, track.session, stream.seq),
            bank=self.name,
            stream=name,
            session=track.session,
            seq=stream.seq,
            t_start_ns=last.t_start_ns,
            t_end_ns=last.t_end_ns,
            count=last.frames,
            confidence=min(1.0, last.score),
            parents=tuple(parents),
            labels=(Label(label_of(track), min(1.0, last.score)),),
            detections=(Detection(label_of(track), min(1.0, last.score), track.box, track.name),),
        )

    def _push_out(self, name: str, stream: Stream, made: list[Record]) -> None:
        """The object that was seen longest ago makes room; what was sealed of it stays."""
        oldest = min(stream.tracks.values(), key=lambda track: (track.last_ns, track.name))
        if oldest.open:
            made.append(self._closed(name, stream, oldest))
        del stream.tracks[oldest.name], self._memories[name, oldest.name]
        stream.dropped += 1

    # questions

    def questions(self) -> Mapping[str, Question]:
        return {
            "tracks": self._ask_tracks,
            "track": self._ask_track,
            "when_seen": self._ask_when_seen,
            "why": self._ask_why,
            "size": self._ask_size,
        }

    def _ask_tracks(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        label: str = "",
        names: Sequence[str] | None = None,
        limit: int = 100,
        kept: bool = True,
        path: bool = False,
    ) -> list[TrackInfo]:
        """Objects, latest seen first; with ``label`` only those that were called so most often, with ``names`` only
        these; ``kept=False`` leaves the kept frames out, which are most of the work."""
        found = [
            self._info(name, track, kept=kept, path=path)
            for name, stream in self._chosen(streams)
            for track in stream.tracks.values()
            if (not label or label_of(track).lower() == label.lower()) and (names is None or track.name in names)
        ]
        return sorted(found, key=lambda info: (-info.last_ns, info.stream, info.track))[: max(0, limit)]

    def _ask_track(self, reader: Reader, *, streams: Sequence[str] | None, track: str) -> list[TrackInfo]:
        """One object with its path, in each stream that has one of that name. Raises QueryError for none."""
        return [self._info(name, one, path=True) for name, one in self._named(streams, track)]

    def _ask_when_seen(
        self, reader: Reader, *, streams: Sequence[str] | None, track: str = "", label: str = ""
    ) -> list[tuple[str, str, int, int]]:
        """``(stream, track, t_start_ns, t_end_ns)`` of every stretch in which the object, or any object called
        ``label``, was seen; oldest first. Stretches of objects that were pushed out are found too."""
        if bool(track) == bool(label):
            raise QueryError(
                "when_seen takes a track or a label", hint='when_seen(track="7") or when_seen(label="mug")'
            )
        found = set()
        for name, stream in self._chosen(streams):
            for one in stream.tracks.values():
                if one.name == track or (label and label_of(one).lower() == label.lower()):
                    found |= {(name, one.name, part.t_start_ns, part.t_end_ns) for part in one.intervals}
        known = {(name, one) for name, one, _, _ in found}
        for block in reader.blocks(self.name, streams):
            for row in range(len(block)):
                record = block.record(row)
                for detection in record.detections:
                    key = (record.stream, detection.track or "")
                    same = detection.track == track or (label and detection.label.lower() == label.lower())
                    if same and key not in known:
                        found.add((*key, record.t_start_ns, record.t_end_ns))
        if track and not found:
            raise self._unknown(streams, track)
        return sorted(found, key=lambda item: (item[2], item[0], item[1]))

    def _ask_why(self, reader: Reader, *, streams: Sequence[str] | None, track: str) -> list[AuditLine]:
        """Why frames of an object were kept, refreshed, refused or dropped: the newest lines, oldest first."""
        lines = []
        for name, one in self._named(streams, track):
            for change in self._memories[name, one.name].audit():
                moment = one.moments.get(change.t, (0, 0))
                lines.append(AuditLine(moment[1], moment[0], change.action, change.role, change.reason))
        return lines

    def _ask_size(self, reader: Reader, *, streams: Sequence[str] | None) -> list[TracksSize]:
        """RAM by stream, and what was dropped for want of room or because it came late."""
        sizes = []
        for name, stream in self._chosen(streams):
            each = [self._bytes(name, track) for track in stream.tracks.values()]
            sizes.append(TracksSize(name, len(each), sum(each), max(each, default=0), stream.dropped, stream.late))
        return sizes

    def _chosen(self, streams: Sequence[str] | None) -> list[tuple[str, Stream]]:
        return [(name, stream) for name, stream in sorted(self._streams.items()) if streams is None or name in streams]

    def _named(self, streams: Sequence[str] | None, track: str) -> list[tuple[str, Track]]:
        found = [(name, stream.tracks[track]) for name, stream in self._chosen(streams) if track in stream.tracks]
        if not found:
            raise self._unknown(streams, track)
        return found

    def _unknown(self, streams: Sequence[str] | None, track: str) -> QueryError:
        names = sorted(one for _, stream in self._chosen(streams) for one in stream.tracks)
        return QueryError(f"there is no track {track!r}", hint=f"known: {', '.join(names[:20]) or 'none'}")

    def _info(self, name: str, track: Track, *, path: bool = False, kept: bool = True) -> TrackInfo:
        held = sorted(self._memories[name, track.name].held().items()) if kept else []
        frames = []
        for n, (role, frame) in held:
            number, t_ns = track.moments.get(n, (0, frame.t_ns))
            frames.append(
                KeptFrame(number, t_ns, frame.box, "first" if role == "prompt" else "diverse", frame.pred_iou)
            )
        return TrackInfo(
            stream=name,
            track=track.name,
            label=label_of(track),
            frames=sum(part.frames for part in track.intervals),
            first_ns=track.intervals[0].t_start_ns,
            last_ns=track.last_ns,
            last_box=track.box,
            intervals=tuple(track.intervals),
            kept=tuple(frames),
            bytes=self._bytes(name, track),
            path=tuple(track.path) if path else (),
            open=track.open,
            colours=colours_of(track),
            watched_ns=self._streams[name].now_ns,
            gone_ns=track.gone_ns,
        )

    # saving and forgetting

    def state(self, stream: str) -> bytes:
        found = self._streams.get(stream)
        if found is None:
            return b""
        for track in found.tracks.values():
            track.memory = self._memories[stream, track.name].state()
        return msgspec.msgpack.encode(found)

    def load(self, stream: str, state: bytes, recall: Recall) -> None:
        if not state:
            return
        try:
            found = msgspec.msgpack.decode(state, type=Stream)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise CorruptData(f"the saved tracks of {stream!r} can't be read: {error}") from error
        memories = {}
        for track in found.tracks.values():
            memories[stream, track.name] = self._new_memory(track.name)
            memories[stream, track.name].load(track.memory)
            track.memory = b""
        self._streams[stream] = found
        self._memories.update(memories)

    def ram_bytes(self) -> int:
        return sum(
            self._bytes(name, track) for name, stream in self._streams.items() for track in stream.tracks.values()
        )

    def _bytes(self, name: str, track: Track) -> int:
        lists = 136 * len(track.intervals) + 160 * len(track.path) + 180 * len(track.moments)
        return OVERHEAD + lists + self._memories[name, track.name].ram_bytes

    def forget(self, stream: str, t_start_ns: int, t_end_ns: int) -> int:
        found = self._streams.get(stream)
        if found is None:
            return 0
        gone = 0
        for name in list(found.tracks):
            track = found.tracks[name]
            before = len(track.intervals)
            track.intervals = [
                part for part in track.intervals if part.t_start_ns > t_end_ns or part.t_end_ns < t_start_ns
            ]
            inside = {n for n, (_, t_ns) in track.moments.items() if t_start_ns <= t_ns <= t_end_ns}
            if before == len(track.intervals) and not inside:
                continue
            gone += before - len(track.intervals)
            if not track.intervals:
                del found.tracks[name], self._memories[stream, name]
                continue
            self._forget_frames(stream, track, inside, (t_start_ns, t_end_ns))
        if not found.tracks:
            del self._streams[stream]
        return gone

    def _forget_frames(self, stream: str, track: Track, inside: set[int], between: tuple[int, int]) -> None:
        """What was learnt from the forgotten stretch goes; an object without its first frame starts from the next."""
        old = self._memories[stream, track.name]
        frames = [frame for _, (_, frame) in sorted(old.held().items()) if not between[0] <= frame.t_ns <= between[1]]
        fresh = self._memories[stream, track.name] = self._new_memory(track.name)
        for frame in frames:
            (fresh.observe if fresh.started else fresh.start)(frame)
        fresh.last = old.last
        track.moments = {n: moment for n, moment in track.moments.items() if n not in inside}
        track.path = [point for point in track.path if not between[0] <= point[0] <= between[1]]
        track.colours, track.coloured = [], 0  # a mean can't be taken apart
        track.last_ns = track.intervals[-1].t_end_ns
        if track.path:
            track.box = track.path[-1][1:]

    def digest(self, stream: str) -> bytes:
        return hashlib.blake2b(self.state(stream), digest_size=16).digest() if stream in self._streams else b""


def _rows(record: Record, name: str, count: int) -> np.ndarray | None:
    """The part (count, d); None where its rows can't be told apart."""
    found = record.arrays.get(name)
    return None if found is None or found.ndim != 2 or len(found) != count else found


__all__ = ["AuditLine", "Interval", "KeptFrame", "TrackInfo", "TracksBank", "TracksSize"]
