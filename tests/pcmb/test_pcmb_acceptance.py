"""Acceptance checks 1 to 10 and 12 of the mechanism page, section 2.f, by number; 11 is in test_pcmb_toys.py."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pcmb_service import tokens
from torch import Tensor

from streammem.banks.pcmb.episodes import Episodes
from streammem.banks.pcmb.options import PRESETS, Options, preset
from streammem.banks.pcmb.reader import Given, Projected, Read, Retrieval, TrainingFree
from streammem.banks.pcmb.step import Parts
from streammem.banks.pcmb.tokens import TokenBank
from streammem.banks.pcmb.weights import fresh

lives = given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(1, 7),
    writes=st.integers(0, 40),
    n=st.integers(1, 4),
    weighting=st.sampled_from(["equal", "count"]),
    merged_step=st.sampled_from(["earlier", "mean"]),
)


def drifting(seed: int, writes: int, n: int, d: int = 8) -> list[Tensor]:
    """A scene that drifts, jumps and sometimes repeats its last tokens exactly, as a static camera's do."""
    random = np.random.default_rng(seed)
    made: list[Tensor] = []
    now = random.standard_normal((n, d))
    for _ in range(writes):
        kind = random.integers(0, 4)
        now = (
            now
            if kind == 0
            else random.standard_normal((n, d))
            if kind == 1
            else now + 0.3 * random.standard_normal((n, d))
        )
        made.append(torch.from_numpy(now.astype(np.float32)))
    return made


def mean_cosines(entries: Tensor) -> Tensor:
    """(len - 1,) the slow way, in float64, by torch's own function."""
    return torch.nn.functional.cosine_similarity(entries[:-1].double(), entries[1:].double(), dim=-1).mean(-1)


@settings(max_examples=60, deadline=None)
@lives
def test_1_to_4_any_life_of_a_bank(
    seed: int, length: int, writes: int, n: int, weighting: Any, merged_step: Any
) -> None:
    """1 capacity; 2 the right pair; 3 arithmetic, with a shadow of who weighs how much; 4 time."""
    options = Options(length=length, weighting=weighting, merged_step=merged_step)
    bank = TokenBank(options, n, 8)
    shadow: list[dict[int, float]] = []
    given_tokens = drifting(seed, writes, n)
    for step, each in enumerate(given_tokens):
        before = torch.cat((bank.ordered(), each[None]))
        counts = [entry.count for entry in bank.entries] + [1]
        change = bank.write(step, each)
        shadow.append({step: 1.0})
        assert len(bank) == min(step + 1, length)  # 1
        assert (change is None) == (step < length)
        after = bank.ordered()
        if change is None:
            assert torch.equal(after, before)
        else:
            at = change.index
            cosines = mean_cosines(before)
            assert cosines[at] >= cosines.max() - 2e-6  # 2
            exact = [i for i in range(len(cosines)) if torch.equal(before[i], before[i + 1])]
            if exact:
                assert at <= exact[0]  # a tie goes to the first
            share = counts[at] / (counts[at] + counts[at + 1]) if weighting == "count" else 0.5
            if weighting == "equal":
                assert torch.equal(after[at], (before[at] + before[at + 1]) / 2)  # 3: exactly
            others = torch.cat((before[:at], before[at + 2 :]))
            assert torch.equal(torch.cat((after[:at], after[at + 1 :])), others)
            one, two = shadow[at], shadow.pop(at + 1)
            shadow[at] = {k: v * share for k, v in one.items()} | {k: v * (1 - share) for k, v in two.items()}
        steps = [entry.step for entry in bank.entries]
        assert all(a < b for a, b in pairwise(steps))  # 4
        if merged_step == "earlier":
            assert steps[0] == 0.0
    covered: list[int] = []
    for entry, weights in zip(bank.entries, shadow, strict=True):
        assert sum(weights.values()) == pytest.approx(1.0)
        assert sorted(weights) == list(range(entry.first, entry.last + 1))
        assert entry.count == len(weights)
        covered += sorted(weights)
    assert covered == list(range(writes))
    if weighting == "count" and writes:
        total = sum(entry.count * tokens.double() for entry, tokens in zip(bank.entries, bank.ordered(), strict=True))
        assert torch.allclose(total, torch.stack(given_tokens).double().sum(0), atol=1e-4)
        assert sum(entry.count for entry in bank.entries) == writes
    assert not bank.data.requires_grad


