"""The timeline: a pyramid on a grid, made of nothing but the stream. Oracles are brute force over the moments."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "storage"))
from sample_moments import observation
from sample_moments import small_config as without_banks

import streammem.memory
from streammem.banks.timeline import (
    FINEST_NS,
    TimelineBank,
    node_id,
    read_scene,
    scope_at_least,
    scope_for,
    scopes_for,
    snapped,
)
from streammem.captions import ComposedCaptioner, Scene, open_captioner, scene_of
from streammem.config import Config, TimelineConfig
from streammem.errors import ConfigError, CorruptData, QueryError
from streammem.model import Label, Record, Speech, TextSpan, record_id

S = 10**9


def small_config(seal_bytes: int = 16384) -> Config:
    return without_banks(seal_bytes).model_copy(update={"timeline": TimelineConfig()})


LEAF = 10 * S


def moment(t_ns: int, name: str = "cup", stream: str = "cam") -> Record:
    number = record_id("moments", stream, "s", t_ns)
    return Record(
        record_id=number, bank="moments", stream=stream, t_start_ns=t_ns, t_end_ns=t_ns, labels=(Label(name, 0.5),)
    )


# VideoLucy's table (dossier 1.2): the coarse list stays at roughly 20 to 40 entries whatever the length.
@pytest.mark.parametrize("seconds", [30, 150, 600, 1200, 3600, 5400, 7200, 22_788, 604_800])
def test_the_coarse_list_has_20_to_40_entries(seconds: int) -> None:
    coarse, fine, ultra = scopes_for(0, seconds * S - 1, LEAF)
    assert 20 <= -(-seconds * S // coarse) <= 40
    assert ultra <= fine <= coarse
    assert coarse == 8 * fine or fine == scope_at_least(FINEST_NS, LEAF)


@given(st.integers(0, 10**17), st.integers(1, 10**16))
def test_scopes_on_any_stretch(start: int, length: int) -> None:
    scope = scope_for(start, start + length, LEAF)
    entries = (start + length) // scope - start // scope + 1
    assert entries <= 40
    assert entries >= 20 or scope == scope_at_least(FINEST_NS, LEAF)


@given(st.integers(0, 10**12), st.integers(-(10**12), 10**12), st.sampled_from([S, 10 * S, 80 * S]))
def test_snapping_holds_what_was_named(start: int, length: int, scope: int) -> None:
    lo, hi = snapped(start, start + length, scope)
    assert lo % scope == 0 and (hi + 1) % scope == 0
    assert lo <= start <= hi and (length < 0 or start + length <= hi)


def test_videolucys_example_of_a_model_that_names_odd_bounds() -> None:
    assert snapped(55 * S, 125 * S, 50 * S) == (50 * S, 150 * S - 1)


def leaves(records: list[Record]) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = {}
    for record in records:
        found.setdefault(record.t_start_ns // LEAF, []).append(record)
    return found


times = st.lists(st.integers(0, 40_000).map(lambda n: n * S // 10), min_size=1, max_size=150, unique=True).map(sorted)


@settings(max_examples=60, deadline=None)
@given(times, st.integers(0, 150))
def test_nodes_equal_brute_force_and_survive_a_restart(at: list[int], cut: int) -> None:
    moments = [moment(t, f"thing {t % 3}") for t in at]
    bank = TimelineBank(10)
    made: list[Record] = []
    for number, one in enumerate(moments):
        if number == cut:
            again = TimelineBank(10)
            again.load("cam", bank.state("cam"), lambda _: None)
            bank = again
        made += bank.observe(one)
    assert len({record.record_id for record in made}) == len(made)
    groups = leaves(moments)
    last = max(groups)
    for record in made:
        level, index = int(record.session[1:]), record.seq
        assert record.record_id == node_id("cam", level, index)
        inside = [m for leaf, ms in groups.items() if leaf >> level == index for m in ms]
        scene = read_scene(record)
        assert scene is not None and inside
        assert scene.looks == len(inside) == record.count
        assert (scene.t_start_ns, scene.t_end_ns) == (inside[0].t_start_ns, inside[-1].t_end_ns)
        counted = Counter(m.labels[0].name for m in inside)
        assert {name: total for name, (total, _) in scene.labels.items()} == {n: 500 * c for n, c in counted.items()}
        children = [r.record_id for r in made if r.session == f"L{level - 1}" and r.seq >> 1 == index]
        assert list(record.parents) == (children if level else [m.record_id for m in inside])
    # Every node that lies wholly before the newest leaf is there, at every level that was ever opened.
    top = max((int(r.session[1:]) for r in made), default=-1)
    for level in range(top + 1):
        complete = {leaf >> level for leaf in groups if leaf >> level < last >> level}
        assert {r.seq for r in made if r.session == f"L{level}"} == complete


def test_a_late_moment_changes_no_finished_node() -> None:
    bank = TimelineBank(10)
    assert not bank.observe(moment(5 * S))
    assert [r.seq for r in bank.observe(moment(25 * S))] == [0, 0]
    assert not bank.observe(moment(7 * S))
    assert [r.seq for r in bank.observe(moment(31 * S)) if r.session == "L0"] == [2]


def test_a_node_that_lost_something_is_never_written() -> None:
    bank = TimelineBank(10)
    bank.observe(moment(S))
    assert bank.forget("cam", 0, 2 * S) == 1
    made = [r for t in (5, 12, 15, 31, 45, 61) for r in bank.observe(moment(t * S))]
    places = {(r.session, r.seq) for r in made}
    assert ("L0", 1) in places and ("L0", 3) in places and ("L1", 1) in places
    assert not {("L0", 0), ("L1", 0), ("L2", 0)} & places


def test_damaged_state_is_named() -> None:
    with pytest.raises(CorruptData, match="timeline of 'cam'"):
        TimelineBank(10).load("cam", b"\xc1", lambda _: None)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[streammem.memory.Memory]:
    folder = tmp_path_factory.mktemp("timeline")
    with streammem.memory.open(folder / "m", config=small_config(1 << 20)) as opened:
        opened.write([observation(n) for n in range(1200)])
        yield opened


def entries(memory: streammem.memory.Memory, **arguments: object) -> list[dict]:  # type: ignore[type-arg]
    return memory.query("timeline", "timeline", **arguments)


def test_lists_cover_everything_once_and_name_their_records(memory: streammem.memory.Memory) -> None:
    for level in ("coarse", "fine"):
        found = entries(memory, level=level)
        assert sum(e["looks"] for e in found) == 1200
        assert all(a["t_end_ns"] < b["t_start_ns"] for a, b in pairwise(found))
        assert (found[0]["t_start_ns"], found[-1]["t_end_ns"]) == (0, 1199 * S)
        assert all(e["evidence"] and all(memory.record(n) is not None for n in e["evidence"]) for e in found)
    assert len(entries(memory)) in range(20, 41)
    odd = entries(memory, t_start_ns=55 * S, t_end_ns=1125 * S)
    assert sum(e["looks"] for e in odd) == 1071 and len(odd) in range(20, 41)
    assert sum(e["looks"] for e in memory.query("timeline", "at", t_start_ns=5 * S, t_end_ns=8 * S)) == 4


def test_a_node_walks_down_to_frames(memory: streammem.memory.Memory) -> None:
    todo = list(entries(memory)[0]["evidence"])
    seen: set[str] = set()
    while todo:
        record = memory.record(todo.pop())
        assert record is not None
        seen.add(record.bank)
        todo += record.parents if record.bank == "timeline" else ()
    assert seen == {"timeline", "moments"}


def test_forgetting_leaves_no_word_in_any_level(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path / "m", config=small_config(65536)) as memory:
        secret = {"texts": (TextSpan("HUSHHUSH", 0.9),)}
        memory.write([observation(n, **(secret if 100 <= n <= 130 else {})) for n in range(200)])
        assert "HUSHHUSH" in str(entries(memory))
        memory.forget(stream="cam", between=(95 * S, 135 * S))
        memory.write([observation(n) for n in range(200, 500)])
        found = entries(memory)
        assert "HUSHHUSH" not in str(found)
        assert sum(e["looks"] for e in found) == 500 - 41
        for block in memory.blocks("timeline"):
            for row in range(len(block)):
                scene = read_scene(block.record(row))
                assert scene is not None and "HUSHHUSH" not in scene.texts


def test_the_same_recording_gives_the_same_digest_however_it_is_cut(tmp_path: Path) -> None:
    digests = set()
    for name, step, seal in (("a", 300, 1 << 20), ("b", 77, 32768)):
        for start in range(0, 300, step):
            with streammem.memory.open(tmp_path / name, config=small_config(seal)) as memory:
                memory.write([observation(n) for n in range(start, min(300, start + step))])
        with streammem.memory.open(tmp_path / name, config=small_config(), mode="read") as memory:
            digests.add((memory.digest(), len(entries(memory)), str(entries(memory))))
    assert len(digests) == 1


BAD = [
    ({"level": "deep"}, "no level 'deep'"),
    ({"scope_s": 1.0}, "at most 512"),
    ({"nonsense": 1}, "nonsense"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_questions_that_cannot_be_asked(
    memory: streammem.memory.Memory, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        entries(memory, **arguments)


def test_an_empty_memory_and_a_range_without_moments(tmp_path: Path) -> None:
    with streammem.memory.open(tmp_path / "m") as memory:
        assert entries(memory) == []
        memory.write([observation(n) for n in range(5)])
        assert entries(memory, t_start_ns=100 * S) == []


# -- captions


def test_a_caption_is_composed_of_every_kind_of_sign() -> None:
    first = moment(0, "kettle")
    scene = scene_of([first])
    scene.merge(
        scene_of(
            [
                Record(
                    record_id=2,
                    bank="moments",
                    stream="cam",
                    t_start_ns=S,
                    t_end_ns=S,
                    texts=(TextSpan("GATE 7", 0.9),),
                    speech=(Speech("mind the gap", S, 2 * S),),
                    stats={"change": 60.0},
                    vector=first.vector,
                )
            ]
        )
    )
    text = ComposedCaptioner().caption(scene, ())
    for part in ("seen: kettle", "“GATE 7”", "“mind the gap”"):
        assert part in text
    assert ComposedCaptioner().caption(Scene(), ()) == "nothing was looked at"


def test_scenes_are_bounded_and_keep_what_was_there_for_a_moment() -> None:
    scene = Scene()
    for t in range(3000):
        name = "rare bird" if t == 1500 else f"noise {t % 500}"
        score = 0.99 if t == 1500 else 0.2
        scene.add(
            Record(record_id=t, bank="moments", stream="c", t_start_ns=t, t_end_ns=t, labels=(Label(name, score),))
        )
    assert len(scene.labels) <= 64
    assert "rare bird" in {name for name, _ in scene.best_labels()}
    assert scene.looks == 3000


def test_text_from_the_camera_cannot_drive_a_terminal() -> None:
    record = Record(
        record_id=1, bank="moments", stream="c", t_start_ns=0, t_end_ns=0, texts=(TextSpan("\x1b[2Jhi\u202e", 0.9),)
    )
    assert "\x1b" not in ComposedCaptioner().caption(scene_of([record]), ())


def test_unknown_captioners_are_named() -> None:
    assert open_captioner().id == "composed@1"
    with pytest.raises(ConfigError, match="no captioner is called 'x'"):
        open_captioner("x")


def test_the_bank_is_cheap() -> None:
    """0.3 ms an observation is the house's limit for a bank that is on by default; the test allows a busy machine."""
    import time

    bank = TimelineBank(10)
    times = []
    for number in range(2000):
        one = moment(number * S, f"thing {number % 40}")
        begun = time.perf_counter()
        bank.observe(one)
        times.append(time.perf_counter() - begun)
    assert sorted(times)[1000] < 0.0003
