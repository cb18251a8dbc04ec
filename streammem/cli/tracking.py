"""``streammem watch --track``: objects that a person points at are followed into the same memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from streammem.cli.output import Output

if TYPE_CHECKING:
    from streammem.config import Config


def check_prompts(texts: list[str]) -> None:
    """Raises InputError for what can't be understood, before anything is watched."""
    from perception.trackers.prompts import parse_prompts

    parse_prompts(texts)


def track_into(
    source: str, place: Path, texts: list[str], config: Config, out: Output, *, policy: str, fps: float
) -> dict[str, Any]:
    """Follow ``texts`` through ``source`` into the memory at ``place``; what was seen, for the document."""
    import streammem.memory
    from perception.sources import open_source
    from perception.trackers.prompts import parse_prompts
    from perception.trackers.propagation import PropagationSettings
    from perception.trackers.watching import TrackReport, track_source
    from streammem.banks.policies import make_policy
    from streammem.clock import format_time
    from streammem.errors import SourceError

    prompts = parse_prompts(texts)
    make_policy(policy)
    opened = open_source(source, config)
    try:
        if opened.info.live:
            raise SourceError(f"{source}: --track follows recordings", hint="record it first, or use a tracker's node")

        def tell(report: TrackReport) -> None:
            out.note(f"tracked to {format_time(report.media_ns, opened.info.clock, 0)}: seen {report.seen}")

        with streammem.memory.open(place, config=config, mode="write") as memory:
            settings = PropagationSettings(policy=policy)
            report = track_source(opened, memory, prompts, fps=fps, settings=settings, progress=tell)
    finally:
        opened.close()
    seen = ", ".join(f"{prompt.name} in {report.seen.get(prompt.name, 0)}" for prompt in prompts)
    out.note(f"followed through {report.frames} frames: {seen}; streammem tracks {place}")
    return {
        "session": report.session,
        "frames": report.frames,
        "seen": report.seen,
        "dropped": report.dropped,
        "ram_bytes": report.ram_bytes,
    }
