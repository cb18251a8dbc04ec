"""The map of one stream: an open submap that grows, closed ones, and what is made from them all.

    moment -> pose gate -> open submap (leaves, steps, sightings) -> closed: a record of the bank

``view`` adds the submaps up: joint octree, graph of places, objects. It is made when somebody asks, and kept until
something changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from streammem.banks.spatial import geometry, mapping, morton
from streammem.banks.spatial.answers import Summary, Version
from streammem.banks.spatial.joining import Joined, Joiner
from streammem.banks.spatial.map_state import State, pack, unpack
from streammem.banks.spatial.octree import Octree
from streammem.banks.spatial.short_term import Entry, ShortTermMemory
from streammem.banks.spatial.submap import BANK, PRODUCER, STEP, Submap, arrays_of, record_of, submap_from
from streammem.banks.spatial.topology import Topology
from streammem.banks.spatial.versions import Correction, correction_of, row_of
from streammem.config import SpatialConfig
from streammem.errors import CorruptData, StreammemError
from streammem.model import Pose, Record, record_id

SUBMAP_STEPS = 64
SUBMAP_LEAVES = 16_384
SUBMAP_NS = 60 * 10**9
SUBMAP_M = 6.0
"""A submap is closed at so many moments, leaves, so much time, or so far from its beginning: its state is saved with
every seal, and a correction moves it as one piece."""
COARSEST = 4
SPOT_M = 0.5
"""The short-term memory holds one entry for each cube of this side that the camera was in."""


@dataclass(slots=True)
class StreamMap:
    """``rejected`` counts what was turned away, by reason."""

    stream: str
    config: SpatialConfig
    closed: list[Submap] = field(default_factory=list)
    open: Submap | None = None
    corrections: list[Correction] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)
    gate: geometry.PoseGate = field(default_factory=geometry.PoseGate)
    frame_id: str = ""
    next_number: int = 0
    depths: int = 0
    taken: int = 0
    lost: int = 0
    coarsened: int = 0
    short: ShortTermMemory = field(default_factory=ShortTermMemory)
    topology: Topology | None = None
    _base: dict[str, tuple[Octree, Octree]] = field(default_factory=dict)
    _view: dict[tuple[str, int | None, int | None], Joined] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate = geometry.PoseGate(self.config.jump_m)
        self.topology = self._joiner().new_topology()

    # -- writing

    def observe(self, record: Record) -> list[Record]:
        """One moment. Never raises: what can't be used is counted."""
        made: list[Record] = []
        try:
            correction = correction_of(record)
        except StreammemError:
            self._reject("correction")
            return made
        if correction is not None:
            made += self._correct(correction, record)
        pose = record.pose
        if pose is None:
            return made
        if pose.frame_id != self.frame_id:
            made += self.close()
            self.frame_id, self.gate = pose.frame_id, geometry.PoseGate(self.config.jump_m)
            self.topology = self._joiner().topology(self._chosen(pose.frame_id, None, None))
            self.topology.current = None
        verdict = self.gate.judge(pose)
        if verdict not in ("good", "moved"):
            self._reject(verdict)
            return made
        if self.open is not None and (verdict == "moved" or self._is_full(self.open, record, pose)):
            made += self.close()
        self._take(record, pose, linked=verdict == "good")
        self._view.clear()
        return made

    def _reject(self, reason: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    @staticmethod
    def _is_full(submap: Submap, record: Record, pose: Pose) -> bool:
        steps = submap.steps
        return (
            pose.map_version != submap.map_version
            or len(steps) >= SUBMAP_STEPS
            or len(submap.tree) >= SUBMAP_LEAVES
            or abs(record.t_start_ns - int(steps["t_ns"][0])) >= SUBMAP_NS
            or float(np.linalg.norm(steps["pose"][0, :3] - pose.position_m)) >= SUBMAP_M
        )

    def _take(self, record: Record, pose: Pose, *, linked: bool) -> None:
        submap = self.open
        if submap is None:
            submap = self.open = mapping.begin(self.next_number, pose, self.config)
            self.next_number += 1
        used = False
        try:
            points = mapping.points(record, pose, self.config)
            if points is not None:
                self.depths += 1
                base = self.base(pose.frame_id)[0] if self.depths % mapping.LOOK_EVERY == 1 else None
                mapping.add(submap, record, pose, points, self.config, base)
                used = len(points.xyz) > 0
            mapping.sight(submap, record, pose, points, self.config)
        except StreammemError as error:
            self._reject(getattr(error, "field", "") or type(error).__name__)
        direction = geometry.rotation_from_quaternion(pose.q_xyzw)[:, 2]
        assert self.topology is not None
        step = self.topology.observe(
            pose.position_m, record.vector, record.t_start_ns, record.record_id, direction=direction, linked=linked
        )
        if record.vector is not None:
            self.taken += 1
            key = int(morton.encode(np.floor(np.array([pose.position_m]) / SPOT_M).astype(np.int64) + 2**20)[0])
            self.short.write(
                ("leaf", key),
                np.array(pose.position_m),
                record.vector,
                self.taken,
                anchor=step.place_id,
                record_id=record.record_id,
            )
        if step.kept_view:
            vector = np.empty(0, np.float16) if record.vector is None else record.vector.astype(np.float16)
            submap.view_vectors.append(vector)
        kept = (record.t_start_ns, record.record_id, step.place_id, linked, step.kept_view, used, row_of(pose))
        submap.steps = np.append(submap.steps, np.array([kept], STEP))

    def close(self) -> list[Record]:
        """The open submap as a record; nothing where there is none."""
        submap, self.open = self.open, None
        if submap is None or not len(submap.steps):
            return []
        number = record_id(BANK, self.stream, "submap", submap.number)
        arrays = arrays_of(submap, exact=False)
        record = record_of(submap, self.stream, number, arrays)
        # What is kept is what will be read again: rounded alike before and after a restart.
        self.keep(submap_from(arrays, submap.frame_id, number))
        return [record]

    def keep(self, submap: Submap) -> None:
        """Another closed submap."""
        self.closed.append(submap)
        self._view.clear()
        base = self._base.get(submap.frame_id)
        if base is not None:
            self._joiner().add(*base, submap)

    def _correct(self, correction: Correction, record: Record) -> list[Record]:
        made = self.close()
        number = record_id(BANK, self.stream, "correction", len(self.corrections))
        kept = replace(correction, record_id=number)
        self.corrections.append(kept)
        self.rebuild()
        self._place_short()
        # The tracker continues in the corrected map: a jump of the pose is what it just said.
        self.gate = geometry.PoseGate(self.config.jump_m)
        made.append(
            Record(
                record_id=number,
                bank=BANK,
                stream=self.stream,
                t_start_ns=record.t_start_ns,
                t_end_ns=record.t_start_ns,
                session="correction",
                seq=len(self.corrections) - 1,
                parents=(record.record_id,),
                producer=PRODUCER,
                pose=record.pose,
                arrays={"map.t_ns": kept.times_ns, "map.pose": kept.poses},
            )
        )
        return made

    def rebuild(self) -> None:
        """After a correction or after forgetting: make everything from the submaps that there are."""
        self._base.clear()
        self._view.clear()
        self.topology = self._joiner().topology(self._chosen(self.frame_id, None, None))

    def drop_views(self) -> None:
        """Free what questions had made."""
        self._view.clear()

    def can_coarsen(self, coarsest: int) -> bool:
        """Whether a closed submap has leaves that may be made larger, ``2**coarsest`` times the side at most."""
        return any(self._levels(submap) < coarsest and len(submap.tree) for submap in self.closed)

    def coarsen_oldest(self, coarsest: int) -> None:
        """The oldest of the finest closed submaps keeps eighths of its leaves. Records on disk keep theirs."""
        open_ones = [each for each in self.closed if self._levels(each) < coarsest and len(each.tree)]
        submap = min(open_ones, key=lambda each: (self._levels(each), each.number))
        submap.tree = submap.tree.coarsened(1)
        self.coarsened += 1
        self._base.clear()
        self._view.clear()

    def _levels(self, submap: Submap) -> int:
        return round(float(np.log2(submap.tree.voxel_m / self.config.voxel_m)))

    def _place_short(self) -> None:
        """The short-term memory's entries go where their moments are now."""
        view = self.view(self.frame_id)
        where = dict(zip(view.steps["record"].tolist(), view.steps["pose"][:, :3], strict=True))
        for entry in self.short.entries:
            if entry.record_id in where:
                entry.position_m = np.array(where[entry.record_id])

    # -- adding up

    def base(self, frame_id: str) -> tuple[Octree, Octree]:
        """Leaves and free cells of the closed submaps of a frame."""
        if frame_id not in self._base:
            closed = [submap for submap in self.closed if submap.frame_id == frame_id]
            self._base[frame_id] = self._joiner().trees(closed)
        return self._base[frame_id]

    def _chosen(self, frame_id: str, version: int | None, until_ns: int | None) -> list[Submap]:
        submaps = [*self.closed, *([self.open] if self.open is not None else [])]
        return [
            submap
            for submap in submaps
            if submap.frame_id == frame_id
            and len(submap.steps)
            and (version is None or submap.map_version <= version)
            and (until_ns is None or submap.span[0] <= until_ns)
        ]

    def forget(self, t_start_ns: int, t_end_ns: int) -> int:
        """Drop every submap and correction that overlaps the closed interval, as a whole. Returns the moments."""

        def stays(first: int, last: int) -> bool:
            return first > t_end_ns or last < t_start_ns

        gone = [submap for submap in self._all() if len(submap.steps) and not stays(*submap.span)]
        self.closed = [submap for submap in self.closed if all(submap is not each for each in gone)]
        if any(self.open is each for each in gone):
            self.open = None
        self.corrections = [each for each in self.corrections if stays(each.known_ns, each.known_ns)]
        records = {int(number) for submap in gone for number in submap.steps["record"]}
        self.short.entries = [each for each in self.short.entries if each.record_id not in records]
        self.rebuild()
        return sum(len(submap.steps) for submap in gone)

    def frames(self) -> list[str]:
        """Frames of reference that submaps are in, sorted."""
        return sorted({submap.frame_id for submap in self._all()})

    def _all(self) -> list[Submap]:
        return [*self.closed, *([self.open] if self.open is not None else [])]

    def view(self, frame_id: str, *, version: int | None = None, until_ns: int | None = None) -> Joined:
        """Everything known in a frame: as of a map version, and from submaps that had begun by ``until_ns``."""
        key = (frame_id, version, until_ns)
        if key not in self._view:
            while len(self._view) >= 4:
                del self._view[next(iter(self._view))]
            self._view[key] = self._join(*key)
        return self._view[key]

    def _join(self, frame_id: str, version: int | None, until_ns: int | None) -> Joined:
        submaps, joiner = self._chosen(frame_id, version, until_ns), self._joiner(version)
        if version is not None or until_ns is not None:
            return joiner.join(submaps, frame_id, *joiner.trees(submaps))
        tree, free = (each.snapshot() for each in self.base(frame_id))
        if self.open is not None and self.open.frame_id == frame_id:
            joiner.add(tree, free, self.open)
        return joiner.join(submaps, frame_id, tree, free)

    def _joiner(self, version: int | None = None) -> Joiner:
        return Joiner(self.config, self.corrections, version)

    def versions(self) -> list[Version]:
        """The version that each frame began with, and every correction."""
        found = []
        for frame_id in self.frames():
            submaps = [submap for submap in self._all() if submap.frame_id == frame_id]
            first = min(submap.map_version for submap in submaps)
            corrections = {each.map_version: each for each in self.corrections if each.frame_id == frame_id}
            for version in sorted({first, *corrections, *(submap.map_version for submap in submaps)}):
                moved = [
                    float(np.linalg.norm(geometry.apply(turn, here) - here))
                    for submap in submaps
                    if (turn := self._joiner(version).transform(submap)) is not None and len(submap.steps)
                    for here in (submap.steps["pose"][:, :3].mean(axis=0),)
                ]
                found.append(
                    Version(
                        stream=self.stream,
                        frame_id=frame_id,
                        map_version=version,
                        known_ns=corrections[version].known_ns if version in corrections else None,
                        submaps=sum(submap.map_version == version for submap in submaps),
                        moved_m=float(np.mean(moved)) if moved else 0.0,
                    )
                )
        return found

    def summary(self, cap_bytes: int) -> Summary:
        """In numbers."""
        views = [self.view(frame_id) for frame_id in self.frames()]
        occupied = sum(int(view.tree.occupied.sum()) for view in views)
        return Summary(
            stream=self.stream,
            frames=self.frames(),
            map_versions=sorted({version.map_version for version in self.versions()}),
            moments=sum(len(submap.steps) for submap in self._all()),
            places=sum(len(view.topology.known()) for view in views),
            edges=sum(len(view.topology.edges) for view in views),
            sightings=sum(len(view.sightings) for view in views),
            submaps=len(self._all()),
            coarsened=self.coarsened,
            lost=self.lost,
            leaves=sum(len(view.tree) for view in views),
            occupied=occupied,
            volume_m3=sum(len(view.free) * view.free.voxel_m**3 for view in views),
            bytes=self.nbytes,
            cap_bytes=cap_bytes,
            rejected=dict(sorted(self.rejected.items())),
        )

    # -- saving

    @property
    def nbytes(self) -> int:
        """RAM: submaps, what is made of them, and views that were asked for."""
        trees = sum(tree.nbytes + free.nbytes for tree, free in self._base.values())
        # What will be made again at the next look counts already: at most the sum of its parts.
        trees += sum(each.tree.nbytes + each.free.nbytes for each in self.closed if each.frame_id not in self._base)
        views = sum(view.tree.nbytes + view.free.nbytes + view.topology.nbytes for view in self._view.values())
        graph = 0 if self.topology is None else self.topology.nbytes
        return sum(submap.nbytes for submap in self._all()) + trees + views + graph + self.short.ram_bytes()

    def state(self) -> bytes:
        """Ids of the closed submaps and corrections; the open submap with every bit."""
        return msgspec.msgpack.encode(
            State(
                submaps=[submap.record_id for submap in self.closed],
                corrections=[correction.record_id for correction in self.corrections],
                open=None if self.open is None else pack(self.open),
                frame_id=self.frame_id,
                next_number=self.next_number,
                depths=self.depths,
                rejected=dict(sorted(self.rejected.items())),
                last=self.gate.last,
                waiting=self.gate.waiting,
                current=None if self.topology is None else self.topology.current,
                taken=self.taken,
                short=[
                    (
                        each.key[1],
                        each.anchor,
                        tuple(each.position_m.tolist()),
                        each.tau,
                        each.frequency,
                        each.record_id,
                    )
                    for each in self.short.entries
                    if isinstance(each.key, tuple)
                ],
            )
        )

    def load(self, data: bytes, recall: Callable[[int], Record | None]) -> None:
        """Raises CorruptData for a state that can't be read; submaps that are gone are counted."""
        try:
            state = msgspec.msgpack.decode(data, type=State)
        except msgspec.DecodeError as error:
            raise CorruptData(f"the saved map of {self.stream!r} can't be read: {error}") from error
        for number in state.corrections:
            found = recall(number)
            if found is not None and found.pose is not None and "map.t_ns" in found.arrays:
                correction = correction_of(found)
                if correction is not None:
                    self.corrections.append(replace(correction, record_id=number))
        for number in state.submaps:
            found = recall(number)
            if found is None or found.pose is None or "grid" not in found.arrays:
                self.lost += 1
                continue
            self.closed.append(submap_from(found.arrays, found.pose.frame_id, number))
        if state.open is not None:
            self.open = unpack(state.open)
        self.frame_id, self.next_number, self.depths = state.frame_id, state.next_number, state.depths
        self.rejected, self.taken = state.rejected, state.taken
        for code, anchor, position, tau, frequency, number in state.short:
            record = recall(number)
            if record is not None and record.vector is not None:
                vector = np.asarray(record.vector, np.float32)
                entry = Entry(("leaf", code), anchor, np.array(position), vector, tau, frequency, number)
                self.short.entries.append(entry)
        self.gate.last, self.gate.waiting = state.last, state.waiting
        self.topology = self._joiner().topology(self._chosen(self.frame_id, None, None))
        self.topology.current = state.current

    def digest(self) -> bytes:
        return hashlib.blake2b(self.state(), digest_size=16).digest()
