"""Requests: what each method does, for whom, and the threads that do it.

They run beside the writer, on snapshots (``Memory.blocks``), so that a slow question delays no packet. A client with
stream scopes sees its own streams only, in results and in errors alike: whether another stream exists can't be told.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from streammem import calls as c
from streammem import protocol as p
from streammem.banks.pcmb.episodes import stream_of as episode_stream
from streammem.banks.pcmb.options import STREAMS
from streammem.banks.perceptual_cognitive import PerceptualCognitiveBank
from streammem.calls import CALLS
from streammem.errors import (
    AccessDenied,
    CorruptData,
    DeadlineExceeded,
    ProtocolError,
    QueryError,
    ServiceBusy,
    ServiceError,
    StreammemError,
)
from streammem.keys import Grant, allowed, require, visible
from streammem.memory import Memory
from streammem.storage.reports import Status
from streammem.wire import Buffer

log = logging.getLogger("streammem.service")

NOTES = 1024
"""Answers to changes that are kept for a repeated request: far more than can be under way."""
ARRAY_BYTES = 64 << 20
"""Arrays of requests that wait or run; four of the largest. Above it clients are told to come back."""
SWAPS = 3
"""How often a question is asked again because a segment was replaced (demoted, forgotten) under it."""

Send = Callable[[list[Buffer]], None]


class Requests:
    """``run`` is called by the service's loop; ``send`` (given with each request) by a worker thread."""

    def __init__(self, memory: Memory, *, workers: int, waiting: int) -> None:
        self._memory = memory
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="streammem-request")
        self._most = waiting
        self._notes: OrderedDict[tuple[str, str, int], list[Buffer] | None] = OrderedDict()
        self._lock = threading.Lock()
        self.running = 0
        self._array_bytes = 0

    def run(
        self, request: p.Request, body: Sequence[Buffer], grant: Grant, send: Send, done: Callable[[float, bool], None]
    ) -> None:
        """Check what can be checked at once, then let a worker answer. ``done(seconds, failed)`` is called by the
        worker. Raises Refused, AccessDenied and ServiceBusy."""
        call = CALLS.get(request.method)
        if call is None:
            raise p.Refused("method", f"there is no method {request.method[:40]!r}", id=request.id)
        if not 1 <= len(body) <= 1 + call.buffers:
            most = f"{2 + call.buffers} at most" if call.buffers else "2"
            raise p.Refused("parts", f"a request has {most} parts, this one {len(body) + 1}", id=request.id)
        if len(body[0]) > p.ARGUMENT_BYTES:
            raise p.Refused(
                "oversize", f"the arguments have {len(body[0])} bytes, the limit is {p.ARGUMENT_BYTES}", id=request.id
            )
        try:
            arguments = msgspec.msgpack.decode(body[0], type=call.arguments)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise p.Refused("malformed", f"the arguments can't be read: {str(error)[:200]}", id=request.id) from None
        if not allowed(grant.role, ("*",), call.action, None):
            require(grant, call.action)
        note = (grant.key, request.client, request.id)
        with self._lock:
            if call.changes and note in self._notes:
                known = self._notes[note]
                if known is not None:
                    send(known)
                return  # None: it is being done; its answer goes to the newest connection
            size = sum(len(part) for part in body[1:])
            if self.running >= self._most or self._array_bytes + size > ARRAY_BYTES:
                raise ServiceBusy(f"{self.running} requests wait already", hint="try again in a moment")
            self._array_bytes += size
            if call.changes:
                self._notes[note] = None
                while len(self._notes) > NOTES:
                    self._notes.popitem(last=False)
            self.running += 1
        deadline = time.monotonic() + min(request.deadline_ms, 3_600_000) / 1000
        self._pool.submit(self._work, request, call, arguments, body[1:], grant, note, deadline, send, done)

    def _work(
        self,
        request: p.Request,
        call: c.Call,
        arguments: Any,
        arrays: Sequence[Buffer],
        grant: Grant,
        note: tuple[str, str, int],
        deadline: float,
        send: Send,
        done: Callable[[float, bool], None],
    ) -> None:
        begun = time.monotonic()
        failed = True
        try:
            if begun > deadline:
                raise DeadlineExceeded("the request waited too long for a worker", hint="try again, or ask less often")
            result, buffers = self._answer(request.method, arguments, arrays, grant)
            parts: list[Buffer] = [p.seal(p.Reply(id=request.id, method=request.method)), result, *buffers]
            failed = False
        except StreammemError as error:
            parts = [p.seal(p.error_message(request.id, error))]
        except Exception as error:
            log.exception("%s failed", request.method)
            what = ServiceError(f"{request.method} failed: {type(error).__name__}", hint="the service's log says more")
            parts = [p.seal(p.error_message(request.id, what))]
        with self._lock:
            self.running -= 1
            self._array_bytes -= sum(len(part) for part in arrays)
            if call.changes and failed:
                self._notes.pop(note, None)  # it may be tried again with the same id
            elif call.changes:
                self._notes[note] = parts
        send(parts)
        done(time.monotonic() - begun, failed)

    def _answer(
        self, method: str, arguments: Any, arrays: Sequence[Buffer], grant: Grant
    ) -> tuple[bytes, list[Buffer]]:
        if method == "attend":
            return self._attend(arguments, arrays, grant)
        for attempt in range(SWAPS):
            try:
                result = getattr(self, f"_{method}")(arguments, grant)
                break
            except (CorruptData, OSError):
                # Its files may have been replaced since the snapshot was taken; a real defect comes back.
                if attempt == SWAPS - 1 or CALLS[method].changes:
                    raise
        if method in ("record", "recent"):
            records = [] if result is None else result if isinstance(result, list) else [result]
            headers, buffers = c.encode_records(records)
            plain: Any = headers if method == "recent" else (headers[0] if headers else None)
            return msgspec.msgpack.encode(plain), buffers
        return msgspec.msgpack.encode(result), []

    def submit(self, work: Callable[[], None]) -> None:
        """Let a worker do this too. Raises RuntimeError after ``stop``."""
        self._pool.submit(work)

    def stop(self, timeout_s: float) -> None:
        """No new requests; those that run get so long."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        end = time.monotonic() + timeout_s
        while self.running and time.monotonic() < end:
            time.sleep(0.01)

    # -- one method each

    def _scope(self, grant: Grant, streams: Sequence[str] | None) -> list[str] | None:
        if "*" in grant.streams:
            return None if streams is None else list(streams)
        mine = visible(grant, (info.stream for info in self._memory.streams()))
        for name in streams or ():
            if name not in mine:
                # The same words as the engine's for a stream that doesn't exist.
                raise QueryError(f"no stream is called {name!r}", hint=f"known: {', '.join(mine[:10]) or 'none yet'}")
        return mine if streams is None else list(streams)

    def _search(self, a: c.SearchArguments, grant: Grant) -> Any:
        return self._memory.search(
            a.query, k=a.k, between=a.between, streams=self._scope(grant, a.streams), exact=a.exact
        )

    def _ask(self, a: c.AskArguments, grant: Grant) -> Any:
        return self._memory.ask(a.question, k=a.k, between=a.between, streams=self._scope(grant, a.streams))

    def _query(self, a: c.QueryArguments, grant: Grant) -> Any:
        if "streams" in a.arguments:
            raise QueryError("streams stands beside the arguments of a question, not among them")
        return self._memory.query(a.bank, a.question, streams=self._scope(grant, a.streams), **a.arguments)

    def _status(self, _: c.Nothing, grant: Grant) -> Status:
        found = self._memory.status()
        if "*" in grant.streams:
            return found
        mine = set(visible(grant, (stream.stream for stream in found.streams)))
        streams = tuple(stream for stream in found.streams if stream.stream in mine)
        # Bytes of the whole memory would tell how much the others write, and when.
        return msgspec.structs.replace(
            found,
            directory="",
            streams=streams,
            disk_bytes=sum(stream.bytes for stream in streams),
            ram_bytes=0,
            journal_bytes=0,
            journal_unsynced_bytes=0,
            catalog_bytes=0,
            quarantined_segments=0,
            banks=(),
            spaces=(),
            observations=sum(stream.observations for stream in streams),
            records=sum(stream.records for stream in streams),
            segments=sum(stream.segments for stream in streams),
            drops={},
            corruption=(),
            notes=(),
        )

    def _streams(self, _: c.Nothing, grant: Grant) -> Any:
        infos = self._memory.streams()
        names = set(visible(grant, (info.stream for info in infos)))
        return [info for info in infos if info.stream in names]

    def _digest(self, _: c.Nothing, grant: Grant) -> str:
        require(grant, "digest")
        return self._memory.digest()

    def _observation_count(self, a: c.Nothing, grant: Grant) -> int:
        return self._memory.observation_count if "*" in grant.streams else self._status(a, grant).observations

    def _record(self, a: c.RecordArguments, grant: Grant) -> Any:
        record = self._memory.record(a.record_id)
        seen = record is not None and allowed(grant.role, grant.streams, "record", record.stream)
        return record if seen else None

    def _thumbnail(self, a: c.RecordArguments, grant: Grant) -> bytes | None:
        if "*" not in grant.streams and self._record(a, grant) is None:
            return None
        return self._memory.thumbnail(a.record_id)

    def _recent(self, a: c.StreamArguments, grant: Grant) -> Any:
        require(grant, "record", a.stream)
        return self._memory.recent(a.stream)

    def _has(self, a: c.SeqArguments, grant: Grant) -> bool:
        require(grant, "stream_status", a.stream)
        return self._memory.has(a.stream, a.session, a.seq)

    def _last_seq(self, a: c.SessionArguments, grant: Grant) -> int | None:
        require(grant, "stream_status", a.stream)
        return self._memory.last_seq(a.stream, a.session)

    def _get_state(self, a: c.KeyArguments, grant: Grant) -> bytes | None:
        require(grant, "get_state", stream_of(a.key))
        return self._memory.get_state(a.key)

    def _put_state(self, a: c.StateArguments, grant: Grant) -> None:
        require(grant, "put_state", stream_of(a.key))
        self._memory.put_state(a.key, a.value, durable=a.durable)

    def _set_stream(self, a: c.InfoArguments, grant: Grant) -> None:
        require(grant, "set_stream", a.info.stream)
        self._memory.set_stream(a.info)

    def _flush(self, _: c.Nothing, grant: Grant) -> None:
        require(grant, "flush")
        self._memory.flush()

    def _seal(self, _: c.Nothing, grant: Grant) -> int:
        require(grant, "seal")
        return self._memory.seal()

    def _pin(self, a: c.IntervalArguments, grant: Grant) -> None:
        require(grant, "pin", a.stream)
        self._memory.pin(a.stream, a.between)

    def _unpin(self, a: c.IntervalArguments, grant: Grant) -> None:
        require(grant, "unpin", a.stream)
        self._memory.unpin(a.stream, a.between)

    @property
    def _policies(self) -> PerceptualCognitiveBank:
        bank = self._memory.bank("perceptual_cognitive")
        assert isinstance(bank, PerceptualCognitiveBank)
        return bank

    def _attend(self, a: c.AttendArguments, arrays: Sequence[Buffer], grant: Grant) -> tuple[bytes, list[Buffer]]:
        """Beside the writer and without its lock: a policy's step waits for steps of its own episode only."""
        require(grant, "attend", episode_stream(a.episode))
        given = c.decode_arrays(a.buffers, arrays)
        unknown = sorted(set(given) - set(STREAMS))
        if unknown:
            raise ProtocolError(f"attend takes the arrays {' and '.join(STREAMS)}, not {unknown[0][:40]!r}")
        done = self._policies.attend(
            a.episode, a.step, given.get("perceptual"), given.get("cognitive"), attention=a.attention
        )
        infos, buffers = c.encode_arrays(done.tokens)
        return msgspec.msgpack.encode(c.AttendedHeader(summary=done.summary, buffers=infos)), buffers

    def _end_episode(self, a: c.EpisodeArguments, grant: Grant) -> bool:
        require(grant, "attend", episode_stream(a.episode))
        return self._policies.end_episode(a.episode)

    def _episodes(self, _: c.Nothing, grant: Grant) -> Any:
        found = self._policies.episodes()
        return [each for each in found if allowed(grant.role, grant.streams, "attend", episode_stream(each.episode))]

    def _forget(self, a: c.ForgetArguments, grant: Grant) -> Any:
        if a.stream is None and "*" not in grant.streams:
            raise AccessDenied(f"the key {grant.name!r} may not do 'forget' on all streams", hint="name a stream")
        require(grant, "forget", a.stream)
        return self._memory.forget(stream=a.stream, between=a.between)


def stream_of(key: str) -> str | None:
    """The stream that a state belongs to: what stands between the first and the last slash (``watch/STREAM/...``)."""
    first, last = key.find("/"), key.rfind("/")
    return key[first + 1 : last] if 0 <= first < last else None
