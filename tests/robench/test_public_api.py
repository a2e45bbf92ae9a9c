import ast
import dataclasses
import importlib
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import robench

ROOT = Path(__file__).parents[2]
NAMES = [name for name in robench.__all__ if name != "__version__"]


def type_checked() -> dict[str, str]:
    """Where type checkers find each public name: the imports under TYPE_CHECKING."""
    tree = ast.parse(Path(robench.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    return {
        alias.name: node.module.removeprefix("robench.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_what_its_module_publishes(name):
    home = importlib.import_module(f"robench.{robench._HOME[name]}")
    assert getattr(robench, name) is getattr(home, name)
    assert name in home.__all__


def test_the_names_are_the_same_for_interpreters_type_checkers_and_readers():
    assert set(NAMES) == set(robench._HOME)
    assert type_checked() == robench._HOME
    assert dir(robench) == sorted(robench.__all__)
    # No public function hides, or is hidden by, a module of its name.
    assert not {name for name in NAMES if importlib.util.find_spec(f"robench.{name}")}


def test_everything_that_a_plugin_author_implements_is_public():
    from robench import contracts, errors

    assert set(contracts.__all__) <= set(robench.__all__)
    assert set(errors.__all__) <= set(robench.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'robench' has no attribute 'evalute'"):
        robench.evalute  # noqa: B018
    with pytest.raises(ImportError):
        from robench import nothing_of_the_kind  # noqa: F401


def test_importing_the_package_imports_none_of_its_modules():
    code = "import robench, sys; print(*sorted(name for name in sys.modules if name.startswith('robench')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["robench"]


def test_values_are_frozen():
    for name in NAMES:
        value = getattr(robench, name)
        if isinstance(value, type) and dataclasses.is_dataclass(value):
            assert value.__dataclass_params__.frozen, name


def test_the_version_is_the_distributions():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    assert robench.__version__ == project["version"]
