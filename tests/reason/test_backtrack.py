"""The loop, where the truth is known: it finds what one look missed, keeps the budget and never lowers the bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

for folder in ("recall", "reason"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
from reason_samples import S, Script, filled, open_words, sparse  # noqa: E402

from streammem.errors import ConfigError, QueryError  # noqa: E402
from streammem.memory import Memory  # noqa: E402
from streammem.reason.base import (  # noqa: E402
    Budget,
    Context,
    Deeper,
    Hypothesis,
    Period,
    Purse,
    Spent,
    State,
    Task,
    join_periods,
)
from streammem.reason.strategies import STRATEGIES, open_reasoner  # noqa: E402

# A dog for three seconds between two looks of a memory that looks every ten seconds; the car is seen at 200 s.
TRUTH = filled(400, [(204, "dog"), (205, "dog"), (206, "dog"), (200, "car"), (300, "car")])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Memory, Script]]:
    memory = sparse(tmp_path / "m", TRUTH, 10)
    script = Script(memory, tmp_path / "deeper", TRUTH)
    yield memory, script
    script.close()
    memory.close()


def ask(memory: Memory, script: Script | None, question: str, name: str = "embedded", budget: str = "", **fields):  # type: ignore[no-untyped-def]
    state = fields.pop("state", None)
    save = fields.pop("save", None)
    context = Context(view=memory, deepener=script, save=save)
    return open_reasoner(name).reason(Task(question=question, **fields), context, Budget.parse(budget), state)


def test_one_look_misses_what_the_loop_finds(world: tuple[Memory, Script]) -> None:
    memory, script = world
    assert memory.ask("a dog").status == "not_seen"
    found = ask(memory, script, "a dog", budget="rounds=40")
    assert found.answer.status == "found" and found.stage == "loop"
    assert 204 * S <= found.answer.evidence[0].t_start_ns <= 206 * S
    assert all(frame.where == "memory" for frame in found.answer.evidence[0].frames)
    assert found.answer.cost.records == found.spent.records > 0


def test_what_the_first_look_shows_costs_no_second(world: tuple[Memory, Script]) -> None:
    memory, script = world
    found = ask(memory, script, "a car")
    assert (found.answer.status, found.stage, script.asked) == ("found", "coarse", [])


def test_absent_things_stay_unseen_after_every_round(world: tuple[Memory, Script]) -> None:
    memory, script = world
    before = memory.ask("a boat")
    found = ask(memory, script, "a boat", budget="rounds=100")
    assert found.answer.status == before.status == "not_seen"
    assert found.stage == "forced" and not found.partial


def test_visited_periods_are_never_visited_again(world: tuple[Memory, Script]) -> None:
    memory, script = world
    ask(memory, script, "a boat", budget="rounds=100")
    assert len(script.asked) == len(set(script.asked)) > 20
    assert sum(p.t_end_ns - p.t_start_ns + 1 for p in join_periods(script.asked)) >= 390 * S


@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_at_most_so_many_rounds(world: tuple[Memory, Script], rounds: int) -> None:
    memory, script = world
    found = ask(memory, script, "a boat", budget=f"rounds={rounds}")
    assert len(script.asked) == found.spent.rounds == rounds


@pytest.mark.parametrize("budget", ["seconds=0", "records=0"])
@pytest.mark.parametrize("name", ["embedded", "flat", "uniform", "blind"])
def test_a_budget_of_nothing_is_a_labelled_partial_answer(world: tuple[Memory, Script], name: str, budget: str) -> None:
    memory, script = world
    found = ask(memory, script, "a car", name, budget)
    assert found.partial and found.stage == "budget" and found.answer.status == "unsure"
    assert budget.split("=")[0] in found.why and not found.answer.evidence


def test_the_budget_of_frames_holds_and_is_said(world: tuple[Memory, Script]) -> None:
    memory, script = world
    found = ask(memory, script, "a boat", budget="frames=12,rounds=100")
    assert found.spent.frames <= 12 and found.partial and found.why == "the budget of frames is spent"


def test_the_budget_of_seconds_holds_where_frames_are_slow(world: tuple[Memory, Script]) -> None:
    """A frame takes 0.2 s: a round that would end too late isn't begun."""
    memory, script = world
    now = [0.0]

    class Slow:
        view = property(lambda self: script.view)

        def deepen(self, period: Period, fps: float, *, limit: int = 64) -> Deeper:
            made = script.deepen(period, fps, limit=limit)
            now[0] += 0.2 * made.decoded
            return made

    for seconds in (1.0, 3.0, 7.5):
        context = Context(view=memory, deepener=Slow(), clock=lambda: now[0])
        found = open_reasoner("embedded").reason(Task(question="a boat"), context, Budget(seconds=seconds, rounds=90))
        assert found.spent.frames > 0 and found.spent.seconds <= seconds + 1e-9


