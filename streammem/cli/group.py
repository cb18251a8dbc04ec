"""A typer group whose commands are imported only when they are called."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import typer
import typer.core

# typer carries its own copy of click since 0.2x and doesn't export this class; it is BadParameter's base in both.
UsageError: Any = typer.BadParameter.__mro__[1]


class LazyGroup(typer.core.TyperGroup):
    """``lines`` maps each name to its one line of help, ``load`` gives the command of a name."""

    def __init__(self, lines: Mapping[str, str], load: Callable[[str], Any]) -> None:
        super().__init__(name="streammem")
        self._lines = dict(lines)
        self._load = load

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self._lines)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return self._load(cmd_name) if cmd_name in self._lines else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = str(args[0])
        if name not in self._lines:
            near = difflib.get_close_matches(name, self._lines, n=5, cutoff=0.5)
            # Of those that are as near, a word of the same length: letters are swapped more often than left out.
            near.sort(key=lambda known: (-_likeness(name, known), abs(len(known) - len(name))))
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"there is no command {name!r}{hint}", ctx=ctx)
        return super().resolve_command(ctx, args)


def _likeness(name: str, known: str) -> float:
    return round(difflib.SequenceMatcher(None, known, name).ratio(), 2)
