"""The published data, read as it is laid out: offline question rows and episode files with their two arrays.

Offline (``yali30/findingdory``, ``yali30/findingdory-subsampled-96``)::

    ROOT/train|validation .jsonl|.json|.parquet     rows with ep_id, video, question, answer, task_id, ...
    ROOT/videos/train|val/...mp4                    shipped as videos.zip

Episodes (``yali30/findingdory-habitat``)::

    ROOT/train|val/episodes.json[.gz]  viewpoints.npy (n, 8)  transformations.npy (n, 3, 4)

Nothing here needs the network; a missing file is an error that says how to get it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from nav.findingdory.offline import Frames, read_truth
from streammem.errors import InputError, SourceError, SourceNotFound

Split = Literal["train", "validation"]
HUB_FULL = "yali30/findingdory"
HUB_96 = "yali30/findingdory-subsampled-96"
HUB_EPISODES = "yali30/findingdory-habitat"
_FOLDER: Mapping[str, str] = {"train": "train", "validation": "val"}
COLUMNS = (
    "ep_id", "video", "question", "answer", "task_id", "high_level_category", "low_level_category", "num_interactions",
)  # fmt: skip
_LARGEST = 2 << 30
"""Bytes of an unpacked episode file: the real one is about 0.5 GB."""


class OfflineRow(msgspec.Struct, frozen=True, kw_only=True):
    """One question of the offline set. ``task`` is the number of ``task_id`` ("task_7" or 7); ``video`` exists only if
    the archive was unpacked: :meth:`OfflineSet.video` checks. ``answer_text``: the answer as it is printed there."""

    ep_id: str
    video: str
    question: str
    answer: Frames
    answer_text: str
    task: int
    high_level_category: str
    low_level_category: str
    num_interactions: int


class OfflineSet:
    """Rows of one split. ``frames`` is 96 for the subsampled set and None where videos have their full length."""

    def __init__(self, root: str | os.PathLike[str], split: Split = "validation", *, frames: int | None = None) -> None:
        """Raises SourceNotFound that says how to get what is missing, SourceError for rows that can't be read."""
        self.root, self.split, self.frames = Path(root), split, frames
        if split not in _FOLDER:
            raise InputError(f"no split is called {split!r}", hint="use train or validation")
        self.hub = HUB_96 if frames == 96 else HUB_FULL
        self.path = self._find()
        self.rows = [self._row(i, raw) for i, raw in enumerate(_rows(self.path))]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[OfflineRow]:
        return iter(self.rows)

    @property
    def fingerprint(self) -> str:
        """A short hash of questions and answers: other rows, other results."""
        text = "\0".join(f"{row.ep_id}/{row.task}/{row.question}/{row.answer_text}" for row in self.rows)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def episodes(self) -> list[str]:
        """Episode ids in the order in which they come first."""
        return list(dict.fromkeys(row.ep_id for row in self.rows))

    def video(self, row: OfflineRow) -> Path:
        """The row's video. Raises SourceNotFound. A path that leaves ``ROOT`` is refused: rows are other people's."""
        base = self.root.resolve()
        for folder in (base, base / "videos", base / "videos" / _FOLDER[self.split]):
            path = (folder / row.video).resolve()
            if base not in path.parents:
                raise SourceError(f"{self.path}: the video {row.video!r} is outside {base}", hint="mend the row")
            if path.is_file():
                return path
        raise SourceNotFound(
            f"{base / row.video}: the video of {row.ep_id} is missing",
            hint=f"hf download {self.hub} videos.zip --repo-type dataset --local-dir {base}; then unzip it there",
        )

    def _find(self) -> Path:
        names = [f"{stem}{end}" for stem in (self.split, _FOLDER[self.split], f"data/{self.split}")
                 for end in (".jsonl", ".json", ".parquet")]  # fmt: skip
        found = [self.root / name for name in names if (self.root / name).is_file()]
        # The hub's own layout: data/validation-00000-of-00001.parquet
        found += sorted(self.root.glob(f"data/{self.split}-*.parquet"))[:1]
        if not found:
            raise SourceNotFound(
                f"{self.root}: no rows of the split {self.split} ({names[0]} or the like)",
                hint=f"hf download {self.hub} --repo-type dataset --local-dir {self.root}",
            )
        return found[0]

    def _row(self, number: int, raw: object) -> OfflineRow:
        where = f"{self.path}, row {number}"
        if not isinstance(raw, dict):
            raise SourceError(f"{where}: no object", hint=f"expected the columns {', '.join(COLUMNS)}")
        missing = [name for name in COLUMNS if name not in raw]
        if missing:
            raise SourceError(f"{where}: the column {missing[0]!r} is missing", hint=f"it has {', '.join(raw)}")
        try:
            answer = read_truth(raw["answer"])
            task = int(str(raw["task_id"]).removeprefix("task_"))
            interactions = int(raw["num_interactions"])
        except (InputError, ValueError, TypeError) as error:
            raise SourceError(f"{where}: {error}", hint="check that the file is whole") from None
        if self.frames is not None and any(frame >= self.frames for goal in answer for frame in goal):
            raise SourceError(f"{where}: a frame beyond {self.frames - 1}", hint="is this the full-length set?")
        text = {name: str(raw[name]) for name in ("ep_id", "video", "question", *COLUMNS[5:7])}
        printed = str(raw["answer"])
        return OfflineRow(**text, answer=answer, answer_text=printed, task=task, num_interactions=interactions)


