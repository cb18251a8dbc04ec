"""What clients and a memory service say to each other, over any transport that keeps messages whole.

    [envelope][body ...]      the envelope is MessagePack: kind, version, id and the small fields of that kind

    client -> service         hello, write (body: an observation as in wire.py), request (body: arguments), ping, bye
    service -> client         welcome, acks, reply (body: the result), error, pong

The version is that of ``wire.py``. A newer minor version may add fields, which are ignored here; another major version
is answered with an error that names both. Every envelope carries the id that its sender chose; what answers it carries
the same one. Ids of writes and of requests come from one counter of the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from streammem import errors
from streammem.errors import StreammemError
from streammem.wire import LIMITS, PROTOCOL, Buffer, Preamble

Version = tuple[int, int]

ENVELOPE_BYTES = 64 << 10
"""Largest envelope. The largest real one is an ack of 1,024 packets: 5 KB."""
ARGUMENT_BYTES = 8 << 20
"""Largest body of a request: a state of 4 MB and room."""
MOST_PARTS = LIMITS.buffers + 2
FIRST_CREDITS = 16
"""Packets that a service accepts from a client it hasn't welcomed yet."""
MOST_ID = 2**63 - 1


class _Message(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="kind"):
    version: Version = msgspec.field(default_factory=lambda: (0, 0))
    id: int


class Hello(_Message, tag="hello"):
    """First message on a connection. ``client`` is a random token that stays the same over reconnects: together with
    the id it makes a repeated request the same request."""

    client: str
    name: str = ""


class Write(_Message, tag="write"):
    """One observation follows."""


class Request(_Message, tag="request"):
    """``method`` of ``Memory`` with its arguments in the body. After ``deadline_ms`` nobody waits for the answer."""

    client: str
    method: str
    deadline_ms: int = 30_000


class Ping(_Message, tag="ping"):
    """Are you there? ``drops``: what the client itself dropped since its last ping, by stream and reason."""

    drops: dict[str, dict[str, int]] = {}


class Bye(_Message, tag="bye"):
    """The client leaves; its streams are gone, not starved."""


class Welcome(_Message, tag="welcome"):
    """``credits`` packets and ``credit_bytes`` bytes may be unacknowledged at a time. ``epoch`` is new after every
    start of the service: what was unacknowledged before must be sent again."""

    epoch: str
    credits: int
    credit_bytes: int
    message_bytes: int = LIMITS.total_bytes
    role: str = "admin"


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """Why a packet was not kept. ``retry_ms`` 0: never send it again; else send it again after so long."""

    id: int
    code: str
    message: str
    field: str = ""
    hint: str = ""
    retry_ms: int = 0


class Acks(_Message, tag="acks"):
    """``written`` and ``duplicates`` are synced to disk; the packets can be let go of."""

    epoch: str
    written: tuple[int, ...] = ()
    duplicates: tuple[int, ...] = ()
    refused: tuple[Refusal, ...] = ()


class Reply(_Message, tag="reply"):
    """The result follows. ``method`` says how to read it."""

    method: str


class Error(_Message, tag="error"):
    """Something was refused or failed. ``code`` is stable, ``message`` and ``hint`` are for people."""

    code: str
    message: str
    hint: str = ""
    about: dict[str, str | int | None] = {}


class Pong(_Message, tag="pong"):
    epoch: str
    waiting: int = 0


FromClient = Hello | Write | Request | Ping | Bye
FromService = Welcome | Acks | Reply | Error | Pong

_encoder = msgspec.msgpack.Encoder()
_from_client = msgspec.msgpack.Decoder(FromClient)
_from_service = msgspec.msgpack.Decoder(FromService)
_preamble = msgspec.msgpack.Decoder(Preamble)


