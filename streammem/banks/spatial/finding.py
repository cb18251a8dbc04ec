"""Finding things by their words on one map, and views by what they look like."""

from __future__ import annotations

import math

import numpy as np

from streammem.banks.base import Reader
from streammem.banks.spatial.answers import Remembered, Thing
from streammem.banks.spatial.long_term import AppendLog, LongTermMemory, recall
from streammem.banks.spatial.scope import Between, Scene, evidence_of, in_time, point, steps_of_records
from streammem.banks.spatial.things import Cluster, clusters, match, presence
from streammem.errors import QueryError
from streammem.model import Why

GUESSED = 0.5
"""Share of its score that a thing keeps whose position is only that of the camera."""
RESEMBLES = 0.3
"""... and a view that merely looks like the words."""


def find_things(
    reader: Reader,
    scene: Scene,
    text: str | None = None,
    *,
    between: Between = None,
    centre: np.ndarray | None = None,
    radius_m: float | None = None,
    rooms: list[int] | None = None,
) -> list[Thing]:
    """Things of these words (None: all), in this time, around this point, in these rooms (numbers from 1)."""
    view = scene.view
    if rooms is not None and not rooms:
        return []
    allowed = in_time(view.sightings["t_ns"], between)
    if rooms is not None:
        members = [place for number in rooms for place in scene.rooms[number - 1]]
        there = view.steps["record"][np.isin(view.steps["place"], members)]
        allowed &= np.isin(view.sightings["record"], there)
    found = []
    for number, label in enumerate(view.names):
        likeness = 1.0 if text is None else match(label, text)
        if not likeness:
            continue
        rows = np.flatnonzero(allowed & (view.sightings["label"] == number))
        rows = rows[np.argsort(view.sightings["t_ns"][rows], kind="stable")]
        for cluster in clusters(view, label, rows):
            away = None if centre is None else float(np.linalg.norm(cluster.point_m - centre))
            if radius_m is None or away is None or away <= radius_m:
                found.append(_thing(reader, scene, cluster, likeness, away))
    return sorted(found, key=lambda thing: (-thing.score, -thing.last_ns))


def _thing(reader: Reader, scene: Scene, cluster: Cluster, likeness: float, away: float | None) -> Thing:
    view = scene.view
    seen = view.sightings[cluster.rows]
    there, looked = presence(view.tree, cluster)
    score = likeness * float(seen["score"].max()) * (1.0 if cluster.placed else GUESSED)
    steps = steps_of_records(view, seen["record"])
    last_step = steps_of_records(view, seen["record"][-1:])
    # A measured thing is in the room that it is nearest to, a guessed one in the room of the camera.
    place = scene.place_near(cluster.point_m)[0] if cluster.placed else None
    if place is None and last_step:
        place = int(view.steps["place"][last_step[-1]])
    detail = f"{cluster.label} x{len(seen)}" + ("" if cluster.placed else ", somewhere in the picture")
    return Thing(
        label=cluster.label,
        score=round(score, 6),
        point_m=point(cluster.point_m),
        frame_id=view.frame_id,
        map_version=view.map_version,
        placed=cluster.placed,
        there=there,
        sightings=len(seen),
        first_ns=int(seen["t_ns"].min()),
        last_ns=int(seen["t_ns"].max()),
        looked_ns=looked,
        place=place,
        room=scene.room_of(place),
        distance_m=away,
        evidence=evidence_of(reader, scene, steps, round(score, 6), Why("label", round(score, 6), detail)),
    )


