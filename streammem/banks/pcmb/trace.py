"""The bank of one session of one stream, with the capture times and the ids of what is in its entries."""

from __future__ import annotations

from typing import NamedTuple, Self

import msgspec
import numpy as np

from streammem.banks.pcmb.options import Options, Streams
from streammem.banks.pcmb.tokens import Entry, TokenBank
from streammem.errors import CorruptData
from streammem.model import Producer, Record, record_id

MOST_STATE = 16 << 20
"""Bytes of tokens that one bank may come to: they are saved whenever the stream is sealed."""
MOST_PARENTS = 64
"""Ids that an entry keeps. More are thinned evenly; the first and the last stay, and the span is always exact."""


class Span(NamedTuple):
    """What an entry stands for: a closed interval of capture time, how many moments, ids of some of them."""

    t_start_ns: int
    t_end_ns: int
    moments: int
    record_ids: tuple[int, ...]


class SavedTrace(msgspec.Struct):
    """``data``: entries in the order of their steps, (len, n, d) float32, little-endian."""

    session: str
    space: str | None
    shape: tuple[int, int]
    last_ns: int
    first_seq: int
    counters: tuple[int, int, int]
    entries: list[Entry]
    spans: list[Span]
    data: bytes


class Trace:
    """Made by ``begun`` or ``loaded``. Steps are the count of writes."""

    def __init__(self, stream: str, kind: Streams, session: str, space: str | None, bank: TokenBank) -> None:
        self.stream, self.kind, self.session, self.space, self.bank = stream, kind, session, space, bank
        self.spans: list[Span] = []
        self._last_ns = 0
        self._first_seq = 0

    @classmethod
    def begun(cls, record: Record, kind: Streams, shape: tuple[int, ...], options: Options) -> Self:
        """For a session that begins with ``record``."""
        made = cls(record.stream, kind, record.session, record.space, TokenBank(options, shape[0], shape[1]))
        made._first_seq = record.seq
        return made

    @property
    def nbytes(self) -> int:
        return self.bank.nbytes

    def goes_on(self, record: Record, shape: tuple[int, ...]) -> bool:
        """Whether ``record`` belongs here: the same session, embedding space and shape of tokens."""
        return (self.session, self.space, self.bank.shape) == (record.session, record.space, shape)

    def take(self, record: Record, tokens: np.ndarray) -> bool:
        """Write one moment. False for one that is no later than the last: order is what this memory is about."""
        import torch

        if self.spans and record.t_start_ns <= self._last_ns:
            return False
        change = self.bank.write(self.bank.writes, torch.from_numpy(tokens.astype(np.float32)))
        self._last_ns = record.t_start_ns
        self.spans.append(Span(record.t_start_ns, record.t_end_ns, 1, (record.record_id,)))
        if change is not None and change.kind == "dropped":
            del self.spans[change.index]
        elif change is not None:
            one, two = self.spans[change.index], self.spans.pop(change.index + 1)
            ids = thinned((*one.record_ids, *two.record_ids))
            end = max(one.t_end_ns, two.t_end_ns)
            self.spans[change.index] = Span(one.t_start_ns, end, one.moments + two.moments, ids)
        return True

    def records(self, bank: str) -> list[Record]:
        """The entries as records, oldest first: flat float16 tokens (a column holds entries of any shape), how many
        tokens an entry has in ``stats``."""
        tokens, d = self.bank.shape
        data = self.bank.ordered().numpy().astype(np.float16)
        producer = Producer(module="streammem.perceptual_cognitive", model=self.kind, parameters=self.space or "")
        return [
            Record(
                record_id=record_id(f"{bank}.{self.kind}.{at}", self.stream, self.session, self._first_seq),
                bank=bank,
                stream=self.stream,
                t_start_ns=span.t_start_ns,
                t_end_ns=span.t_end_ns,
                session=self.session,
                seq=self._first_seq,
                count=span.moments,
                parents=span.record_ids,
                producer=producer,
                arrays={"tokens": data[at].reshape(-1)},
                stats={"tokens": float(tokens), "d": float(d)},
            )
            for at, span in enumerate(self.spans)
        ]

    def attention(self, tokens: np.ndarray) -> tuple[str, list[float]]:
        """The training-free reader's name, and the share of each entry, oldest first."""
        import torch

        from streammem.banks.pcmb.reader import Given, TrainingFree

        reader = TrainingFree()
        steps = torch.tensor([entry.step for entry in self.bank.entries])
        with torch.no_grad():
            query = torch.from_numpy(tokens.astype(np.float32))
            read = reader.read(query, Given(reader, self.bank.ordered(), steps), attention=True)
        shares = [] if read.attention is None else [float(share) for share in read.attention.tolist()]
        return reader.name, shares

    def forget(self, t_start_ns: int, t_end_ns: int) -> int:
        """Remove what overlaps the closed interval. Returns how many entries that were."""
        keep = [at for at, span in enumerate(self.spans) if span.t_start_ns > t_end_ns or span.t_end_ns < t_start_ns]
        gone = len(self.spans) - len(keep)
        if gone:
            self.bank.remove(keep)
            self.spans = [self.spans[at] for at in keep]
        return gone

    def save(self) -> SavedTrace:
        bank = self.bank
        return SavedTrace(
            session=self.session,
            space=self.space,
            shape=bank.shape,
            last_ns=self._last_ns,
            first_seq=self._first_seq,
            counters=(bank.writes, bank.merges, bank.drops),
            entries=list(bank.entries),
            spans=list(self.spans),
            data=bank.ordered().numpy().astype("<f4").tobytes(),
        )

    @classmethod
    def loaded(cls, stream: str, kind: Streams, saved: SavedTrace, options: Options) -> Self:
        """Raises CorruptData where the parts don't fit each other, or hold more than this bank's length."""
        import torch

        count, (tokens, d) = len(saved.entries), saved.shape
        sound = tokens > 0 and d > 0 and len(saved.spans) == count and len(saved.data) == 4 * count * tokens * d
        if not sound or count > options.length:
            raise CorruptData(
                f"the saved {kind} tokens of {stream!r} don't fit: {count} entries of {saved.shape} in"
                f" {len(saved.data)} bytes, at most {options.length} entries",
                hint="was perceptual_cognitive.length made smaller? The bank starts empty",
            )
        made = cls(stream, kind, saved.session, saved.space, TokenBank(options, tokens, d))
        data = np.frombuffer(saved.data, "<f4").reshape(count, tokens, d).astype(np.float32)
        made.bank.load(saved.entries, torch.from_numpy(data))
        made.bank.writes, made.bank.merges, made.bank.drops = saved.counters
        made.spans = list(saved.spans)
        made._last_ns, made._first_seq = saved.last_ns, saved.first_seq
        return made


def thinned(ids: tuple[int, ...]) -> tuple[int, ...]:
    """At most ``MOST_PARENTS`` of them: every second goes, the first and the last stay."""
    while len(ids) > MOST_PARENTS:
        ids = (*ids[:-1:2], ids[-1])
    return ids