def _rows(path: Path) -> Iterator[object]:
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise SourceError(
                f"{path}: Parquet can't be read: {error}", hint="pip install pyarrow, or convert it to JSON lines"
            ) from error
        yield from parquet.read_table(path).to_pylist()
        return
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            rows = json.loads(text)
            yield from rows if isinstance(rows, list) else [rows]
        else:
            for line in text.splitlines():
                if line.strip():
                    yield json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: no JSON: {error}", hint="download it again") from None


class InstructionInfo(msgspec.Struct, kw_only=True):
    """One instruction of an episode, by the benchmark's names. ``goal_expr`` is kept as it is: it is the upstream
    evaluator's, ours judges by the task's goal set."""

    task_id: str
    lang: str
    task_type: str = ""
    goal_expr: Any = None
    sampled_objects: list[Any] = msgspec.field(default_factory=list)
    sampled_receps: list[Any] = msgspec.field(default_factory=list)
    sequential_goals: dict[str, Any] | None = None
    temporal_target_entity: Any = None

    @property
    def task(self) -> int:
        """0 for an id that names no task."""
        number = self.task_id.removeprefix("task_")
        return int(number) if number.isdigit() else 0


class Candidate(msgspec.Struct, kw_only=True):
    """An object or receptacle of an episode. ``view_points`` are rows of ``viewpoints.npy``; ``position`` metres in
    Habitat's frame. A receptacle's name is its furniture's handle, and after a bar which surface of it."""

    name: str = msgspec.field(name="object_name", default="")
    category: str = msgspec.field(name="object_category", default="")
    position: list[float] = msgspec.field(default_factory=list)
    view_points: list[int] = msgspec.field(default_factory=list)


class EpisodeInfo(msgspec.Struct, kw_only=True):
    """One episode; keys that are not named here are ignored."""

    episode_id: str
    scene_id: str
    start_position: list[float] = msgspec.field(default_factory=list)
    start_rotation: list[float] = msgspec.field(default_factory=list)
    candidate_objects: list[Candidate] = msgspec.field(default_factory=list)
    candidate_objects_noninteracted: list[Candidate] = msgspec.field(default_factory=list)
    candidate_start_receps: list[Candidate] = msgspec.field(default_factory=list)
    candidate_start_receps_noninteracted: list[Candidate] = msgspec.field(default_factory=list)
    candidate_goal_receps: list[Candidate] = msgspec.field(default_factory=list)
    candidate_goal_receps_noninteracted: list[Candidate] = msgspec.field(default_factory=list)
    target_receptacles: list[Any] = msgspec.field(default_factory=list)
    goal_receptacles: list[Any] = msgspec.field(default_factory=list)
    name_to_receptacle: dict[str, str] = msgspec.field(default_factory=dict)
    rigid_objs: list[tuple[str, int]] = msgspec.field(default_factory=list)
    """Asset and row of ``transformations.npy``, in the order in which they are put into the scene."""
    place_valid_receps: dict[str, int | None] | None = None
    """Interaction -> which view point of its goal receptacle the thing was placed from (-1: any)."""
    place_oracle_action_seq: dict[str, list[Any]] | None = None
    """Interaction -> the recorded actions of its place skill; from the drop on with the thing's (4, 4) pose."""
    nav_goal_pos: Any = None
    nav_goal_rot: Any = None
    scene_dataset_config: str = ""
    additional_obj_config_paths: list[str] = msgspec.field(default_factory=list)
    instructions: dict[str, InstructionInfo] = msgspec.field(default_factory=dict)

    def missing_tasks(self) -> list[int]:
        """Task numbers of the 60 that this episode doesn't ask: those without a valid instance."""
        return sorted(set(range(1, 61)) - {one.task for one in self.instructions.values()})


