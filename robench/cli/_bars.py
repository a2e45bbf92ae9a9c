"""Progress of several pieces of work at once: a bar for each on a terminal, a line for each that ended everywhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from robench.text import safe

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["Bars"]


class Bars:
    """Shows running work by its number. Use as a context manager. Off a terminal there are only lines."""

    def __init__(self, what: str, total: int, quiet: bool = False) -> None:
        """Name the whole and say how many pieces it has; `quiet` shows nothing."""
        self.quiet, self.total, self.ended = quiet, total, 0
        self._running: dict[int, TaskID] = {}
        self._bars = None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[figures]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )
            self._whole = self._bars.add_task(safe(what), total=total, figures="")

    def __enter__(self) -> Self:
        """Start showing."""
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing; the bars go away."""
        if self._bars:
            self._bars.stop()

    def message(self, line: str) -> None:
        """Print a line above the bars, whether quiet or not."""
        if self._bars:
            self._bars.console.print(safe(line), markup=False, highlight=False)
        else:
            print(safe(line), file=sys.stderr, flush=True)

    def begin(self, number: int, what: str) -> None:
        """Show that a piece is running."""
        if self._bars:
            self._running[number] = self._bars.add_task(safe(what), total=None, figures="")

    def update(self, number: int, done: int, total: int, figures: Mapping[str, object]) -> None:
        """Say that `done` of `total` are finished of a piece, with `figures` beside it."""
        if self._bars and number in self._running:
            shown = ", ".join(f"{name} {value}" for name, value in figures.items())
            self._bars.update(self._running[number], completed=done, total=total, figures=shown)

    def end(self, number: int, line: str) -> None:
        """Take a piece's bar away and print a line about it."""
        self.ended += 1
        if self._bars:
            if number in self._running:
                self._bars.remove_task(self._running.pop(number))
            self._bars.update(self._whole, completed=self.ended)
        if not self.quiet:
            self.message(f"[{self.ended}/{self.total}] {line}")
