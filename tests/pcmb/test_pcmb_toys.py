"""Acceptance 11: merging keeps what FIFO loses, and the time code tells what came first. Small; the tool does more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import train_pcmb_toys as toys


@pytest.mark.slow
def test_11_cue_and_order() -> None:
    """Goals of issue 4: cue: merge >= 0.95, FIFO and none <= 0.40; order: with time code >= 0.95, without <= 0.70."""
    cue, order, _ = toys.TASKS
    found = toys.run(cue, steps=150, episodes=500, seed=0)
    assert found["merge"] >= 0.95 and max(found["FIFO"], found["no memory"]) <= 0.40
    found = toys.run(order, steps=300, episodes=1200, seed=0)
    assert found["merge"] >= 0.95 and found["merge, no time code"] <= 0.70
    assert max(found["FIFO"], found["no memory"]) <= 0.40


def test_11_what_the_banks_hold_at_the_question() -> None:
    """Without any training: the cue is still in an entry of its own after merging, and in none after FIFO."""
    task = toys.TASKS[0]
    world = toys.World(task.names)
    for consolidation, expected in (("merge", 1.0), ("fifo", 0.0)):
        options = toys.preset("openvla_code", length=task.length, consolidation=consolidation)
        banks = toys.live(task, options, 40, seed=3)
        looks = toys.torch.stack([world.looks[name] for name in task.names])
        # Projection of what an entry adds to the background on the cue that was shown, 1 where it is there alone.
        extra = (banks.entries - world.background).mean(-2)
        shown = looks[banks.answers]
        share = (extra * shown[:, None]).sum(-1).max(-1).values / (shown**2).sum(-1)
        assert share.mean().item() == pytest.approx(expected, abs=0.15)
