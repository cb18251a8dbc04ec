"""Random lives of a memory against a model of three lines: a dict of what was written and not forgotten."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from sample_moments import SECOND, observation, small_config

import streammem.memory
from streammem.memory import Memory


def contents(memory: Memory) -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = {}
    for block in memory.blocks():
        starts = block.t_start_ns
        assert (starts[1:] >= starts[:-1]).all()
        for row in range(len(block)):
            record = block.record(row)
            assert (record.stream, record.seq) not in found, "there twice"
            found[record.stream, record.seq] = record.t_start_ns
    return found


@pytest.mark.parametrize("seed", range(25))
def test_random_life(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    config = small_config(rng.choice((6000, 16384, 1 << 20)), seal_seconds=rng.choice((30.0, 3600.0)))
    model: dict[tuple[str, int], int] = {}
    seen: set[tuple[str, int]] = set()
    states: dict[str, bytes] = {}
    number = 0
    memory = streammem.memory.open(tmp_path, config=config)
    for step in range(40):
        action = rng.random()
        if action < 0.55:
            batch = []
            for _ in range(rng.randint(1, 30)):
                number += 1
                seq = number if rng.random() < 0.9 else rng.randint(1, number)  # now and then a duplicate
                late = rng.randint(-300, 0) if rng.random() < 0.05 else 0
                batch.append(observation(seq, rng.choice(("a", "b")), capture_ns=(seq + late) * SECOND, speech=()))
            receipt = memory.write(batch)
            fresh = 0
            for one in batch:
                if (one.stream, one.seq) not in seen:
                    seen.add((one.stream, one.seq))
                    model[one.stream, one.seq] = one.capture_ns
                    fresh += 1
            assert (receipt.written, receipt.duplicates) == (fresh, len(batch) - fresh)
        elif action < 0.65:
            memory.seal()
        elif action < 0.8:
            digest = memory.digest()
            memory.close()
            memory = streammem.memory.open(tmp_path, config=config)
            assert memory.digest() == digest, f"step {step}"
        elif action < 0.9:
            start = rng.randint(0, number + 1) * SECOND
            end = start + rng.randint(0, 40) * SECOND
            stream = rng.choice(("a", "b", None))
            gone = [key for key, at in model.items() if stream in (key[0], None) and start <= at <= end]
            assert memory.forget(stream=stream, between=(start, end)).observations == len(gone)
            for key in gone:
                del model[key]
        else:
            states[rng.choice("xy")] = value = rng.randbytes(rng.randint(0, 2000))
            memory.put_state(next(key for key, kept in states.items() if kept is value), value)
    assert contents(memory) == model
    assert memory.observation_count == len(model)
    assert {key: memory.get_state(key) for key in states} == states
    assert memory.verify() == []
    with streammem.memory.open(tmp_path, mode="read", config=small_config()) as reader:
        assert contents(reader) == model
        assert reader.digest() == memory.digest()
    memory.close()
    (tmp_path / "catalog.sqlite").unlink()
    with streammem.memory.open(tmp_path, config=config) as again:
        assert contents(again) == model, "rebuilt from manifests"
        assert {key: again.get_state(key) for key in states} == states
