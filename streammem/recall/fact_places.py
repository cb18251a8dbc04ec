"""Where things are and what is there: answers from what was stated (``entities``), from the map (``spatial``), and,
where neither knows, from where in the picture a tracked thing was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from streammem.model import AnswerStatus, Evidence
from streammem.recall.asking import Asked
from streammem.recall.asking_patterns import Shape
from streammem.recall.fact_proofs import capital, proofs_of, sure_of
from streammem.recall.fact_sources import Banks, Known, narrow
from streammem.recall.facts import FOUND, Proof, Say, Told
from streammem.recall.noun_phrases import Thing, names_for
from streammem.recall.plan import Plan

NEAR_M = 1.5
"""How far from a thing "near" goes on the map."""
NEAR_BOX = 0.5
"""... and in the picture: gaps between boxes in heights of the larger one."""
MOST = 6
UNLIKELY = 0.3
"""Confidence of a place where somebody looked since, and it was empty."""


def _where(asked: Asked, plan: Plan, banks: Banks, say: Say) -> Told | None:
    if not asked.things:
        return None
    thing = asked.things[0]
    known = banks.known(thing)
    return (
        _stated(known, plan, say)
        or _mapped(thing, plan, banks, say)
        or _in_picture(known, plan, banks, say)
        or _last_met(known, plan, banks, say)
    )


def _stated(known: Sequence[Known], plan: Plan, say: Say) -> Told | None:
    """The newest place that somebody stated, or the one that held in the time that is asked about."""
    best: tuple[Known, dict[str, Any]] | None = None
    rivals: list[dict[str, Any]] = []
    for each in known:
        places = [value for value in each.values if value["attribute"] == "place"]
        if plan.ranges:
            spans = [narrow(each) for each in plan.ranges]
            places = [
                v for v in places if any(v["t_start_ns"] <= hi and lo <= (v["t_end_ns"] or 2**62) for lo, hi in spans)
            ]
        held = [value for value in places if value["status"] != "disputed"]
        rivals += [value for value in places if value["status"] == "disputed"]
        if held and (best is None or held[-1]["t_last_ns"] > best[1]["t_last_ns"]):
            best = (each, held[-1])
    if best is None:
        return None
    each, value = best
    when = say.at(value["t_last_ns"], each.stream)
    tense = "was" if plan.ranges or value["status"] == "superseded" else "was last"
    text = f"{say.name(each.shown)} {tense} {_place(value, say)}, said at {when}"
    rivals = [v for v in rivals if v["t_last_ns"] > value["t_last_ns"]]
    sure = float(value["confidence"])
    if rivals:
        later = say.at(rivals[-1]["t_last_ns"], each.stream)
        text += f"; not sure: at {later} it was said to be {_place(rivals[-1], say)}"
        sure = min(sure, FOUND - 0.01)
    seen = max(spell.t_end_ns for spell in each.spells)
    if seen > value["t_last_ns"]:
        text += f"; last met at {say.at(seen, each.stream)}"
    ids = tuple(zip(value["record_ids"], (value["t_start_ns"], value["t_last_ns"]), strict=False))
    proof = Proof(
        "entities",
        each.stream,
        value["t_start_ns"],
        value["t_last_ns"],
        sure,
        f"{each.shown} {_place(value, say)}",
        ids[::-1],
    )
    status: AnswerStatus = "found" if sure >= FOUND else "unsure"
    text = capital(text)
    return Told(f"{text} [entities].", status, sure, [proof])


def _place(value: Mapping[str, Any], say: Say) -> str:
    return f"{say.name(value['relation'] or 'at')} {say.name(value['value'])}"


def _mapped(thing: Thing, plan: Plan, banks: Banks, say: Say) -> Told | None:
    """The newest sighting on the map, and whether it is still there as far as anybody looked."""
    if thing.track:
        return None
    things = _things(thing, plan, banks)
    if not things:
        return None
    best = max(things, key=lambda one: one["last_ns"])
    evidence = _ready(best["evidence"])
    where = f"at {_point(best['point_m'])} m of {say.name(best['frame_id'])}"
    room = f", in {say.name(best['room'])}" if best["room"] else ""
    guessed = "" if best["placed"] else " (where the camera was: its distance wasn't measured)"
    text = (
        f"{say.name(best['label'])} was last seen at {say.at(best['last_ns'], evidence.stream)} {where}{room}{guessed}"
    )
    sure = float(best["score"])
    if best["there"] == "gone":
        looked = say.at(best["looked_ns"], evidence.stream)
        text += f". It isn't there any more: looked there at {looked} and did not see it"
        sure = min(sure, UNLIKELY)
    more = len(things) - 1
    text += f". {more} more of that name" if more else ""
    text = capital(text)
    proof = Proof("spatial", evidence.stream, evidence.t_start_ns, evidence.t_end_ns, sure, text, ready=evidence)
    return Told(f"{text} [spatial].", "found" if sure >= FOUND else "unsure", sure, [proof])


def _things(thing: Thing, plan: Plan, banks: Banks) -> list[dict[str, Any]]:
    """Things of the map with a label; views that merely look like the words are left to the moments."""
    between = banks.between
    if plan.ranges:
        between = (min(r.t_start_ns for r in plan.ranges), max(r.t_end_ns for r in plan.ranges))
    for name in names_for(thing)[0][:6]:
        found = banks.ask("spatial", "where", text=name, between=between, k=20)
        if found is None:
            return []
        things = [one for one in found if one["sightings"] and one["label"]]
        if things:
            return things
    return []


def _in_picture(known: Sequence[Known], plan: Plan, banks: Banks, say: Say) -> Told | None:
    tracked = [each for each in known if each.bank == "tracks" and each.box]
    if not tracked or plan.ranges:
        return None
    parts, proofs = [], []
    tracked = sorted(tracked, key=lambda each: -each.spells[-1].t_end_ns)
    for each in tracked[:3]:
        last = each.spells[-1]
        state = "is still there at the end" if each.still else "was last seen"
        when = say.at(last.t_end_ns, each.stream)
        parts.append(f"{say.name(each.shown)} {state}, at {when}, in the {part_of(each.box)} of the picture")
        proofs += proofs_of(each, [last], banks)
    text = "; ".join(parts)
    more = f"; and {len(tracked) - 3} more" if len(tracked) > 3 else ""
    sure = min(sure_of(each, each.spells[-1:]) for each in tracked[:3])
    return Told(f"{capital(text)}{more} [tracks].", "found" if sure >= FOUND else "unsure", sure, proofs)


def _last_met(known: Sequence[Known], plan: Plan, banks: Banks, say: Say) -> Told | None:
    """No place is known, only when it was met last: the frame of that moment shows where."""
    met = [each for each in known if each.bank == "entities"]
    if not met or plan.ranges:
        return None
    best = max(met, key=lambda each: (each.spells[-1].t_end_ns, each.name))
    when = say.at(best.spells[-1].t_end_ns, best.stream)
    more = f", {len(met) - 1} more of that name earlier" if len(met) > 1 else ""
    where = "no place is known, its frame may show it"
    text = f"{capital(say.name(best.shown))} was last met at {when}{more}; {where} [entities]."
    sure = sure_of(best, best.spells[-1:])
    last = best.spells[-1].t_end_ns
    told = Told(text, "found" if sure >= FOUND else "unsure", sure, proofs_of(best, best.spells[-1:], banks))
    told.about, told.only_after = best.kind or best.name, last if len(met) == 1 else None
    return told


def part_of(box: Sequence[float]) -> str:
    """Which ninth of the picture the middle of a box is in."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    across = "left" if x < 1 / 3 else "right" if x > 2 / 3 else "middle"
    down = "upper " if y < 1 / 3 else "lower " if y > 2 / 3 else ""
    return f"{down}{across}"


