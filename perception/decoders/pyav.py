"""The default decoder: PyAV (FFmpeg's libraries), exact in time, tolerant of damage, quick at sparse sampling.

How it is quick without changing which frames are chosen. A packet says its time stamp before it is decoded, so the
choice is made on packets: of each group of pictures only the packets up to the last chosen one are decoded, groups
without a chosen frame not at all, and frames that no other frame refers to are passed over. Where a chosen frame then
turns out to be missing (damage), the group is decoded again in full and the next frame takes its place. A group is
always decoded in the same way wherever a run started: that is why a resumed run gives the same pictures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from perception.decoders.opening import open_video, pick_video_stream
from perception.decoders.packets import Group, Timeline, read_groups, read_packets
from perception.decoders.pictures import MAX_SIDE, PictureMaker, degrees, orientation, upright_size
from perception.frames import Frame, Health
from perception.sampling import NS, FixedRate
from streammem.errors import SourceError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

# Codecs whose groups of pictures stand alone from a key frame on (with the group before it for leading pictures).
# Anything else (GIF's canvas, screen codecs) is decoded whole, from the start.
_GROUPED = frozenset({"h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video", "vp8", "vp9", "av1", "mjpeg", "prores"})
# Where "no other frame refers to it" is a promise of the format and the decoder acts on it. HEVC's sub-layer
# non-reference pictures may be referred to by higher temporal layers (phones do this), so it isn't here.
_SKIPS_UNREFERENCED = frozenset({"h264", "mpeg4", "mpeg1video", "mpeg2video"})
# Containers with one index for the whole file. In mp4 its time stamps can't run back; in Matroska it is checked.
_SEEKABLE = frozenset({"mov", "mp4", "matroska", "webm"})
_PROBE_PACKETS = 3000


class PyAVDecoder:
    """One video file. ``threads`` bounds the codec's own threads: one keeps up with 100x real time at 448x252, and the
    other cores have encoders to feed; large pictures get two."""

    name = "pyav"

    def __init__(self, path: str, *, max_side: int = MAX_SIDE, threads: int | None = None) -> None:
        """Opens the file and decodes its first picture, so that whatever is wrong is said at once.

        Raises SourceNotFound, NoVideoStream or SourceError, each naming the file."""
        self.path = path
        self.health = Health()
        self.max_side = max_side
        self._threads = threads
        container = self._open()
        try:
            stream = pick_video_stream(container, path)
            first = self._first_picture(container, stream)
            self.codec = stream.codec_context.name
            self._time_base = stream.time_base or Fraction(1, 1000)
            self._origin_pts = _pts(first) or 0
            self.pixel_aspect = float(stream.sample_aspect_ratio or 1)
            turned = orientation(first)
            self.rotation = degrees(turned)
            self.width, self.height = upright_size(first.width, first.height, self.pixel_aspect, turned)
            rate = stream.average_rate or stream.guessed_rate
            self.fps = float(rate) if rate else 0.0
            self.duration_ns = _duration_ns(container, stream)
            names = set(container.format.name.split(","))
            self._seekable = bool(names & _SEEKABLE)
        finally:
            container.close()
        self.health = Health(notes=self.health.notes)

    @property
    def origin_ns(self) -> int:
        """The first picture's time on the container's own clock."""
        return round(self._origin_pts * self._time_base * NS)

    def frames(self, sampling: FixedRate, start_ns: int = 0) -> Iterator[Frame]:
        container = self._open()
        try:
            stream = pick_video_stream(container, self.path)
            self._set_threads(stream)
            run = _Run(self, container, stream, sampling, start_ns)
            if not run.seek():
                container.close()
                container = self._open()
                stream = pick_video_stream(container, self.path)
                self._set_threads(stream)
                run = _Run(self, container, stream, sampling, start_ns)
            yield from run.frames()
        finally:
            container.close()

    def close(self) -> None:
        """Nothing is held between calls."""

    def _open(self) -> InputContainer:
        return open_video(self.path)

    def _set_threads(self, stream: av.VideoStream) -> None:
        large = stream.codec_context.width * stream.codec_context.height > 1280 * 720
        count = self._threads or (2 if large else 1)
        stream.codec_context.thread_count = count
        stream.thread_type = "AUTO" if count > 1 else "NONE"

    def _first_picture(self, container: InputContainer, stream: av.VideoStream) -> av.VideoFrame:
        stream.thread_type = "NONE"
        for number, packet in enumerate(read_packets(container, stream, self.health)):
            for frame in decode(stream, packet, self.health):
                return frame
            if number > _PROBE_PACKETS:
                break
        for frame in decode(stream, None, self.health):
            return frame
        raise SourceError(
            f"no picture of {self.path!r} can be decoded ({stream.codec_context.name}, "
            f"{self.health.packets} packets read)",
            hint="the file is damaged: copy or download it again",
        )


class _Run:
    """One pass over the file."""

    def __init__(
        self,
        decoder: PyAVDecoder,
        container: InputContainer,
        stream: av.VideoStream,
        sampling: FixedRate,
        start_ns: int,
    ) -> None:
        self.container = container
        self.stream = stream
        self.context = stream.codec_context
        self.sampling = sampling
        self.start_ns = start_ns
        self.health = decoder.health
        self.pictures = PictureMaker(decoder.max_side)
        self.pixel_aspect = decoder.pixel_aspect
        self.frame_ns = round(NS / decoder.fps) if decoder.fps > 0 else NS // 25
        self.origin_ns = decoder.origin_ns
        self.timeline = Timeline(decoder._origin_pts, decoder._time_base, self.frame_ns, self.health)
        self.grouped = decoder.codec in _GROUPED
        self.unreferenced = decoder.codec in _SKIPS_UNREFERENCED
        self.seekable = decoder._seekable and self.grouped
        self.last_index = -1
        self.last_ns = -1
        self.seeking = False

    def frames(self) -> Iterator[Frame]:
        packets = read_packets(self.container, self.stream, self.health)
        groups = read_groups(packets, self.health, self.timeline.time_base)
        first = next(groups, None)
        if first is None:
            return
        stamped = sum(packet.pts is not None for packet in first.packets)
        whole = not self.grouped or stamped * 2 < len(first.packets)
        before: Group | None = None
        for group in chain([first], groups):
            if whole:
                yield from self._decode_as_they_come(group)
                continue
            if group.more or not group.starts_with_key:
                yield from self._decode_as_they_come(group, fresh=True)
                while group.more and (piece := next(groups, None)) is not None:
                    group = piece
                    yield from self._decode_as_they_come(group)
                yield from self._drain_as_they_come()
                before = None
                continue
            yield from self._decode_group(group, before)
            before = group
        if whole:
            yield from self._drain_as_they_come()

    def seek(self) -> bool:
        """Start at a key frame early enough that the choice at ``start_ns`` doesn't depend on what lies before.

        False: this file's index can't be trusted, read it from its start. Where time runs back within a file, the
        positions in the index fall where its times rise (two recordings joined byte by byte, say)."""
        import av

        target = self.start_ns - 2 * self.sampling.period_ns - 2 * NS
        if not self.seekable or target <= 0:
            return True
        pts = self.timeline.origin_pts + int(Fraction(target, NS) / self.timeline.time_base)
        try:
            self.container.seek(pts, stream=self.stream, backward=True)
        except av.error.FFmpegError:
            return False
        entries = [(entry.timestamp, entry.pos) for entry in self.stream.index_entries if entry.is_keyframe]
        if not entries or any(b[1] < a[1] for a, b in pairwise(sorted(entries))):
            return False
        self.seeking = True
        return True

    # -- groups: the choice is made on packets ------------------------------------------------------------------

    def _decode_group(self, group: Group, before: Group | None) -> Iterator[Frame]:
        shown = [packet for packet in group.packets if packet.pts is not None and not packet.is_discard]
        self.health.missing_pts += sum(packet.pts is None for packet in group.packets)
        times = self.timeline.place([packet.pts for packet in shown if packet.pts is not None])
        if self.seeking and times:
            # The first picture after a seek has an unknown predecessor: it only serves as one.
            self.last_index = max(self.last_index, self.sampling.index(min(times.values())))
            self.seeking = False
        chosen: deque[tuple[int, int, int]] = deque()
        for pts, at in times.items():
            index = self.sampling.index(at)
            if index > self.last_index:
                chosen.append((pts, at, index))
                self.last_index = index
        if not chosen or (chosen[-1][1] < self.start_ns and times[max(times)] < self.start_ns):
            self.health.skipped_packets += len(group.packets)
            return
        key_pts = group.packets[0].pts
        leading = key_pts is not None and chosen[0][0] < key_pts
        floor = self.last_ns
        wanted = deque(chosen)
        for frame in self._pictures_of(group, before if leading else None, {pts for pts, _, _ in chosen}):
            stamp = _pts(frame)
            if stamp is None or stamp not in times:
                continue
            if wanted and stamp == wanted[0][0]:
                _, at, index = wanted.popleft()
                yield from self._give(frame, at, index)
            elif wanted and stamp > wanted[0][0]:
                break
        if wanted:
            yield from self._decode_again(group, before if leading else None, times, floor, wanted[0][1])

    def _decode_again(
        self, group: Group, before: Group | None, times: dict[int, int], floor: int, missing_ns: int
    ) -> Iterator[Frame]:
        """A chosen picture didn't come: choose among those that do, from the missing one on."""
        self.health.redecoded_groups += 1
        given = self.sampling.index(self.last_ns) if self.last_ns > floor else self.sampling.index(missing_ns) - 1
        last = self.last_ns
        for frame in self._pictures_of(group, before, None):
            stamp = _pts(frame)
            at = times.get(stamp, -1) if stamp is not None else -1
            if at < missing_ns or at <= last:
                continue
            index = self.sampling.index(at)
            if index > given:
                given, last = index, at
                yield from self._give(frame, at, index)

    def _pictures_of(self, group: Group, before: Group | None, wanted: set[int] | None) -> Iterator[av.VideoFrame]:
        """Decode one group from its key frame (after the group before it, for pictures that lead the key frame).

        ``wanted``: the time stamps that matter; None decodes everything."""
        self.context.flush_buffers()
        if before is not None:
            for packet in before.packets:
                self._skip_unreferenced(wanted is not None)
                yield from decode(self.stream, packet, self.health)
        packets = group.packets
        if wanted is not None:
            end = 1 + max((i for i, packet in enumerate(packets) if packet.pts in wanted), default=-1)
            self.health.skipped_packets += len(packets) - end
            packets = packets[:end]
        for packet in packets:
            self._skip_unreferenced(wanted is not None and packet.pts not in wanted)
            yield from decode(self.stream, packet, self.health)
        self._skip_unreferenced(False)
        yield from decode(self.stream, None, self.health)

    def _skip_unreferenced(self, skip: bool) -> None:
        if self.unreferenced:
            self.context.skip_frame = "NONREF" if skip else "DEFAULT"

    # -- everything else: the choice is made on decoded frames ----------------------------------------------------

    def _decode_as_they_come(self, group: Group, *, fresh: bool = False) -> Iterator[Frame]:
        if fresh:
            self.context.flush_buffers()
            self._skip_unreferenced(False)
        for packet in group.packets:
            self.health.missing_pts += packet.pts is None
            for frame in decode(self.stream, packet, self.health):
                yield from self._choose(frame)

    def _drain_as_they_come(self) -> Iterator[Frame]:
        for frame in decode(self.stream, None, self.health):
            yield from self._choose(frame)

    def _choose(self, frame: av.VideoFrame) -> Iterator[Frame]:
        pts = _pts(frame)
        if pts is None:
            # No time stamp of any kind: one frame after the last is the only guess left, and it is counted.
            at = self.timeline.last_ns + self.frame_ns if self.timeline.last_ns >= 0 else 0
            self.timeline.last_ns = at
        else:
            placed = self.timeline.place([pts])
            if pts not in placed:
                return
            at = placed[pts]
        if self.seeking:
            self.seeking = False
            self.last_index = max(self.last_index, self.sampling.index(at))
        index = self.sampling.index(at)
        if index > self.last_index:
            self.last_index = index
            yield from self._give(frame, at, index)

    def _give(self, frame: av.VideoFrame, at: int, index: int) -> Iterator[Frame]:
        if frame.is_corrupt:
            self.health.corrupt_frames += 1
        self.last_ns = at
        if at >= self.start_ns:
            yield Frame(self.pictures.picture(frame, self.pixel_aspect), at, at, index)


def decode(stream: av.VideoStream, packet: av.Packet | None, health: Health) -> Iterator[av.VideoFrame]:
    """What the decoder gives for one packet (None: what it still holds). A packet that it refuses is counted."""
    import av

    try:
        frames = stream.codec_context.decode(packet)
    except av.error.EOFError:
        return
    except (av.error.FFmpegError, ValueError) as error:
        health.bad_packets += 1
        health.note(f"a packet of {stream.codec_context.name} can't be decoded: {getattr(error, 'strerror', error)}")
        return
    for frame in frames:
        health.decoded_frames += 1
        yield frame


def _pts(frame: av.VideoFrame) -> int | None:
    return frame.pts if frame.pts is not None else frame.dts


def _duration_ns(container: InputContainer, stream: av.VideoStream) -> int | None:
    if stream.duration and stream.time_base:
        return round(stream.duration * stream.time_base * NS)
    return container.duration * 1000 if container.duration else None
