"""What the journal holds: everything that happens to a memory is an entry first."""

from __future__ import annotations

from typing import NamedTuple

from streammem.model import Observation


class Kind:
    """Types of journal entries."""

    OBSERVATION, STATE, STREAM, PIN, UNPIN, FORGET, DROPS = range(1, 8)


class Pending(NamedTuple):
    """A journal entry on its way: appended, not yet synced."""

    kind: int
    payload: bytes
    observation: Observation | None = None
    digest: int = 0
    lsn: int = 0
