"""An array keeps its dtype and trailing shape for as long as its stream and embedding space stay the same."""

from __future__ import annotations

from streammem.checks import refuse
from streammem.model import Observation
from streammem.storage.store import Store

Shape = tuple[str, tuple[int, ...]]
OWN = ("embedding", "tokens", "depth_m")


class Shapes:
    """What was seen since the memory was opened; before that, what the newest segment of the stream says."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str | None, str], Shape] = {}

    def check(self, observation: Observation) -> None:
        """Raises ObservationError where an array changed. A column could not hold both."""
        arrays = dict(observation.parts)
        for name in OWN:
            array = getattr(observation, name)
            if array is not None:
                arrays[name] = array
        fresh: dict[tuple[str, str | None, str], Shape] = {}
        for name, array in arrays.items():
            key = (observation.stream, observation.space, name)
            shape = (array.dtype.str, array.shape if name == "embedding" else array.shape[1:])
            known = self._known.get(key) or self._sealed(key)
            if known is not None and known != shape:
                raise refuse(
                    name if name in OWN else "parts",
                    f"{name!r} changed from {known[0]} {known[1]} to {shape[0]} {shape[1]} within the stream",
                    "write it as another stream or in another embedding space",
                )
            fresh[key] = shape
        self._known.update(fresh)

    def _sealed(self, key: tuple[str, str | None, str]) -> Shape | None:
        stream, space, name = key
        column_name = "vector" if name == "embedding" else name
        for segment in reversed(self._store.segments):
            if (segment.bank, segment.stream, segment.space) != ("moments", stream, space):
                continue
            if not self._store.usable(segment):
                continue
            column = segment.columns(0, 0).get(column_name)
            if column is not None:
                dtype = "<f4" if name == "embedding" else column.values.dtype.str
                return dtype, tuple(column.values.shape[1:])
            if segment.manifest.level == 0:
                return None  # the newest full segment has no such array: it is new
        return None

    def clear(self) -> None:
        self._known.clear()