def test_it_goes_on_from_the_state_after_a_crash(world: tuple[Memory, Script]) -> None:
    memory, script = world
    saved: list[bytes] = []
    whole = ask(memory, script, "a boat", budget="rounds=9", save=saved.append)
    first, script.asked = script.asked, []
    again = ask(memory, script, "a boat", budget="rounds=9", state=saved[3])
    assert State.decode(saved[3]).round == 4
    assert set(first[:4]).isdisjoint(script.asked) and len(script.asked) == 5
    assert again.spent.rounds == whole.spent.rounds == 9
    with pytest.raises(QueryError, match="can't be read"):
        ask(memory, script, "a boat", state=b"\xc1")
    other = ask(memory, script, "a car", state=saved[3])
    assert other.answer.status == "found", "the state of another question is not this one's"


def test_a_source_that_is_gone_is_told_and_not_fatal(tmp_path: Path, world: tuple[Memory, Script]) -> None:
    memory, _ = world
    script = Script(memory, tmp_path / "gone", TRUTH, gone="the file was moved")
    found = ask(memory, script, "a boat")
    script.close()
    assert found.answer.status == "not_seen"
    assert any("gone: the file was moved" in step.outcome for step in found.steps)


def test_time_of_the_question_is_searched_first_and_a_fifth_outside(world: tuple[Memory, Script]) -> None:
    memory, script = world
    found = ask(memory, script, "a boat between 1:20 and 4:30", budget="rounds=5", now_ns=400 * S)
    inside = [p for p in script.asked if p.t_start_ns <= 270 * S and p.t_end_ns >= 80 * S]
    assert len(inside) == 4 and len(script.asked) == 5
    assert found.answer.status != "found"


def test_what_lies_outside_the_asked_time_is_not_found(world: tuple[Memory, Script]) -> None:
    memory, script = world
    found = ask(memory, script, "a car between 0:10 and 0:50", budget="rounds=3", now_ns=400 * S)
    assert found.answer.status != "found"
    inside = ask(memory, script, "a car between 3:10 and 3:30", now_ns=400 * S)
    assert inside.answer.status == "found" and inside.answer.evidence[0].t_start_ns == 200 * S


@pytest.mark.parametrize("name", ["embedded", "flat", "uniform", "blind"])
def test_the_future_was_not_seen(world: tuple[Memory, Script], name: str) -> None:
    memory, script = world
    found = ask(memory, script, "a car between 10:00 and 11:00", name, now_ns=400 * S)
    assert found.stage == "gate" and found.answer.status == "not_seen" and "future" in found.answer.text
    assert script.asked == [] and found.spent.records == 0


def test_ordinals_choose_by_time(world: tuple[Memory, Script]) -> None:
    memory, script = world
    for question, second in (("the first time a car is there", 200), ("the second time a car is there", 300)):
        assert ask(memory, script, question).answer.evidence[0].t_start_ns == second * S
    assert ask(memory, script, "when was a car last seen?").answer.evidence[0].t_start_ns == 300 * S


def test_before_an_event(world: tuple[Memory, Script]) -> None:
    memory, script = world
    found = ask(memory, script, "what happens before the car?")
    assert found.answer.status == "unsure" and "seen and heard" in found.answer.text
    assert found.answer.closest[0].t_end_ns < 200 * S


# -- several choices


def test_options_are_chosen_by_evidence(world: tuple[Memory, Script]) -> None:
    memory, script = world
    found = ask(memory, script, "what passes?", options=("a boat", "a car", "a cup"))
    assert found.option == 1 and found.answer.status == "found" and found.answer.text.startswith("a car")
    assert abs(sum(found.option_scores) - 1) < 1e-4


def test_a_forced_choice_is_not_a_finding(world: tuple[Memory, Script]) -> None:
    memory, script = world
    found = ask(memory, script, "what passes?", budget="rounds=2", options=("a boat", "a cup"))
    assert found.option in (0, 1) and found.answer.status != "found" and not found.answer.evidence