class EpisodeSet:
    """Episodes of one split. ``viewpoints`` (n, 8) float: x, y, z metres in Habitat's frame, quaternion **x, y, z, w**,
    IoU; ``transformations`` (n, 4, 4) float; the file may leave out their last row, which is 0, 0, 0, 1."""

    def __init__(self, root: str | os.PathLike[str], split: Split = "validation") -> None:
        """Raises SourceNotFound, SourceError."""
        folder = Path(root) / _FOLDER.get(split, split)
        self.path = _existing(
            [folder / "episodes.json.gz", folder / "episodes.json", folder / f"{folder.name}.json.gz"]
        )
        self.viewpoints = _array(folder / "viewpoints.npy", (8,))
        self.transformations = _whole(_array(folder / "transformations.npy", (3, 4), (4, 4)))
        self.episodes = self._read()

    def view_points(self, candidate: Candidate) -> np.ndarray:
        """(k, 8) rows of a candidate's view points. Raises SourceError for a row that doesn't exist."""
        rows = np.array(candidate.view_points, int)
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self.viewpoints)):
            raise SourceError(
                f"{self.path}: {candidate.name} has view point {rows.max()}, viewpoints.npy has {len(self.viewpoints)}",
                hint="both files must be of the same release",
            )
        return self.viewpoints[rows]

    def matrix(self, row: int) -> np.ndarray:
        """(4, 4) pose of a thing in Habitat's frame. Raises SourceError for a row that doesn't exist."""
        if not 0 <= row < len(self.transformations):
            raise SourceError(
                f"{self.path}: transformation {row} of {len(self.transformations)}",
                hint="both files must be of the same release",
            )
        return np.asarray(self.transformations[row], float)

    @property
    def fingerprint(self) -> str:
        """Of the episode file: other episodes, other results."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()[:12]

    def episode(self, episode_id: str) -> EpisodeInfo:
        """By its id, with or without "ep_". Raises SourceNotFound."""
        wanted = episode_id.removeprefix("ep_")
        for one in self.episodes:
            if one.episode_id.removeprefix("ep_") == wanted:
                return one
        raise SourceNotFound(f"{self.path}: no episode {episode_id!r}", hint=f"it has {len(self.episodes)} episodes")

    def _read(self) -> list[EpisodeInfo]:
        try:
            if self.path.suffix == ".gz":
                with gzip.open(self.path) as file:
                    data = file.read(_LARGEST + 1)
            else:
                data = self.path.read_bytes()
            if len(data) > _LARGEST:
                raise SourceError(f"{self.path}: more than {_LARGEST >> 30} GB unpacked", hint="use one split's file")
            return msgspec.json.decode(data, type=_EpisodeFile).episodes
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            raise SourceError(f"{self.path}: no episodes: {error}", hint="download it again") from None


class _EpisodeFile(msgspec.Struct):
    episodes: list[EpisodeInfo]


def _existing(paths: list[Path]) -> Path:
    for path in paths:
        if path.is_file():
            return path
    root = paths[0].parent.parent
    raise SourceNotFound(
        f"{paths[0]}: no episodes are here",
        hint=f"hf download {HUB_EPISODES} --repo-type dataset --local-dir {root}",
    )


def _whole(matrices: np.ndarray) -> np.ndarray:
    if matrices.shape[1] == 4:
        return matrices
    last = np.broadcast_to(np.array([[0, 0, 0, 1]], matrices.dtype), (len(matrices), 1, 4))
    return np.concatenate([matrices, last], axis=1)


def _array(path: Path, *shapes: tuple[int, ...]) -> np.ndarray:
    if not path.is_file():
        raise SourceNotFound(
            f"{path}: missing", hint=f"hf download {HUB_EPISODES} --repo-type dataset --local-dir {path.parent.parent}"
        )
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise SourceError(f"{path}: no array: {error}", hint="download it again") from None
    if array.shape[1:] not in shapes or array.dtype.kind != "f":
        expected = " or ".join(str(("n", *shape)).replace("'", "") for shape in shapes)
        raise SourceError(f"{path}: {array.dtype} of shape {array.shape}", hint=f"expected float, {expected}")
    return np.asarray(array)
