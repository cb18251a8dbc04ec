"""``streammem eval``: how good the answers are, on data that others made. Each subcommand is a module of
``streammem/cli/evals`` and is imported when it is called.

To add one: its line in ``EVALS``, and ``streammem/cli/evals/<name>.py`` with a typer ``app``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer.core

EVALS: dict[str, str] = {
    "videoqa": "questions about videos: nine benchmarks' files, strict and official scores, honest baselines",
    "tracking": "masks (J, F, J&F) of the tracker by memory policy, on folders of frames and masks",
    "findingdory": "a day in a house, asked about in 60 ways: procedural homes on this machine",
}
"""Name and one line of each evaluation."""


def group() -> typer.core.TyperGroup:
    """The group of all evaluations."""
    from streammem.cli.group import LazyGroup

    return LazyGroup(EVALS, load_eval)


def load_eval(name: str) -> typer.core.TyperCommand | typer.core.TyperGroup:
    """Import ``streammem/cli/evals/<name>.py`` and make its typer app a command."""
    from streammem.cli.main import load_module

    return load_module(f"streammem.cli.evals.{name}", name)
