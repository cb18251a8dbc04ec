"""Compressed packets on their way to the decoder: read on past damage, cut into groups, put on one timeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from perception.frames import Health
from perception.sampling import NS

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

RESET_NS = NS // 2
"""Time that runs back further than this is a reset of the clock; less is sloppy muxing. Longer than the deepest
reordering (16 frames at 30 a second), shorter than any restart of a camera."""
MAX_GROUP_PACKETS = 2048
MAX_GROUP_BYTES = 32 * 1024 * 1024
"""A longer group of pictures (a camera that sends one key frame an hour) is decoded as it comes, not buffered."""
MAX_ERRORS_IN_A_ROW = 100


@dataclass(slots=True)
class Group:
    """Packets from one key frame to the next, in decoding order. ``more``: the group was cut, its rest follows."""

    packets: list[av.Packet] = field(default_factory=list)
    size: int = 0
    more: bool = False

    @property
    def starts_with_key(self) -> bool:
        return bool(self.packets) and bool(self.packets[0].is_keyframe)


class Timeline:
    """Container time stamps -> nanoseconds from the first frame. Time never runs back: after a reset of the
    container's clock it goes on one frame after the last."""

    def __init__(self, origin_pts: int, time_base: Fraction, frame_ns: int, health: Health) -> None:
        self.origin_pts = origin_pts
        self.time_base = time_base
        self.frame_ns = max(1, frame_ns)
        self.health = health
        self.offset_ns = 0
        self.last_ns = -1

    def raw_ns(self, pts: int) -> int:
        """Nanoseconds from the origin without regard to resets, rounded to the nearest."""
        ticks = (pts - self.origin_pts) * self.time_base.numerator * NS * 2 + self.time_base.denominator
        return ticks // (2 * self.time_base.denominator)

    def place(self, pts: list[int]) -> dict[int, int]:
        """Times of one group's pictures by PTS. Pictures that would come before the last group's are left out."""
        if not pts:
            return {}
        ordered = sorted(set(pts))
        raw = [self.raw_ns(value) for value in ordered]
        if self.last_ns >= 0 and raw[0] + self.offset_ns < self.last_ns - RESET_NS:
            self.health.pts_resets += 1
            self.offset_ns = self.last_ns + self.frame_ns - raw[0]
        before = self.last_ns
        times = {
            value: at + self.offset_ns for value, at in zip(ordered, raw, strict=True) if at + self.offset_ns > before
        }
        if times:
            self.last_ns = max(times.values())
        return times


def read_packets(container: InputContainer, stream: av.VideoStream, health: Health) -> Iterator[av.Packet]:
    """Every packet that can be read. A damaged place is counted and passed over; the end of the file ends it."""
    import av

    errors = 0
    while True:
        try:
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                errors = 0
                health.packets += 1
                yield packet
            return
        except av.error.EOFError:
            return
        except (av.error.InvalidDataError, av.error.OSError) as error:
            if isinstance(error, av.error.TimeoutError):
                raise
            health.bad_packets += 1
            errors += 1
            if errors > MAX_ERRORS_IN_A_ROW:
                health.note(f"reading stopped after {errors} errors in a row: {error.strerror or error}")
                return


def read_groups(packets: Iterator[av.Packet], health: Health, time_base: Fraction) -> Iterator[Group]:
    """Packets cut before each key frame, where time runs back, and where a group grows too large."""
    back = int(RESET_NS / (time_base * NS)) or 1
    group = Group()
    last_dts: int | None = None
    for packet in packets:
        dts = packet.dts if packet.dts is not None else packet.pts
        ran_back = dts is not None and last_dts is not None and dts < last_dts - back
        full = len(group.packets) >= MAX_GROUP_PACKETS or group.size >= MAX_GROUP_BYTES
        if group.packets and (packet.is_keyframe or ran_back or full):
            group.more = not packet.is_keyframe
            yield group
            group = Group()
        group.packets.append(packet)
        group.size += packet.size
        last_dts = dts if dts is not None else last_dts
    if group.packets:
        yield group