def lookalikes(
    reader: Reader,
    scene: Scene,
    text: str,
    between: Between,
    centre: np.ndarray | None,
    radius_m: float | None,
    rooms: list[int] | None,
) -> list[Thing]:
    """Views of places whose vectors are most like the words: closest, never a yes. Empty where the vectors' space isn't
    installed here."""
    views = [(place, each) for place in scene.view.topology.known() for each in place.views if each.vector is not None]
    if rooms is not None:
        members = {place for number in rooms for place in scene.rooms[number - 1]}
        views = [(place, each) for place, each in views if place.place_id in members]
    times = np.array([each.t_ns for _, each in views], np.int64)
    views = [pair for pair, kept in zip(views, in_time(times, between).tolist(), strict=True) if kept]
    kept_records = (reader.record(each.record_id) for _, each in views)
    record = next((each for each in kept_records if each is not None), None)
    space = None if record is None or record.space is None else reader.space(record.space)
    if space is None:
        return []
    query = space.embed_text([text])[0]
    found: list[Thing] = []
    for place, each in views:
        steps = steps_of_records(scene.view, [each.record_id])
        if not steps or each.vector is None or len(each.vector) != len(query):
            continue
        where = scene.view.steps["pose"][steps[0], :3]
        away = None if centre is None else float(np.linalg.norm(where - centre))
        if radius_m is not None and away is not None and away > radius_m:
            continue
        score = round(max(0.0, float(each.vector @ query)) * RESEMBLES, 6)
        why = Why("vision", score, "looks like the words")
        found.append(
            Thing(
                label="",
                score=score,
                point_m=point(where),
                frame_id=scene.view.frame_id,
                map_version=scene.view.map_version,
                placed=False,
                there="unknown",
                sightings=0,
                first_ns=each.t_ns,
                last_ns=each.t_ns,
                looked_ns=None,
                place=place.place_id,
                room=scene.room_of(place.place_id),
                distance_m=away,
                evidence=evidence_of(reader, scene, steps, score, why),
            )
        )
    # One view a place: its others say the same.
    best: dict[int | None, Thing] = {}
    for thing in sorted(found, key=lambda each: (-each.score, each.last_ns)):
        best.setdefault(thing.place, thing)
    return list(best.values())


def remembered(
    reader: Reader,
    scene: Scene,
    centre: np.ndarray,
    text: str | None,
    record_id: int | None,
    least: float,
    k: int,
    mode: str,
) -> Remembered:
    """Short-term memory first, long-term memory as fallback. Raises QueryError where there is no vector to compare."""
    if (text is None) == (record_id is None):
        raise QueryError("recall takes words or a record", hint='text="sink", or record_id of a moment')
    vector = _vector(reader, scene, text, record_id)
    store: LongTermMemory = AppendLog()
    if mode != "log":
        from streammem.banks.spatial.reversible import ReversibleTokenStore

        store = ReversibleTokenStore(len(vector), mode)  # type: ignore[arg-type]
    for place in scene.view.topology.known():
        for view in place.views:
            if view.vector is not None and len(view.vector) == len(vector):
                store.write(("node", place.place_id), view.vector, view.record_id)
    answer = recall(scene.map.short, store, centre, vector, least=least, k=k)
    items, proofs = [], []
    for key, score, number in answer.items:
        steps = steps_of_records(scene.view, [number])
        if isinstance(key, tuple) and steps:
            items.append((str(key[0]), int(key[1]), round(score, 6), number))
            proofs.append(evidence_of(reader, scene, steps, round(score, 6), Why("vision", score, answer.source)))
    return Remembered(
        stream=scene.stream,
        source=answer.source,
        items=items,
        frame_id=scene.view.frame_id,
        map_version=scene.view.map_version,
        evidence=proofs,
    )


def _vector(reader: Reader, scene: Scene, text: str | None, record_id: int | None) -> np.ndarray:
    if record_id is not None:
        record = reader.record(record_id)
        if record is None or record.vector is None:
            raise QueryError(f"the record {record_id} has no vector", hint="name a moment that was embedded")
        return np.asarray(record.vector, np.float32)
    for place in scene.view.topology.known():
        for view in place.views:
            record = reader.record(view.record_id) if view.vector is not None else None
            space = None if record is None or record.space is None else reader.space(record.space)
            if space is not None:
                return space.embed_text([text or ""])[0]
    raise QueryError(f"nothing in {scene.stream!r} can be compared with words", hint="its moments have no embeddings")


def room_numbers(scene: Scene, room: str | None) -> list[int] | None:
    """Numbers, from 1, of the rooms that are meant: by name, or by the words of a label that is often seen there. None
    where no room was asked for. Raises QueryError for an empty name."""
    if room is None:
        return None
    name = room.removeprefix(f"{scene.stream}/").strip()
    if not name:
        raise QueryError("the room has no name", hint="room-1, or what is seen there")
    kind, _, number = name.partition("-")
    if kind == "room" and number.isdigit():
        return [int(number)] if 1 <= int(number) <= len(scene.rooms) else []
    view = scene.view
    labels = [at for at, label in enumerate(view.names) if match(label, name)]
    if not labels:
        return []
    records = view.sightings["record"][np.isin(view.sightings["label"], labels)]
    places = view.steps["place"][np.isin(view.steps["record"], records)]
    counts = [int(np.isin(places, members).sum()) for members in scene.rooms]
    most = max(counts, default=0)
    return [at for at, count in enumerate(counts, 1) if count and count >= math.ceil(most / 2)]
