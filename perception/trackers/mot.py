"""Sequences in the layout of MOTChallenge: ``NAME/gt.txt``, ``NAME/det.txt`` and perhaps a video.

A line is ``frame, identity, x, y, width, height, confidence, ...`` in pixels, frames and pixels counted from 1. Both
``NAME/gt/gt.txt`` with ``NAME/det/det.txt`` and the two files beside each other are read.
"""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perception.trackers.box_metrics import Frame
from streammem.errors import SourceError, SourceNotFound

VIDEOS = (".mp4", ".mkv", ".avi", ".webm", ".mov")


@dataclass(frozen=True, slots=True)
class MotSequence:
    """``boxes`` (n, 4) x0, y0, x1, y1 in pixels and ``scores`` (n,) of the given detections, frame by frame."""

    name: str
    truth: tuple[Frame, ...]
    boxes: tuple[np.ndarray, ...]
    scores: tuple[np.ndarray, ...]
    size: tuple[int, int]
    fps: float
    video: Path | None
    pictures: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.truth)


def is_mot(folder: Path) -> bool:
    """Whether there is at least one sequence in this layout."""
    return bool(_folders(folder))


def find_mot(folder: Path) -> list[MotSequence]:
    """Every sequence in ``folder``, or the one that it is. Raises SourceNotFound, SourceError."""
    if not folder.is_dir():
        raise SourceNotFound(f"{folder}: no folder is here", hint="name a folder of sequences")
    found = [_sequence(path) for path in _folders(folder)]
    if not found:
        raise SourceError(
            f"{folder}: no sequence with a gt.txt", hint="NAME/gt.txt and NAME/det.txt, or NAME/gt/gt.txt"
        )
    return found


def _folders(folder: Path) -> list[Path]:
    return [one for one in [folder, *sorted(folder.glob("*"))] if one.is_dir() and _file(one, "gt") is not None]


def _file(folder: Path, kind: str) -> Path | None:
    places = (folder / f"{kind}.txt", folder / kind / f"{kind}.txt")
    return next((place for place in places if place.is_file()), None)


def _sequence(folder: Path) -> MotSequence:
    facts = configparser.ConfigParser()
    facts.read(folder / "seqinfo.ini")
    about = facts["Sequence"] if facts.has_section("Sequence") else {}
    truth_file, given_file = _file(folder, "gt"), _file(folder, "det")
    assert truth_file is not None
    truth = _rows(truth_file)
    given = _rows(given_file) if given_file is not None else np.zeros((0, 7))
    length = int(about.get("seqLength", max(truth[:, 0].max(initial=0), given[:, 0].max(initial=0))))
    # A confidence of 0 marks true boxes that don't count.
    truth = truth[truth[:, 6] != 0]
    split, split_given = _by_frame(truth, length), _by_frame(given, length)
    videos = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in VIDEOS]
    pictures = sorted((folder / str(about.get("imDir", "img1"))).glob("*.[jp][pn]g"))
    return MotSequence(
        name=folder.name,
        truth=tuple((rows[:, 1].astype(np.int64), _corners(rows)) for rows in split),
        boxes=tuple(_corners(rows) for rows in split_given),
        scores=tuple(rows[:, 6] for rows in split_given),
        size=(int(about.get("imHeight", 0)), int(about.get("imWidth", 0))),
        fps=float(about.get("frameRate", 25)),
        video=videos[0] if videos else None,
        pictures=tuple(pictures),
    )


def _rows(path: Path) -> np.ndarray:
    try:
        rows = np.loadtxt(path, delimiter=",", ndmin=2, dtype=np.float64)
    except ValueError as error:
        raise SourceError(
            f"{path}: not in the layout of MOTChallenge: {error}", hint="frame,id,x,y,w,h,conf"
        ) from error
    if rows.size and (rows.shape[1] < 7 or not np.isfinite(rows[:, :7]).all()):
        raise SourceError(f"{path}: lines of {rows.shape[1]} finite numbers", hint="frame,id,x,y,w,h,conf")
    return rows[:, :7] if rows.size else np.zeros((0, 7))


def _by_frame(rows: np.ndarray, length: int) -> list[np.ndarray]:
    return [rows[rows[:, 0] == at + 1] for at in range(length)]


def _corners(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows[:, 2:4] - 1, rows[:, 2:4] - 1 + rows[:, 4:6]], axis=1)