def test_2_a_constant_stream_is_absorbed_by_the_first_entry() -> None:
    """Page 2.a.6: with first-tie argmax entry 0 takes everything, the last L - 1 stay apart."""
    bank = TokenBank(Options(length=4), 2, 8)
    for step in range(20):
        bank.write(step, torch.ones(2, 8))
    assert [(entry.first, entry.last) for entry in bank.entries] == [(0, 16), (17, 17), (18, 18), (19, 19)]


def test_3_chained_merges_weigh_the_newest_most() -> None:
    """Page 2.a.6: four frames merged one after another weigh 1/8, 1/8, 1/4, 1/2; by count they weigh the same."""
    for weighting, expected in (("equal", [1 / 8, 1 / 8, 1 / 4, 1 / 2]), ("count", [1 / 4] * 4)):
        bank = TokenBank(Options(length=1, weighting=weighting), 1, 4)  # type: ignore[arg-type]
        for step in range(4):
            bank.write(step, torch.eye(4)[step : step + 1])
        assert bank.ordered()[0, 0].tolist() == pytest.approx(expected)


def test_3_the_cost_of_a_write_does_not_grow_with_the_bank() -> None:
    """Three cosines a write into a full bank, whatever its length; the released code computes L."""
    for length in (8, 64, 512):
        bank = TokenBank(Options(length=length), 2, 8)
        life = drifting(1, length + 50, 2)
        for step, each in enumerate(life[: length + 1]):
            bank.write(step, each)
        full = bank.cosines
        for step, each in enumerate(life[length + 1 :], length + 1):
            bank.write(step, each)
        assert bank.cosines - full <= 3 * 49
        assert full == length


def test_fifo_keeps_the_last() -> None:
    bank = TokenBank(Options(length=3, consolidation="fifo"), 1, 4)
    for step in range(10):
        change = bank.write(step, torch.full((1, 4), float(step)))
        assert change is None or (change.kind, change.index) == ("dropped", 0)
    assert bank.ordered()[:, 0, 0].tolist() == [7.0, 8.0, 9.0]
    assert [entry.first for entry in bank.entries] == [7, 8, 9]
    assert (bank.merges, bank.drops, bank.cosines) == (0, 7, 0)


# -- retrieval

PRESET = pytest.mark.parametrize("name", list(PRESETS))


def learned(name: str, d: int = 16, *, seed: int = 0, **changes: Any) -> Retrieval:
    options = preset(name, length=4, **changes)
    return Retrieval(fresh(d, options, seed=seed), options)


def episodes(name: str, **changes: Any) -> Episodes:
    reader = learned(name, **changes)
    return Episodes(
        lambda: Parts(reader.options, {"perceptual": reader, "cognitive": learned(name, seed=1, **changes)})
    )


@PRESET
def test_5_no_self_retrieval(name: str) -> None:
    """Changing what is written at step t changes only the outputs after t."""
    plain, changed = episodes(name), episodes(name)
    for step in range(10):
        x = tokens(step)
        one = plain.attend("a", step, x).perceptual
        two = changed.attend("a", step, tokens(100) if step == 5 else x).perceptual
        if step != 5:
            assert np.array_equal(one, two) == (step < 5)


@PRESET
def test_5_the_output_does_not_depend_on_the_write_of_its_step(name: str) -> None:
    reader = learned(name, stored="raw", empty="skip")
    bank = TokenBank(reader.options, 4, 16)
    projected = Projected(reader, bank)
    for step in range(3):
        bank.write(step, torch.from_numpy(tokens(step)))
    x = torch.from_numpy(tokens(3))
    suppressed = reader.fuse(x, reader.read(x, projected))[0]
    whole = episodes(name, stored="raw", empty="skip")
    for step in range(4):
        done = whole.attend("a", step, tokens(step)).perceptual
    np.testing.assert_allclose(done, suppressed.numpy(), atol=1e-6)