def _still(asked: Asked, plan: Plan, banks: Banks, say: Say) -> Told | None:
    thing = asked.things[0] if asked.things else None
    if thing is None:
        return None
    known = banks.known(thing)
    if asked.to:
        return _still_at(asked.to, known, plan, say)
    gone = asked.event == "gone"
    followed = [each for each in known if each.bank == "tracks"]
    if followed:
        return _still_followed(followed, gone, banks, say)
    things = _things(thing, plan, banks)
    told = _mapped(thing, plan, banks, say) if things else None
    if told is None:
        return None
    there = max(things, key=lambda one: one["last_ns"])["there"]
    if there == "unknown":
        told.status, told.confidence = "unsure", min(told.confidence, FOUND - 0.01)
    elif (there == "gone") != gone:
        told.status, told.confidence = "not_seen", 0.0
    else:
        told.status, told.confidence = "found", float(told.proofs[0].score) if there == "yes" else FOUND
    return told


def _still_followed(known: Sequence[Known], gone: bool, banks: Banks, say: Say) -> Told:
    there = [each for each in known if each.still]
    best = max(there or known, key=lambda each: each.spells[-1].t_end_ns)
    last, end = say.at(best.spells[-1].t_end_ns, best.stream), say.at(best.watched_ns, best.stream)
    text = (
        f"{say.name(best.shown)} is still there at the end of what was watched, {end}"
        if there
        else f"{say.name(best.shown)} was last seen at {last}; watched until {end}, and it wasn't seen any more"
    )
    sure = sure_of(best, best.spells[-1:])
    status: AnswerStatus = "unsure" if sure < FOUND else "found" if bool(there) != gone else "not_seen"
    text = capital(text)
    proofs = proofs_of(best, best.spells[-1:], banks)
    return Told(f"{text} [tracks].", status, sure if status != "not_seen" else 0.0, proofs)