BAD_OPTIONS = [
    (("a", "b", "A "), "options 1 and 3 are the same"),
    (("a",), "no choice"),
    (("a", " "), "option 2 is empty"),
    (tuple(map(str, range(201))), "at most 200"),
    (("a", "b" * 2000), "option 2 has more"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=[row[1] for row in BAD_OPTIONS])
def test_options_that_are_refused(options: tuple[str, ...], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        Task(question="which?", options=options)


def test_two_hundred_options_within_the_budget(world: tuple[Memory, Script]) -> None:
    memory, script = world
    options = (*(f"a boat of kind {n}" for n in range(199)), "a car")
    found = ask(memory, script, "what passes?", budget="rounds=0", options=options)
    assert found.option == 199 and len(found.option_scores) == 200
    cut = ask(memory, script, "what passes?", budget="records=200,rounds=0", options=options)
    assert "options weren't looked at" in cut.answer.text and len(cut.option_scores) == 200
    assert cut.partial


# -- baselines and the rest


@pytest.mark.parametrize("name", ["embedded", "flat", "uniform", "blind"])
def test_an_empty_memory_and_an_unknown_stream(tmp_path: Path, name: str) -> None:
    with open_words(tmp_path / "empty") as memory:
        found = ask(memory, None, "a car", name)
        assert found.answer.status != "found" and found.stage in ("empty", "blind")
        if name != "blind":
            with pytest.raises(QueryError, match="no stream is called 'porch'"):
                ask(memory, None, "a car", name, streams=("porch",))


def test_uniform_sees_only_its_frames(world: tuple[Memory, Script]) -> None:
    memory, script = world
    assert ask(memory, script, "a car", "uniform", "frames=40").answer.status == "found"
    few = ask(memory, script, "a car", "uniform", "frames=3")
    assert few.answer.status != "found" and few.spent.records == 3


def test_blind_never_claims_to_have_seen(world: tuple[Memory, Script]) -> None:
    memory, script = world
    found = ask(memory, script, "is it a car?", "blind", options=("a car", "a boat"))
    assert found.option == 0 and found.answer.status == "unsure" and not found.answer.evidence
    assert found.spent.records == 0


def test_an_unknown_reasoner_is_named() -> None:
    with pytest.raises(ConfigError, match="no reasoner is called 'clever'"):
        open_reasoner("clever")
    assert {"embedded", "flat", "uniform", "blind"} <= set(STRATEGIES)


# -- budget and state


BAD_BUDGETS = [
    "calls",
    "calls=x",
    "frames=-1",
    "frames=1.5",
    "money=3",
    "calls=1,calls=2",
    "seconds=nan",
    "seconds=inf",
]


@pytest.mark.parametrize("text", BAD_BUDGETS)
def test_budgets_that_are_refused(text: str) -> None:
    with pytest.raises(QueryError, match="budget"):
        Budget.parse(text)


def test_the_purse_counts_seconds_across_a_restart() -> None:
    now = [10.0]
    purse = Purse(Budget(seconds=5.0), Spent(seconds=3.0), lambda: now[0])
    now[0] = 11.5
    assert purse.left("seconds") == 0.5 and purse.exhausted("calls", "seconds") == ""
    now[0] = 12.5
    assert purse.exhausted("calls", "seconds") == "seconds"


periods = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60), st.integers(0, 9)), max_size=40)


@given(periods)
def test_joined_periods_cover_exactly_the_same_instants(raw: list[tuple[str, int, int]]) -> None:
    given_periods = [Period(name, start, start + length) for name, start, length in raw]
    joined = join_periods(given_periods)
    covered = {(p.stream, t) for p in given_periods for t in range(p.t_start_ns, p.t_end_ns + 1)}
    assert {(p.stream, t) for p in joined for t in range(p.t_start_ns, p.t_end_ns + 1)} == covered
    assert len(covered) == sum(p.t_end_ns - p.t_start_ns + 1 for p in joined)


def test_the_state_stays_bounded_and_keeps_the_best_evidence() -> None:
    state = State("q")
    sizes = []
    for number in range(500):
        state.hypotheses.append(Hypothesis(f"claim {number}", tuple(range(number, number + 50)), float(number)))
        state.hypotheses.append(Hypothesis("a claim without evidence", (), 1e9))
        state.visited.append(Period("s", 100 * number, 100 * number + 50))
        state.bound()
        sizes.append(len(state.encode()))
    assert max(sizes) < 6000 and sizes[-1] <= max(sizes[100:200]) * 1.2
    assert state.hypotheses[0].score == 499.0 and all(h.evidence for h in state.hypotheses)
    assert State.decode(state.encode()) == state