@pytest.mark.parametrize("time_code", ["none", "sinusoid", "learned"])
def test_6_keys_carry_time_and_values_do_not(time_code: Any) -> None:
    reader = learned("openvla_code", time_code=time_code)
    if time_code == "learned":
        # Fresh time codes are near zero on purpose; a trained one isn't.
        reader.weights["timestep_encoder.mlp.2.weight"].mul_(50)
    entries = torch.stack([torch.from_numpy(tokens(step)) for step in range(4)])
    steps, query = torch.tensor([0.0, 3.0, 11.0, 40.0]), torch.from_numpy(tokens(9))
    order, inside = [2, 0, 3, 1], [3, 1, 0, 2]

    def output(some: Tensor, at: Tensor) -> Tensor:
        return reader.read(query, Given(reader, some, at)).output

    plain = output(entries, steps)
    assert torch.allclose(output(entries[order], steps[order]), plain, atol=1e-5)
    assert torch.allclose(output(entries[:, inside], steps), plain, atol=1e-5)
    same = torch.allclose(output(entries[order], steps), plain, atol=1e-5)
    assert same == (time_code == "none")


def test_6_the_time_code_itself() -> None:
    """All cosines, then all sines, base 10,000, against the formula written out."""
    from streammem.banks.pcmb.reader import sinusoid

    found = sinusoid(torch.tensor([0.0, 1.0, 7.5]), 6)
    for row, t in zip(found.tolist(), (0.0, 1.0, 7.5), strict=True):
        angles = [t / 10_000 ** (i / 3) for i in range(3)]
        assert row == pytest.approx([*np.cos(angles), *np.sin(angles)], abs=1e-6)


@pytest.mark.parametrize("heads", [1, 4])
def test_7_values_are_pure(heads: int) -> None:
    """With W_v the identity, what attention gives (before residual and norm) is a convex mixture of the entries."""
    reader = learned("openvla_code", heads=heads)
    d = reader.d
    reader.weights["retrieval_blocks.0.v_proj.weight"].copy_(torch.eye(d))
    reader.weights["retrieval_blocks.0.v_proj.bias"].zero_()
    reader.weights["timestep_encoder.mlp.2.weight"].mul_(100)
    entries = torch.rand(5, 4, d)
    keys, values = reader.project(entries, torch.arange(5.0))[0]
    assert torch.equal(values, entries)
    assert not torch.allclose(keys, reader.project(entries, torch.arange(5.0) + 9)[0][0])
    q = torch.randn(4, d) * 3
    exact, shares = reader._attend(q, keys, values, True)
    fast, _ = reader._attend(q, keys, values, False)
    assert torch.allclose(exact, fast, atol=1e-5) and shares is not None
    assert shares.sum().item() == pytest.approx(1.0, abs=1e-5)
    flat = entries.flatten(0, 1)
    assert bool((exact >= flat.min(0).values - 1e-6).all() and (exact <= flat.max(0).values + 1e-6).all())
    if heads == 1:
        weights = torch.softmax(q @ keys.flatten(0, 1).T / d**0.5, -1)
        assert torch.allclose(exact, weights @ flat, atol=1e-5)


def test_7_a_layer_against_torch_s_own_modules() -> None:
    """Two layers as torch.nn builds them, from the same parameters."""
    reader = learned("dexbotic_code", d=16, dropout=0.0)
    weights = reader.weights
    entries, steps, x = torch.randn(3, 4, 16), torch.tensor([0.0, 2.0, 5.0]), torch.randn(4, 16)
    out = x
    for layer in range(2):
        block = f"retrieval_blocks.{layer}"
        attention = torch.nn.MultiheadAttention(16, 4, batch_first=True)
        with torch.no_grad():
            names = ("q_proj", "k_proj", "v_proj")
            attention.in_proj_weight.copy_(torch.cat([weights[f"{block}.{name}.weight"] for name in names]))
            attention.in_proj_bias.copy_(torch.cat([weights[f"{block}.{name}.bias"] for name in names]))
            attention.out_proj.weight.copy_(torch.eye(16))
            attention.out_proj.bias.zero_()
            keyed = entries + reader.time_code(steps)[:, None]
            found, _ = attention(out[None], keyed.flatten(0, 1)[None], entries.flatten(0, 1)[None])
            functional = torch.nn.functional
            one = functional.layer_norm(out + found[0], (16,))
            hidden = functional.gelu(one @ weights[f"{block}.ffn.0.weight"].T + weights[f"{block}.ffn.0.bias"])
            ffn = hidden @ weights[f"{block}.ffn.2.weight"].T + weights[f"{block}.ffn.2.bias"]
            out = functional.layer_norm(one + ffn, (16,))
    assert torch.allclose(reader.read(x, Given(reader, entries, steps)).output, out, atol=1e-5)


