"""The methods of ``Memory`` that go over the wire: their arguments, their results, and what they need.

Both ends read this table; a method that isn't here can't be called. Arguments and results are MessagePack of the
structs that the engine itself uses, so that a client gets what a caller in the process gets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from streammem.checks import DTYPES
from streammem.errors import ProtocolError
from streammem.health import HealthSnapshot
from streammem.model import (
    Answer,
    Detection,
    Evidence,
    Intrinsics,
    Label,
    Pose,
    Producer,
    Record,
    Speech,
    StateFact,
    Status,
    StreamInfo,
    TextSpan,
)
from streammem.storage.reports import ForgetReport
from streammem.storage.reports import Status as MemoryStatus
from streammem.wire import Buffer, BufferInfo

Between = tuple[int | None, int | None]


class _Arguments(msgspec.Struct, kw_only=True, omit_defaults=True):
    pass


class Nothing(_Arguments):
    pass


class SearchArguments(_Arguments):
    query: str
    k: int | None = None
    between: Between | None = None
    streams: tuple[str, ...] | None = None


class AskArguments(_Arguments):
    question: str
    k: int | None = None
    between: Between | None = None
    streams: tuple[str, ...] | None = None


class QueryArguments(_Arguments):
    bank: str
    question: str
    streams: tuple[str, ...] | None = None
    arguments: dict[str, Any] = {}


class IntervalArguments(_Arguments):
    stream: str
    between: Between = (None, None)


class ForgetArguments(_Arguments):
    stream: str | None = None
    between: Between | None = None


class RecordArguments(_Arguments):
    record_id: int


class StreamArguments(_Arguments):
    stream: str


class KeyArguments(_Arguments):
    key: str


class StateArguments(_Arguments):
    key: str
    value: bytes
    durable: bool = True


class InfoArguments(_Arguments):
    info: StreamInfo


class SessionArguments(_Arguments):
    stream: str
    session: str = ""


class SeqArguments(_Arguments):
    stream: str
    session: str
    seq: int


class RecordHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record without its arrays, which follow as buffers; ``vector`` is one of them."""

    record_id: int
    bank: str
    stream: str
    t_start_ns: int
    t_end_ns: int
    session: str = ""
    seq: int = 0
    level: int = 0
    count: int = 1
    status: Status = "active"
    confidence: float = 1.0
    parents: tuple[int, ...] = ()
    producer: Producer
    media_ns: int | None = None
    space: str | None = None
    labels: tuple[Label, ...] = ()
    detections: tuple[Detection, ...] = ()
    texts: tuple[TextSpan, ...] = ()
    speech: tuple[Speech, ...] = ()
    states: tuple[StateFact, ...] = ()
    pose: Pose | None = None
    intrinsics: Intrinsics | None = None
    stats: dict[str, float] = {}
    thumbnail: bytes | None = None
    buffers: tuple[BufferInfo, ...] = ()


_FIELDS = tuple(name for name in RecordHeader.__struct_fields__ if name != "buffers")


class Call(NamedTuple):
    """``action`` is what the caller's role must allow (``keys.ACTIONS``); ``changes``: an answer is kept for a while,
    so that the same request, sent again after a reconnect, isn't done again."""

    arguments: type[msgspec.Struct]
    result: Any
    action: str
    changes: bool = False


CALLS: dict[str, Call] = {
    "search": Call(SearchArguments, list[Evidence], "search"),
    "ask": Call(AskArguments, Answer, "ask"),
    "query": Call(QueryArguments, Any, "search"),
    "status": Call(Nothing, MemoryStatus, "status"),
    "health": Call(Nothing, HealthSnapshot, "status"),
    "streams": Call(Nothing, list[StreamInfo], "streams"),
    "digest": Call(Nothing, str, "digest"),
    "observation_count": Call(Nothing, int, "status"),
    "record": Call(RecordArguments, RecordHeader | None, "record"),
    "recent": Call(StreamArguments, list[RecordHeader], "record"),
    "thumbnail": Call(RecordArguments, bytes | None, "thumbnail"),
    "has": Call(SeqArguments, bool, "stream_status"),
    "last_seq": Call(SessionArguments, int | None, "stream_status"),
    "get_state": Call(KeyArguments, bytes | None, "get_state"),
    "put_state": Call(StateArguments, type(None), "put_state", True),
    "set_stream": Call(InfoArguments, type(None), "set_stream", True),
    "flush": Call(Nothing, type(None), "flush", True),
    "seal": Call(Nothing, int, "seal", True),
    "pin": Call(IntervalArguments, type(None), "pin", True),
    "unpin": Call(IntervalArguments, type(None), "unpin", True),
    "forget": Call(ForgetArguments, ForgetReport, "forget", True),
}


def encode_records(records: Sequence[Record]) -> tuple[list[RecordHeader], list[Buffer]]:
    """Headers, and the bytes of all their arrays in that order."""
    headers: list[RecordHeader] = []
    buffers: list[Buffer] = []
    for record in records:
        infos = []
        arrays = {**record.arrays, **({"vector": record.vector} if record.vector is not None else {})}
        for name in sorted(arrays):
            plain = np.ascontiguousarray(arrays[name])
            infos.append(BufferInfo(name, plain.dtype.str, plain.shape))
            buffers.append(plain.tobytes())
        fields = {name: getattr(record, name) for name in _FIELDS}
        fields["stats"] = dict(record.stats)
        headers.append(RecordHeader(**fields, buffers=tuple(infos)))
    return headers, buffers


def decode_records(headers: Sequence[RecordHeader], buffers: Sequence[Buffer]) -> list[Record]:
    """The records again. Raises ProtocolError where the buffers don't fit."""
    records: list[Record] = []
    at = 0
    for header in headers:
        arrays: dict[str, np.ndarray] = {}
        for info in header.buffers:
            dtype = DTYPES.get(info.dtype)
            if dtype is None or at >= len(buffers) or math.prod(info.shape) * dtype.itemsize != len(buffers[at]):
                raise ProtocolError(f"the array {info.name!r} of a record doesn't fit its description")
            arrays[info.name] = np.frombuffer(buffers[at], dtype).reshape(info.shape)
            at += 1
        fields = {name: getattr(header, name) for name in _FIELDS}
        vector = arrays.pop("vector", None)
        records.append(Record(**fields, vector=vector, arrays=arrays))
    return records
