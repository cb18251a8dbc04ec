"""Video at an address: rtsp, http(s), rtmp, udp, through PyAV. Every wait is bounded, and so is every retry."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from perception.decoders.opening import pick_video_stream
from perception.decoders.packets import read_packets
from perception.decoders.pictures import PictureMaker, degrees, orientation, upright_size
from perception.decoders.pyav import decode
from perception.frames import AudioChunk, Frame, Health, SourceInfo
from perception.identity import stream_id, text_hash
from perception.sampling import NS, FixedRate
from perception.sources.file import count_frozen
from perception.sources.live import WallClock, wall_clock
from perception.sources.supervise import LiveFrames, Picture
from streammem.config import LiveConfig
from streammem.errors import SourceError
from streammem.redact import HIDDEN, credentials, escaped, redact

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

OPEN_S = 10.0
READ_S = 5.0
"""A server that says nothing for so long is taken as gone: half of ``live.stall_seconds``, so that a reader ends by
itself before it would be left behind."""
RETRIES = 3
RETRY_WAIT_S = (1.0, 2.0, 4.0)
"""For files on a server. Live streams are tried again as ``LiveConfig`` says."""
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

    A recording is tried again three times in a row; a live stream as ``LiveConfig`` says (``supervise.py``). It keeps
    nothing, so :meth:`look_again` says "gone"."""

    def __init__(
        self,
        address: str,
        *,
        fps: float = 1.0,
        clock: WallClock = wall_clock,
        sleep: Callable[[float], None] = time.sleep,
        config: LiveConfig | None = None,
    ) -> None:
        """Connects once, to learn the size. Raises SourceError where nothing answers, NoVideoStream for sound alone."""
        self.address = address
        self.shown = without_password(address)
        self.sampling = FixedRate(fps)
        self.health = Health()
        self._clock, self._sleep, self._closed = clock, sleep, False
        self._config = config or LiveConfig()
        self._secrets = credentials(address)
        self._running: LiveFrames | None = None
        container = self._connect()
        try:
            stream = pick_video_stream(container, self.shown)
            first = self._first(container, stream)
            turned = orientation(first)
            aspect = float(stream.sample_aspect_ratio or 1)
            width, height = upright_size(first.width, first.height, aspect, turned)
            duration = container.duration * 1000 if container.duration and container.duration > 0 else None
            recorded = duration is not None and not address.startswith(("rtsp", "rtmp", "udp", "tcp"))
            identity = text_hash(_named(address))
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
        if not self._info.live:
            return count_frozen(self._recorded(chosen, start_ns), self.health)
        self._running = LiveFrames(
            lambda: _Connection(self),
            self.shown,
            sampling=chosen,
            health=self.health,
            config=self._config,
            wall=self._clock,
        )
        return iter(self._running)

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

    @property
    def state(self) -> str:
        """live, frozen, starved or gone; empty before :meth:`frames` and for a recording."""
        return self._running.state if self._running is not None else ""

    def close(self) -> None:
        self._closed = True
        if self._running is not None:
            self._running.close()

    def _recorded(self, sampling: FixedRate, start_ns: int) -> Iterator[Frame]:
        """A file on a server, from its start: seeking needs range requests, which not every server has. After a broken
        connection it goes on behind the last frame."""
        last_index, last_ns, failures = -1, -1, 0
        while True:
            before = last_ns
            try:
                for at, make in self.pictures():
                    if at is None:
                        continue  # a format without times isn't a recording
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

    def _again(self, failures: int, why: str) -> int:
        if failures >= RETRIES:
            raise SourceError(f"{self.shown} is gone: {why} ({RETRIES} tries)", hint="check the camera and the network")
        self._sleep(RETRY_WAIT_S[min(failures, len(RETRY_WAIT_S) - 1)])
        self.health.reconnects += 1
        self.health.note(why)
        return failures + 1

    def pictures(self) -> Generator[tuple[int | None, Callable[[], np.ndarray]], None, None]:
        """One connection: each picture's time in ns from its first, and a function that converts it. The time is None
        where the format has none: FFmpeg numbers the parts of ``multipart/x-mixed-replace`` as if at 25 a second."""
        import av

        container = self._connect()
        try:
            stream = pick_video_stream(container, self.shown)
            pictures, aspect = PictureMaker(), float(stream.sample_aspect_ratio or 1)
            stream.thread_type = "NONE"
            origin: int | None = None
            untimed = container.format.name == "mpjpeg"
            for packet in read_packets(container, stream, self.health):
                for frame in decode(stream, packet, self.health):
                    if untimed:
                        yield None, partial(pictures.picture, frame, aspect)
                        continue
                    pts = frame.pts if frame.pts is not None else frame.dts
                    if pts is None or stream.time_base is None:
                        self.health.missing_pts += 1
                        continue
                    origin = pts if origin is None else origin
                    yield round((pts - origin) * stream.time_base * NS), partial(pictures.picture, frame, aspect)
                if self._closed:
                    return
        except (av.error.FFmpegError, OSError) as error:
            raise SourceError(f"reading {self.shown} failed: {self._reason(error)}", hint="check the network") from None
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
            timeout = (OPEN_S, min(READ_S, self._config.stall_seconds / 2))
            return av.open(escaped(self.address), options=options, timeout=timeout, metadata_errors="replace")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            # `from None`: PyAV's own message repeats the address with its password, and a traceback would show it.
            raise SourceError(
                f"{self.shown} can't be opened: {self._reason(error)}",
                hint="check address, password and network",
            ) from None

    def _reason(self, error: BaseException) -> str:
        return redact(str(getattr(error, "strerror", None) or type(error).__name__), self._secrets)

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
            raise SourceError(f"reading {self.shown} failed: {self._reason(error)}", hint="check the network") from None
        raise SourceError(f"no picture from {self.shown} can be decoded", hint="check the camera's settings")


def without_password(address: str) -> str:
    """The address without user, password and query (it may hold a key): fit for logs, names and the memory."""
    return redact(urlunsplit(urlsplit(_named(address))._replace(query="", fragment="")))


def _named(address: str) -> str:
    """What names the camera, whatever its password is now: without user, password and keys in the query."""
    return redact(address).replace(f"{HIDDEN}@", "", 1)


class _Connection:
    """One connection of a live address, for the supervisor."""

    def __init__(self, source: AddressSource) -> None:
        self._source, self._ended = source, False

    def pictures(self) -> Generator[Picture, None, None]:
        pictures = self._source.pictures()
        try:
            for at, make in pictures:
                if self._ended:
                    return
                yield at, make
        finally:
            pictures.close()

    def close(self) -> None:
        # Closing the container here could pull it away under the reader inside FFmpeg; its time-out ends it.
        self._ended = True
