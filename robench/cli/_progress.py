"""Progress on stderr: a bar with rate and remaining time on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from robench.text import safe

__all__ = ["Progress", "rows"]


def rows(counts: Mapping[str, int]) -> dict[str, str]:
    """Return what `execute` counts as figures of `Progress.update`: rows by kind and status, which are no samples."""
    return {"rows:": ", ".join(f"{name} {count}" for name, count in counts.items())} if counts else {}


class Progress:
    """Shows how far long work is. Use as a context manager and call `update`."""

    def __init__(self, what: str, quiet: bool = False, interval: float = 10.0) -> None:
        """Name the work; `quiet` shows nothing, `interval` is the seconds between lines off a terminal."""
        self.what, self.quiet, self.interval = what, quiet, interval
        self.start = self.last = time.monotonic()
        self.begun: int | None = None
        self.done = 0
        self._bar = None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(what, total=None, rate="", figures="")

    def __enter__(self) -> Self:
        """Start showing."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing; the bar goes away."""
        if self._bar:
            self._bar.stop()

    def message(self, line: str) -> None:
        """Print a line above the bar."""
        line = safe(line)
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr)

    def update(self, done: int, total: int, figures: Mapping[str, object]) -> None:
        """Say that `done` of `total` are finished, with `figures` beside it."""
        if self.quiet:
            return
        now = time.monotonic()
        if self.begun is None or done < self.done:
            # Loading and what an earlier run did are no part of the rate. Fewer than before: the next piece of work.
            self.begun, self.start = done, now
        self.done = done
        rate = (done - self.begun) / max(now - self.start, 1e-9)
        shown = ", ".join(f"{name} {value}" for name, value in figures.items())
        speed = f"{rate:.3g}/s" if rate else ""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, rate=speed, figures=shown)
        elif now - self.last >= self.interval or (done == total and self.begun != done):
            self.last = now
            left = f", {speed}, {(total - done) / rate:.0f} s left" if rate else ""
            print(f"{self.what}: {done}/{total}{left}{shown and f'; {shown}'}", file=sys.stderr)
