"""Where plugins come from: the entry points of the group `robench`, and the source tree itself."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["BUILT_IN", "Source", "find_sources", "normalized"]

BUILT_IN = "robench"
_GROUP = "robench"
_BUILT_IN_MODULE = "robench_plugins"


@dataclass(frozen=True)
class Source:
    """One module with hooks: `load` imports it. `distribution` is a normalised name.

    `inherits` marks a module listed by another (`robench_modules`), whose API number holds for it too.
    """

    module: str
    load: Callable[[], Any]
    distribution: str
    version: str
    inherits: bool = False

    def part(self, module: str) -> Source:
        """A further module of the same distribution."""
        return Source(module, lambda: importlib.import_module(module), self.distribution, self.version, True)


def normalized(distribution: str) -> str:
    """The normal form of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def find_sources() -> list[Source]:
    """Return every entry point of the group, the built-in first, then by distribution and name."""
    sources = [source for distribution in _distributions() for source in _of_distribution(distribution)]
    if not any(source.distribution == BUILT_IN for source in sources):
        sources.append(_source_tree())
    return sorted(sources, key=lambda source: (source.distribution != BUILT_IN, source.distribution, source.module))


def _distributions() -> Iterator[importlib.metadata.Distribution]:
    """Installed distributions that have the group; of several with one name, the one that imports find."""
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        # Reading this one file is quick; names and versions are parsed only where the group occurs.
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except (OSError, UnicodeError):
            continue
        if re.search(rf"^\s*\[\s*{_GROUP}\s*\]", text, re.MULTILINE) is None:
            continue
        name = normalized(distribution.metadata["Name"] or "unnamed")
        if name not in seen:
            seen.add(name)
            yield distribution


def _of_distribution(distribution: importlib.metadata.Distribution) -> Iterator[Source]:
    name = normalized(distribution.metadata["Name"] or "unnamed")
    version = distribution.metadata["Version"] or "0"
    try:
        points = [point for point in distribution.entry_points if point.group == _GROUP]
    except Exception as error:
        yield Source("entry_points.txt", _raising(error), name, version)
        return
    for point in points:
        yield Source(point.value, point.load, name, version)


def _raising(error: Exception) -> Callable[[], Any]:
    def load() -> Any:
        raise error

    return load


def _source_tree() -> Source:
    """The built-in plugins next to this package, when robench runs without being installed."""

    def load() -> Any:
        folder = Path(__file__).parents[2] / "plugins"
        if importlib.util.find_spec(_BUILT_IN_MODULE) is None and (folder / _BUILT_IN_MODULE).is_dir():
            sys.path.append(str(folder))
        return importlib.import_module(_BUILT_IN_MODULE)

    from robench import __version__

    return Source(_BUILT_IN_MODULE, load, BUILT_IN, __version__)
