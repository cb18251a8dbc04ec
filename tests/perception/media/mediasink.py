"""A memory in a dictionary: what the pipeline needs of one, and switches to make it fail."""

from __future__ import annotations

import hashlib

from streammem.errors import StorageFull
from streammem.model import Observation, StreamInfo


class DictSink:
    """Keeps the first of each identity. ``fail_after``: how many observations fit."""

    def __init__(self, *, fail_after: int | None = None) -> None:
        self.kept: dict[tuple[str, str, int], Observation] = {}
        self.states: dict[str, bytes] = {}
        self.infos: list[StreamInfo] = []
        self.written = self.flushes = 0
        self.fail_after = fail_after

    def write(self, observations: list[Observation], *, durable: bool = True) -> None:
        if self.fail_after is not None and self.written + len(observations) > self.fail_after:
            raise StorageFull("no space left on /mem", hint="free some")
        for each in observations:
            self.kept.setdefault(each.key, each)
            self.written += 1

    def put_state(self, key: str, value: bytes) -> None:
        self.states[key] = value

    def get_state(self, key: str) -> bytes | None:
        return self.states.get(key)

    def set_stream(self, info: StreamInfo) -> None:
        self.infos.append(info)

    def flush(self) -> None:
        self.flushes += 1

    def digest(self) -> str:
        """Of everything kept, in the order it was first written."""
        found = hashlib.blake2b(digest_size=16)
        for each in self.kept.values():
            arrays = [each.embedding, *(each.parts[name] for name in sorted(each.parts))]
            found.update(repr((each.key, each.capture_ns, each.media_ns, each.space, each.labels, each.texts)).encode())
            found.update(repr((each.speech, each.detections, sorted(each.stats.items()))).encode())
            found.update(b"".join(array.tobytes() for array in arrays if array is not None))
            found.update(each.thumbnail or b"-")
        return found.hexdigest()
