"""What the perceptual-cognitive bank adds, shown on three toy tasks with exact truth; trains in minutes on a CPU.

    python tools/train_pcmb_toys.py [--figure docs/pcmb.png] [--json results.json] [--steps 300] [--seed 0]

cue         24 steps; one of 4 cues in one of the first three, then nothing; which one was it?
order       12 steps; two different cues, one early and one late; which one came first?
shell game  16 steps; a ball under one of three cups, then two swaps of cups; where is it now?

Each with no memory, with a bank that keeps the last entries (FIFO), and with merging, without and with the time code.
The bank is the one that ``attend`` uses (``banks/pcmb``, preset ``openvla_code``: raw tokens are stored, detached). So
what it holds at the question doesn't depend on the reader, and only the reader and a linear head are trained, on the
contents of the banks of a few thousand generated episodes. Accuracy is of other episodes, made with another seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from streammem.banks.pcmb.options import Options, preset
from streammem.banks.pcmb.reader import Given, Read, Retrieval
from streammem.banks.pcmb.tokens import TokenBank
from streammem.banks.pcmb.weights import fresh

D, TOKENS = 32, 4
NOISE = 0.15
BATCH = 64


class Task(NamedTuple):
    """``make(random)`` gives the frames' contents by step (a name or None for nothing) and the answer."""

    name: str
    steps: int
    length: int
    classes: int
    names: tuple[str, ...]
    make: Callable[[np.random.Generator], tuple[dict[int, str], int]]


def cue(random: np.random.Generator) -> tuple[dict[int, str], int]:
    answer = int(random.integers(4))
    return {int(random.integers(3)): f"cue {answer}"}, answer


def order(random: np.random.Generator) -> tuple[dict[int, str], int]:
    first, second = (int(each) for each in random.permutation(4)[:2])
    early, late = int(random.integers(0, 4)), int(random.integers(5, 9))
    return {early: f"cue {first}", late: f"cue {second}"}, first


def shell(random: np.random.Generator) -> tuple[dict[int, str], int]:
    at = int(random.integers(3))
    shown = {int(random.integers(0, 3)): f"ball {at}"}
    for step in (int(random.integers(4, 8)), int(random.integers(9, 13))):
        pair = int(random.integers(3))  # cups pair and pair + 1 (mod 3) change places
        shown[step] = f"swap {pair}"
        cups = (pair, (pair + 1) % 3)
        at = cups[1] if at == cups[0] else cups[0] if at == cups[1] else at
    return shown, at


CUES = tuple(f"cue {each}" for each in range(4))
SHELL = (*(f"ball {each}" for each in range(3)), *(f"swap {each}" for each in range(3)))
TASKS = (
    Task("cue", 24, 4, 4, CUES, cue),
    Task("order", 12, 4, 4, CUES, order),
    Task("shell game", 16, 6, 3, SHELL, shell),
)


class World:
    """What things look like: a background of 4 different tokens, and a direction for each name."""

    def __init__(self, names: tuple[str, ...], seed: int = 7) -> None:
        random = torch.Generator().manual_seed(seed)
        self.background = torch.randn(TOKENS, D, generator=random)
        self.looks = {name: torch.randn(D, generator=random) for name in names}
        self.question = torch.randn(TOKENS, D, generator=random)

    def frame(self, name: str | None, noise: torch.Tensor) -> torch.Tensor:
        shown = self.background if name is None else self.background + self.looks[name]
        return shown + NOISE * noise


class Banks(NamedTuple):
    """``entries`` (episodes, len, 4, 32), ``steps`` (episodes, len), ``answers`` (episodes,)."""

    entries: torch.Tensor
    steps: torch.Tensor
    answers: torch.Tensor


def live(task: Task, options: Options, episodes: int, seed: int) -> Banks:
    """Write whole episodes and keep what the bank holds at the question."""
    world, random = World(task.names), np.random.default_rng([seed, len(task.name)])
    noises = torch.Generator().manual_seed(seed)
    entries, steps, answers = [], [], []
    for _ in range(episodes):
        shown, answer = task.make(random)
        bank = TokenBank(options, TOKENS, D)
        noise = torch.randn(task.steps, TOKENS, D, generator=noises)
        for step in range(task.steps):
            bank.write(step, world.frame(shown.get(step), noise[step]))
        entries.append(bank.live.clone())
        steps.append(bank.live_steps)
        answers.append(answer)
    return Banks(torch.stack(entries), torch.tensor(steps, dtype=torch.float64), torch.tensor(answers))


