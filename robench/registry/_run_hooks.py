"""Run hooks, called softly: one that raises is reported once and not called again."""

from __future__ import annotations

import contextlib
import copy
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from pluggy import HookImpl, PluginManager

from robench.text import one_line

__all__ = ["PluginWarning", "RunHooks"]


class PluginWarning(UserWarning):
    """A plugin failed where the command can go on without it."""


def _warn(message: str) -> None:
    warnings.warn(message, PluginWarning, stacklevel=4)


class RunHooks:
    """Calls the run hooks of all plugins; whatever they do, the run goes on."""

    def __init__(self, manager: PluginManager, warn: Callable[[str], None] = _warn) -> None:
        """Call the hooks of `manager`; `warn` gets one line per failure."""
        self._manager = manager
        self._disabled: set[int] = set()
        self._warn = warn

    def reporting(self, warn: Callable[[str], None]) -> RunHooks:
        """Return the same hooks for one run, failures going to `warn`."""
        return RunHooks(self._manager, warn)

    def started(self, run_id: str, request: Mapping[str, Any]) -> None:
        """A run begins or goes on."""
        self._call("robench_run_started", run_id=run_id, request=request)

    def written(self, run_id: str, rows: int) -> None:
        """A part of `rows` rows is on storage."""
        self._call("robench_evidence_written", run_id=run_id, rows=rows)

    def finished(self, run_id: str, summary: Mapping[str, Any]) -> None:
        """A run is complete."""
        self._call("robench_run_finished", run_id=run_id, summary=summary)

    def _call(self, name: str, **arguments: Any) -> None:
        for implementation in getattr(self._manager.hook, name).get_hookimpls():
            if id(implementation) not in self._disabled:
                self._call_one(name, implementation, arguments)

    def _call_one(self, name: str, implementation: HookImpl, arguments: Mapping[str, Any]) -> None:
        try:
            # Copies: a hook that edits its arguments must not edit the run's own.
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
                implementation.function(*[copy.deepcopy(arguments[key]) for key in implementation.argnames])
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._disabled.add(id(implementation))
            self._warn(f"{name} of {implementation.plugin_name} raised {one_line(error)}; it is not called again")
