"""Retrieval and fusion for one stream: what the current tokens make of what the bank holds (MemoryVLA, section 3.3).

    keys    K = W_k [m_1 + TE(t_1); ...; m_L + TE(t_L)]      the time code is in the keys only
    values  V = W_v [m_1; ...; m_L]
    layer   x = LN(q + attention(W_q q, K, V));  out = LN(x + FFN(x))      post-norm, no output projection
    gate    g = sigmoid(W [x; H] + b);  fused = g x + (1 - g) H             or the other way round

Every layer reads the same raw entries with projections of its own; the next layer's query is the last one's output.
``W_k`` and ``W_v`` of an entry don't change until the entry does, so ``Projected`` keeps them: a step projects the
entries that the last write touched, one or two, and not all L.

``TrainingFree`` has the same interface and no parameters. It is a substitute, not MemoryVLA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from streammem.banks.pcmb.options import Options
from streammem.banks.pcmb.tokens import TokenBank

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MOST_SCORES = 1 << 22
"""Scores in memory at a time where the attention itself is asked for: 16 MB, whatever the bank's length."""

Weights = Mapping[str, "Tensor"]
"""By the released names without the bank's own: ``retrieval_blocks.0.q_proj.weight``, ``gate_fusion_blocks.proj.bias``,
``timestep_encoder.mlp.2.weight`` ..."""


class Read(NamedTuple):
    """``output`` (..., n, d) is H. ``attention`` (..., len) sums to 1: the share of each slot, mean over queries and
    heads of the last layer; None where it wasn't asked for."""

    output: Tensor
    attention: Tensor | None


class Reader(Protocol):
    """Retrieval and fusion over a bank. ``name`` says what it is in every answer."""

    name: str

    def read(self, query: Tensor, projected: Projected | Given, *, attention: bool = False) -> Read: ...

    def project(self, entries: Tensor, steps: Tensor) -> list[tuple[Tensor, Tensor]]: ...

    def fuse(self, tokens: Tensor, read: Read) -> tuple[Tensor, Tensor]: ...