class Student:
    """The reader, and a linear head on the mean of the fused tokens."""

    def __init__(self, task: Task, options: Options, seed: int, *, memory: bool) -> None:
        torch.manual_seed(seed)
        self.question = World(task.names).question
        self.reader = Retrieval(fresh(D, options, seed=seed), options)
        self.head = torch.nn.Linear(D, task.classes)
        self.memory = memory
        self.parameters = [*self.reader.weights.values(), *self.head.parameters()]
        for each in self.parameters:
            each.requires_grad_(True)

    def answer(self, banks: Banks) -> torch.Tensor:
        """(episodes, classes) logits."""
        x = self.question.expand(len(banks.answers), TOKENS, D)
        if self.memory:
            read = self.reader.read(x, Given(self.reader, banks.entries, banks.steps))
        else:
            read = Read(x, None)
        fused, _ = self.reader.fuse(x, read)
        return self.head(fused.mean(-2))

    def learn(self, banks: Banks, steps: int, seed: int) -> None:
        # Decoupled weight decay: the same few thousand banks come again and again.
        optimiser = torch.optim.AdamW(self.parameters, lr=2e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=steps)
        random = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            chosen = torch.randint(len(banks.answers), (BATCH,), generator=random)
            batch = Banks(banks.entries[chosen], banks.steps[chosen], banks.answers[chosen])
            loss = torch.nn.functional.cross_entropy(self.answer(batch), batch.answers)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            optimiser.step()
            schedule.step()

    def accuracy(self, banks: Banks) -> float:
        with torch.no_grad():
            right = self.answer(banks).argmax(-1) == banks.answers
        return float(right.double().mean())


VARIANTS = ("no memory", "FIFO", "merge, no time code", "merge")


def run(task: Task, *, steps: int, episodes: int, seed: int) -> dict[str, float]:
    """Accuracy of each variant on episodes that weren't trained on."""
    found: dict[str, float] = {}
    for consolidation, variants in (("merge", ("no memory", "merge, no time code", "merge")), ("fifo", ("FIFO",))):
        options = preset("openvla_code", length=task.length, consolidation=consolidation)
        train = live(task, options, episodes, seed)
        test = live(task, options, 1000, seed + 1_000_003)
        for variant in variants:
            own = options.changed(time_code="none") if variant == "merge, no time code" else options
            student = Student(task, own, seed, memory=variant != "no memory")
            student.learn(train, steps, seed)
            found[variant] = student.accuracy(test)
    return {variant: found[variant] for variant in VARIANTS}


def draw(results: dict[str, dict[str, float]], path: Path) -> None:
    """Bars by task; drawn at twice the size and halved, so that edges are smooth."""
    scale, left, top, group = 2, 170, 60, 126
    width, height = 760, top + group * len(results) + 26
    image = np.full((height * scale, width * scale, 3), 255, np.uint8)
    colours = ((190, 190, 190), (120, 160, 230), (150, 190, 110), (90, 120, 30))

    def text(words: str, x: int, y: int, size: float = 0.45, colour: tuple[int, int, int] = (40, 40, 40)) -> None:
        at = (x * scale, y * scale)
        cv2.putText(image, words, at, cv2.FONT_HERSHEY_SIMPLEX, size * scale, colour, scale, cv2.LINE_AA)

    def box(x0: int, y0: int, x1: int, y1: int, colour: tuple[int, int, int]) -> None:
        cv2.rectangle(image, (x0 * scale, y0 * scale), (x1 * scale, y1 * scale), colour, -1, cv2.LINE_AA)

    text("Accuracy at the last step (perceptual-cognitive bank, toy tasks)", 16, 28, 0.55)
    full = 480
    for number, (name, by_variant) in enumerate(results.items()):
        task = next(each for each in TASKS if each.name == name)
        y = top + number * group
        text(name, 16, y + 12, 0.5, (0, 0, 0))
        text(f"{task.steps} steps, {task.length} entries", 16, y + 30, 0.36, (110, 110, 110))
        chance = left + round(full / task.classes)
        for at in range(y - 4, y + 98, 6):
            box(chance, at, chance + 1, at + 3, (60, 60, 200))
        text("chance", chance - 20, y + 110, 0.34, (60, 60, 200))
        for row, variant in enumerate(VARIANTS):
            value, at = by_variant[variant], y + row * 25
            end = left + max(1, round(full * value))
            box(left, at, end, at + 18, colours[row])
            inside = value >= 0.75
            colour = (255, 255, 255) if inside and row == 3 else (40, 40, 40)
            text(f"{variant}  {value:.2f}", left + 8 if inside else max(end, chance) + 8, at + 13, 0.4, colour)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if not cv2.imwrite(str(path), small):
        raise OSError(f"{str(path)!r} can't be written")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Train and measure the toy tasks of the perceptual-cognitive bank.")
    parser.add_argument("--steps", type=int, default=300, help="of training, batches of 64")
    parser.add_argument("--episodes", type=int, default=3000, help="whose banks are trained on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", choices=[task.name for task in TASKS])
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # matrices of 64 x 16 x 32: a second thread only waits
    results: dict[str, Any] = {}
    begun = time.perf_counter()
    for task in TASKS:
        if given.task in (None, task.name):
            factor = 4 if task.name == "shell game" else 1  # 27 combinations instead of 4
            results[task.name] = run(task, steps=given.steps * factor, episodes=given.episodes, seed=given.seed)
            print(task.name, {name: round(value, 3) for name, value in results[task.name].items()}, file=sys.stderr)
    print(f"{time.perf_counter() - begun:.0f} s", file=sys.stderr)
    if given.figure:
        draw(results, given.figure)
    if given.json:
        given.json.write_text(json.dumps({"seed": given.seed, "steps": given.steps, "accuracy": results}, indent=2))
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
