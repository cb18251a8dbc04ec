"""What the perceptual-cognitive bank costs, against the released code's loop, in one run. Prints one JSON document.

    streammem bench pcmb [--writes 60] [--device cpu] [--threads 1]

``write``: one write into a full bank, for several sizes of tokens and lengths: ``ours`` (adjacent cosines kept, three
new ones a write) beside ``naive`` (all of them again, one call and one synchronisation each, as in the released code),
``naive_per_ours`` their ratio. Both do the same merges, which is checked. ``attend``: a policy's step with a full bank
and untrained weights of the released shape: ``kept`` projections beside projecting every entry anew. ``observe``: the
bank of a stream, per moment with 64 tokens and a vector of 384. Medians; the contestants take turns. On one CPU thread
they are of that thread's processor time, so that other jobs on the machine cost caches and clock rate, but no waiting.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from streammem.cli.output import write_document

if TYPE_CHECKING:
    from torch import Tensor

SIZES = ((64, 384), (256, 256), (1, 4096))
"""(tokens, d): the embedded default's at 64 tokens, the paper's perceptual and cognitive streams."""
LENGTHS = (16, 64, 256)


class NaiveBank:
    """The consolidation of the released code as the mechanism page describes it, written by us: a list of entries, and
    for every write into a full bank all adjacent cosines, one call and one number fetched each."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.entries: list[Tensor] = []

    def write(self, tokens: Tensor) -> int | None:
        from torch.nn import functional

        self.entries.append(tokens.detach().clone())
        if len(self.entries) <= self.length:
            return None
        near = []
        for one, two in zip(self.entries[:-1], self.entries[1:], strict=True):
            near.append(functional.cosine_similarity(one, two, dim=-1).mean().item())
        at = max(range(len(near)), key=near.__getitem__)
        self.entries[at] = (self.entries[at] + self.entries.pop(at + 1)) / 2
        return at


def timed(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    """(milliseconds, result): by the clock on an accelerator, the thread's own processor time on one CPU thread."""
    import torch

    if device == "cpu" and torch.get_num_threads() == 1:
        begun = time.thread_time()
        result = work()
        return 1e3 * (time.thread_time() - begun), result
    begun = time.perf_counter()
    result = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - begun), result


def scene(count: int, n: int, d: int, device: str) -> Tensor:
    """(count, n, d): tokens that drift, as a camera's do."""
    import torch

    random = torch.Generator().manual_seed(0)
    moves = torch.randn(count, n, d, generator=random)
    moves[1:] *= 0.2
    return moves.cumsum(0).to(device)


def bench_write(n: int, d: int, length: int, writes: int, device: str) -> dict[str, float | int]:
    from streammem.banks.pcmb.options import Options
    from streammem.banks.pcmb.tokens import TokenBank

    tokens = scene(length + 4 + writes, n, d, device)
    ours, naive = TokenBank(Options(length=length), n, d, device=device), NaiveBank(length)
    times: tuple[list[float], list[float]] = ([], [])
    agreed = 0
    for step, each in enumerate(tokens):
        if step < length:
            ours.write(step, each)
            naive.entries.append(each.clone())
            continue
        one, change = timed(lambda step=step, each=each: ours.write(step, each), device)  # type: ignore[misc]
        two, at = timed(lambda each=each: naive.write(each), device)  # type: ignore[misc]
        if step >= length + 4:  # the first fills the cache of cosines
            times[0].append(one)
            times[1].append(two)
        agreed += change is not None and change.index == at
    mine, theirs = statistics.median(times[0]), statistics.median(times[1])
    return {
        "tokens": n,
        "d": d,
        "length": length,
        "ours_ms": mine,
        "naive_ms": theirs,
        "naive_per_ours": theirs / mine,
        "same_merges": agreed / (4 + writes),
    }


def bench_attend(n: int, d: int, length: int, writes: int, device: str) -> dict[str, float | int]:
    import torch

    from streammem.banks.pcmb.options import preset
    from streammem.banks.pcmb.reader import Given, Projected, Retrieval
    from streammem.banks.pcmb.tokens import TokenBank
    from streammem.banks.pcmb.weights import fresh

    options = preset("openvla_code", length=length)
    weights = {name: each.to(device) for name, each in fresh(d, options, seed=0).items()}
    reader, bank = Retrieval(weights, options), TokenBank(options, n, d, device=device)
    kept = Projected(reader, bank)
    times: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        for step, each in enumerate(scene(length + 4 + writes, n, d, device)):
            if step >= length:

                def anew(each: Tensor = each) -> Any:
                    steps = torch.tensor(bank.live_steps, dtype=torch.float64, device=device)
                    return reader.read(each, Given(reader, bank.live, steps))

                one, _ = timed(lambda each=each: reader.fuse(each, reader.read(each, kept)), device)  # type: ignore[misc]
                two, _ = timed(lambda each=each, anew=anew: reader.fuse(each, anew()), device)  # type: ignore[misc]
                if step >= length + 4:
                    times[0].append(one)
                    times[1].append(two)
            bank.write(step, each)
    mine, theirs = statistics.median(times[0]), statistics.median(times[1])
    return {"tokens": n, "d": d, "length": length, "kept_ms": mine, "anew_ms": theirs, "anew_per_kept": theirs / mine}


def bench_observe(writes: int) -> dict[str, float]:
    """The bank of a stream as ``Memory.write`` drives it, without the journal."""
    from dataclasses import replace

    from streammem.banks.perceptual_cognitive import PerceptualCognitiveBank
    from streammem.config import PerceptualCognitiveConfig
    from streammem.model import Record

    bank = PerceptualCognitiveBank(PerceptualCognitiveConfig(on=True))
    base = Record(record_id=1, bank="moments", stream="cam", t_start_ns=0, t_end_ns=0)
    tokens = scene(writes + 40, 64, 384, "cpu").numpy().astype(np.float16)
    times = []
    for at, each in enumerate(tokens):
        record = replace(
            base, record_id=at, t_start_ns=at, t_end_ns=at, arrays={"tokens": each}, vector=each[0].astype(np.float32)
        )
        spent, _ = timed(lambda record=record: bank.observe(record), "cpu")  # type: ignore[misc]
        if at >= 40:
            times.append(spent)
    state, _ = timed(lambda: bank.state("cam"), "cpu")
    return {
        "moment_ms": statistics.median(times),
        "state_ms": state,
        "state_bytes": len(bank.state("cam")),
        "ram_bytes": bank.ram_bytes(),
    }


def main(arguments: list[str], as_json: bool = False) -> int:
    import torch

    parser = argparse.ArgumentParser("streammem bench pcmb", description="Cost of the perceptual-cognitive bank.")
    parser.add_argument("--writes", type=int, default=60)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    device = given.device
    where = torch.cuda.get_device_name() if device != "cpu" else f"cpu, {given.threads} thread(s)"
    result = {
        "device": where,
        "torch": torch.__version__,
        "write": [bench_write(n, d, length, given.writes, device) for n, d in SIZES for length in LENGTHS],
        "attend": [
            bench_attend(n, d, length, min(given.writes, 20), device)
            for n, d, length in ((64, 384, 16), (256, 256, 16))
        ],
        "observe": bench_observe(given.writes),
    }
    if as_json:
        write_document(result)
    else:
        print(json.dumps(result, indent=2))
    return 0
