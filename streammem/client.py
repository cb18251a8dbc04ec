"""``streammem.connect(address)``: the methods and results of ``Memory``, answered by a memory service.

Observations go through the same window as a producer's: they are held until the service has synced them, and sent
again after a reconnect. Questions are sent again too, until their deadline; changes are done once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from streammem import calls as c
from streammem.banks.pcmb.options import STREAMS
from streammem.banks.pcmb.step import Attended, EpisodeInfo, check_step, check_tokens
from streammem.checks import check_name, refuse, validate_observation
from streammem.errors import DeadlineExceeded, ObservationError, ProtocolError, StreammemError
from streammem.health import HealthSnapshot
from streammem.keys import KeyPair, load_keys
from streammem.link import Link, Timing
from streammem.model import Answer, Evidence, Observation, Record, StreamInfo
from streammem.storage.reports import ForgetReport, Status, WriteReceipt
from streammem.storage.store import STATE_BYTES
from streammem.window import Packet
from streammem.wire import Buffer, encode_observation, pack, unpack

Between = tuple[int | None, int | None]

WINDOW = 256
WINDOW_BYTES = 64 << 20
"""What a client holds unacknowledged before ``write`` waits."""


def connect(
    address: str,
    *,
    keys: KeyPair | str | None = None,
    server: str = "",
    name: str = "",
    timeout_s: float = 30.0,
    connect_s: float = 5.0,
    timing: Timing | None = None,
) -> Client:
    """Connect to the memory service at ``address`` (``tcp://HOST:PORT``, ``ipc:///PATH``).

    ``keys``: a key pair, a key file or a name in the default directory; ``server``: the service's public key, where it
    isn't in that file. ``timeout_s`` is how long a request may take, unless it says otherwise.
    Raises ServiceUnreachable where nobody answers within ``connect_s``, InsecureAddress, KeyFileError, AccessDenied."""
    pair = load_keys(keys) if isinstance(keys, str) else keys
    link = Link(address, keys=pair, server=server, name=name, timing=timing)
    link.start()
    client = Client(link, timeout_s=timeout_s)
    try:
        link.wait_welcome(connect_s)
    except BaseException:
        link.close(bye=False)
        raise
    return client


def packed(observation: Observation) -> list[memoryview]:
    """The parts of a checked observation in one private copy: the caller may change its arrays afterwards."""
    return unpack(pack(encode_observation(observation, ingest=False)))


class Client:
    """A connected memory. Made by :func:`connect`. Safe to use from several threads."""

    def __init__(self, link: Link, *, timeout_s: float) -> None:
        self.link = link
        self.timeout_s = timeout_s
        self._late: list[Packet] = []

    @property
    def address(self) -> str:
        return self.link.address

    # -- writing

    def write(
        self,
        observations: Observation | Iterable[Observation],
        *,
        durable: bool = True,
        timeout_s: float | None = None,
    ) -> WriteReceipt:
        """As ``Memory.write``. With ``durable`` it returns when the service has synced them. Without, they are queued
        here: what became of them is counted by the service, and ``flush`` waits for it.

        Raises DeadlineExceeded or ServiceUnreachable after ``timeout_s`` without an acknowledgement; the packets are
        still held and sent, and writing them again does no harm."""
        wait_s = self.timeout_s if timeout_s is None else timeout_s
        single = isinstance(observations, Observation)
        refused: dict[str, int] = {}
        sent: list[Packet] = []
        for observation in [observations] if isinstance(observations, Observation) else observations:
            try:
                validate_observation(observation)
            except ObservationError as error:
                if single:
                    raise
                refused[error.field] = refused.get(error.field, 0) + 1
                continue
            self._wait(self._has_room, wait_s)
            sent.append(self.link.offer(observation.key, packed(observation)))
        if not durable:
            self._late = [packet for packet in self._late if not packet.done]
            self._late += sent
            return WriteReceipt(len(sent), refused=refused, durable=False)
        self._wait(lambda: all(packet.done for packet in sent), wait_s)
        return self._receipt(sent, refused, single)

    def _receipt(self, sent: Sequence[Packet], refused: dict[str, int], single: bool) -> WriteReceipt:
        written = duplicates = 0
        for packet in sent:
            outcome = packet.outcome
            if outcome == "written":
                written += 1
            elif outcome == "duplicate":
                duplicates += 1
            elif isinstance(outcome, ObservationError) and not single:
                refused[outcome.field] = refused.get(outcome.field, 0) + 1
            elif isinstance(outcome, StreammemError):
                raise outcome
        return WriteReceipt(written, duplicates, refused)

    def _has_room(self) -> bool:
        count, size = self.link.held
        return count < WINDOW and size < WINDOW_BYTES

    def _wait(self, ready: Any, timeout_s: float) -> None:
        if not self.link.wait(ready, timeout_s):
            # Says what is known of the service: away, there but slow, or refusing this key.
            raise self.link.no_answer(timeout_s)

    def flush(self) -> None:
        """Wait until everything written here is synced there. Raises the first refusal of ``write(durable=False)``
        that isn't an observation's own fault (those are counted in ``status``)."""
        self._wait(lambda: self.link.held[0] == 0, self.timeout_s)
        late, self._late = self._late, []
        self._call("flush", c.Nothing())
        for packet in late:
            if isinstance(packet.outcome, StreammemError) and not isinstance(packet.outcome, ObservationError):
                raise packet.outcome

    def set_stream(self, info: StreamInfo) -> None:
        check_name(info.stream, "stream")
        self._call("set_stream", c.InfoArguments(info=info))

    def put_state(self, key: str, value: bytes, *, durable: bool = True) -> None:
        """As ``Memory.put_state``: everything written here before is found there too wherever the state is found."""
        check_name(key, "key")
        if len(value) > STATE_BYTES:
            raise refuse("value", f"has {len(value)} bytes, the limit is {STATE_BYTES}")
        self._wait(lambda: self.link.held[0] == 0, self.timeout_s)
        self._call("put_state", c.StateArguments(key=key, value=bytes(value), durable=durable))

    def get_state(self, key: str) -> bytes | None:
        return self._call("get_state", c.KeyArguments(key=key))

    def seal(self) -> int:
        return self._call("seal", c.Nothing())

    def pin(self, stream: str, between: Between = (None, None)) -> None:
        check_name(stream, "stream")
        self._call("pin", c.IntervalArguments(stream=stream, between=between))

    def unpin(self, stream: str, between: Between = (None, None)) -> None:
        check_name(stream, "stream")
        self._call("unpin", c.IntervalArguments(stream=stream, between=between))

    def forget(self, *, stream: str | None = None, between: Between | None = None) -> ForgetReport:
        """As ``Memory.forget``; needs the role admin."""
        self._wait(lambda: self.link.held[0] == 0, self.timeout_s)
        return self._call("forget", c.ForgetArguments(stream=stream, between=between))

    # -- reading

    def search(
        self,
        query: str,
        *,
        k: int | None = None,
        between: Between | None = None,
        streams: Sequence[str] | None = None,
        exact: bool = False,
        timeout_s: float | None = None,
    ) -> list[Evidence]:
        names = None if streams is None else tuple(streams)
        return self._call(
            "search", c.SearchArguments(query=query, k=k, between=between, streams=names, exact=exact), timeout_s
        )

    def ask(
        self,
        question: str,
        *,
        k: int | None = None,
        between: Between | None = None,
        streams: Sequence[str] | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        names = None if streams is None else tuple(streams)
        return self._call("ask", c.AskArguments(question=question, k=k, between=between, streams=names), timeout_s)

    def query(
        self,
        bank: str,
        question: str,
        *,
        streams: Sequence[str] | None = None,
        timeout_s: float | None = None,
        **arguments: Any,
    ) -> Any:
        names = None if streams is None else tuple(streams)
        asked = c.QueryArguments(bank=bank, question=question, streams=names, arguments=arguments)
        return self._call("query", asked, timeout_s)

    def record(self, record_id: int) -> Record | None:
        """Without its thumbnail, as in process."""
        header, buffers = self._frames("record", c.RecordArguments(record_id=record_id))
        return None if header is None else c.decode_records([header], buffers)[0]

    def recent(self, stream: str) -> list[Record]:
        headers, buffers = self._frames("recent", c.StreamArguments(stream=stream))
        return c.decode_records(headers, buffers)

    def thumbnail(self, record_id: int) -> bytes | None:
        return self._call("thumbnail", c.RecordArguments(record_id=record_id))

    # -- policies

    def attend(
        self,
        episode: str,
        step: int,
        perceptual: np.ndarray | None = None,
        cognitive: np.ndarray | None = None,
        *,
        attention: bool = False,
        timeout_s: float | None = None,
    ) -> Attended:
        """One step of a robot policy, as ``PerceptualCognitiveBank.attend``: (n, d) float16 or float32 NumPy tokens,
        retrieved for, fused and written by the service. Needs the role produce, for the stream that the episode's name
        begins with. A step that is sent again after a reconnect is done once."""
        given = {"perceptual": perceptual, "cognitive": cognitive}
        number = check_step(episode, step)
        arrays: dict[str, np.ndarray] = {
            stream: check_tokens(given[stream], stream) for stream in STREAMS if given[stream] is not None
        }
        infos, buffers = c.encode_arrays(arrays)
        asked = c.AttendArguments(episode=episode, step=number, attention=attention, buffers=infos)
        header, body = self._frames("attend", asked, timeout_s, buffers)
        # Copies: the caller's own, writable, as in process.
        fused = {name: array.copy() for name, array in c.decode_arrays(header.buffers, body).items()}
        return Attended(fused, header.summary)

    def end_episode(self, episode: str) -> bool:
        """As ``PerceptualCognitiveBank.end_episode``."""
        check_name(episode, "episode")
        return self._call("end_episode", c.EpisodeArguments(episode=episode))

    def episodes(self) -> list[EpisodeInfo]:
        """The open episodes of the streams that this key may use, by name."""
        return self._call("episodes", c.Nothing())

    def streams(self) -> list[StreamInfo]:
        return self._call("streams", c.Nothing())

    def status(self) -> Status:
        return self._call("status", c.Nothing())

    def health(self) -> HealthSnapshot:
        """The service itself: streams and their states, rates, lag, drops, questions."""
        return self._call("health", c.Nothing())

    def digest(self) -> str:
        return self._call("digest", c.Nothing())

    @property
    def observation_count(self) -> int:
        return self._call("observation_count", c.Nothing())

    def has(self, stream: str, session: str, seq: int) -> bool:
        return self._call("has", c.SeqArguments(stream=stream, session=session, seq=seq))

    def last_seq(self, stream: str, session: str = "") -> int | None:
        return self._call("last_seq", c.SessionArguments(stream=stream, session=session))

    # -- calling

    def _call(self, method: str, arguments: msgspec.Struct, timeout_s: float | None = None) -> Any:
        return self._frames(method, arguments, timeout_s)[0]

    def _frames(
        self,
        method: str,
        arguments: msgspec.Struct,
        timeout_s: float | None = None,
        buffers: Sequence[Buffer] = (),
    ) -> tuple[Any, list[bytes]]:
        wait_s = self.timeout_s if timeout_s is None else timeout_s
        if wait_s <= 0:
            raise DeadlineExceeded("the time for this request is over", hint="give it more than 0 s")
        body = self.link.call(method, msgspec.msgpack.encode(arguments), *buffers, timeout_s=wait_s)
        try:
            return msgspec.msgpack.decode(body[0], type=c.CALLS[method].result), body[1:]
        except (msgspec.DecodeError, IndexError) as error:
            raise ProtocolError(
                f"the answer to {method} can't be read: {error}", hint="upgrade the older side"
            ) from None

    # -- the end

    def close(self) -> None:
        """Wait for what was written, then let go. Closing twice is fine."""
        # Closed or refused already: whoever waited for it has been told.
        with contextlib.suppress(StreammemError):
            self.link.wait(lambda: self.link.held[0] == 0, self.timeout_s)
        self.link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