class Projected:
    """Keys and values of a bank's slots, a pair of (L, n, d) a layer; only what changed is projected again."""

    def __init__(self, reader: Reader, bank: TokenBank) -> None:
        self._reader, self._bank = reader, bank
        self._kept: list[tuple[Tensor, Tensor]] = []
        self.projections = 0
        bank.changed = set(range(len(bank)))

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for pair in self._kept for part in pair)

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the live slots, each (len, n, d)."""
        import torch

        bank = self._bank
        todo = sorted(slot for slot in bank.changed if slot < len(bank))
        if todo:
            steps = bank.live_steps
            where = torch.tensor(todo, device=bank.data.device)
            chosen = torch.tensor([steps[slot] for slot in todo], dtype=torch.float64, device=bank.data.device)
            made = self._reader.project(bank.data[where], chosen)
            if not self._kept:
                room = (bank.options.length, *bank.shape)
                self._kept = [(one.new_zeros(room), two.new_zeros(room)) for one, two in made]
            for (keys, values), (new_keys, new_values) in zip(self._kept, made, strict=True):
                keys[where], values[where] = new_keys, new_values
            self.projections += len(todo)
        bank.changed.clear()
        if not len(bank):
            return []
        return [(keys[: len(bank)], values[: len(bank)]) for keys, values in self._kept]


class Given:
    """Entries without a bank, for training: (..., len, n, d) with steps (..., len), any number of episodes at once."""

    def __init__(self, reader: Reader, entries: Tensor, steps: Tensor) -> None:
        self._made = reader.project(entries, steps)

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        return self._made


class Retrieval:
    """The learned reader. ``training`` turns the preset's dropout on; gradients flow into the weights only."""

    name = "learned"

    def __init__(self, weights: Weights, options: Options) -> None:
        self.weights, self.options = weights, options
        self.training = False

    @property
    def d(self) -> int:
        return int(self.weights["retrieval_blocks.0.q_proj.weight"].shape[0])

    def project(self, entries: Tensor, steps: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values (..., len, n, d) of every layer for entries (..., len, n, d) at steps (..., len)."""
        keyed = entries
        if self.options.time_code != "none":
            keyed = entries + self.time_code(steps, entries.dtype)[..., None, :]
        return [
            (self._linear(f"{block}.k_proj", keyed), self._linear(f"{block}.v_proj", entries))
            for block in self._blocks()
        ]

    def time_code(self, steps: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """(..., len) steps -> (..., len, d)."""
        import torch
        from torch.nn import functional

        dtype = dtype or torch.float32
        if self.options.time_code == "sinusoid":
            return sinusoid(steps, self.d).to(dtype)
        code = sinusoid(steps, int(self.weights["timestep_encoder.mlp.0.weight"].shape[1])).to(dtype)
        return self._linear("timestep_encoder.mlp.2", functional.silu(self._linear("timestep_encoder.mlp.0", code)))

    def read(self, query: Tensor, projected: Projected | Given, *, attention: bool = False) -> Read:
        """Query (..., n, d). An empty bank gives the query itself back; for ``empty="self"`` give the query
        as the only entry."""
        from torch.nn import functional

        layers = projected.layers()
        shares: Tensor | None = None
        out = query
        for block, (keys, values) in zip(self._blocks(), layers, strict=False):
            last = block == f"retrieval_blocks.{self.options.layers - 1}"
            found, shares = self._attend(self._linear(f"{block}.q_proj", out), keys, values, attention and last)
            x = self._norm(f"{block}.attn_norm", out + found)
            hidden = self._dropout(functional.gelu(self._linear(f"{block}.ffn.0", x)))
            out = self._norm(f"{block}.ffn_norm", x + self._dropout(self._linear(f"{block}.ffn.2", hidden)))
        return Read(out, shares)

    def fuse(self, tokens: Tensor, read: Read) -> tuple[Tensor, Tensor]:
        """``(fused, gate)``, both (..., n, d). The gate is of the side that ``gate_weighs`` names; 0.5 for ``add``."""
        import torch

        h = read.output
        if self.options.fusion == "add":
            return 0.5 * (tokens + h), torch.full_like(tokens, 0.5)
        x = torch.cat((tokens, h), dim=-1)
        if self.options.gate_layers == 2:
            x = torch.nn.functional.silu(self._linear("gate_fusion_blocks.hidden", x))
        g = torch.sigmoid(self._linear("gate_fusion_blocks.proj", x))
        one, two = (h, tokens) if self.options.gate_weighs == "memory" else (tokens, h)
        # Written as a step from one side to the other, an element where both agree stays exactly there.
        return two + g * (one - two), g

    # -- parts

    def _blocks(self) -> list[str]:
        return [f"retrieval_blocks.{layer}" for layer in range(self.options.layers)]

    def _linear(self, name: str, x: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.layer_norm(
            x, (x.shape[-1],), self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        )

    def _dropout(self, x: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.dropout(x, self.options.dropout, self.training)

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, shares: bool) -> tuple[Tensor, Tensor | None]:
        """q (..., n, d), keys and values (..., len, N, d) -> (..., n, d)."""
        from torch.nn import functional

        heads, entries = self.options.heads, keys.shape[-3]
        split = [_heads(part, heads) for part in (q, keys.flatten(-3, -2), values.flatten(-3, -2))]
        drop = self.options.dropout if self.training or self.options.attention_dropout_always else 0.0
        if not shares:
            found = functional.scaled_dot_product_attention(split[0], split[1], split[2], dropout_p=drop)
            return _join(found), None
        found, mass = soft_read(*split, scale=1.0 / math.sqrt(split[0].shape[-1]), entries=entries, dropout=drop)
        return _join(found), mass.mean(-2).mean(-2)


class TrainingFree:
    """A substitute for where there are no weights: identity projections, one head, softmax over cosine / temperature,
    raw entries as values, a fixed gate. It finds what resembles the present; it has learned nothing about what
    matters, and it has no time code. ``gate`` "half" is what the learned gate starts from (0.5); "attention" takes the
    largest share of attention that any entry got as the share of the memory."""

    name = "training-free substitute"

    def __init__(self, *, temperature: float = 0.1, gate: str = "half") -> None:
        self.temperature, self.gate = temperature, gate

    def project(self, entries: Tensor, steps: Tensor) -> list[tuple[Tensor, Tensor]]:
        from torch.nn import functional

        return [(functional.normalize(entries, dim=-1), entries)]

    def read(self, query: Tensor, projected: Projected | Given, *, attention: bool = False) -> Read:
        from torch.nn import functional

        layers = projected.layers()
        if not layers:
            return Read(query, None)
        ((keys, values),) = layers
        q = functional.normalize(query, dim=-1)
        parts = (q, keys.flatten(-3, -2), values.flatten(-3, -2))
        if not attention and self.gate == "half":
            # torch's own, without the weights; it wants a dimension of heads.
            one, two, three = (part[..., None, :, :] for part in parts)
            found = functional.scaled_dot_product_attention(one, two, three, scale=1.0 / self.temperature)
            return Read(found[..., 0, :, :], None)
        found, mass = soft_read(*parts, scale=1.0 / self.temperature, entries=keys.shape[-3])
        return Read(found, mass.mean(-2))

    def fuse(self, tokens: Tensor, read: Read) -> tuple[Tensor, Tensor]:
        import torch

        share = 0.5
        if self.gate == "attention" and read.attention is not None:
            share = float(read.attention.max())
        return tokens + share * (read.output - tokens), torch.full_like(tokens, share)


def sinusoid(steps: Tensor, features: int) -> Tensor:
    """(..., len) steps -> (..., len, features) float32: all cosines, then all sines, base 10,000."""
    import torch

    half = features // 2
    powers = torch.arange(half, dtype=torch.float64, device=steps.device) / half
    angles = steps.double()[..., None] * torch.exp(-math.log(10_000.0) * powers)
    return torch.cat((angles.cos(), angles.sin()), dim=-1).float()


def soft_read(
    q: Tensor, keys: Tensor, values: Tensor, *, scale: float, entries: int, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Attention with its weights: q (..., n, d) over (..., entries * N, d) -> (..., n, d) and (..., n, entries), what
    each query gives each entry."""
    import torch
    from torch.nn import functional

    rows = max(1, MOST_SCORES // max(1, keys.shape[-2] * math.prod(q.shape[:-2])))
    found: list[Tensor] = []
    mass: list[Tensor] = []
    for part in q.split(rows, dim=-2):
        weights = torch.softmax(part @ keys.transpose(-1, -2) * scale, dim=-1)
        mass.append(weights.detach().unflatten(-1, (entries, -1)).sum(-1))
        found.append(functional.dropout(weights, dropout, dropout > 0.0) @ values)
    return torch.cat(found, dim=-2), torch.cat(mass, dim=-2)


def _heads(x: Tensor, heads: int) -> Tensor:
    """(..., n, d) -> (..., heads, n, d / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def _join(x: Tensor) -> Tensor:
    return x.transpose(-2, -3).flatten(-2)


def by_entry(shares: Sequence[float], slots: Sequence[int]) -> list[float]:
    """Shares in the order of slots, as shares in the order of entries."""
    return [float(shares[slot]) for slot in slots]
