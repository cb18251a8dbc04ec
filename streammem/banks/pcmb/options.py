"""What a perceptual-cognitive bank may do differently, and the three presets.

The paper (arXiv 2508.19236 v2) and its two released code bases disagree in seven places; each is a field here. Where
the paper says nothing, the preset ``paper`` takes what the first code base does.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from streammem.errors import ConfigError

Preset = Literal["paper", "openvla_code", "dexbotic_code"]
Streams = Literal["perceptual", "cognitive"]
STREAMS: tuple[Streams, ...] = ("perceptual", "cognitive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One bank. Raises ConfigError for values that make none.

    ``stored``: what is appended after fusion, the current tokens or the fused ones. ``gate_weighs``: which side the
    learned gate multiplies; flipping it and negating the gate's weights gives the same output. ``empty``: with an empty
    bank, leave the tokens as they are or attend to themselves. ``time_features`` 0 means d / 4 for the learned code
    (1,024 for d = 4,096, 64 for d = 256). ``attention_dropout_always`` is a defect of the second code base, which
    passes its attention dropout as a constant: answers then differ from call to call."""

    length: int = 16
    consolidation: Literal["merge", "fifo"] = "merge"
    weighting: Literal["equal", "count"] = "equal"
    merged_step: Literal["earlier", "mean"] = "earlier"
    stored: Literal["raw", "fused"] = "raw"
    layers: int = 2
    heads: int = 1
    time_code: Literal["none", "sinusoid", "learned"] = "learned"
    time_features: int = 0
    fusion: Literal["gate", "add"] = "gate"
    gate_weighs: Literal["memory", "current"] = "current"
    gate_layers: int = 1
    empty: Literal["skip", "self"] = "skip"
    dropout: float = 0.0
    attention_dropout_always: bool = False

    def __post_init__(self) -> None:
        for name, low, high in (("length", 1, 4096), ("layers", 1, 16), ("heads", 1, 64), ("gate_layers", 1, 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ConfigError(f"{name} of a perceptual-cognitive bank is {value!r}, expected {low} to {high}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout is {self.dropout!r}, expected 0 to 1")

    def changed(self, **changes: Any) -> Options:
        """A copy with other values. Raises ConfigError for a name that isn't an option."""
        known = {each.name for each in fields(self)}
        unknown = sorted(set(changes) - known)
        if unknown:
            raise ConfigError(
                f"a perceptual-cognitive bank has no option {unknown[0]!r}", hint=f"known: {', '.join(sorted(known))}"
            )
        return replace(self, **changes)

    def features(self, d: int) -> int:
        """How many sinusoidal features the time code has for tokens of width ``d``."""
        if self.time_code == "sinusoid":
            return d  # it is added to the tokens as it is
        return self.time_features or max(2, d // 4)


PRESETS: dict[str, Options] = {
    "paper": Options(stored="fused", time_code="sinusoid", gate_weighs="memory", gate_layers=2),
    "openvla_code": Options(),
    "dexbotic_code": Options(stored="fused", merged_step="mean", heads=4, time_features=256, empty="self", dropout=0.1),
}
"""Sections 3.2 to 3.4 of the paper; branch openvla-codebase; branch dexbotic-codebase without its dropout defect."""


def preset(name: str, **changes: Any) -> Options:
    """Raises ConfigError for an unknown preset or option."""
    found = PRESETS.get(name)
    if found is None:
        raise ConfigError(f"there is no preset {name!r}", hint=f"known: {', '.join(PRESETS)}")
    return found.changed(**changes)
