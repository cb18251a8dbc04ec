"""What furniture and things look like: sizes in metres, colours, and FindingDory's five attribute columns."""

from __future__ import annotations

from dataclasses import dataclass

from nav.findingdory.log import ObjectInfo
from nav.homes.solids import Colour, Solid

COLOURS: dict[str, Colour] = {
    "red": (0.85, 0.12, 0.12),
    "green": (0.12, 0.62, 0.22),
    "blue": (0.15, 0.28, 0.85),
    "yellow": (0.95, 0.85, 0.15),
    "orange": (0.96, 0.52, 0.08),
    "purple": (0.52, 0.2, 0.68),
    "white": (0.95, 0.95, 0.95),
    "black": (0.07, 0.07, 0.07),
    "pink": (0.98, 0.55, 0.72),
    "brown": (0.42, 0.25, 0.12),
}
WOOD: Colour = (0.62, 0.43, 0.25)
DARK_WOOD: Colour = (0.35, 0.22, 0.13)
CLOTH: Colour = (0.4, 0.45, 0.55)
METAL: Colour = (0.66, 0.68, 0.7)
LINEN: Colour = (0.88, 0.86, 0.8)

ROOMS: dict[str, tuple[Colour, Colour]] = {
    # floor, walls: every room of a home looks different
    "kitchen": ((0.78, 0.74, 0.66), (0.93, 0.9, 0.82)),
    "living room": ((0.55, 0.4, 0.28), (0.84, 0.87, 0.9)),
    "bedroom": ((0.5, 0.53, 0.66), (0.9, 0.86, 0.92)),
    "study": ((0.35, 0.45, 0.36), (0.88, 0.92, 0.86)),
    "bathroom": ((0.62, 0.78, 0.82), (0.86, 0.94, 0.96)),
    "dining room": ((0.66, 0.5, 0.44), (0.95, 0.89, 0.84)),
    "hall": ((0.6, 0.6, 0.6), (0.93, 0.93, 0.9)),
}


@dataclass(frozen=True, slots=True)
class ReceptacleModel:
    """``width`` along the wall, ``depth`` away from it, ``top_m``: height on which things stand. ``rooms``: where it is
    put first; empty: anywhere."""

    category: str
    width: float
    depth: float
    top_m: float
    colour: Colour
    rooms: tuple[str, ...] = ()

    @property
    def places(self) -> int:
        """How many things fit side by side."""
        return max(1, int(self.width / SPACING_M))


SPACING_M = 0.3
"""Between the middles of two things: the widest is 0.26 m."""

RECEPTACLES = (
    ReceptacleModel("table", 1.2, 0.7, 0.74, WOOD),
    ReceptacleModel("counter", 1.5, 0.6, 0.9, LINEN, ("kitchen",)),
    ReceptacleModel("bed", 1.3, 1.9, 0.5, LINEN, ("bedroom",)),
    ReceptacleModel("couch", 1.7, 0.8, 0.42, CLOTH, ("living room", "hall")),
    ReceptacleModel("shelves", 0.9, 0.35, 0.8, DARK_WOOD, ("study", "living room")),
    ReceptacleModel("stool", 0.4, 0.4, 0.5, METAL),
    ReceptacleModel("chest of drawers", 0.9, 0.45, 0.85, DARK_WOOD, ("bedroom", "hall")),
    ReceptacleModel("washstand", 0.8, 0.5, 0.8, METAL, ("bathroom",)),
    ReceptacleModel("desk", 1.3, 0.6, 0.72, METAL, ("study",)),
    ReceptacleModel("bench", 1.1, 0.4, 0.45, WOOD),
)


@dataclass(frozen=True, slots=True)
class ObjectModel:
    """``build``: which solids; ``size_m``: its extent (width, width, height)."""

    category: str
    build: str
    size_m: tuple[float, float, float]
    shape: str
    material: str
    functionality: str
    colours: tuple[str, ...]
    designs: tuple[str, ...] = ("",)


OBJECTS = (
    ObjectModel("mug", "tube", (0.13, 0.13, 0.13), "cylindrical", "ceramic", "drinking", ("red", "blue", "white"),
                ("", "striped")),
    ObjectModel("vase", "tube", (0.14, 0.14, 0.3), "tall", "glass", "decoration", ("blue", "green", "purple"),
                ("", "striped")),
    ObjectModel("ball", "ball", (0.2, 0.2, 0.2), "round", "rubber", "playing", ("red", "orange", "green", "yellow"),
                ("", "two-tone")),
    ObjectModel("book", "block", (0.2, 0.26, 0.06), "flat", "paper", "reading", ("red", "green", "blue", "brown"),
                ("", "two-tone")),
    ObjectModel("box", "block", (0.24, 0.24, 0.2), "rectangular", "cardboard", "storing", ("brown", "white", "pink"),
                ("", "striped")),
    ObjectModel("bottle", "bottle", (0.11, 0.11, 0.28), "tall", "plastic", "drinking", ("green", "white", "orange")),
    ObjectModel("plate", "tube", (0.26, 0.26, 0.04), "flat", "ceramic", "eating", ("white", "yellow", "pink"),),
    ObjectModel("candle", "tube", (0.1, 0.1, 0.18), "cylindrical", "wax", "lighting", ("white", "red", "yellow")),
    ObjectModel("teapot", "pot", (0.24, 0.18, 0.18), "round", "metal", "cooking", ("black", "red", "white")),
    ObjectModel("lamp", "lamp", (0.2, 0.2, 0.3), "tall", "metal", "lighting", ("black", "yellow", "white")),
    ObjectModel("cushion", "block", (0.26, 0.26, 0.12), "square", "fabric", "resting", ("purple", "orange", "blue"),
                ("", "striped")),
    ObjectModel("clock", "block", (0.2, 0.1, 0.2), "square", "wood", "telling time", ("brown", "black", "red")),
)  # fmt: skip


