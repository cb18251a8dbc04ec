"""Short-term memory: the last seconds of every stream at full detail, in RAM.

A ring by stream time (``seconds``) for each stream and by bytes over all of them. It is a view: everything in it is in
the journal or in segments too, so its saved state is a list of record ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import compress

import msgspec

from streammem.banks.base import Question, Reader, Recall, outside
from streammem.errors import CorruptData
from streammem.model import Record
from streammem.storage.open_part import ROW_OVERHEAD


def record_bytes(record: Record) -> int:
    """RAM of a record: arrays, picture, and what its Python objects take."""
    arrays = sum(array.nbytes for array in record.arrays.values())
    vector = 0 if record.vector is None else record.vector.nbytes
    return arrays + vector + len(record.thumbnail or b"") + ROW_OVERHEAD


class Held(msgspec.Struct, frozen=True):
    """The ring of one stream. Times in ns of capture time, both ends included."""

    stream: str
    moments: int
    bytes: int
    t_start_ns: int
    t_end_ns: int


class ShortTermBank:
    """``seconds`` of stream time before the newest record, at most ``cap_bytes`` over all streams."""

    name = "short_term"

    def __init__(self, seconds: float, cap_bytes: int) -> None:
        self._length_ns = int(seconds * 1e9)
        self._cap = cap_bytes
        self._rings: dict[str, deque[Record]] = {}
        self._sizes: dict[str, int] = {}

    def observe(self, record: Record) -> Sequence[Record]:
        self._push(record)
        return ()

    def _push(self, record: Record) -> None:
        ring = self._rings.setdefault(record.stream, deque())
        ring.append(record)
        self._sizes[record.stream] = self._sizes.get(record.stream, 0) + record_bytes(record)
        # A late record doesn't move the window back.
        newest = max(ring[-1].t_end_ns, ring[-2].t_end_ns if len(ring) > 1 else ring[-1].t_end_ns)
        while ring and newest - ring[0].t_end_ns > self._length_ns:
            self._drop(record.stream)
        while self.ram_bytes() > self._cap and self._sizes:
            self._drop(max(self._sizes, key=lambda stream: (self._sizes[stream], stream)))

    def _drop(self, stream: str) -> None:
        ring = self._rings[stream]
        self._sizes[stream] -= record_bytes(ring.popleft())
        if not ring:
            del self._rings[stream], self._sizes[stream]

    def recent(self, stream: str) -> list[Record]:
        """What is in the ring, oldest first, thumbnails included."""
        return list(self._rings.get(stream, ()))

    def questions(self) -> Mapping[str, Question]:
        return {"held": self._held}

    def _held(self, reader: Reader, *, streams: Sequence[str] | None) -> list[Held]:
        """What is held of each stream: moments, bytes, and the interval of capture time."""
        rings = [(name, ring) for name, ring in sorted(self._rings.items()) if streams is None or name in streams]
        return [
            Held(
                stream=name,
                moments=len(ring),
                bytes=self._sizes[name],
                t_start_ns=min(record.t_start_ns for record in ring),
                t_end_ns=max(record.t_end_ns for record in ring),
            )
            for name, ring in rings
        ]

    def state(self, stream: str) -> bytes:
        return msgspec.msgpack.encode([record.record_id for record in self._rings.get(stream, ())])

    def load(self, stream: str, state: bytes, recall: Recall) -> None:
        try:
            ids = msgspec.msgpack.decode(state, type=list[int])
        except msgspec.DecodeError as error:
            raise CorruptData(f"the saved short-term memory of {stream!r} can't be read: {error}") from error
        for number in ids:
            record = recall(number)
            if record is not None:
                self._push(record)

    def ram_bytes(self) -> int:
        return sum(self._sizes.values())

    def forget(self, stream: str, t_start_ns: int, t_end_ns: int) -> int:
        ring = self._rings.get(stream)
        if not ring:
            return 0
        kept = list(compress(ring, outside(ring, t_start_ns, t_end_ns)))
        gone = len(ring) - len(kept)
        del self._rings[stream], self._sizes[stream]
        for record in kept:
            self._push(record)
        return gone

    def digest(self, stream: str) -> bytes:
        return b""