def _still_at(place: str, known: Sequence[Known], plan: Plan, say: Say) -> Told | None:
    told = _stated(known, plan, say)
    if told is None:
        return None
    said = [v for each in known for v in each.values if v["attribute"] == "place" and v["status"] == "active"]
    there = any(place in str(v["value"]).casefold() for v in said)
    told.text = f"{'Yes, as far as is known' if there else 'No'}: {told.text[:1].lower()}{told.text[1:]}"
    if not there and told.status == "found":
        told.status = "not_seen"
    return told


def _near(asked: Asked, plan: Plan, banks: Banks, say: Say) -> Told | None:
    thing = asked.things[0] if asked.things else None
    if thing is None:
        return None
    if not thing.track and (things := _things(thing, plan, banks)):
        best = max(things, key=lambda one: (one["placed"], one["last_ns"]))
        ready = _ready(best["evidence"])
        around = banks.ask("spatial", "near", position=best["point_m"], radius_m=NEAR_M, frame=best["frame_id"]) or []
        others = {one["label"]: one for each in around for one in each["things"] if one["label"] != best["label"]}
        rows = sorted(others.values(), key=lambda one: (one["distance_m"] or 0.0, one["label"]))
        if rows:
            parts = [f"{say.name(one['label'])} ({one['distance_m'] or 0:.1f} m)" for one in rows[:MOST]]
            text = f"Within {NEAR_M:g} m of {say.name(best['label'])}: {', '.join(parts)} [spatial]."
            sure = min(float(best["score"]), max(float(one["score"]) for one in rows))
            proof = Proof("spatial", ready.stream, ready.t_start_ns, ready.t_end_ns, sure, text, ready=ready)
            return Told(text, "found" if sure >= FOUND else "unsure", sure, [proof])
    known = [each for each in banks.known(thing) if each.bank == "tracks"]
    return _near_in_picture(known[0], banks, say) if known else None


def _near_in_picture(known: Known, banks: Banks, say: Say) -> Told | None:
    """Tracks whose boxes came close to it, by their kept paths."""
    paths = banks.paths(known.stream)
    own = paths.get(known.name, [])
    found = []
    for info in banks.tracks:
        if info["stream"] != known.stream or info["track"] == known.name:
            continue
        gap, when = closest(own, paths.get(info["track"], []))
        if gap <= NEAR_BOX:
            found.append((gap, when, info))
    if not found:
        return None
    found.sort(key=lambda each: (each[0], each[1]))
    parts = [
        f"track {say.name(i['track'])} ({say.name(i['label'])}) at {say.at(t, known.stream)}"
        for _, t, i in found[:MOST]
    ]
    text = f"Near {say.name(known.shown)} in the picture: {', '.join(parts)} [tracks]."
    proofs = [Proof("tracks", known.stream, t, t, 0.6, f"boxes {gap:.2f} heights apart") for gap, t, _ in found[:3]]
    return Told(text, "found", 0.6, proofs)


