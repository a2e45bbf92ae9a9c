"""Which installed distribution, and which version of it, a Python module belongs to."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

__all__ = ["origin"]

_INSTALLED = frozenset({"site-packages", "dist-packages"})


def origin(module: object) -> str | None:
    """Return what names the code of a Python module: distribution and version, or the standard library.

    None for code that can change while its version does not: the user's, and packages in development.
    """
    if not isinstance(module, str) or module == "__main__":
        return None
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names:
        return "python"
    return _installed(package)


@cache
def _installed(package: str) -> str | None:
    names = sorted(set(_distributions().get(package, ())))
    if not names:
        return None
    found = sys.modules.get(package)
    places = [getattr(found, "__file__", None), *getattr(found, "__path__", ())]
    if not any(place and _INSTALLED.intersection(Path(place).parts) for place in places):
        return None
    return ",".join(f"{name} {importlib.metadata.version(name)}" for name in names)


@cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()