def object_solids(model: ObjectModel, color: str, design: str, instance: int) -> list[Solid]:
    """The solids of a thing that stands on z = 0 at the origin."""
    wide, deep, high = (extent / 2 for extent in model.size_m)
    main = COLOURS[color]
    other = COLOURS["white" if color != "white" else "blue"]

    def box(x: float, y: float, z: float, at: tuple[float, float, float], c: Colour = main) -> Solid:
        return Solid("box", (x, y, z), at, colour=c, instance=instance)

    def tube(r: float, h: float, z: float, c: Colour = main) -> Solid:
        return Solid("cylinder", (r, r, h), (0, 0, z), colour=c, instance=instance)

    if model.build == "block":
        made = [box(wide, deep, high, (0, 0, high))]
    elif model.build == "tube":
        made = [tube(wide, high, high)]
    elif model.build == "ball":
        made = [Solid("sphere", (wide, wide, wide), (0, 0, wide), colour=main, instance=instance)]
    elif model.build == "bottle":
        made = [tube(wide, high * 0.7, high * 0.7), tube(wide * 0.45, high * 0.3, high * 1.7)]
    elif model.build == "pot":
        r = deep
        made = [Solid("sphere", (r, r, r), (0, 0, r), colour=main, instance=instance)]
        made.append(box((wide - r) + 0.02, 0.02, 0.02, (wide - 0.03, 0, r), other))
    else:  # a lamp: foot, stem, shade
        made = [tube(wide * 0.6, 0.012, 0.012, COLOURS["black"]), tube(0.015, high * 0.6, high * 0.6, COLOURS["black"])]
        made.append(tube(wide, high * 0.45, high * 1.5))
    if design == "striped":
        for part in (0.3, 0.62):
            z, h, more = 2 * high * part, high * 0.16, 1.03
            made.append(
                box(wide * more, deep * more, h, (0, 0, z), other)
                if model.build == "block"
                else tube(wide * more, h, z, other)
            )
    elif design == "two-tone":
        if model.build == "ball":
            made.append(tube(wide * 1.02, wide * 0.22, wide, other))
        else:
            made.append(box(wide * 0.5, deep * 1.02, high * 1.04, (wide * 0.54, 0, high), other))
    return made


def object_info(entity_id: str, model: ObjectModel, color: str, design: str) -> ObjectInfo:
    """Its row of the attribute table."""
    return ObjectInfo(
        entity_id=entity_id,
        category=model.category,
        shape=model.shape,
        color=color,
        material=model.material,
        functionality=model.functionality,
        print_or_design=design,
    )


def receptacle_solids(model: ReceptacleModel, instance: int) -> list[Solid]:
    """The solids of a piece of furniture in its own frame: middle of its footprint at the origin, back towards +y."""
    w, d, top = model.width / 2, model.depth / 2, model.top_m

    def box(x: float, y: float, z: float, at: tuple[float, float, float], shade: float = 1.0) -> Solid:
        r, g, b = model.colour
        return Solid("box", (x, y, z), at, colour=(r * shade, g * shade, b * shade), instance=instance)

    if model.category in ("table", "desk", "stool", "bench"):
        made = [box(w, d, 0.025, (0, 0, top - 0.025))]
        legs = [(x, y) for x in (-w + 0.04, w - 0.04) for y in (-d + 0.04, d - 0.04)]
        return made + [box(0.03, 0.03, (top - 0.05) / 2, (x, y, (top - 0.05) / 2), 0.8) for x, y in legs]
    made = [box(w, d, top / 2, (0, 0, top / 2))]
    if model.category == "bed":
        made.append(box(w, 0.03, 0.2, (0, d - 0.03, top + 0.2), 0.6))
    elif model.category == "couch":
        made.append(box(w, 0.1, 0.2, (0, d - 0.1, top + 0.2), 0.85))
        made += [box(0.08, d, 0.1, (x, 0, top + 0.1), 0.8) for x in (-w + 0.08, w - 0.08)]
    elif model.category in ("shelves", "chest of drawers", "counter", "washstand"):
        rows = 3 if model.category != "counter" else 2
        for i in range(rows):
            z = top * (i + 0.5) / rows
            made.append(box(w * 0.94, 0.01, top * 0.42 / rows, (0, -d, z), 0.78))
    return made


def places_of(model: ReceptacleModel) -> list[tuple[float, float]]:
    """(x, y) in its own frame where things stand: side by side, near the front edge so that they are seen."""
    count = model.places
    room = model.width - (0.36 if model.category == "couch" else 0.0)
    count = max(1, min(count, int(room / SPACING_M)))
    y = -model.depth / 2 + min(0.16, model.depth / 2)
    return [((i - (count - 1) / 2) * min(SPACING_M * 1.1, room / count), y) for i in range(count)]
