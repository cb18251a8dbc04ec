"""Video at an address: rtsp, http(s), rtmp, udp, through PyAV. Every wait is bounded, and so is every retry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from perception.decoders.opening import pick_video_stream
from perception.decoders.packets import RESET_NS, read_packets
from perception.decoders.pictures import PictureMaker, degrees, orientation, upright_size
from perception.decoders.pyav import decode
from perception.frames import AudioChunk, Frame, Health, SourceInfo
from perception.identity import stream_id, text_hash
from perception.sampling import NS, FixedRate
from perception.sources.file import count_frozen
from perception.sources.live import LiveGrid, WallClock, wall_clock
from streammem.errors import SourceError

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

OPEN_S = 10.0
READ_S = 5.0
"""A camera that says nothing for so long is taken as gone."""
RETRIES = 3
RETRY_WAIT_S = (1.0, 2.0, 4.0)
# What may be opened on the way: a playlist on a web server must not reach the disk.
_WHITELIST = {
    "http": "http,https,tcp,tls,crypto",
    "https": "http,https,tcp,tls,crypto",
    "rtsp": "rtsp,rtsps,rtp,tcp,udp,tls,crypto",
    "rtsps": "rtsp,rtsps,rtp,tcp,udp,tls,crypto",
    "rtmp": "rtmp,tcp",
    "udp": "udp",
    "tcp": "tcp",
}


class AddressSource:
    """One address. Where the server says how long the video is (a file on a web server) time is the container's;
    otherwise it is a live stream on the wall clock: the arrival of the first frame plus the time stamps since then.

    After an error or a silence it connects again, three times in a row at most, then raises SourceError. Live streams
    keep nothing, so :meth:`look_again` says "gone"."""

    def __init__(
        self,
        address: str,
        *,
        fps: float = 1.0,
        clock: WallClock = wall_clock,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connects once, to learn the size. Raises SourceError where nothing answers, NoVideoStream for sound alone."""
        self.address = address
        self.shown = without_password(address)
        self.sampling = FixedRate(fps)
        self.health = Health()
        self._clock, self._sleep, self._closed = clock, sleep, False
        container = self._connect()
        try:
            stream = pick_video_stream(container, self.shown)
            first = self._first(container, stream)
            turned = orientation(first)
            aspect = float(stream.sample_aspect_ratio or 1)
            width, height = upright_size(first.width, first.height, aspect, turned)
            duration = container.duration * 1000 if container.duration and container.duration > 0 else None
            recorded = duration is not None and not address.startswith(("rtsp", "rtmp", "udp", "tcp"))
            identity = text_hash(without_user(address))
            self._info = SourceInfo(
                text=self.shown,
                kind="address",
                stream=stream_id(urlsplit(self.shown).path or "stream", identity),
                # The bytes aren't ours to read twice: a recording is known by its address and length.
                content_hash=text_hash(f"{identity}\0{duration}\0{width}x{height}") if recorded else "",
                clock="media" if recorded else "wall",
                width=width,
                height=height,
                fps=float(stream.average_rate or 0),
                duration_ns=duration if recorded else None,
                codec=stream.codec_context.name,
                rotation=degrees(turned),
                live=not recorded,
            )
        finally:
            container.close()
        self.health = Health()

    @property
    def info(self) -> SourceInfo:
        return self._info

    def frames(self, start_ns: int = 0, sampling: FixedRate | None = None) -> Iterator[Frame]:
        chosen = sampling or self.sampling
        frames = self._live(chosen) if self._info.live else self._recorded(chosen, start_ns)
        return count_frozen(frames, self.health)

    def audio(self, start_ns: int = 0) -> Iterator[AudioChunk] | None:
        return None

    def look_again(self, t_start_ns: int, t_end_ns: int, fps: float) -> list[Frame]:
        if self._info.live:
            return []
        found = []
        for frame in self._recorded(FixedRate(fps), t_start_ns):
            if frame.media_ns > t_end_ns:
                break
            found.append(frame)
        return found

    def close(self) -> None:
        self._closed = True

    def _recorded(self, sampling: FixedRate, start_ns: int) -> Iterator[Frame]:
        """A file on a server, from its start: seeking needs range requests, which not every server has. After a broken
        connection it goes on behind the last frame."""
        last_index, last_ns, failures = -1, -1, 0
        while True:
            before = last_ns
            try:
                for at, make in self._pictures():
                    index = sampling.index(at)
                    if at <= last_ns or index <= last_index:
                        continue
                    last_index, last_ns, failures = index, at, 0
                    if at >= start_ns:
                        yield Frame(make(), at, at, index)
                if self._info.duration_ns is None or last_ns + 2 * NS + 2 * sampling.period_ns > self._info.duration_ns:
                    return
                # A server that closes early looks like the end of the file.
                failures = self._again(failures if last_ns == before else 0, "the connection ended early")
            except SourceError as error:
                failures = self._again(failures, error.message)

    def _live(self, sampling: FixedRate) -> Iterator[Frame]:
        grid, failures = LiveGrid(sampling), 0
        while not self._closed:
            try:
                anchor: int | None = None
                before = 0
                for at, make in self._pictures():
                    if anchor is None or not before - RESET_NS <= at <= before + 60 * NS:
                        # The first frame, or the camera set its clock: its time is the time of arrival.
                        anchor = self._clock() - at
                    before, failures = at, 0
                    if grid.wants(anchor + at):
                        yield grid.frame(make(), anchor + at)
                failures = self._again(failures, "the stream ended")
            except SourceError as error:
                failures = self._again(failures, error.message)

    def _again(self, failures: int, why: str) -> int:
        if failures >= RETRIES:
            raise SourceError(f"{self.shown} is gone: {why} ({RETRIES} tries)", hint="check the camera and the network")
        self._sleep(RETRY_WAIT_S[min(failures, len(RETRY_WAIT_S) - 1)])
        self.health.reconnects += 1
        self.health.note(why)
        return failures + 1

    def _pictures(self) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """One connection: each picture's time in ns from its first, and a function that converts it."""
        import av

        container = self._connect()
        try:
            stream = pick_video_stream(container, self.shown)
            pictures, aspect = PictureMaker(), float(stream.sample_aspect_ratio or 1)
            stream.thread_type = "NONE"
            origin: int | None = None
            for packet in read_packets(container, stream, self.health):
                for frame in decode(stream, packet, self.health):
                    pts = frame.pts if frame.pts is not None else frame.dts
                    if pts is None or stream.time_base is None:
                        self.health.missing_pts += 1
                        continue
                    origin = pts if origin is None else origin
                    yield round((pts - origin) * stream.time_base * NS), partial(pictures.picture, frame, aspect)
                if self._closed:
                    return
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(f"reading {self.shown} failed: {_reason(error)}", hint="check the network") from error
        finally:
            container.close()

    def _connect(self) -> InputContainer:
        import av

        scheme = self.address.split(":", 1)[0].lower()
        options = {"protocol_whitelist": _WHITELIST.get(scheme, scheme)}
        if scheme.startswith("rtsp"):
            # UDP loses packets without a word behind most routers.
            options["rtsp_transport"] = "tcp"
        try:
            return av.open(self.address, options=options, timeout=(OPEN_S, READ_S), metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise SourceError(
                f"{self.shown} can't be opened: {_reason(error)}",
                hint="check address, password and network",
            ) from error

    def _first(self, container: InputContainer, stream: av.VideoStream) -> av.VideoFrame:
        import av

        try:
            for packet in read_packets(container, stream, self.health):
                for frame in decode(stream, packet, self.health):
                    return frame
                if self.health.packets > 600:
                    break
            for frame in decode(stream, None, self.health):
                return frame
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(f"reading {self.shown} failed: {_reason(error)}", hint="check the network") from error
        raise SourceError(f"no picture from {self.shown} can be decoded", hint="check the camera's settings")


def without_user(address: str) -> str:
    """The address without user and password."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1], fragment=""))


def without_password(address: str) -> str:
    """... and without its query, which may hold a key: fit for logs, names and the memory."""
    return urlunsplit(urlsplit(without_user(address))._replace(query=""))


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__)
