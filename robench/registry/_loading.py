"""Loading plugins: each on its own, so that a broken one is reported with its cause and left out."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pluggy import PluginManager, PluginValidationError

from robench import hookspecs
from robench.kinds import KINDS
from robench.params import suggest
from robench.registry._sources import Source
from robench.text import one_line, safe

__all__ = ["Entry", "Loaded", "PluginRow", "load_all"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_IDENTIFIERS = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
_TARGET = re.compile(rf"{_IDENTIFIERS}:{_IDENTIFIERS}", re.ASCII)
_COSTS = ("", "small")

State = Literal["ok", "broken", "incompatible"]


@dataclass(frozen=True)
class Entry:
    """A registered factory.

    `name` is what reaches it in a spec: `distribution/name` where the short name belongs to another
    plugin, or to nobody because two claim it (`hidden_by` says which).
    """

    kind: str
    name: str
    target: str
    summary: str
    default: bool
    cost: str
    distribution: str
    version: str
    hidden_by: str = ""

    @property
    def short(self) -> str:
        """The name as registered."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True)
class PluginRow:
    """What became of one plugin module: ok, broken (and why), or written for another robench."""

    module: str
    distribution: str
    version: str
    state: State
    why: str = ""
    entries: int = 0


class Loaded(NamedTuple):
    """All entries, one row per plugin module, and the manager that calls run hooks."""

    entries: list[Entry]
    rows: list[PluginRow]
    manager: PluginManager


class _Refused(Exception):
    """Why a module is no plugin for this robench."""

    def __init__(self, state: State, why: str) -> None:
        super().__init__(why)
        self.state = state


def load_all(sources: Iterable[Source]) -> Loaded:
    """Load every plugin module. Nothing that one of them does keeps the others from loading."""
    manager = _manager()
    entries: list[Entry] = []
    rows: list[PluginRow] = []
    waiting = list(reversed(list(sources)))
    seen: set[tuple[str, str]] = set()
    claimed: dict[tuple[str, str, str], str] = {}
    while waiting:
        source = waiting.pop()
        if (source.distribution, source.module) in seen:
            continue
        seen.add((source.distribution, source.module))
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
                module = source.load()
                found = _entries_of(module, source)
            for entry in found:
                if other := claimed.get((entry.distribution, entry.kind, entry.name)):
                    raise _Refused("broken", f"{entry.name!r} of kind {entry.kind} is registered by {other} too")
            parts = [source.part(name) for name in _parts(module)]
            manager.register(module, name=f"{source.distribution}/{source.module}")
        except KeyboardInterrupt:
            raise
        except _Refused as refused:
            rows.append(_row(source, refused.state, str(refused)))
        except BaseException as error:  # also SystemExit: a plugin must not end the command
            rows.append(_row(source, "broken", one_line(error)))
        else:
            entries += found
            claimed.update({(entry.distribution, entry.kind, entry.name): source.module for entry in found})
            rows.append(_row(source, "ok", "", len(found)))
            waiting += reversed(parts)
    return Loaded(entries, rows, manager)


def _row(source: Source, state: State, why: str, entries: int = 0) -> PluginRow:
    return PluginRow(source.module, source.distribution, source.version, state, why, entries)


def _manager() -> PluginManager:
    manager = PluginManager("robench")
    manager.add_hookspecs(hookspecs)
    return manager


def _parts(module: Any) -> tuple[str, ...]:
    names = getattr(module, "robench_modules", ())
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise _Refused("broken", "robench_modules must be a tuple of module names")
    return names


def _entries_of(module: Any, source: Source) -> list[Entry]:
    """Check one module's API number and hooks, and call its register hooks one by one."""
    api = getattr(module, "robench_api", None)
    if api is None and source.inherits:
        api = hookspecs.API
    if api is None:
        raise _Refused("incompatible", f"it states no API number: write robench_api = {hookspecs.API}")
    if type(api) is not int or api != hookspecs.API:
        raise _Refused("incompatible", f"it is written for API {api!r}, this robench has {hookspecs.API}")
    # A manager of its own: what fails half-way leaves no trace in the one that runs.
    probe = _manager()
    try:
        probe.register(module, name=source.module)
        probe.check_pending()
    except PluginValidationError as error:
        raise _Refused("broken", _explained(str(error))) from error
    entries: list[Entry] = []
    for kind in KINDS.values():
        for implementation in getattr(probe.hook, kind.hook).get_hookimpls():
            if implementation.hookwrapper or implementation.wrapper:
                raise _Refused("broken", f"{kind.hook} cannot be a hook wrapper")
            register = _Collector(kind.name, source)
            implementation.function(*[register for _ in implementation.argnames])
            entries += register.close()
    return entries


def _explained(message: str) -> str:
    """What pluggy says about a hook, without its paths and with the right name or arguments."""
    if unknown := re.search(r"unknown hook '(\w+)'", message):
        known = [name for name in vars(hookspecs) if name.startswith("robench_")]
        return f"unknown hook {unknown[1]!r}{suggest(unknown[1], known)}"
    if (wrong := re.search(r"for hook '(\w+)'", message)) and "Argument(s)" in message:
        takes = ", ".join(inspect.signature(getattr(hookspecs, wrong[1])).parameters)
        given = ", ".join(re.findall(r"'(\w+)'", message.partition("Argument(s)")[2]))
        return f"hook {wrong[1]!r} has no argument {given}: it is given {takes}"
    return safe(message)


class _Collector:
    """The `register` callback of one hook call; frozen when the call returns."""

    def __init__(self, kind: str, source: Source) -> None:
        self._kind, self._source = kind, source
        self._entries: dict[str, Entry] = {}
        self._open = True

    def __call__(self, name: Any, target: Any, *, summary: Any = "", default: Any = False, cost: Any = "") -> None:
        if not self._open:
            raise RuntimeError("register was called after its hook returned: the registries are frozen")
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} cannot be a plugin's name: use letters, digits, '.', '_' and '-'")
        if not isinstance(target, str) or _TARGET.fullmatch(target) is None:
            raise ValueError(f"target {target!r} of {name!r} must read 'module:Class'")
        if not isinstance(summary, str) or not isinstance(default, bool) or cost not in _COSTS:
            raise ValueError(f"{name!r}: summary is a text, default a bool, cost one of {_COSTS}")
        if name in self._entries:
            raise ValueError(f"{name!r} is registered twice")
        source = self._source
        self._entries[name] = Entry(
            self._kind, name, target, safe(summary), default, cost, source.distribution, source.version
        )

    def close(self) -> list[Entry]:
        self._open = False
        return list(self._entries.values())
