"""``streammem map``: the map of a memory from above, as a point cloud, and where things are on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streammem.cli import options as o
from streammem.cli.output import Output

if TYPE_CHECKING:
    from streammem.client import Client
    from streammem.memory import Memory

app = typer.Typer(add_completion=False)

NOTHING = 1


@app.command(name="map")
def map_(
    target: o.Target,
    out_file: Annotated[str | None, typer.Option("-o", "--out", metavar="PNG", help="The map from above.")] = None,
    ply: Annotated[
        str | None, typer.Option("--ply", metavar="FILE", help="Occupied voxels as coloured points.")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="WORDS", help="Where is it? Marked on the map.")
    ] = None,
    near: Annotated[
        tuple[float, float, float] | None, typer.Option("--near", metavar="X Y Z", help="Only within --radius of here.")
    ] = None,
    radius: Annotated[float, typer.Option("--radius", metavar="M", help="Metres around --near.", min=0)] = 2.0,
    route_from: Annotated[
        str | None, typer.Option("--from", metavar="PLACE|WORDS", help="A way from here: a place's number, or a thing.")
    ] = None,
    route_to: Annotated[str | None, typer.Option("--to", metavar="PLACE|WORDS", help="... to here.")] = None,
    frame: Annotated[str | None, typer.Option("--frame", metavar="NAME", help="The frame of reference.")] = None,
    map_version: Annotated[
        int | None, typer.Option("--map-version", metavar="N", help="As it was believed in this version.")
    ] = None,
    resolution: Annotated[
        float, typer.Option("--resolution", metavar="M", help="Side of a square of the map.", min=0.005, max=10)
    ] = 0.05,
    between: o.Between = None,
    stream: o.Streams = None,
    memory: o.MemoryDir = None,
    key: o.Key = None,
    config: o.ConfigFile = None,
    set_: o.Assign = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> int:
    """The map of a memory: a picture from above, a .ply, where a thing is, a way from place to place.

    Exit code 1: nothing is mapped, or nothing of these words."""
    settings = o.load(config, set_).config
    out = Output(as_json=json, quiet=quiet)
    from streammem.cli.spans import check_words, read_between
    from streammem.cli.watched import open_target
    from streammem.errors import QueryError

    if (route_from is None) != (route_to is None):
        raise QueryError("a way has two ends", hint="--from 0 --to mug")
    check_words(between)
    with open_target(target, settings, out, directory=memory, key=key) as opened:
        held = opened.memory
        document: dict[str, Any] = {"memory": str(opened.directory)}
        document["streams"] = held.query("spatial", "summary", streams=stream or None)
        if not document["streams"]:
            out.line("nothing is mapped: no stream here sends poses")
            if json:
                out.document(document)
            return NOTHING
        common: dict[str, Any] = {"streams": stream or None, "frame": frame, "map_version": map_version}
        things: list[Any] = []
        if where is not None:
            near_here: dict[str, Any] = {} if near is None else {"near": list(near), "radius_m": radius}
            span = read_between(between, held, stream)
            things = held.query("spatial", "where", text=where, between=span, **near_here, **common)
            document["things"] = things
        ways: list[Any] = []
        if route_from is not None and route_to is not None:
            ways = held.query("spatial", "route", start=_end(route_from), goal=_end(route_to), **common)
            document["ways"] = ways
        if out_file is not None:
            document["picture"] = str(_picture(held, Path(out_file), resolution, things, ways, common))
        if ply is not None:
            document["ply"], document["points"] = str(ply), _cloud(held, Path(ply), common)
    if json:
        out.document(document)
    else:
        _tell(out, document, things, ways, where, route_from is not None)
    asked = where is not None or route_from is not None
    seen = any(thing["label"] for thing in things)  # a view that merely looks like the words is no sighting
    return 0 if not asked or seen or any(way["found"] for way in ways) else NOTHING


def _end(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _picture(
    held: Memory | Client, path: Path, resolution: float, things: list[Any], ways: list[Any], common: dict[str, Any]
) -> Path:
    from streammem.cli.map_picture import draw
    from streammem.render import write_png

    maps = held.query("spatial", "map", resolution_m=resolution, **common)
    places = held.query("spatial", "places", **common)
    # Of several streams in one frame the first one's squares are drawn, with everybody's places.
    return write_png(path, draw(maps[0], places, things, ways[0] if ways else None))


def _cloud(held: Memory | Client, path: Path, common: dict[str, Any]) -> int:
    from streammem.cli.map_picture import write_ply

    return write_ply(path, held.query("spatial", "cloud", **common))


def _tell(
    out: Output, document: dict[str, Any], things: list[Any], ways: list[Any], where: str | None, asked_way: bool
) -> None:
    from streammem.printable import printable

    for each in document["streams"]:
        version = ", ".join(str(number) for number in each["map_versions"])
        out.line(
            f"{printable(each['stream'])}: {each['moments']} moments, {each['places']} places, {each['occupied']}"
            f" occupied voxels, {each['volume_m3']:.1f} m3 seen, {each['bytes'] / 1e6:.1f} MB, map version {version}"
        )
        turned_away = ", ".join(f"{count} {reason}" for reason, count in each["rejected"].items())
        if turned_away:
            out.note(f"turned away: {turned_away}")
    for thing in things:
        x, y, z = thing["point_m"]
        name = printable(thing["label"]) or "looks like it"
        there = {"yes": "there", "gone": "gone since", "unknown": "not measured"}[thing["there"]]
        out.line(
            f"  {name} at ({x:.2f}, {y:.2f}, {z:.2f}) in {printable(thing['frame_id'])}, {there}, score"
            f" {thing['score']:.2f}, {thing['sightings']} sightings, {printable(thing['room'] or '')}"
        )
    if where is not None and not any(thing["label"] for thing in things):
        out.line(f"  nothing of {printable(where)!r} was seen")
    for way in ways:
        if way["found"]:
            steps = " > ".join(str(place) for place in way["places"])
            out.line(f"  {way['length_m']:.2f} m over the places {steps}")
    if asked_way and not any(way["found"] for way in ways):
        out.line("  no way is known between these")
    for name in ("picture", "ply"):
        if name in document:
            out.line(document[name])
