"""Which frames of an object are worth keeping: one memory, small strategies (docs/tracking.md).

>>> from streammem.banks.policies import FrameMemory, make_policy
>>> memory = FrameMemory(make_policy("diverse"), obj="mug")
"""

from __future__ import annotations

from collections.abc import Callable

from streammem.banks.policies.base import MemoryPolicy, Policy, Summary
from streammem.banks.policies.bounded import ReadMem, RMem, SummaryToken
from streammem.banks.policies.composite import ByAge, ByRank, Composite, Gate
from streammem.banks.policies.distractor import Dam4Sam
from streammem.banks.policies.diverse import DiversePool, GatedDiverse, ReSurgDiverse
from streammem.banks.policies.fifo import GatedFifo, SAM2Fifo, Samurai
from streammem.banks.policies.frame_memory import FrameMemory
from streammem.banks.policies.record import Change, FrameRecord, Hypothesis, Limits, Read
from streammem.banks.policies.smart import NonRedundant, SmartMemory
from streammem.banks.policies.start import CredibleStart
from streammem.errors import InputError

POLICIES: dict[str, Callable[[], MemoryPolicy]] = {
    "first": Policy,
    "fifo": SAM2Fifo,
    "gated": GatedFifo,
    "diverse": GatedDiverse,
    "resurg": ReSurgDiverse,
    "resurg_release": lambda: ReSurgDiverse(compat="release"),
    "smart": SmartMemory,
    "samurai": Samurai,
    "dam4sam": Dam4Sam,
    "rmem": RMem,
    "readmem": ReadMem,
    "summary": SummaryToken,
}
"""Every policy by name, with its default numbers."""


def make_policy(name: str, *, credible: bool = False) -> MemoryPolicy:
    """A new policy of this name; ``credible`` puts a credible start before it. Raises InputError."""
    make = POLICIES.get(name)
    if make is None:
        raise InputError(f"there is no memory policy {name!r}", hint=f"one of: {', '.join(sorted(POLICIES))}")
    return CredibleStart(make()) if credible else make()


__all__ = [
    "POLICIES",
    "ByAge",
    "ByRank",
    "Change",
    "Composite",
    "CredibleStart",
    "Dam4Sam",
    "DiversePool",
    "FrameMemory",
    "FrameRecord",
    "Gate",
    "GatedDiverse",
    "GatedFifo",
    "Hypothesis",
    "Limits",
    "MemoryPolicy",
    "NonRedundant",
    "Policy",
    "RMem",
    "ReSurgDiverse",
    "Read",
    "ReadMem",
    "SAM2Fifo",
    "Samurai",
    "SmartMemory",
    "Summary",
    "SummaryToken",
    "make_policy",
]  # fmt: skip
