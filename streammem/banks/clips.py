"""Clips: a few frames' patch tokens as slots and one summary (the long-term memory of InternLM-XComposer2.5-OmniLive).

A clip ends by the rule of its live demo (3 to 16 frames, or where two neighbours have a cosine of at most 0.9), or by
surprise. A finished clip is one record: ``slots`` (m, d) and ``summary`` (1, d) float16, how many tokens each slot
stands for (``counts``) and from which frames (``spans``), the mean of its moments' vectors and two medoids beside it
(``keys``), the moments as parents. The clip that is still open is overwritten with every frame, in RAM.

Unlike the original: the open clip is compressed when it is asked for, not with every frame; finished clips are never
touched again and lie on disk; pass 2 is made for a question, over the newest ``compressor.longest`` clips (the original
makes it anew with every frame, keeps every version, and breaks at the end of its context, after 2.2 h).
RAM: the tokens of the open clips, at most 16 frames a stream (0.7 MB with the embedded encoder), and 8 snapshots.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from streammem.banks.base import Question, Recall, digest_of, outside
from streammem.banks.clip_questions import ClipQuestions, OpenClip
from streammem.banks.compressors import Compressor, open_compressor
from streammem.banks.segmentation import CosineSegmenter, Segmenter, SurpriseRule, SurpriseSegmenter, decode_state
from streammem.banks.summaries import medoids, merged_labels, unit_mean
from streammem.config import ClipsConfig
from streammem.errors import CorruptData
from streammem.model import Label, Pose, Producer, Record, record_id

NS = 1_000_000_000
PAUSE_NS = 60 * NS
"""A clip never spans a longer pause than this."""
MOST_FRAMES = 255
KEYS = 2


class _Frame(msgspec.Struct, array_like=True):
    """One frame of the open clip. ``tokens`` and ``vector``: float16 bytes."""

    record_id: int
    session: str
    seq: int
    t_start_ns: int
    t_end_ns: int
    tokens: bytes
    vector: bytes
    labels: tuple[Label, ...]
    pose: Pose | None


class _State(msgspec.Struct, array_like=True):
    version: int
    shape: tuple[int, int]
    space: str | None
    frames: list[_Frame]
    segmenter: bytes


class _Open:
    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.frames: list[_Frame] = []
        self.shape = (0, 0)
        self.space: str | None = None
        self.newest_ns = -(2**63)


class ClipsBank(ClipQuestions):
    """Clips of all streams. Moments without tokens that the compressor takes aren't its business."""

    name = "clips"

    def __init__(self, compressor: Compressor, *, boundary: str = "neighbours", max_frames: int = 16) -> None:
        """``boundary``: ``neighbours`` (IXC2.5-OL's rule) or ``surprise``; both cut at ``max_frames``."""
        super().__init__(compressor)
        self._boundary = boundary
        self._max_frames = min(max_frames, MOST_FRAMES)
        self._open: dict[str, _Open] = {}
        self._made: dict[str, tuple[int, int, Record]] = {}
        settings = repr((compressor.name, compressor.identity, boundary, self._max_frames))
        digest = hashlib.blake2b(settings.encode(), digest_size=8).hexdigest()
        self._producer = Producer("streammem.banks.clips", compressor.name, "1", digest)

    def _segmenter(self) -> Segmenter:
        if self._boundary == "surprise":
            return SurpriseSegmenter(SurpriseRule(max_frames=self._max_frames, refine="none"))
        return CosineSegmenter(max_frames=self._max_frames)

    # writing

    def observe(self, record: Record) -> Sequence[Record]:
        tokens = record.arrays.get("tokens")
        if tokens is None or not self.compressor.accepts(*tokens.shape):
            return ()
        held = self._open.get(record.stream)
        if held is None:
            held = self._open[record.stream] = _Open(self._segmenter())
        last = held.frames[-1] if held.frames else None
        same = last is not None and (last.session, held.space) == (record.session, record.space)
        if last is not None and same and record.t_start_ns < held.newest_ns:
            return ()  # a late moment: its clip may be told already
        pause = record.t_start_ns - held.newest_ns > PAUSE_NS
        force = last is not None and (not same or pause or tokens.shape != held.shape)
        half = np.ascontiguousarray(tokens, np.float16)
        vector = None if record.vector is None else np.asarray(record.vector, np.float32)
        seen = vector if vector is not None else half.astype(np.float32).mean(axis=0)
        done = []
        for length in held.segmenter.push(record.t_start_ns, seen, force=force):
            done.append(self._record(record.stream, held, held.frames[:length]))
            held.frames = held.frames[length:]
        held.shape, held.space, held.newest_ns = half.shape, record.space, record.t_start_ns
        held.frames.append(
            _Frame(
                record.record_id,
                record.session,
                record.seq,
                record.t_start_ns,
                record.t_end_ns,
                half.tobytes(),
                b"" if vector is None else vector.astype(np.float16).tobytes(),
                record.labels,
                record.pose,
            )
        )
        return done

    def _record(self, stream: str, held: _Open, frames: Sequence[_Frame]) -> Record:
        """Pass 1 of these frames. float16 is what is kept, so it is what the open clip shows too."""
        first, last = frames[0], frames[-1]
        tokens = np.stack([np.frombuffer(frame.tokens, np.float16).reshape(held.shape) for frame in frames])
        made = self.compressor.compress(tokens, first.t_start_ns / NS, last.t_end_ns / NS)
        seen = [np.frombuffer(frame.vector, np.float16).astype(np.float32) for frame in frames if frame.vector]
        vectors = np.stack(seen) if seen else None
        arrays = {
            "slots": _half(made.slots),
            "summary": _half(made.summary[None]),
            "counts": made.counts,
            "spans": made.spans,
        }
        if vectors is not None:
            arrays["keys"] = vectors[medoids(vectors, KEYS)].astype(np.float16)
        return Record(
            record_id=record_id(self.name, stream, first.session, first.seq),
            bank=self.name,
            stream=stream,
            t_start_ns=first.t_start_ns,
            t_end_ns=last.t_end_ns,
            session=first.session,
            seq=first.seq,
            count=len(frames),
            parents=tuple(frame.record_id for frame in frames),
            producer=self._producer,
            space=held.space if vectors is not None else None,
            labels=merged_labels([frame.labels for frame in frames]),
            pose=first.pose,
            vector=None if vectors is None else unit_mean(vectors),
            arrays=arrays,
        )

    def open_clips(self, streams: Sequence[str] | None, until_ns: int | None = None) -> list[OpenClip]:
        """The open clips as they would be if they ended now (or at ``until_ns``): the entry that is overwritten."""
        found = []
        for stream, held in sorted(self._open.items()):
            frames = [frame for frame in held.frames if until_ns is None or frame.t_start_ns <= until_ns]
            if not frames or (streams is not None and stream not in streams):
                continue
            key = (frames[0].record_id, frames[-1].record_id)
            known = self._made.get(stream)
            if known is None or known[:2] != key:
                known = self._made[stream] = (*key, self._record(stream, held, frames))
            found.append(OpenClip(stream, known[2]))
        return found

    # state

    def state(self, stream: str) -> bytes:
        held = self._open.get(stream)
        if held is None:
            return b""
        return msgspec.msgpack.encode(_State(1, held.shape, held.space, held.frames, held.segmenter.state()))

    def load(self, stream: str, state: bytes, recall: Recall) -> None:
        self._open.pop(stream, None)
        self._made.pop(stream, None)
        if not state:
            return
        read = decode_state(state, _State, f"the saved open clip of {stream!r}")
        if any(len(frame.tokens) != 2 * read.shape[0] * read.shape[1] for frame in read.frames):
            raise CorruptData(f"the saved open clip of {stream!r} contradicts itself")
        held = _Open(self._segmenter())
        held.segmenter.load(read.segmenter)
        held.frames, held.shape, held.space = read.frames, read.shape, read.space
        held.newest_ns = read.frames[-1].t_start_ns if read.frames else held.newest_ns
        self._open[stream] = held

    def ram_bytes(self) -> int:
        frames = [frame for held in self._open.values() for frame in held.frames]
        return sum(len(frame.tokens) + 2 * len(frame.vector) + 400 for frame in frames) + self.snapshot_bytes()

    def forget(self, stream: str, t_start_ns: int, t_end_ns: int) -> int:
        self.forget_snapshots(stream, t_start_ns, t_end_ns)
        self._made.pop(stream, None)
        held = self._open.get(stream)
        if held is None:
            return 0
        kept = outside(held.frames, t_start_ns, t_end_ns)
        held.segmenter.keep(kept)
        held.frames = [frame for keep, frame in zip(kept, held.frames, strict=True) if keep]
        if not held.frames:
            del self._open[stream]
        return kept.count(False)

    def digest(self, stream: str) -> bytes:
        return digest_of(self.state(stream))

    def questions(self) -> Mapping[str, Question]:
        return {"clips": self._clips, "select": self._select, "view": self._view, "snapshot": self._snapshot}


def _half(values: np.ndarray) -> np.ndarray:
    largest = float(np.finfo(np.float16).max)
    return np.clip(values, -largest, largest).astype(np.float16)


def configured(config: ClipsConfig) -> ClipsBank:
    """The bank of a configuration. Raises ModelUnavailable for ``qwen`` without weights."""
    compressor = open_compressor(config.compressor, slots=config.slots, model=config.model)
    return ClipsBank(compressor, boundary=config.boundary, max_frames=config.max_frames)
