"""The errors that a user can cause or meet, each with the exit code of the command line.

RobenchError
├── InputError          2   bad usage or input: one line, what, where, what to do
│   ├── SpecError           a spec that does not parse, or an unknown plugin or parameter
│   ├── GraphError          a network that cannot be read as a graph (names the operator)
│   ├── DataError           a dataset, checkpoint or results file that is not what it should be
│   └── LockedError         a run that another process is writing
└── PluginError         2   a plugin that broke a contract; names the plugin
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "GraphError",
    "InputError",
    "LockedError",
    "PluginError",
    "RobenchError",
    "SpecError",
]


class RobenchError(Exception):
    """Base of everything that robench raises on purpose."""

    exit_code = 2


class InputError(RobenchError):
    """Bad usage or input. The message is one line: what, where, what to do."""


class SpecError(InputError):
    """A spec that does not parse, or that names an unknown plugin or parameter."""


class GraphError(InputError):
    """A network that cannot be expressed as a graph; the message names the operator."""


class DataError(InputError):
    """A file that is missing, truncated, foreign or inconsistent."""


class LockedError(InputError):
    """A run folder that another live process is writing."""


class PluginError(RobenchError):
    """A plugin that broke its contract. `plugin` names the culprit."""

    def __init__(self, plugin: str, message: str) -> None:
        """Name the plugin and say what it did."""
        super().__init__(f"{plugin}: {message}")
        self.plugin = plugin
