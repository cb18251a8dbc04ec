"""Commands that talk to a memory service: what is an address, connecting, watching into a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streammem.cli.output import Output
from streammem.errors import InputError, SourceError

if TYPE_CHECKING:
    from perception.pipeline import WatchReport
    from streammem.client import Client
    from streammem.config import Config


def is_address(target: str) -> bool:
    """Does it name a service (``tcp://``, ``ipc://``)? Cameras come as rtsp:// and http://."""
    return target.startswith(("tcp://", "ipc://"))


def connect_to(address: str, key: str | None) -> Client:
    """Raises ServiceUnreachable (exit code 3), KeyFileError, InsecureAddress, AccessDenied."""
    from streammem.client import connect

    return connect(address, keys=key, name="streammem command")


def watch_to(
    target: str,
    address: str,
    config: Config,
    out: Output,
    *,
    key: str | None = None,
    rewatch: bool = False,
    speed: float | None = None,
) -> WatchReport:
    """Watch a source into a service. A recording loses nothing (it waits for the service); of a live source the newest
    pictures win, and what was left out is counted. Raises KeyboardInterrupt after an interrupted watch is flushed."""
    from perception.encoders.suite import EncoderSuite
    from perception.pipeline import checkpoint_key, read_checkpoint, watch
    from perception.publisher import KeepNewest, Lossless, Publisher
    from perception.sources import open_source
    from streammem.cli.progress import WatchProgress
    from streammem.cli.watched import describe_watch
    from streammem.clock import format_time

    suite = EncoderSuite(config.perception, cache=config.cache_dir)
    suite.require()
    source = open_source(target, config)
    try:
        if speed is not None:
            from perception.sources.paced import Paced

            source = Paced(source, speed)
        info = source.info
        # Asked first, so that a wrong address is said before the encoders wake up.
        connect_to(address, key).close()
        lane = KeepNewest() if info.live else Lossless()
        with Publisher(address, lane=lane, keys=key, name=f"watch {info.stream}"[:200]) as publisher:
            from perception.identity import configuration_hash

            session = configuration_hash(config.perception, suite.identity())
            if rewatch:
                raise InputError("--rewatch goes with a memory's directory", hint=f"streammem forget {address} first")
            before = read_checkpoint(publisher, info.stream, session)
            if before is not None and before.done:
                out.note("already watched; nothing to do")
            elif before is not None and before.next_ns:
                out.note(f"Resuming at {format_time(before.next_ns, info.clock, 0)}")
            publisher.put_state(checkpoint_key(info.stream, "session"), session.encode())
            with WatchProgress(out, target, info.duration_ns, info.clock) as progress:
                report = watch(source, publisher, suite, config, progress=progress.update)
            publisher.flush()
            for reason, count in sorted(publisher.drops.items()):
                out.note(f"left out: {count:,} {reason}")
    finally:
        source.close()
    fresh = before is None or not before.frames
    if report.frames == 0 and not report.interrupted and fresh:
        raise SourceError(f"{info.text}: no picture could be decoded", hint="streammem doctor")
    describe_watch(report, info.clock, out)
    if report.interrupted:
        raise KeyboardInterrupt
    return report
