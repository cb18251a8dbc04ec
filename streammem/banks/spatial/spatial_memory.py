"""The bank ``spatial``: maps of streams that send poses, what is where in them, and how to get there.

Built after the idea of Mem4Nav (arXiv 2506.19433: sparse octree, graph of places, short-term and long-term memory of
places). That paper is withdrawn and its released code doesn't run: none of its numbers is claimed (docs/spatial.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streammem.banks.base import Question, Recall
from streammem.banks.spatial.questions import Questions
from streammem.banks.spatial.reports import Reports
from streammem.banks.spatial.stream_map import COARSEST, StreamMap
from streammem.banks.spatial.submap import BANK
from streammem.banks.spatial.versions import TIMES
from streammem.config import SpatialConfig
from streammem.model import Record

FULL = 0.9
"""Share of the cap at which old submaps are coarsened: the open submap grows until the next look at the bytes."""


class SpatialBank:
    """One :class:`StreamMap` a stream, made by its first pose."""

    name = BANK

    def __init__(self, config: SpatialConfig | None = None) -> None:
        self.config = config or SpatialConfig()
        self.cap_bytes = self.config.bytes
        self.maps: dict[str, StreamMap] = {}

    def observe(self, record: Record) -> Sequence[Record]:
        if record.pose is None and TIMES not in record.arrays:
            return ()
        if record.stream not in self.maps:
            self.maps[record.stream] = StreamMap(record.stream, self.config)
        made = self.maps[record.stream].observe(record)
        if made:
            self._keep_cap()
        return made

    def _keep_cap(self) -> None:
        """Coarsen the oldest of the finest submaps of the largest map, until all fit. Labels stay."""
        if not self.cap_bytes:
            return
        for each in self.maps.values():
            each.drop_views()
        while self.ram_bytes() > FULL * self.cap_bytes:
            candidates = [each for each in self.maps.values() if each.can_coarsen(COARSEST)]
            if not candidates:
                return
            max(candidates, key=lambda each: (each.nbytes, each.stream)).coarsen_oldest(COARSEST)

    def state(self, stream: str) -> bytes:
        return self.maps[stream].state() if stream in self.maps else b""

    def load(self, stream: str, state: bytes, recall: Recall) -> None:
        if not state:
            return
        loaded = StreamMap(stream, self.config)
        loaded.load(state, recall)
        self.maps[stream] = loaded
        self._keep_cap()

    def ram_bytes(self) -> int:
        return sum(each.nbytes for each in self.maps.values())

    def forget(self, stream: str, t_start_ns: int, t_end_ns: int) -> int:
        if stream not in self.maps:
            return 0
        gone = self.maps[stream].forget(t_start_ns, t_end_ns)
        if not self.maps[stream].closed and self.maps[stream].open is None:
            del self.maps[stream]  # nothing of it is left: not even how often something was turned away
        return gone

    def digest(self, stream: str) -> bytes:
        return self.maps[stream].digest() if stream in self.maps else b""

    def questions(self) -> Mapping[str, Question]:
        return {**Questions(self.maps, self.config).table(), **Reports(self.maps, self.config).table()}
