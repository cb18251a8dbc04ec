"""What the journal holds: everything that happens to a memory is an entry first."""

from __future__ import annotations

from typing import NamedTuple

from streammem.model import Record
from streammem.wire import Buffer


class Kind:
    """Types of journal entries."""

    OBSERVATION, STATE, STREAM, PIN, UNPIN, FORGET, DROPS, CITE = range(1, 9)


class Pending(NamedTuple):
    """A journal entry on its way: appended, not yet synced. An observation is a record already, with its own copy of
    every array; ``digest`` is the hash of its packet, ``size`` what it takes in the journal."""

    kind: int
    payload: bytes | tuple[Buffer, ...] = b""
    record: Record | None = None
    digest: int = 0
    lsn: int = 0
    size: int = 0
