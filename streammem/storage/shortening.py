"""Shortening the journal: what segments and the catalogue hold by now need not be kept twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from streammem.storage.journal import Frame, Journal

if TYPE_CHECKING:
    from streammem.storage.engine import Engine


def shorten_journal(engine: Engine, *, rewrite: bool = False) -> None:
    """Save the small state, drop journal files that nothing needs, and compact when one idle stream's entries keep
    many files alive. What is durable and not yet applied is needed."""
    store, journal = engine.store, engine.journal
    store.save_small_state(journal.last_lsn)
    engine.breathe()
    needed = [engine.backlog[0].lsn] if engine.backlog else []
    oldest = store.oldest_open_lsn()
    needed += [] if oldest is None else [oldest]
    journal.truncate_before(min(needed, default=journal.last_lsn + 1))
    content = sum(part.bytes for part in store.parts.values()) + sum(entry.size for entry in engine.backlog)
    if rewrite or journal.bytes > 2 * content + 2 * engine.caps.journal_file:
        journal.rewrite(_needed_frames(engine))


def _needed_frames(engine: Engine) -> Iterator[Frame]:
    """Entries of the journal that no segment and no catalogue holds."""
    lsns = {lsn for (bank, _), part in engine.store.parts.items() if bank == "moments" for lsn in part.lsns}
    lsns |= {entry.lsn for entry in engine.backlog}
    reader = Journal(engine.directory / "journal", engine.files, write=False)
    return (frame for frame in reader.replay() if frame.lsn in lsns)
