"""A model's captions on the command line: where they are kept, and those of a timeline within a budget.

Nothing of this runs while a source is watched: captioning is a reader's work, on demand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from streammem.cli.output import Output
from streammem.config import Config
from streammem.errors import ConfigError, InputError
from streammem.paths import cache_dir

if TYPE_CHECKING:
    from streammem.captions import Captioner
    from streammem.cli.present import ClockOf
    from streammem.cli.watched import Opened
    from streammem.memory import Memory
    from streammem.model import StreamInfo
    from streammem.reason.base import ChatModel, Revisit, Spent
    from streammem.reason.caption_store import CaptionStore
    from streammem.reason.captioning import Captions, Run

Entry = dict[str, Any]
EMBEDDED = "composed"


def store_file(config: Config) -> Path:
    return cache_dir(config.cache_dir) / "captions.db"


def open_store(config: Config) -> CaptionStore:
    from streammem.reason.caption_store import CaptionStore

    return CaptionStore(store_file(config))


def model_captions(config: Config, model: ChatModel, memory: Memory, revisit: Revisit) -> Captions:
    """The captions of a chat model over a memory. Its ``store`` is to be closed."""
    from streammem.reason.captioner import ModelCaptioner
    from streammem.reason.captioning import Captions

    return Captions(ModelCaptioner(model), open_store(config), memory, revisit)


def chosen_captioner(config: Config, name: str | None, endpoint: str | None, model: str | None) -> Captioner | None:
    """The captioner of the flags; None for the embedded one, which needs no model. Raises ConfigError,
    ModelUnavailable."""
    from streammem.captions import open_captioner

    name = name or ("model" if endpoint or model else EMBEDDED)
    if name == EMBEDDED:
        if endpoint or model:
            raise ConfigError("the embedded captioner asks no model", hint="--captioner model, or leave it out")
        return None
    settings = config.reason
    named = {"endpoint": endpoint or settings.endpoint, "model": model or settings.model}
    options: dict[str, Any] = {key: value for key, value in named.items() if value}
    if name == "model":
        options |= {"sees": settings.sees, "timeout_s": settings.timeout_seconds}
    return open_captioner(name, **options)


def caption_entries(
    opened: Opened,
    settings: Config,
    out: Output,
    captioner: Captioner,
    levels: Sequence[Sequence[Entry]],
    *,
    target: str,
    between: tuple[int, int] | None,
    budget: str | None,
    clock_of: ClockOf,
) -> tuple[Run, Spent, list[str]]:
    """Put the captioner's words into the entries of a timeline, coarse ones first; where there are none the embedded
    caption stays. Every entry says whose caption it has (``captioner``) and, where that isn't the one asked for, why
    (``instead``). Raises InputError for a service, whose frames aren't at hand."""
    from streammem.cli.deepen import SecondLook
    from streammem.clock import format_range
    from streammem.memory import Memory
    from streammem.reason.base import Budget, Purse
    from streammem.reason.captioning import Captions, caption_all, clip_of

    memory = opened.memory
    if not isinstance(memory, Memory):
        raise InputError(
            f"{opened.name}: a captioner looks at frames, this is a service",
            hint="name the directory on the service's machine",
        )
    entries = [entry for level in levels for entry in level]
    wanted = [
        (clip_of(entry["stream"], entry["t_start_ns"], entry["scope_ns"], between), entry["level"]) for entry in entries
    ]
    purse = Purse(Budget.parse(budget or ""))
    revisit, store = SecondLook(opened, settings, target), open_store(settings)

    def progress(place: int, run: Run) -> None:
        entry = entries[place]
        when = format_range(entry["t_start_ns"], entry["t_end_ns"], clock_of(entry["stream"]))
        out.note(f"{len(run.captions)} of {run.total} · {when} · {run.failed.get(place, 'captioned')}")

    try:
        run = caption_all(Captions(captioner, store, memory, revisit, purse), wanted, progress)
    finally:
        revisit.close()
        store.close()
        close = getattr(captioner, "close", None)
        if close is not None:
            close()
    for place, entry in enumerate(entries):
        kept = run.captions.get(place)
        entry["captioner"] = captioner.id if kept is not None else EMBEDDED
        if kept is not None:
            entry["facts"], entry["caption"] = entry["caption"], kept.text
        else:
            entry["instead"] = run.failed.get(place) or run.why
    return run, purse.tick(), [store.note] if store.note else []


def captions_document(run: Run, spent: Spent, captioner: str, notes: Sequence[str]) -> Mapping[str, Any]:
    """What became of the captions, as plain values."""
    from streammem.reason.captioning import named

    return {**named(run, captioner), "spent": msgspec.to_builtins(spent), "notes": list(notes)}


def say(run: Run, spent: Spent, captioner: str, notes: Sequence[str], out: Output) -> None:
    """One grey line: whose captions these are and what they cost now."""
    from streammem.printable import printable

    out.note(
        f"captions by {printable(captioner, 80)}: {run.made} made, {run.reused} from before; {spent.calls} calls, "
        f"{spent.tokens:,} tokens, {spent.frames} frames, {spent.seconds:.1f} s"
    )
    if run.partial:
        why = run.why or next(iter(run.failed.values()), "")
        out.note(f"partial: {run.total - len(run.captions)} keep the embedded caption: {printable(why, 300)}")
    for note in notes:
        out.note(note)


def forget_captions(config: Config, infos: Iterable[StreamInfo], between: tuple[int, int] | None) -> int:
    """Forget what was written about these streams, so that nothing outlives ``forget`` in the cache. Returns how
    many. Raises StorageError."""
    from streammem.errors import StorageError
    from streammem.reason.captioning import content_of

    if not store_file(config).exists():
        return 0
    store = open_store(config)
    try:
        if store.note:
            raise StorageError(store.note, hint=f"delete {store_file(config)}")
        return sum(store.forget(content_of(info), between) for info in infos)
    finally:
        store.close()
