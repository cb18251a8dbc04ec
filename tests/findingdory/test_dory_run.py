"""The runner: resumable, the same numbers every time, bad input; agents have no way to the truth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nav.findingdory import run as runner
from nav.findingdory.agents import Asked, LastVisible, RandomFrame, stated_targets
from nav.findingdory.predicates import FULL
from nav.source import HomeSource
from streammem.errors import InputError

SETTING = runner.Setting(draw="rays", interactions=2, size="18x24")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:  # type: ignore[type-arg]
    out = tmp_path_factory.mktemp("run")
    return out, runner.run([4], ["oracle", "random"], SETTING, out)


def test_the_report(report: tuple[Path, dict]) -> None:  # type: ignore[type-arg]
    out, made = report
    oracle, chance = made["agents"]["oracle"]["all"], made["agents"]["random"]["all"]
    assert oracle["hl_sr"] == 1.0 and oracle["solvable"] >= 45
    assert chance["hl_sr"] < 0.4 and made["agents"]["random"]["failures"]
    assert made["agents"]["oracle"]["by_task"]["40"]["questions"] == 0  # two interactions have nothing between
    assert sum(one["questions"] for one in made["agents"]["oracle"]["by_group"].values()) == oracle["questions"]
    assert json.loads((out / "report.json").read_text()) == made
    text = (out / "report.md").read_text()
    assert "not a FindingDory score" in text and "| Ordered Revisitation |" in text
    assert (out / "pictures" / "4.png").stat().st_size > 5000


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(
    report: tuple[Path, dict],
    monkeypatch: pytest.MonkeyPatch,  # type: ignore[type-arg]
) -> None:
    out, made = report
    ran: list[object] = []
    real = runner.run_episode
    monkeypatch.setattr(runner, "run_episode", lambda *a: ran.append(a) or real(*a))  # type: ignore[func-returns-value]
    assert runner.run([4], ["oracle", "random"], SETTING, out) == made and ran == []
    broken = out / "episodes" / "4-random.json"
    broken.write_text(broken.read_text()[:100])
    again = runner.run([4], ["oracle", "random"], SETTING, out, pictures=False)
    assert len(ran) == 1 and ran[0][1] == ["random"]  # type: ignore[index]
    for name in ("oracle", "random"):
        assert again["agents"][name]["by_task"] == made["agents"][name]["by_task"]


def test_bad_input(tmp_path: Path) -> None:
    assert runner.parse_seeds("0-2,7, 1") == [0, 1, 2, 7]
    for text in ("", "a", "3-1", "1-", "-1"):
        with pytest.raises(InputError, match="episodes"):
            runner.parse_seeds(text)
    with pytest.raises(InputError, match="no agent is called 'genius'"):
        runner.run([4], ["genius"], SETTING, tmp_path)


def test_what_the_words_ask_for() -> None:
    assert stated_targets("Go to any mug.") == 1
    assert stated_targets("Revisit the objects that you moved in this order: the second, then the first.") == 2
    assert stated_targets("Revisit every table that you placed an object on.") == 2


def test_last_visible_says_where_it_last_saw_a_thing() -> None:
    source = HomeSource("4?interactions=2&size=36x48&labels=1&draw=rays", fps=0.02)
    agent = LastVisible()
    agent.reset(0)
    seen: dict[str, int] = {}
    for frame in source.frames():
        agent.see(frame)
        seen.update({one.label: frame.index for one in frame.sensed.detections})
    for label, last in seen.items():
        said = agent.answer(Asked(1, f"Go to a {label}.", len(source.experience.frames)))
        assert said is not None and last - 20 <= said[0] <= last


def test_random_is_where_chance_says() -> None:
    """Its rate on single-goal questions is the mean share of frames that are right."""
    source = HomeSource("4?interactions=2&size=18x24&draw=rays")
    truth, agent = source.experience.truth, RandomFrame()
    agent.reset(1)
    thing = source.experience.interactions[0].object_id
    right = [FULL.holds("object", truth.reading(thing, f)) for f in range(truth.frames)]
    said = [agent.answer(Asked(1, "Go to it.", truth.frames)) for _ in range(4000)]
    rate = sum(right[one[0]] for one in said if one) / len(said)
    assert rate == pytest.approx(sum(right) / len(right), abs=0.02)
