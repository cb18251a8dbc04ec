"""What an embedding space must do, and how one is found by name.

A space turns pictures and words into something that can be compared. It may keep more than one vector an observation
(``parts``: per-crop class scores, say) and per-stream statistics (running mean and deviation of a class); it owns the
meaning of those bytes, the storage only carries them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec
import numpy as np

from streammem.errors import ConfigError

if TYPE_CHECKING:
    from streammem.config import Config


@dataclass(frozen=True, slots=True, eq=False)
class FrameEmbedding:
    """``vector`` (d,) float32, L2-normalised: the index vector. ``parts``: what the space keeps besides."""

    vector: np.ndarray
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """A column in which every row has its own number of entries: row ``i`` is ``values[offsets[i]:offsets[i+1]]``.

    ``values`` (m, ...), ``offsets`` (n + 1,) int64. ``row_of`` (m,) gives each entry's row.
    """

    values: np.ndarray
    offsets: np.ndarray

    @property
    def row_of(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, lo: int, hi: int) -> Ragged:
        """Rows ``lo`` to ``hi`` without copying the values."""
        offsets = self.offsets[lo : hi + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def take(self, rows: np.ndarray) -> Ragged:
        """The given rows, in that order."""
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        index = np.repeat(self.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Ragged(self.values[index], offsets)


def concatenate(columns: Sequence[Mapping[str, Ragged]], counts: Sequence[int]) -> dict[str, Ragged]:
    """Columns of several groups of rows as one; a group of ``counts[i]`` rows without a column gets empty rows.

    Groups whose entries have another shape or dtype than the first one's are left empty: they can't be compared."""
    joined: dict[str, Ragged] = {}
    for name in sorted({name for group in columns for name in group}):
        first = next(group[name].values for group in columns if name in group)
        values, offsets, end = [], [np.zeros(1, np.int64)], 0
        for group, count in zip(columns, counts, strict=True):
            column = group.get(name)
            if column is None or column.values.shape[1:] != first.shape[1:] or column.values.dtype != first.dtype:
                offsets.append(np.full(count, end, np.int64))
                continue
            values.append(column.values)
            offsets.append(column.offsets[1:] + end)
            end += len(column.values)
        joined[name] = Ragged(np.concatenate(values), np.concatenate(offsets))
    return joined


class SignalCalibration(msgspec.Struct, frozen=True):
    """Measured on questions about absent things.

    ``threshold``: the lowest score at which at most ``risk`` of them pass; None for a signal that can't tell absence.
    ``supports``: the lowest score at which a moment resembles what was asked (95 of 100 right moments reach it).
    ``scores``/``precision`` map a score to the share of right answers among those at least as high."""

    signal: str
    threshold: float | None
    risk: float
    negatives: int
    scores: tuple[float, ...] = ()
    precision: tuple[float, ...] = ()
    supports: float | None = None


class Calibration(msgspec.Struct, frozen=True):
    """Stored with the space, one entry a signal. ``source`` says on what and by which command it was measured."""

    space: str
    version: str
    source: str
    signals: tuple[SignalCalibration, ...] = ()


@runtime_checkable
class EmbeddingSpace(Protocol):
    """One embedding space. ``id`` is ``name@version`` and travels with every vector."""

    name: str
    version: str
    dim: int
    can_abstain: bool

    @property
    def id(self) -> str: ...

    def embed_frames(self, frames: Sequence[np.ndarray]) -> list[FrameEmbedding]:
        """Pictures (h, w, 3) uint8 RGB -> one embedding each. The result for a frame never depends on its batch."""
        ...

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> (n, dim) float32, L2-normalised, comparable with the index vectors by dot product."""
        ...

    def score(self, query: str, columns: Mapping[str, Ragged], statistics: np.ndarray | None) -> np.ndarray:
        """One relevance a row, (n,) float32, higher is better, on the same scale for every stream.

        ``columns`` holds the parts of n rows by name, and the index vectors as ``vector`` where a row has one.
        ``statistics`` is what :meth:`statistics` gave, summed over the stream; None means: only the shipped prior."""
        ...

    def signals(
        self, query: str, columns: Mapping[str, Ragged], statistics: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """:meth:`score` as ``vision``, and besides it whatever the space can say that may be calibrated (``evidence``:
        that all is there which the question claims; ``named``: that the things are which it names, whatever else it
        says of them). Each (n,) float32; -inf where it knows nothing."""
        ...

    def statistics(self, columns: Mapping[str, Ragged]) -> np.ndarray | None:
        """Sufficient statistics of these rows; the sum over disjoint sets of rows is that of their union."""
        ...

    def calibration(self) -> Calibration | None: ...


@runtime_checkable
class Explains(Protocol):
    """A space that can say in words why a row resembles a question. Optional."""

    def explain(self, query: str, columns: Mapping[str, Ragged]) -> list[str]:
        """One short text a row for people to read, empty where there is nothing to say."""
        ...


ENTRY_POINTS = "streammem.spaces"


def available_spaces() -> list[str]:
    """Names of the installed spaces, sorted."""
    from importlib.metadata import entry_points

    return sorted({point.name for point in entry_points(group=ENTRY_POINTS)})


def configured_spaces(config: Config) -> Callable[[str], EmbeddingSpace]:
    """The installed spaces; the configured one with the configured weights, so that a question meets the same model as
    the pictures did."""
    wanted, model = config.perception.space.split("@", 1)[0], config.perception.model

    def find(space_id: str) -> EmbeddingSpace:
        options = {"model": model} if model and space_id.split("@", 1)[0] == wanted else {}
        return open_space(space_id, **options)

    return find


def open_space(name: str, **options: object) -> EmbeddingSpace:
    """The space called ``name`` (``name@version`` is accepted: the version is checked by the memory, not here).

    Raises ConfigError for an unknown name, ModelUnavailable where its weights are missing."""
    from importlib.metadata import entry_points  # with email and zipfile behind it: 15 ms

    wanted = name.split("@", 1)[0]
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == wanted:
            return point.load()(**options)
    raise ConfigError(
        f"no embedding space is called {wanted!r}", hint=f"installed: {', '.join(available_spaces()) or 'none'}"
    )
