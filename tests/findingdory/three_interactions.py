"""A hand-written experience of three interactions, small enough to check every goal set by eye.

    k   object    from        room      to          room      pick  way   place  end   minutes
    0   mug1      table1      kitchen   shelf1      study     100   110   140    150   384 386 .. 393 396
    1   book1     shelf1      study     bed1        bedroom   300   310   390    399   432 434 .. 453 455
    2   mug2      counter1    kitchen   table1      kitchen   500   512   520    530   480 482 .. 484 487

Not moved: mug3, ball1. Not touched: bed2, sofa1. The bathroom was never entered. It ends in the kitchen.
"""

from __future__ import annotations

from nav.findingdory.log import Interaction, InteractionLog, ObjectInfo, ReceptacleInfo, RoomInfo


def thing(name: str, category: str, *attributes: str) -> ObjectInfo:
    shape, color, material, functionality, design = attributes
    return ObjectInfo(
        entity_id=name,
        category=category,
        shape=shape,
        color=color,
        material=material,
        functionality=functionality,
        print_or_design=design,
    )


LOG = InteractionLog(
    objects=(
        thing("mug1", "mug", "cylindrical", "red", "ceramic", "drinking", "striped"),
        thing("mug2", "mug", "cylindrical", "blue", "metal", "drinking", ""),
        thing("mug3", "mug", "cylindrical", "red", "ceramic", "drinking", "dotted"),
        thing("book1", "book", "rectangular", "red", "paper", "reading", "striped"),
        thing("ball1", "ball", "round", "green", "rubber", "playing", ""),
    ),
    receptacles=tuple(
        ReceptacleInfo(entity_id=name, category=name[:-1])
        for name in ("table1", "shelf1", "bed1", "counter1", "bed2", "sofa1")
    ),
    rooms=(
        RoomInfo(entity_id="kitchen", steps=350),
        RoomInfo(entity_id="study", steps=150),
        RoomInfo(entity_id="bedroom", steps=100),
        RoomInfo(entity_id="bathroom", steps=0),
    ),
    interactions=(
        Interaction(
            object_id="mug1", start_id="table1", goal_id="shelf1", start_room="kitchen", goal_room="study",
            pick_step=100, nav_place_step=110, place_step=140, end_step=150,
        ),
        Interaction(
            object_id="book1", start_id="shelf1", goal_id="bed1", start_room="study", goal_room="bedroom",
            pick_step=300, nav_place_step=310, place_step=390, end_step=399,
        ),
        Interaction(
            object_id="mug2", start_id="counter1", goal_id="table1", start_room="kitchen", goal_room="kitchen",
            pick_step=500, nav_place_step=512, place_step=520, end_step=530,
        ),
    ),
    start_room="study",
    steps=600,
    distance_m={
        "table1": 1.0, "shelf1": 6.0, "bed1": 9.0, "counter1": 2.0, "bed2": 8.5, "sofa1": 4.0,
        "mug1": 6.5, "mug2": 1.5, "mug3": 3.0, "book1": 9.5, "ball1": 12.0,
    },
)  # fmt: skip

# task -> (slots, expected groups under strict); one way of asking each.
EXPECTED: dict[int, tuple[dict[str, object], list[list[str]]]] = {
    1: ({"category": "mug"}, [["mug1", "mug2", "mug3"]]),
    2: ({"receptacle": "bed"}, [["bed1", "bed2"]]),
    3: ({}, [["table1", "shelf1", "bed1", "counter1"]]),
    4: ({}, [["bed2", "sofa1"]]),
    5: ({}, [["mug1", "book1", "mug2"]]),
    6: ({}, [["mug3", "ball1"]]),
    7: ({}, [["table1", "shelf1", "counter1"]]),
    8: ({}, [["shelf1", "bed1", "table1"]]),
    9: ({"category": "mug"}, [["mug1", "mug2"]]),
    10: ({"category": "mug"}, [["mug3"]]),
    11: ({"receptacle": "bed"}, [["bed2"]]),
    12: ({"receptacle": "shelf"}, [["shelf1"]]),
    13: ({"receptacle": "table"}, [["table1"]]),
    14: ({"category": "mug"}, [["table1", "counter1"]]),
    15: ({"receptacle": "table"}, [["mug1"]]),
    16: ({"value": "cylindrical"}, [["mug1", "mug2"]]),
    17: ({"value": "red"}, [["mug1", "book1"]]),
    18: ({"value": "striped"}, [["mug1", "book1"]]),
    19: ({"value": "metal"}, [["mug2"]]),
    20: ({"value": "reading"}, [["book1"]]),
    21: ({}, [["bed1"]]),
    22: ({}, [["bed2"]]),
    23: ({}, [["shelf1"]]),
    24: ({}, [["bed1"]]),
    25: ({}, [["book1"]]),
    26: ({"n": 2}, [["study"]]),
    27: ({"n": 2}, [["bedroom"]]),
    28: ({"category": "mug"}, [["kitchen"]]),
    29: ({"category": "mug"}, [["study", "kitchen"]]),
    30: ({}, [["bathroom"]]),
    31: ({"n": 3}, [["mug2"]]),
    32: ({"n": 2}, [["shelf1"]]),
    33: ({"n": 2}, [["bed1"]]),
    34: ({"n": 1}, [["table1"]]),
    35: ({"n": 2}, [["book1"]]),
    36: ({"a": 0}, [["book1"]]),
    37: ({"a": 2}, [["book1"]]),
    38: ({"a": 0, "m": 2}, [["mug2"]]),
    39: ({"a": 2, "m": 2}, [["mug1"]]),
    40: ({"a": 0, "b": 2}, [["book1"]]),
    41: ({"a": 1}, [["shelf1"]]),
    42: ({"a": 1}, [["counter1"]]),
    43: ({"a": 2, "m": 2}, [["shelf1"]]),
    44: ({"a": 0, "m": 2}, [["counter1"]]),
    45: ({"a": 0, "b": 2}, [["bed1"]]),
    46: ({"a": 0, "b": 2}, [["shelf1"]]),
    47: ({"minute": 454, "chosen": "bed1"}, [["bed1"]]),
    48: ({"minute": 390, "chosen": "mug1"}, [["mug1"]]),
    49: ({}, [["book1"]]),
    50: ({}, [["kitchen"]]),
    51: ({}, [["mug2"]]),
    52: ({}, [["table1"], ["shelf1"], ["counter1"]]),
    53: ({}, [["shelf1"], ["bed1"], ["table1"]]),
    54: ({"receptacle": "bed"}, [["bed1"]]),
    55: ({"receptacle": "table"}, [["table1"]]),
    56: ({}, [["mug1"], ["book1"], ["mug2"]]),
    57: ({}, [["table1"], ["shelf1"], ["bed1"], ["counter1"]]),
    58: ({"order": (2, 0, 1)}, [["counter1"], ["table1"], ["shelf1"]]),
    59: ({"order": (1, 0, 2)}, [["bed1"], ["shelf1"], ["table1"]]),
    60: ({"order": (2, 1, 0)}, [["mug2"], ["book1"], ["mug1"]]),
}