Path = list[tuple[int, float, float, float, float]]


def closest(a: Path, b: Path, within_ns: int = 500_000_000) -> tuple[float, int]:
    """The smallest gap between two paths' boxes at about the same time, in heights of the larger box, and when."""
    best, when = float("inf"), 0
    for t, ax0, ay0, ax1, ay1 in a:
        for u, bx0, by0, bx1, by1 in b:
            if abs(t - u) > within_ns:
                continue
            across, down = max(ax0 - bx1, bx0 - ax1, 0.0), max(ay0 - by1, by0 - ay1, 0.0)
            gap = (across**2 + down**2) ** 0.5 / max(ay1 - ay0, by1 - by0, 1e-6)
            if gap < best:
                best, when = gap, t
    return best, when


def _changed(asked: Asked, plan: Plan, banks: Banks, say: Say) -> Told | None:
    lo, hi = (plan.ranges[0].t_start_ns, plan.ranges[0].t_end_ns) if plan.ranges else (plan.t_min_ns, plan.t_max_ns)
    if lo is None or hi is None:
        return None
    told = banks.ask("entities", "changes_between", t_start_ns=lo, t_end_ns=hi, limit=200)
    facts = [f for f in (told or {"facts": ()})["facts"] if f["kind"] != "text" and f["attribute"] != "label"]
    moved = [f for f in facts if f["attribute"] != "seen"] if asked.event == "move" else facts
    parts, proofs = [], []
    for fact in moved[:MOST]:
        when = say.at(fact["t_start_ns"], fact["stream"])
        shown = (
            fact["entity"] if not fact["entity"].startswith("#") else f"track {fact['entity'][1:].partition('@')[0]}"
        )
        named = say.name(f"{shown} ({fact['kind']})" if fact["kind"] not in ("", shown) else shown)
        what = (
            "was seen"
            if fact["attribute"] == "seen"
            else _place(fact, say)
            if fact["attribute"] == "place"
            else f"{say.name(fact['attribute'])} {say.name(fact['value'])}"
        )
        parts.append(f"{when} {named} {what}")
        ids = tuple(zip(fact["record_ids"], (fact["t_start_ns"], fact["t_last_ns"]), strict=False))
        proofs.append(
            Proof("entities", fact["stream"], fact["t_start_ns"], fact["t_last_ns"], fact["confidence"], parts[-1], ids)
        )
    for change in (banks.ask("spatial", "what_changed", between=[lo, hi]) or [])[:MOST]:
        ready = _ready(change["evidence"])
        names = (
            ", ".join(say.name(label) for label in change["labels"][:3]) or f"something of {change['leaves']} leaves"
        )
        parts.append(f"{names} {change['kind']} at {_point(change['centre_m'])} m")
        proofs.append(Proof("spatial", ready.stream, ready.t_start_ns, ready.t_end_ns, 0.7, parts[-1], ready=ready))
    if not parts:
        return None
    more = max(0, len(moved) - MOST)
    text = f"{say.span(lo, hi, proofs[0].stream)}: {'; '.join(parts)}{f'; and {more} more' if more else ''}."
    sure = max(float(proof.score) for proof in proofs)
    return Told(text, "found" if sure >= FOUND else "unsure", sure, proofs)