@pytest.mark.parametrize(("d", "spread"), [(256, 0.006), (4096, 0.023)])
def test_8_the_gate_starts_near_one_half(d: int, spread: float) -> None:
    """Page 2.f.8: standard deviation about 0.006 at d = 256 and 0.023 at d = 4,096 for inputs of unit scale."""
    options = Options()
    random = torch.Generator().manual_seed(3)
    proj = {
        "gate_fusion_blocks.proj.weight": torch.randn(64, 2 * d, generator=random) * 1e-3,
        "gate_fusion_blocks.proj.bias": torch.randn(64, generator=random) * 1e-3,
    }
    x = torch.randn(50, 2 * d, generator=random)
    gate = torch.sigmoid(x @ proj["gate_fusion_blocks.proj.weight"].T + proj["gate_fusion_blocks.proj.bias"])
    assert gate.std().item() == pytest.approx(spread, rel=0.15)
    assert gate.mean().item() == pytest.approx(0.5, abs=0.002)
    if d == 256:
        reader = Retrieval(fresh(d, options, seed=0), options)
        x, h = torch.randn(50, d, generator=random), torch.randn(50, d, generator=random)
        fused, gate = reader.fuse(x, Read(h, None))
        assert gate.std().item() == pytest.approx(spread, rel=0.15)
        assert bool(((gate > 0) & (gate < 1)).all())
        low, high = torch.minimum(x, h), torch.maximum(x, h)
        assert bool(((fused >= low - 1e-6) & (fused <= high + 1e-6)).all())


def test_8_orientation_of_the_gate() -> None:
    """The flag flips g to 1 - g: with negated weights the output is the same."""
    one, two = learned("openvla_code"), learned("openvla_code", gate_weighs="memory")
    for name in ("weight", "bias"):
        two.weights[f"gate_fusion_blocks.proj.{name}"].mul_(-300)
        one.weights[f"gate_fusion_blocks.proj.{name}"].mul_(300)
    x, h = torch.randn(4, 16), torch.randn(4, 16)
    (fused, gate), (other, flipped) = one.fuse(x, Read(h, None)), two.fuse(x, Read(h, None))
    assert torch.allclose(gate, 1 - flipped, atol=1e-6) and gate.std() > 0.05
    assert torch.allclose(fused, other, atol=1e-5)
    assert torch.equal(one.fuse(x, Read(x, None))[0], x)


def test_8_an_empty_bank() -> None:
    x = tokens(0)
    np.testing.assert_array_equal(episodes("openvla_code").attend("a", 0, x).perceptual, x)
    np.testing.assert_array_equal(episodes("paper").attend("a", 0, x).perceptual, x)
    itself = episodes("dexbotic_code").attend("a", 0, x).perceptual
    reader = learned("dexbotic_code")
    t = torch.from_numpy(x)
    expected = reader.fuse(t, reader.read(t, Given(reader, t[None], torch.zeros(1))))[0]
    np.testing.assert_array_equal(itself, expected.numpy())
    assert not np.array_equal(itself, x)


def test_8_add_is_the_average() -> None:
    reader = learned("openvla_code", fusion="add")
    x, h = torch.randn(4, 16), torch.randn(4, 16)
    assert torch.equal(reader.fuse(x, Read(h, None))[0], 0.5 * (x + h))


@PRESET
def test_9_streams_are_independent(name: str) -> None:
    """The perceptual stream beside a cognitive one that is constant, and beside one that changes: the same."""
    alone, beside = episodes(name), episodes(name)
    for step in range(12):
        cognitive = np.ones((1, 16), np.float32)
        one = alone.attend("a", step, tokens(step), cognitive)
        two = beside.attend("a", step, tokens(step), tokens(step, 1))
        np.testing.assert_array_equal(one.perceptual, two.perceptual)
    done = beside.attend("a", 12, tokens(12), tokens(12, 1), attention=True)
    looked = [stream.attention for stream in done.summary.streams.values()]
    assert looked[0] is not None and looked[1] is not None
    assert looked[0].counts != looked[1].counts


