"""Commands that talk to a memory service: what is an address, connecting, watching into a service, its status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streammem.cli.output import Output
from streammem.errors import InputError, SourceError

if TYPE_CHECKING:
    from perception.pipeline import WatchReport
    from streammem.client import Client
    from streammem.config import Config
    from streammem.health import HealthSnapshot

_STATE_COLOURS = {"live": "green", "late": "yellow", "frozen": "red", "starved": "yellow", "gone": "dim"}


def is_address(target: str) -> bool:
    """Does it name a service (``tcp://``, ``ipc://``)? Cameras come as rtsp:// and http://."""
    return target.startswith(("tcp://", "ipc://"))


def connect_to(address: str, key: str | None) -> Client:
    """Raises ServiceUnreachable (exit code 3), KeyFileError, InsecureAddress, AccessDenied."""
    from streammem.client import connect

    return connect(address, keys=key, name="streammem command")


def watch_to(
    target: str, address: str, config: Config, out: Output, *, key: str | None = None, rewatch: bool = False
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


def health_document(found: HealthSnapshot) -> dict[str, Any]:
    from streammem.cli.present import plain

    return dict(plain(found))


def print_health(found: HealthSnapshot, out: Output) -> None:
    """The service's streams and counters, for people."""
    from rich.table import Table
    from rich.text import Text

    from streammem.cli.present import size
    from streammem.clock import format_duration
    from streammem.printable import printable

    queries = found.queries
    asked = f"{queries.answered:,} questions" + (f", p99 {queries.p99_s * 1000:.0f} ms" if queries.p99_s else "")
    up = format_duration(int(found.uptime_s * 1e9))
    out.line(f"up {up}; {found.clients} clients; {asked}; {queries.failed} failed", "dim")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("stream", "state", "rate", "bytes/s", "lag p99", "seen", "dropped"):
        table.add_column(heading, justify="left" if heading in ("stream", "state") else "right")
    for item in found.streams:
        lag = f"{item.lag_p99_s * 1000:.0f} ms" if item.lag_p99_s is not None else "-"
        drops = ", ".join(f"{count:,} {reason}" for reason, count in sorted(item.drops.items()))
        state = Text(f"{item.state} {format_duration(int(item.for_s * 1e9))}", _STATE_COLOURS.get(item.state, ""))
        name = Text(printable(item.stream, 60), "magenta")
        row = (f"{item.rate_hz:.1f}/s", size(int(item.bytes_per_s)), lag, f"{item.observations:,}", drops or "0")
        table.add_row(name, state, *row)
    out.result.print(table)
    for title, counts in (("refused connections", found.refused), ("refused messages", found.bad_messages)):
        for reason, count in sorted(counts.items()):
            out.line(f"{title}: {count:,} {reason}", "yellow")
    for note in found.notes:
        out.line(note, "dim")
