"""Acceptance checks 3 to 8 of the mechanism page, with brute-force oracles. Numbers in names are the page's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_samples import frame

from streammem.banks.policies import (
    POLICIES,
    Change,
    CredibleStart,
    Dam4Sam,
    FrameMemory,
    Policy,
    Read,
    ReadMem,
    ReSurgDiverse,
    RMem,
    SAM2Fifo,
    Samurai,
    SmartMemory,
    make_policy,
)
from streammem.banks.policies.bounded import volume
from streammem.banks.policies.diverse import width_cosine
from streammem.banks.policies.record import Hypothesis, cosine
from streammem.errors import CorruptData, InputError

NAMES = sorted(POLICIES)
steps = st.lists(
    st.tuples(
        st.integers(-1, 4),  # how far the frame number moves: 0 a duplicate, -1 out of order
        st.booleans(),  # visible
        st.floats(0, 1),
        st.integers(0, 5),  # which of six looks
        st.booleans(),  # a look-alike is there
        st.sampled_from(["observe"] * 9 + ["prompt"]),
    ),
    min_size=1,
    max_size=120,
)
LOOKS = np.random.default_rng(5).normal(size=(6, 4)).astype(np.float32) + 0.5


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(script=steps)
def test_03_prompts_stay_and_reads_are_of_the_past_unique_and_within_capacity(name: str, script: list) -> None:
    memory = FrameMemory(make_policy(name))
    memory.start(frame(0, prompt=True))
    prompts, t = {0}, 0
    for move, visible, iou, look, apart, what in script:
        given_t = t + move
        record = frame(given_t, logit=3.0 if visible else -3.0, iou=iou, vector=LOOKS[look], apart=apart)
        before, last = memory.times(), memory.last
        if what == "prompt" and move > 0 and len(prompts) < 16:
            memory.start(frame(given_t, prompt=True, vector=LOOKS[look]))
            prompts.add(given_t)
        else:
            changes = memory.observe(record)
            if given_t <= last:
                assert [change.action for change in changes] == ["refuse"]
                assert memory.times() == before
                continue
            dropped = {change.t for change in changes if change.action == "drop"}
            assert before - memory.times() <= dropped
            assert all(change.reason for change in changes)
        t = max(t, given_t)
        reads = memory.select(t + 1)
        numbers = [read.t for read in reads]
        assert len(set(numbers)) == len(numbers)
        assert all(number <= t for number in numbers)
        assert prompts <= set(numbers)
        assert all(0 <= read.tpos <= 6 for read in reads)
        assert len(memory.times() - prompts) <= memory.policy.budget().frames
        assert all(dt > 0 for dt, _ in memory.pointers(t + 1))
    assert memory.violations == 0, "the policy itself keeps the rules; the memory around it had nothing to mend"


class Faulty(Policy):
    """Loses its prompt, reads the future and the same frame twice, drops without a word, and keeps everything."""

    frames = 3

    def observe(self, record: object) -> list[Change]:
        self.prompts = []
        self.short = [*self.short[record.t % 7 == 0 :], record]  # type: ignore[attr-defined]
        return []

    def select(self, t: int) -> list[Read]:
        return [Read(t, 0, "long"), *[Read(one.t, 1, "recent") for one in self.short for _ in range(2)]]


def test_03_a_faulty_policy_is_mended_and_counted() -> None:
    memory = FrameMemory(Faulty())
    memory.start(frame(0, prompt=True))
    for t in range(1, 30):
        memory.observe(frame(t))
        reads = [read.t for read in memory.select(t + 1)]
        assert reads[0] == 0 and len(set(reads)) == len(reads) and max(reads) <= t
        assert len(memory.times()) <= 4
    assert memory.violations > 29
    assert memory.counts["drop: the policy gave no reason"] >= 1
    assert memory.counts["drop: over the budget of this object"] >= 20


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("first", "fifo", "resurg", "resurg_release")])
def test_04_absent_frames_stay_out_and_the_last_look_survives_an_absence(name: str) -> None:
    memory = FrameMemory(make_policy(name))
    memory.start(frame(0, prompt=True))
    for t in range(1, 41):
        memory.observe(frame(t, vector=LOOKS[t % 6]))
    for t in range(41, 91):
        memory.observe(frame(t, logit=-4.0))
    held = memory.held()
    reads = memory.select(91)
    for read in reads:
        _, record = held[read.t]
        assert record.visible or (read.t == 90 and read.why == "t-1, although it fails")
        assert read.role != "long" or record.visible
    assert any(read.role != "prompt" and held[read.t][1].visible for read in reads)


@settings(max_examples=40, deadline=None)
@given(
    script=st.lists(st.tuples(st.floats(0.9, 1.0), st.booleans(), st.integers(0, 5)), min_size=5, max_size=80),
    release=st.booleans(),
)
def test_05_the_diverse_frame_is_the_brute_force_argmin(script: list, release: bool) -> None:
    policy = ReSurgDiverse(compat="release" if release else "paper")
    memory = FrameMemory(policy)
    memory.start(frame(0, prompt=True, vector=LOOKS[0]))
    long, pool, keeps = [], [], 3 if release else 4
    for t, (iou, visible, look) in enumerate(script, 1):
        # Absent, with a box: what the released code, which asks for the IoU only, lets in.
        record = frame(t, iou=iou, vector=LOOKS[look] + 0.01 * t, logit=3.0)
        if not visible:
            record = frame(t, iou=iou, vector=LOOKS[look] + 0.01 * t, logit=-3.0)
        memory.observe(record)
        if iou > 0.95 and (release or visible):
            pool.append(record.kept())
        if len(pool) == 5:
            newest = long[-1] if long else policy.prompts[-1]
            like = width_cosine if release else cosine
            alike = [like(one.desc_map, newest.desc_map) for one in pool]
            long = [*long, pool[alike.index(min(alike))]][-keeps:]
            pool = []
        assert [one.t for one in policy.long] == [one.t for one in long]
        assert [one.t for one in policy.pool] == [one.t for one in pool]
        reads = memory.select(t + 1)
        recent = {read.t for read in reads if read.role == "recent"}
        assert {read.t for read in reads if read.role == "long"} == {one.t for one in long} - recent
        assert all(read.tpos == 0 for read in reads if read.role == "long")
        assert sorted(read.tpos for read in reads if read.role == "recent") == list(range(1, min(t, 6) + 1))


@settings(max_examples=25, deadline=None)
@given(looks=st.lists(st.integers(0, 2**31), min_size=10, max_size=60))
def test_05_a_swap_of_readmem_never_shrinks_the_volume(looks: list[int]) -> None:
    policy = ReadMem(keeps=5, every=1)
    memory = FrameMemory(policy)
    memory.start(frame(0, prompt=True, vector=np.ones(4)))
    before = 0.0
    for t, seed in enumerate(looks, 1):
        memory.observe(frame(t, vector=np.ones(4) + np.random.default_rng(seed).normal(0, 0.4, 4)))
        rows = np.array([one.desc_obj for one in (*policy.prompts, *policy.long)], np.float64)
        now = volume(rows)
        if len(rows) == 5 and len(policy.long) == 4 and before:
            assert now >= before * (1 - 1e-9)
        before = now if len(rows) == 5 else 0.0


@settings(max_examples=100, deadline=None)
@given(
    script=st.lists(st.tuples(st.floats(0, 6), st.floats(0.5, 1)), min_size=1, max_size=40),
    enabled=st.booleans(),
)
def test_06_a_credible_start_needs_five_passes_in_a_row(script: list, enabled: bool) -> None:
    policy = CredibleStart(SAM2Fifo(), enabled=enabled)
    memory = FrameMemory(policy)
    passed = [1 / (1 + np.exp(-logit)) > 0.9 and iou > 0.7 for logit, iou in script]
    window = 5 if enabled else 1
    expected = next((t for t in range(window - 1, len(script)) if all(passed[t - window + 1 : t + 1])), None)
    for t, (logit, iou) in enumerate(script):
        started = memory.propose(frame(t, logit=logit + 1e-9, iou=iou))
        assert started == (t == expected)
        if started:
            assert t >= window - 1
            run = range(t - window + 1, t + 1)
            best = max(script[at][1] for at in run)
            assert policy.held().keys() == {max(at for at in run if script[at][1] == best)}
            return
    assert expected is None


def test_06_a_gap_between_frames_breaks_the_run() -> None:
    memory = FrameMemory(CredibleStart(SAM2Fifo()))
    assert not any(memory.propose(frame(t)) for t in (0, 1, 2, 3, 5, 6, 7, 8))
    assert memory.propose(frame(9))


@pytest.mark.parametrize(
    ("situation", "change", "enters"),
    [
        ("a far look-alike", {}, True),
        ("identical hypotheses", {"apart": False}, False),
        ("low IoU", {"iou": 0.8}, False),
        ("the area jumps up", {"area": 0.09 * 1.25}, False),
        ("the area jumps down", {"area": 0.09 * 0.75}, False),
        ("absent", {"logit": -1.0}, False),
        ("5 frames after the last", {"t": 15}, False),
        ("6 frames after the last", {"t": 16}, True),
    ],
)
def test_07_the_distractor_rule(situation: str, change: dict, enters: bool) -> None:
    policy = Dam4Sam()
    memory = FrameMemory(policy)
    memory.start(frame(0, prompt=True))
    for t in range(1, 10):
        memory.observe(frame(t))
    if "t" in change:
        memory.observe(frame(10, apart=True))
        assert [one.t for one in policy.long] == [10]
    t = change.get("t", 30)
    memory.observe(frame(t, **{"apart": True, **{key: value for key, value in change.items() if key != "t"}}))
    assert (t in [one.t for one in policy.long]) == enters, situation
    assert t not in [read.t for read in memory.select(t + 1) if read.role == "long"], "t-1 is read as recent"


def test_dam4sam_reads_seven_maps_and_its_stride() -> None:
    memory = FrameMemory(Dam4Sam())
    memory.start(frame(0, prompt=True))
    for t in range(1, 63):
        memory.observe(frame(t, logit=-3.0 if t in (60, 62) else 3.0))
    reads = memory.select(63)
    assert len(reads) == 7
    assert [(read.t, read.tpos) for read in reads if read.role == "recent"] == [
        (35, 6), (40, 5), (45, 4), (50, 3), (55, 2), (61, 1),
    ]  # fmt: skip


def test_fifo_reads_what_sam2_reads() -> None:
    memory = FrameMemory(SAM2Fifo())
    memory.start(frame(0, prompt=True))
    for t in range(1, 21):
        memory.observe(frame(t, logit=-3.0 if t == 18 else 3.0))
    assert [(read.t, read.tpos) for read in memory.select(21)] == [
        (0, 0), (15, 6), (16, 5), (17, 4), (18, 3), (19, 2), (20, 1),
    ]  # fmt: skip
    assert [dt for dt, _ in memory.pointers(21)] == [21, *range(1, 16)]
    assert memory.times() == {0, *range(6, 21)}


def test_samurai_filters_by_quality_and_forces_the_last_frame() -> None:
    memory = FrameMemory(Samurai())
    memory.start(frame(0, prompt=True))
    bad = {5: {"iou": 0.5}, 8: {"logit": -1.0}, 10: {"iou": 0.2}}
    for t in range(1, 11):
        memory.observe(frame(t, **bad.get(t, {})))
    assert [(read.t, read.tpos) for read in memory.select(11)] == [
        (0, 0), (3, 6), (4, 5), (6, 4), (7, 3), (9, 2), (10, 1),
    ]  # fmt: skip


def test_samurai_lets_motion_choose_once_it_is_stable() -> None:
    """After 15 good frames that move right, of two masks of nearly equal IoU the one ahead is taken."""
    memory = FrameMemory(Samurai())
    memory.start(frame(0, prompt=True))

    def box(t: int) -> tuple[float, float, float, float]:
        return (0.1 + 0.01 * t, 0.4, 0.2 + 0.01 * t, 0.6)

    two = [Hypothesis(pred_iou=0.91, box=(0.8, 0.8, 0.9, 1.0)), Hypothesis(pred_iou=0.90, box=box(20))]
    for t in range(1, 20):
        if t == 5:
            assert memory.choose(two) == 0, "before it is stable the predicted IoU decides"
        memory.observe(frame(t, box=box(t)))
    assert memory.choose(two) == 1


def test_smart_memory_refreshes_a_duplicate_and_keeps_the_better_copy() -> None:
    policy = SmartMemory(keeps=3)
    memory = FrameMemory(policy)
    memory.start(frame(0, prompt=True, vector=np.array([1.0, 0, 0, 0])))
    memory.observe(frame(1, vector=np.array([0, 1.0, 0, 0]), iou=0.7))
    changes = memory.observe(frame(2, vector=np.array([0.01, 1.0, 0, 0]), iou=0.9))
    assert [one.t for one in policy.long] == [2], "the better copy replaced the first"
    assert any("better copy" in change.reason for change in changes)
    memory.observe(frame(3, vector=np.array([0.02, 1.0, 0, 0]), iou=0.8))
    assert [one.t for one in policy.long] == [2]
    for t, vector in enumerate([[0, 0, 1, 0], [0, 0, 0, 1], [0.6, 0.6, 0.4, 0]], 4):
        memory.observe(frame(t, vector=np.array(vector, float)))
    assert len(policy.long) == 3 and 0 in memory.times()
    assert 6 not in [one.t for one in policy.long], "of all it was most like the others"


def test_rmem_evicts_the_least_attended_slot() -> None:
    policy = RMem(keeps=3, every=1)
    memory = FrameMemory(policy)
    memory.start(frame(0, prompt=True))
    for t in range(1, 4):
        memory.observe(frame(t))
    for _ in range(30):
        memory.attended({0: 0.2, 1: 0.5, 2: 0.05, 3: 0.25})
    memory.observe(frame(4))
    assert [one.t for one in policy.long] == [1, 3, 4]


@pytest.mark.parametrize("name", [*NAMES, "credible"])
@settings(max_examples=6, deadline=None)
@given(script=steps, cut=st.integers(0, 100))
def test_08_a_loaded_state_goes_on_as_if_nothing_had_happened(name: str, script: list, cut: int) -> None:
    def fresh() -> FrameMemory:
        return FrameMemory(CredibleStart(SmartMemory()) if name == "credible" else make_policy(name))

    def feed(memory: FrameMemory, part: list, t: int) -> int:
        for move, visible, iou, look, apart, _ in part:
            t += max(move, 1)
            memory.observe(frame(t, logit=3.0 if visible else -3.0, iou=iou, vector=LOOKS[look], apart=apart))
            reads = memory.select(t + 1)
            memory.attended({read.t: 1 / len(reads) for read in reads})
            memory.choose([Hypothesis(pred_iou=0.5, box=(0.1, 0.1, 0.3, 0.3)), Hypothesis(pred_iou=0.4)])
        return t

    whole, first, second = fresh(), fresh(), fresh()
    for memory in (whole, first):
        memory.start(frame(0, prompt=True))
    at = cut % len(script)
    feed(whole, script, 0)
    t = feed(first, script[:at], 0)
    second.load(first.state())
    end = feed(second, script[at:], t)
    assert second.select(end + 1) == whole.select(end + 1)
    assert second.state() == whole.state()
    assert second.audit() == whole.audit()


def test_bad_states_and_bad_starts() -> None:
    memory = FrameMemory(make_policy("diverse"))
    with pytest.raises(InputError, match="isn't tracked yet"):
        memory.observe(frame(1))
    with pytest.raises(InputError, match="prompt of object 'o' is empty"):
        FrameMemory(make_policy("fifo"), obj="o").start(frame(0, prompt=True, box=None))
    with pytest.raises(InputError, match="no memory policy 'smrt'"):
        make_policy("smrt")
    memory.start(frame(0, prompt=True))
    for state in (b"", b"nonsense", memory.state()[:-9]):
        with pytest.raises(CorruptData):
            FrameMemory(make_policy("diverse")).load(state)
    with pytest.raises(CorruptData, match="kept by the policy 'diverse', not 'fifo'"):
        FrameMemory(make_policy("fifo")).load(memory.state())
    full = FrameMemory(make_policy("fifo"))
    for t in range(16):
        full.start(frame(t, prompt=True))
    with pytest.raises(InputError, match="16 prompts, the most"):
        full.start(frame(16, prompt=True))


@pytest.mark.parametrize("name", NAMES)
def test_02_a_thousand_frames_stay_within_the_budget(name: str) -> None:
    memory = FrameMemory(make_policy(name))
    memory.start(frame(0, prompt=True))
    rng = np.random.default_rng(0)
    sizes = []
    for t in range(1, 1001):
        memory.observe(
            frame(t, logit=float(rng.normal(2, 2)), iou=float(rng.uniform(0.4, 1)), vector=rng.normal(size=4) + 1)
        )
        sizes.append(memory.ram_bytes)
    assert memory.violations == 0
    assert max(sizes[500:]) <= max(sizes[:500]) * 1.02
