"""``streammem watch --track``: objects that a person points at are followed into the same memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from streammem.cli.output import Output
from streammem.errors import InputError, ModelUnavailable, SourceError

if TYPE_CHECKING:
    from streammem.config import Config


DETECTOR = "detector:"
"""``--track detector:PATH[,looks=PATH|lite0][,label=NAME...]`` follows whatever a detector finds."""


def check_prompts(texts: list[str], model: str | None = None) -> None:
    """Raises InputError for what can't be understood, ModelUnavailable for files that aren't there: before anything is
    watched."""
    from perception.trackers.prompts import parse_prompts

    prompts = parse_prompts([text for text in texts if not text.startswith(DETECTOR)])
    if any(prompt.kind == "words" for prompt in prompts):
        from perception.trackers.wording import known_classes

        for prompt in prompts:
            if prompt.kind == "words":
                known_classes(prompt.words)
    if sum(text.startswith(DETECTOR) for text in texts) > 1:
        raise InputError("--track takes one detector", hint="watch again with the other one")
    for text in texts:
        path = text.removeprefix(DETECTOR).partition(",")[0]
        if text.startswith(DETECTOR) and not Path(path).is_file():
            raise ModelUnavailable(f"there is no detector at {path}", hint="give the path of an ONNX file")
    if model is not None:
        from perception.encoders.hub_files import find_model, require_transformers

        require_transformers()
        find_model(model, required=("config.json",))


def track_into(
    source: str,
    place: Path,
    texts: list[str],
    config: Config,
    out: Output,
    *,
    policy: str,
    fps: float,
    model: str | None = None,
) -> dict[str, Any]:
    """Follow ``texts`` through ``source`` into the memory at ``place``; what was seen, for the document."""
    found = [text for text in texts if text.startswith(DETECTOR)]
    document = _detected(source, place, found[0].removeprefix(DETECTOR), config, out, fps=fps) if found else {}
    texts = [text for text in texts if text not in found]
    if not texts:
        return document
    import streammem.memory
    from perception.sources import open_source
    from perception.trackers.prompts import parse_prompts, prompt_mask
    from perception.trackers.propagation import PropagationSettings
    from perception.trackers.watching import track_source
    from perception.trackers.wording import with_words
    from perception.trackers.writing import TrackReport
    from streammem.banks.policies import make_policy
    from streammem.clock import format_time

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
            tracker = _sam2(model, policy) if model else {"prompted": with_words(prompt_mask)}
            report = track_source(opened, memory, prompts, fps=fps, settings=settings, progress=tell, **tracker)
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
        **({"detector": document} if document else {}),
    }


def _sam2(model: str, policy: str) -> dict[str, Any]:
    """SAM 2 or EdgeTAM instead of the CPU tracker, by folder or name."""
    from perception.encoders.hub_files import require_transformers

    require_transformers()
    from perception.trackers.sam2 import Sam2Settings, Sam2Tracker
    from perception.trackers.sam2_model import open_model
    from perception.trackers.sam2_prompts import box_prompt, sam_prompt
    from perception.trackers.wording import with_words

    tracker = Sam2Tracker(open_model(model), Sam2Settings(policy=policy))
    prompted = with_words(sam_prompt, of_mask=box_prompt)
    return {"tracker": tracker, "made_by": ("perception.trackers.sam2", model), "prompted": prompted}


def _detected(source: str, place: Path, text: str, config: Config, out: Output, *, fps: float) -> dict[str, Any]:
    """Follow what the detector in ``text`` finds; see DETECTOR."""
    import streammem.memory
    from perception.sources import open_source
    from perception.trackers.appearance import open_appearance
    from perception.trackers.detecting import follow_detections
    from perception.trackers.detectors import open_detector
    from perception.trackers.writing import TrackReport
    from streammem.cli.present import plain
    from streammem.clock import format_time

    model, *rest = text.split(",")
    pairs = [part.partition("=") for part in rest]
    wrong = [
        part
        for part, (name, equals, _) in zip(rest, pairs, strict=True)
        if name not in ("looks", "label") or not equals
    ]
    if wrong:
        raise InputError(f"--track {DETECTOR}{text}: {wrong[0]!r} isn't understood", hint="looks=lite0, label=person")
    labels = [value for name, _, value in pairs if name == "label"]
    looks = next((value for name, _, value in pairs if name == "looks"), None)
    detector = open_detector(model, classes=labels or None)
    appearance = open_appearance(looks) if looks else None
    opened = open_source(source, config)
    try:
        if opened.info.live:
            raise SourceError(f"{source}: --track follows recordings", hint="record it first, or use a tracker's node")

        def tell(report: TrackReport) -> None:
            out.note(f"tracked to {format_time(report.media_ns, opened.info.clock, 0)}: {len(report.seen)} tracks")

        with streammem.memory.open(place, config=config, mode="write") as memory:
            report = follow_detections(opened, memory, detector, appearance=appearance, fps=fps, progress=tell)
    finally:
        opened.close()
    out.note(
        f"{len(report.seen)} tracks in {report.frames} frames, {report.refound_n} found again; streammem tracks {place}"
    )
    for one in report.refound[-5:]:
        like = f"like frame {one.like_t} ({one.alike:.2f})" if one.alike is not None else "no looks"
        out.note(f"  track {one.track} after {one.absent} frames, by {one.by}: score {one.score:.2f}, {like}")
    return {
        "session": report.session,
        "frames": report.frames,
        "seen": report.seen,
        "dropped": report.dropped,
        "ram_bytes": report.ram_bytes,
        "refound": plain(report.refound),
    }
