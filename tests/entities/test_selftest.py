"""``streammem selftest`` in CI: floors hold, the naive memory fails, and a broken memory is caught."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streammem.banks import history
from streammem.selftest import examine, f1, kendall_tau


def test_floors_hold_and_mean_something() -> None:
    report = examine(seed=0, events=120, questions=30)
    assert report.passed, [ability for ability in report.abilities if not ability.passed]
    assert len(report.abilities) == 8
    assert {"0", "1", "2", "3-5"} <= set(report.bins)
    naive = {ability.name: ability.naive for ability in report.abilities}
    assert naive["latest state"] is not None and naive["latest state"] < 0.8
    assert naive["value at a past time"] is not None and naive["value at a past time"] < 0.9
    assert examine(seed=0, events=120, questions=30).digest == report.digest


def test_a_memory_that_believes_everything_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    add = history.History.add

    def believe(self: history.History, said: history.Statement, settle_ns: int, window_ns: int) -> None:
        add(self, msgspec.structs.replace(said, confidence=1.0), settle_ns, window_ns)

    monkeypatch.setattr(history.History, "add", believe)
    report = examine(seed=0, events=60, questions=10)
    assert not report.passed


def test_the_command() -> None:
    command = [sys.executable, "-m", "streammem", "selftest", "--events", "40", "--questions", "5", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    document = json.loads(done.stdout)
    assert done.returncode == 0 and document["passed"], document
    assert {ability["name"] for ability in document["abilities"]} >= {"order", "latest state", "count visits"}


@given(st.permutations("abcde"), st.permutations("abcde"))
def test_kendall_tau(one: list[str], two: list[str]) -> None:
    assert kendall_tau(one, one) == 1
    assert kendall_tau(one, one[::-1]) == -1
    assert kendall_tau(one, two) == kendall_tau(two, one)
    assert kendall_tau(one, two[:-1]) == 0, "an incomplete order is worth nothing"


def test_f1() -> None:
    assert f1(set(), set()) == 1
    assert f1({"a"}, set()) == 0
    assert f1({"a", "b"}, {"a"}) == pytest.approx(2 / 3)
