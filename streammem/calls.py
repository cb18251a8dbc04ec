"""The methods of ``Memory`` that go over the wire: their arguments, their results, and what they need.

Both ends read this table; a method that isn't here can't be called. Arguments and results are MessagePack of the
structs that the engine itself uses, so that a client gets what a caller in the process gets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from streammem.banks.pcmb.step import EpisodeInfo, StepSummary
from streammem.checks import DTYPES, LIMITS
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
    exact: bool = False


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


class AttendArguments(_Arguments):
    """The tokens follow as buffers, by the names of their streams."""

    episode: str
    step: int
    attention: bool = False
    buffers: tuple[BufferInfo, ...] = ()


class EpisodeArguments(_Arguments):
    episode: str


class AttendedHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The fused tokens follow as buffers, by the names of their streams."""

    summary: StepSummary
    buffers: tuple[BufferInfo, ...]


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
    so that the same request, sent again after a reconnect, isn't done again. ``buffers``: how many arrays may follow
    the arguments."""

    arguments: type[msgspec.Struct]
    result: Any
    action: str
    changes: bool = False
    buffers: int = 0


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
    # Not kept for repeats: the episode knows its last step and gives the same answer again.
    "attend": Call(AttendArguments, AttendedHeader, "attend", buffers=2),
    "end_episode": Call(EpisodeArguments, bool, "attend", True),
    "episodes": Call(Nothing, list[EpisodeInfo], "attend"),
}


def encode_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[tuple[BufferInfo, ...], list[Buffer]]:
    """What the buffers hold, by name, and their bytes."""
    infos, buffers = [], []
    for name in sorted(arrays):
        plain = np.ascontiguousarray(arrays[name])
        infos.append(BufferInfo(name, plain.dtype.str, plain.shape))
        buffers.append(plain.tobytes())
    return tuple(infos), list(buffers)


def decode_arrays(infos: Sequence[BufferInfo], buffers: Sequence[Buffer]) -> dict[str, np.ndarray]:
    """Read-only views of the buffers by name. Raises ProtocolError where one doesn't fit its description."""
    if len(buffers) != len(infos) or len({info.name for info in infos}) != len(infos):
        raise ProtocolError(f"{len(buffers)} arrays came, {len(infos)} are described, each name once")
    arrays: dict[str, np.ndarray] = {}
    for info, buffer in zip(infos, buffers, strict=True):
        dtype, shape = DTYPES.get(info.dtype), info.shape
        sides = len(shape) <= LIMITS.dims and all(0 <= side <= LIMITS.total_bytes for side in shape)
        if dtype is None or not sides or math.prod(shape) * dtype.itemsize != len(buffer):
            raise ProtocolError(f"the array {info.name[:40]!r} doesn't fit its description")
        arrays[info.name] = np.frombuffer(buffer, dtype).reshape(shape)
    return arrays


def encode_records(records: Sequence[Record]) -> tuple[list[RecordHeader], list[Buffer]]:
    """Headers, and the bytes of all their arrays in that order."""
    headers: list[RecordHeader] = []
    buffers: list[Buffer] = []
    for record in records:
        arrays = {**record.arrays, **({"vector": record.vector} if record.vector is not None else {})}
        infos, own = encode_arrays(arrays)
        buffers += own
        fields = {name: getattr(record, name) for name in _FIELDS}
        fields["stats"] = dict(record.stats)
        headers.append(RecordHeader(**fields, buffers=infos))
    return headers, buffers


def decode_records(headers: Sequence[RecordHeader], buffers: Sequence[Buffer]) -> list[Record]:
    """The records again. Raises ProtocolError where the buffers don't fit."""
    records: list[Record] = []
    at = 0
    for header in headers:
        arrays = decode_arrays(header.buffers, buffers[at : at + len(header.buffers)])
        at += len(header.buffers)
        fields = {name: getattr(header, name) for name in _FIELDS}
        vector = arrays.pop("vector", None)
        records.append(Record(**fields, vector=vector, arrays=arrays))
    return records