class Refused(Exception):
    """A message that failed its checks: what the peer is told. ``id`` is 0 where it couldn't be read."""

    def __init__(self, code: str, message: str, *, id: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.id, self.hint = code, message, id, hint


def seal(message: _Message) -> bytes:
    """The envelope's bytes, with this release's version."""
    return _encoder.encode(msgspec.structs.replace(message, version=PROTOCOL))


def read_from_client(data: Buffer) -> FromClient:
    """Raises Refused with code ``oversize``, ``version``, ``kind`` or ``malformed``."""
    return _read(data, _from_client)


def read_from_service(data: Buffer) -> FromService:
    return _read(data, _from_service)


def _read(data: Buffer, decoder: Any) -> Any:
    if len(data) > ENVELOPE_BYTES:
        raise Refused("oversize", f"the envelope has {len(data)} bytes, the limit is {ENVELOPE_BYTES}")
    try:
        message = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _why(data, error) from None
    if message.version[0] != PROTOCOL[0]:
        raise _version(message.version, message.id)
    if not 0 <= message.id <= MOST_ID:
        raise Refused("malformed", "the id is outside [0, 2**63 - 1]")
    return message


def _why(data: Buffer, error: Exception) -> Refused:
    """Another major version may have any fields: look at the version before complaining about the rest."""
    try:
        preamble = _preamble.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Refused("malformed", f"the envelope can't be read: {str(error)[:200]}")
    if preamble.version[0] != PROTOCOL[0]:
        return _version(preamble.version, 0)
    known = ("hello", "write", "request", "ping", "bye", "welcome", "acks", "reply", "error", "pong")
    if preamble.kind not in known:
        return Refused("kind", f"messages of the kind {preamble.kind[:40]!r} are unknown here")
    return Refused("malformed", f"the envelope can't be read: {str(error)[:200]}")


def _version(version: Version, id: int) -> Refused:
    return Refused(
        "version",
        f"the message speaks protocol {version[0]}.{version[1]}, this release speaks {PROTOCOL[0]}.{PROTOCOL[1]}",
        id=id if 0 <= id <= MOST_ID else 0,
        hint="use the same major version on both sides",
    )


# -- errors on the wire

CODES: dict[str, type[StreammemError]] = {
    "observation": errors.ObservationError,
    "query": errors.QueryError,
    "time_syntax": errors.TimeSyntaxError,
    "config": errors.ConfigError,
    "space_mismatch": errors.SpaceMismatch,
    "input": errors.InputError,
    "access_denied": errors.AccessDenied,
    "model_unavailable": errors.ModelUnavailable,
    "memory_locked": errors.MemoryLocked,
    "memory_closed": errors.MemoryClosed,
    "corrupt_data": errors.CorruptData,
    "storage_full": errors.StorageFull,
    "format_version": errors.FormatVersion,
    "storage": errors.StorageError,
    "busy": errors.ServiceBusy,
    "deadline": errors.DeadlineExceeded,
    "protocol": errors.ProtocolError,
    "service": errors.ServiceError,
}
"""Error codes that have an exception of their own. Codes of refused messages (``malformed``, ``version``, ``kind``,
``oversize``, ``parts``, ``method``, ``over_credit``) become a ProtocolError that begins with the code."""
_NAMES = {kind: code for code, kind in CODES.items()}
_ABOUT = ("field", "path", "offset", "pid")


def code_of(error: StreammemError) -> str:
    """The code of an exception: its own, or that of the nearest base that has one."""
    return next((_NAMES[kind] for kind in type(error).__mro__ if kind in _NAMES), "service")


def error_message(id: int, error: StreammemError) -> Error:
    about = {name: value for name in _ABOUT if (value := getattr(error, name, None)) not in (None, "")}
    return Error(id=id, code=code_of(error), message=error.message[:2000], hint=error.hint[:500], about=about)


def exception_of(code: str, message: str, hint: str = "", about: dict[str, Any] | None = None) -> StreammemError:
    """The exception that the service raised, as the client raises it."""
    kind = CODES.get(code)
    if kind is None:
        return errors.ProtocolError(f"{code}: {message}", hint=hint)
    known = {name: value for name, value in (about or {}).items() if name in _ABOUT}
    wanted = {
        errors.ObservationError: ("field",),
        errors.MemoryLocked: ("pid",),
        errors.CorruptData: ("path", "offset"),
    }.get(kind, ())
    return kind(message, hint=hint, **{name: known[name] for name in wanted if name in known})


def total_bytes(parts: Sequence[Buffer]) -> int:
    return sum(len(part) for part in parts)