def _route(asked: Asked, plan: Plan, banks: Banks, say: Say) -> Told | None:
    from streammem.recall.noun_phrases import thing_of

    goal = thing_of(asked.to)
    start: Any = asked.things[0].text if asked.things else None
    if goal is None:
        return None
    whence = f"from {say.name(start)}" if start is not None else "from where the camera was last"
    if start is None:
        places = banks.ask("spatial", "places")
        if not places:
            return None
        start = max(places, key=lambda place: place["last_ns"])["place"]
    routes: list[dict[str, Any]] = []
    name = asked.to
    for name in names_for(goal)[0][:4]:
        routes = banks.ask("spatial", "route", start=start, goal=name) or []
        if routes:
            break
    if not routes:
        if not banks.ask("spatial", "places"):
            return None
        unknown = asked.to if not isinstance(start, str) or banks.ask("spatial", "where", text=start) else start
        text = (
            f"There is a map, but not both ends of that way are on it: “{say.name(unknown)}” may be missing [spatial]."
        )
        return Told(text, "unsure", 0.0, [])
    best = routes[0]
    ready = _ready(best["evidence"])
    if not best["found"]:
        text = f"No way {whence} to {say.name(name)} was ever walked: the map doesn't connect them [spatial]."
        return Told(
            text,
            "unsure",
            0.3,
            [Proof("spatial", ready.stream, ready.t_start_ns, ready.t_end_ns, 0.3, text, ready=ready)],
        )
    points = " → ".join(_point(each) for each in best["waypoints_m"][:MOST])
    more = f" … {len(best['waypoints_m']) - MOST} more" if len(best["waypoints_m"]) > MOST else ""
    far = f"{best['length_m']:.1f} m over {len(best['places'])} places"
    text = f"{capital(whence)} to {say.name(name)}: {far}: {points}{more} [spatial]."
    return Told(
        text, "found", 0.9, [Proof("spatial", ready.stream, ready.t_start_ns, ready.t_end_ns, 0.9, text, ready=ready)]
    )


def _room(asked: Asked, plan: Plan, banks: Banks, say: Say) -> Told | None:
    room = asked.to.replace("room ", "room-") if asked.to.startswith("room ") else asked.to
    things = banks.ask("spatial", "in_room", room=room) or []
    parts, proofs = [], []
    for one in {thing["label"]: thing for thing in things}.values():
        ready = _ready(one["evidence"])
        gone = " (gone since)" if one["there"] == "gone" else ""
        parts.append(f"{say.name(one['label'])}{gone}")
        proofs.append(
            Proof("spatial", ready.stream, ready.t_start_ns, ready.t_end_ns, one["score"], one["label"], ready=ready)
        )
    if not parts and plan.t_min_ns is not None and plan.t_max_ns is not None:
        lo, hi = plan.t_min_ns, plan.t_max_ns
        told = banks.ask("entities", "changes_between", t_start_ns=lo, t_end_ns=hi, attribute="place", limit=1000)
        for fact in (told or {"facts": ()})["facts"]:
            if fact["status"] == "active" and str(fact["value"]).casefold() == asked.to:
                parts.append(f"{say.name(fact['entity'])} ({say.at(fact['t_last_ns'], fact['stream'])})")
                ids = tuple(zip(fact["record_ids"], (fact["t_start_ns"], fact["t_last_ns"]), strict=False))
                proofs.append(
                    Proof(
                        "entities",
                        fact["stream"],
                        fact["t_start_ns"],
                        fact["t_last_ns"],
                        fact["confidence"],
                        parts[-1],
                        ids,
                    )
                )
    if not parts:
        return None
    bank = proofs[0].bank
    sure = max(float(proof.score) for proof in proofs)
    more = f" and {len(parts) - 12} more" if len(parts) > 12 else ""
    text = f"In {say.name(asked.to)}: {', '.join(parts[:12])}{more} [{bank}]."
    return Told(text, "found" if sure >= FOUND else "unsure", sure, proofs)


def _point(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.1f}' for value in values)})"


def _ready(plain: Mapping[str, Any]) -> Evidence:
    """A bank's evidence, as it comes out of a question."""
    return msgspec.convert(plain, Evidence)


PLACES: dict[Shape, Callable[[Asked, Plan, Banks, Say], Told | None]] = {
    "where": _where,
    "still": _still,
    "near": _near,
    "changed": _changed,
    "route": _route,
    "room": _room,
}
