"""A judge whose truth is a table: what is read at each frame, and how far things are apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nav.findingdory.predicates import Reading

HERE = Reading(distance_m=0.0, angle_rad=0.0, coverage=1.0, inside=True)
AWAY = Reading()


class TruthTable:
    """``frames[i]`` maps an entity to its reading at frame i; what it leaves out is away. ``metres[(a, b)]``, with None
    for the start; symmetric."""

    def __init__(
        self, frames: Sequence[Mapping[str, Reading]], metres: Mapping[tuple[str | None, str], float] | None = None
    ) -> None:
        self._frames, self._metres = frames, dict(metres or {})

    @property
    def frames(self) -> int:
        return len(self._frames)

    def reading(self, entity_id: str, frame: int) -> Reading:
        return self._frames[frame].get(entity_id, AWAY)

    def distance(self, a: str | None, b: str) -> float:
        if a == b:
            return 0.0
        return self._metres.get((a, b), self._metres.get((b, a), 1.0))  # type: ignore[arg-type]
