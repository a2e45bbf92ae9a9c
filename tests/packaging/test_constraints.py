"""constraints.txt pins what pyproject.toml asks for, within the ranges that it claims."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
PINS = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in LINES)}
WANTED = [
    *PROJECT["build-system"]["requires"],
    *PROJECT["project"]["dependencies"],
    *(line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra),
    *(line for group in PROJECT["dependency-groups"].values() for line in group if isinstance(line, str)),
]


@pytest.mark.parametrize("line", WANTED)
def test_every_requirement_is_pinned_inside_its_range(line: str) -> None:
    wanted = Requirement(line)
    assert wanted.specifier.contains(PINS[canonicalize_name(wanted.name)])


def test_pins_are_exact_public_versions() -> None:
    # A local suffix (+cpu) or an address would tie the file to one index.
    assert [line for line in LINES if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)] == []


def test_torch_is_the_tested_release() -> None:
    assert PINS["torch"] == "2.13.0"


def test_the_version_is_stated_once_for_all() -> None:
    version = PROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
