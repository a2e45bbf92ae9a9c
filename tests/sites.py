"""Distributions put on the path without pip: their sources, and the metadata that an installer would write."""

import sys
import tomllib
from pathlib import Path

import pytest

from robench.registry import Plugins, Source, find_sources, load_plugins

THIRD_PARTY = Path(__file__).parent / "third_party"


class Site:
    """A folder on sys.path in which distributions are installed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        self.folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.syspath_prepend(str(folder))

    def add(self, name: str) -> None:
        """Install one of the distributions of tests/third_party, by its folder's name."""
        source = THIRD_PARTY / name
        with (source / "pyproject.toml").open("rb") as file:
            project = tomllib.load(file)["project"]
        points = project["entry-points"]["robench"]
        self.describe(project["name"], project["version"], points)
        self._monkeypatch.syspath_prepend(str(source / "src"))

    def write(self, distribution: str, code: str, version: str = "1.0") -> str:
        """Install a distribution of one module with this code; returns the module's name."""
        module = distribution.replace("-", "_")
        (self.folder / f"{module}.py").write_text(code, encoding="utf-8")
        self.describe(distribution, version, {module: module})
        return module

    def describe(self, name: str, version: str, points: dict[str, str]) -> Path:
        """Write the metadata of a distribution with these entry points."""
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        lines = [f"{key} = {value}" for key, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[robench]", *lines, ""]), encoding="utf-8")
        return info

    def sources(self) -> list[Source]:
        """Every entry point that is found now."""
        return find_sources()

    def load(self) -> Plugins:
        """Load the plugins afresh, also for whoever calls load_plugins() from now on."""
        load_plugins.cache_clear()
        return load_plugins()


def forget(before: set[str]) -> None:
    """Unload the modules that a test brought, and the plugins."""
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if str(THIRD_PARTY) in file or name.startswith(("robench_t_", "robench_x_")):
            del sys.modules[name]
    load_plugins.cache_clear()
