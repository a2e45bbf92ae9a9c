"""Libraries that are installed beside robench, or not."""

from __future__ import annotations

import importlib
from importlib import metadata
from types import ModuleType

from robench import InputError

__all__ = ["Library"]


class Library:
    """A library from the package index: imported at first use, its version recorded."""

    def __init__(self, module: str, distribution: str, extra: str) -> None:
        """Name its module, its distribution, and robench's extra that installs it."""
        self.module, self.distribution, self.extra = module, distribution, extra

    def load(self) -> ModuleType:
        """Return the module. Raises InputError that says how to install it."""
        try:
            return importlib.import_module(self.module)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(
                f"{self.distribution} cannot be imported ({reason}): pip install 'robench[{self.extra}]'"
            ) from None

    @property
    def version(self) -> str | None:
        """The installed version."""
        try:
            return metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            return None
