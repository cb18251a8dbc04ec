"""What every bank does. To add one: a file here, one line in ``streammem/memory.py``, one test file.

A bank sees every record of level 0 of its streams, in the order of the journal, after it is durable. It decides by
capture time only: it has no clock. What it wants to keep for good it returns as records of its own ``name``; they go
into the open part of that bank and stream and are sealed with it. What it needs to go on after a restart it gives as
``state``; the memory saves that in the transaction that seals the stream, loads it when the memory is opened, and then
feeds the journal's tail again. So a bank never writes a file, and a kill at any moment changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from streammem.model import FrameRef, Record, StreamInfo
from streammem.spaces import EmbeddingSpace
from streammem.storage.blocks import Block

Between = tuple[int | None, int | None]
"""A closed interval of capture time in ns; None leaves an end open."""

Recall = Callable[[int], Record | None]
"""Look up a record by its id, thumbnail included; None where it is no longer there."""


class Bank(Protocol):
    """One mechanism of remembering, for all streams."""

    name: str

    def observe(self, record: Record) -> Sequence[Record]:
        """Take in one moment. Returns the records that are finished by it, oldest first; mostly none."""
        ...

    def state(self, stream: str) -> bytes:
        """Everything needed to go on with this stream from here."""
        ...

    def load(self, stream: str, state: bytes, recall: Recall) -> None:
        """Take up a saved state. Raises CorruptData if it can't be read; the bank then starts empty."""
        ...

    def ram_bytes(self) -> int:
        """RAM held now."""
        ...

    def forget(self, stream: str, t_start_ns: int, t_end_ns: int) -> int:
        """Drop what overlaps the closed interval. Returns how many records that were."""
        ...

    def digest(self, stream: str) -> bytes:
        """What this bank's state contributes to the memory's digest; empty if its records say it all."""
        ...


class Spanned(Protocol):
    """Anything with a closed interval of capture time."""

    @property
    def t_start_ns(self) -> int: ...

    @property
    def t_end_ns(self) -> int: ...


def outside(spans: Iterable[Spanned], t_start_ns: int, t_end_ns: int) -> list[bool]:
    """For each, whether forgetting a closed interval leaves it: it doesn't touch it."""
    return [span.t_start_ns > t_end_ns or span.t_end_ns < t_start_ns for span in spans]


def digest_of(state: bytes) -> bytes:
    """The digest of a bank whose state says it all: 16 bytes, none for an empty state."""
    return hashlib.blake2b(state, digest_size=16).digest() if state else b""


class Reader(Protocol):
    """What a question may look at besides the bank's own state; ``Memory`` is one. Nothing here changes anything."""

    def blocks(
        self, bank: str = "moments", streams: Sequence[str] | None = None, between: Between | None = None
    ) -> list[Block]: ...

    def record(self, record_id: int) -> Record | None: ...

    def thumbnail(self, record_id: int) -> bytes | None: ...

    def frame_refs(self, stream: str, records: Sequence[Record]) -> list[FrameRef]:
        """The frames of these records that exist now, in the memory or in the source."""
        ...

    def streams(self) -> list[StreamInfo]: ...

    def space(self, space_id: str) -> EmbeddingSpace | None: ...


Question = Callable[..., Any]
"""``question(reader, *, streams, **arguments)``: a read-only question to a bank.

``streams`` is a sequence of stream names or None for all: whoever may see some streams only gets answers from those.
The other arguments are keywords of plain types (numbers, text, lists, dicts), the result is a msgspec struct or plain
types, so that it crosses a wire. Its docstring says what is asked, its annotations are its schema. It is called with
the memory locked, so it should answer in milliseconds. Raises QueryError."""


@runtime_checkable
class Asked(Protocol):
    """A bank with questions of its own."""

    def questions(self) -> Mapping[str, Question]: ...