@PRESET
def test_10_isolation_and_determinism(name: str) -> None:
    """Clearing one episode leaves others as they are; interleaved is as sequential; nothing requires a gradient."""
    mixed, alone = episodes(name), episodes(name)
    reader = mixed._make().readers["perceptual"]
    assert isinstance(reader, Retrieval)
    among: dict[str, list[np.ndarray]] = {"a": [], "b": []}
    for step in range(8):
        for episode, seed in (("a", 1), ("b", 2)):
            if episode == "b" or step < 5:
                among[episode].append(mixed.attend(episode, step, tokens(step, seed=seed)).perceptual)
        if step == 4:
            mixed.end("a")
    for episode, seed, steps in (("b", 2, 8), ("a", 1, 5)):
        for step in range(steps):
            again = alone.attend(episode, step, tokens(step, seed=seed)).perceptual
            np.testing.assert_array_equal(again, among[episode][step])
    held = mixed._open["b"]
    for weight in reader.weights.values():
        weight.requires_grad_(True)
    mixed.attend("b", 8, tokens(8, seed=2))
    for bank in held.banks.values():
        assert not bank.data.requires_grad
    assert not any(each.requires_grad for each in held.fused.values())


def test_10_the_dropout_defect_is_off_unless_asked() -> None:
    x, entries, steps = torch.randn(4, 16), torch.randn(3, 4, 16), torch.arange(3.0)
    for asked in (False, True):
        reader = learned("dexbotic_code", attention_dropout_always=asked)
        made = Given(reader, entries, steps)
        torch.manual_seed(0)
        one = reader.read(x, made).output
        assert torch.equal(one, reader.read(x, made).output) != asked
    reader.training = True
    assert not torch.equal(reader.read(x, made).output, reader.read(x, made).output)


def test_the_substitute_finds_what_resembles() -> None:
    """No weights: the share goes to the entry that looks like the query; asking for the shares changes nothing."""
    entries = torch.stack([torch.from_numpy(tokens(step)) for step in range(6)])
    for gate in ("half", "attention"):
        reader = TrainingFree(gate=gate)
        made = Given(reader, entries, torch.arange(6.0))
        plain, told = reader.read(entries[4], made), reader.read(entries[4], made, attention=True)
        assert torch.allclose(plain.output, told.output, atol=1e-5) and told.attention is not None
        assert int(told.attention.argmax()) == 4 and told.attention[4] > 0.8
        fused, share = reader.fuse(entries[4], told)
        assert share.max() == share.min() == (0.5 if gate == "half" else told.attention.max())
        low, high = entries.flatten(0, 1).min(0).values, entries.flatten(0, 1).max(0).values
        assert bool(((fused >= low - 1e-5) & (fused <= high + 1e-5)).all())


@pytest.mark.parametrize("name", [*PRESETS, "substitute"])
def test_an_episode_never_holds_more_than_it_reserved(name: str) -> None:
    here = (
        episodes(name) if name in PRESETS else Episodes(lambda: Parts(Options(length=4), {}, fallback=TrainingFree()))
    )
    for step in range(9):
        here.attend("a", step, tokens(step), tokens(step, 1), attention=step % 2 == 0)
    held = here._open["a"]
    parts = [*held.banks.values(), *held.projected.values(), *held.inputs.values(), *held.fused.values()]
    assert 0.9 * held.reserved < sum(part.nbytes for part in parts) <= held.reserved


def test_12_training_that_never_merged() -> None:
    """A group no longer than the bank makes no merge; inference that merges after such a training warns, once."""
    reader = TrainingFree()
    for trained, expected in ((False, 1), (True, 0), (None, 0)):
        here = Episodes(
            lambda trained=trained: Parts(Options(length=4), {}, fallback=reader, trained_merges=trained)  # type: ignore[misc]
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for step in range(4):
                here.attend("group", step, tokens(step))
            assert here.open()[0].merges == {"perceptual": 0} and not caught
            for step in range(4, 8):
                here.attend("group", step, tokens(step))
        assert here.open()[0].merges == {"perceptual": 4}
        assert [("in training it never did" in str(each.message)) for each in caught] == [True] * expected


@PRESET
def test_projections_are_kept_where_nothing_changed(name: str) -> None:
    """The same output as projecting every entry anew, to float32's rounding, with two projections a write."""
    reader = learned(name)
    bank = TokenBank(reader.options, 4, 16)
    kept = Projected(reader, bank)
    for step, each in enumerate(drifting(5, 30, 4, 16)):
        if len(bank):
            anew = Given(reader, bank.ordered(), torch.tensor([entry.step for entry in bank.entries]).double())
            x = torch.from_numpy(tokens(step))
            assert torch.allclose(reader.read(x, kept).output, reader.read(x, anew).output, atol=1e-5)
        bank.write(step, each)
    assert kept.projections <= 2 * 30
