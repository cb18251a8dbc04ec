"""``streammem reembed``: another encoder for what is already remembered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

if TYPE_CHECKING:
    from streammem.config import Config
    from streammem.spaces import EmbeddingSpace

app = typer.Typer(add_completion=False)


@app.command()
def reembed(
    target: o.MemoryArgument,
    space: Annotated[
        str | None, typer.Option("--space", metavar="NAME", help="The new space; default: perception.space.")
    ] = None,
    cpu: Annotated[float, typer.Option("--cpu", metavar="SHARE", help="Of one core, above 0 up to 1.")] = 1.0,
    stage_only: Annotated[
        bool, typer.Option("--stage-only", help="Make the new vectors, don't switch: works beside a running service.")
    ] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Put the old vectors back.")] = False,
    discard: Annotated[bool, typer.Option("--discard", help="Remove the old vectors that are kept.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """Compute new vectors from the kept pictures or the source, then switch; the old space answers until then.

    Interrupt it when you like: it goes on where it stopped. Exit code 1: nothing to do."""
    settings = o.load(config, set_).config
    out = Output(as_json=json, quiet=quiet)
    from streammem.cli.watched import existing_memory, open_memory
    from streammem.errors import InputError

    if sum((stage_only, rollback, discard, dry_run)) > 1:
        raise InputError("one of --stage-only, --rollback, --discard and --dry-run", hint="give only one of them")
    place = existing_memory(target, settings)
    from streammem import reembedding

    if discard:
        freed = reembedding.discard(place)
        return _say(out, {"memory": str(place), "freed_bytes": freed}, f"{freed:,} bytes are free again", freed > 0)
    if rollback:
        with open_memory(place, settings, mode="write") as memory:
            count = reembedding.roll_back(memory)
        return _say(out, {"memory": str(place), "rolled_back": count}, f"{count} segments are as they were", count > 0)
    new = _open_space(space, settings)
    reembedding.check_target(new, place)
    todo = reembedding.old_segments(place, new.id)
    if dry_run:
        by_space: dict[str, int] = {}
        for segment in todo:
            by_space[str(segment.space)] = by_space.get(str(segment.space), 0) + segment.manifest.vectors
        words = ", ".join(f"{count:,} vectors of {name}" for name, count in sorted(by_space.items())) or "nothing"
        document = {"memory": str(place), "space": new.id, "vectors": by_space, "segments": len(todo)}
        return _say(out, document, f"to do for {new.id}: {words}, in {len(todo)} sealed segments", bool(todo))
    report = _run(place, new, settings, cpu, stage_only, out)
    what = "staged" if stage_only else "switched"
    text = (
        f"{what} to {report['space']}: {report['segments']} segments made now, {report['found']} earlier; moments:"
        f" {report['embedded']:,} from pictures, {report['lent']:,} like a neighbour, {report['bare']:,} without;"
        f" {report['kept']} segments stay for want of pictures, {report['stale']:,} records of other banks are stale"
    )
    done = report["segments"] + report["found"] > 0
    return _say(out, {"memory": str(place), "switched": not stage_only, **report}, text, done)


def _say(out: Output, document: dict[str, Any], text: str, done: bool) -> int:
    if out.as_json:
        out.document(document)
    else:
        out.line(text)
    return 0 if done else 1


def _open_space(name: str | None, settings: Config) -> EmbeddingSpace:
    """The wanted space; with the configured weights where it is the configured one. Raises ConfigError and
    ModelUnavailable."""
    from streammem.spaces import open_space

    wanted = name or settings.perception.space
    same = wanted.split("@", 1)[0] == settings.perception.space.split("@", 1)[0]
    options = {"model": settings.perception.model} if same and settings.perception.model else {}
    return open_space(wanted, **options)


def _run(
    place: Path, new: EmbeddingSpace, settings: Config, cpu: float, stage_only: bool, out: Output
) -> dict[str, Any]:
    from streammem.cli.present import plain
    from streammem.cli.watched import Frames, Opened, open_memory
    from streammem.errors import MemoryLocked, StreammemError
    from streammem.model import Record
    from streammem.reembedding import Reembedding, old_segments

    with open_memory(place, settings) as reader:
        infos = {info.stream for info in reader.streams() if info.clock == "media"}
        frames = Frames(Opened(reader, place, place.name), settings)

    def picture(record: Record) -> Any:
        # The source's own frame is what the encoder saw; the thumbnail is what is left of it.
        image = frames.frame_at(record.stream, record.t_start_ns) if record.stream in infos else None
        return image if image is not None else _decoded(record.thumbnail)

    def progress(done: int, total: int) -> None:
        if total:
            out.note(f"{done} of {total} segments")

    old_parts: set[str] = set()
    for space_id in sorted({str(segment.space) for segment in old_segments(place, new.id)}):
        try:
            old_parts |= _part_names(_open_space(space_id.split("@", 1)[0], settings))
        except StreammemError:
            out.note(f"{space_id} can't be opened here: its parts are kept beside the new ones")
    work = Reembedding(place, new, picture, cpu=cpu, old_parts=frozenset(old_parts), progress=progress)
    try:
        report = work.stage()
        if not stage_only:
            try:
                memory = open_memory(place, settings, mode="write")
            except MemoryLocked as error:
                raise MemoryLocked(
                    f"everything is staged, and can't be switched: {error.message}",
                    pid=error.pid,
                    hint="stop that process and run this again: it only switches then",
                ) from error
            with memory:
                report = work.switch(memory)
    finally:
        frames.close()
    return dict(plain(report))


def _part_names(space: EmbeddingSpace) -> set[str]:
    import numpy as np

    return set(space.embed_frames([np.full((64, 64, 3), 128, np.uint8)])[0].parts)


def _decoded(thumbnail: bytes | None) -> Any:
    if thumbnail is None:
        return None
    import cv2  # 0.1 s that `--help` must not pay
    import numpy as np

    image = cv2.imdecode(np.frombuffer(thumbnail, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.ascontiguousarray(image[:, :, ::-1])  # OpenCV reads BGR
