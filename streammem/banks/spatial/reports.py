"""Questions about a map as a whole: from above, as points, what is recalled, its versions, its size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streammem.banks.base import Question, Reader
from streammem.banks.spatial import grid
from streammem.banks.spatial.answers import Cloud, Remembered, Summary, TopDown, Version
from streammem.banks.spatial.finding import remembered
from streammem.banks.spatial.scope import Asking, point_of
from streammem.errors import QueryError

MOST_POINTS = 500_000


class Reports(Asking):
    """Read-only; arguments as of :class:`~streammem.banks.spatial.questions.Questions`."""

    def table(self) -> dict[str, Question]:
        return {
            "map": self.map,
            "cloud": self.cloud,
            "recall": self.recall,
            "versions": self.versions,
            "summary": self.summary,
        }

    def map(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        resolution_m: float = 0.1,
        frame: str | None = None,
        map_version: int | None = None,
    ) -> list[TopDown]:
        """The map from above, one a stream. Raises QueryError where nothing is mapped."""
        if not 0.005 <= resolution_m <= 10:
            raise QueryError(f"squares of {resolution_m} m can't be drawn", hint="0.005 to 10")
        found = self._scenes(streams, frame, map_version, one_frame=True)
        if not found:
            raise QueryError("nothing is mapped here", hint="streams without poses are not mapped")
        return [grid.top_down(scene.view, resolution_m) for scene in found]

    def cloud(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        frame: str | None = None,
        map_version: int | None = None,
        most: int = MOST_POINTS,
    ) -> list[Cloud]:
        """Occupied leaves as coloured points, one cloud a stream."""
        found = []
        for scene in self._scenes(streams, frame, map_version, one_frame=True):
            tree = scene.view.tree
            rows = np.flatnonzero(tree.occupied)
            rows = rows[np.argsort(tree.codes[rows])]
            step = max(1, -(-len(rows) // max(1, min(most, MOST_POINTS))))
            rows = rows[::step]
            found.append(
                Cloud(
                    frame_id=scene.view.frame_id,
                    map_version=scene.view.map_version,
                    count=len(rows),
                    step=step,
                    points=tree.surface(rows).astype("<f4").tobytes(),
                    colours=tree.colours(rows).tobytes(),
                )
            )
        return found

    def recall(
        self,
        reader: Reader,
        *,
        streams: Sequence[str] | None,
        position: Sequence[float],
        text: str | None = None,
        record_id: int | None = None,
        least: float = 0.7,
        k: int = 3,
        frame: str | None = None,
    ) -> list[Remembered]:
        """What here looks like this moment (``record_id``) or these words: the short-term memory first, where something
        within 3 m is at least ``least`` alike, else the long-term memory of all places."""
        centre = point_of(position, "position")
        found = []
        for scene in self._scenes(streams, frame, None, one_frame=True):
            found.append(remembered(reader, scene, centre, text, record_id, least, k, self.config.long_term))
        return found

    def versions(self, reader: Reader, *, streams: Sequence[str] | None) -> list[Version]:
        """Every map version of every stream, oldest first."""
        found = []
        for name, each in sorted(self.maps.items()):
            if streams is None or name in streams:
                found += each.versions()
        return found

    def summary(self, reader: Reader, *, streams: Sequence[str] | None) -> list[Summary]:
        """What is held of each stream, what was turned away, and the bytes against the cap."""
        chosen = [each for name, each in sorted(self.maps.items()) if streams is None or name in streams]
        return [each.summary(self.config.bytes) for each in chosen]
