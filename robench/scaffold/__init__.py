"""The beginning of a plugin: a small distribution that installs, registers itself and passes its own test."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template

import robench
from robench.errors import InputError
from robench.kinds import Kind, find_kind

__all__ = ["render", "write_distribution"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TAKEN = ("robench", "plugins", "leaderboard")  # packages of robench's own


def render(kind: str, name: str, class_name: str) -> str:
    """Return the source of a small, correct plugin of `kind`."""
    return _template(f"{find_kind(kind).module}.py").substitute(name=name, Class=class_name)


def write_distribution(name: str, kind: str = "attack", folder: Path | None = None) -> Path:
    """Write a distribution `robench-NAME` with one plugin and its conformance test; returns its folder.

    Raises InputError for a name that cannot be a package's, an unknown kind, or a folder that holds something.
    """
    chosen = find_kind(kind)
    if len(name) > 60 or _NAME.fullmatch(name) is None:
        raise InputError(f"{name!r} cannot name a plugin: use small letters, digits and single '-', a letter first")
    short = name.removeprefix("robench-")
    if not short[:1].isalpha() or short in _TAKEN:
        raise InputError(f"{name!r} is no free name for a plugin: choose another word")
    folder = folder or Path(f"robench-{short}")
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise InputError(f"{str(folder)!r} is there already and is not empty: give another --out")
    package = f"robench_{short.replace('-', '_')}"
    names = {
        "name": short,
        "kind": chosen.name,
        "noun": chosen.noun,
        "article": chosen.article,
        "hook": chosen.hook,
        "check": f"check_{chosen.module}",
        "distribution": f"robench-{short}",
        "package": package,
        "module": chosen.module,
        "Class": _class_name(short, chosen),
        "summary": chosen.example,
        "version": ".".join(robench.__version__.split(".")[:2]),
    }
    test = "test_importer.py" if chosen.name == "importers" else "test_conformance.py"
    written = {
        "pyproject.toml": _template("pyproject.toml").substitute(names),
        "README.md": _template("README.md").substitute(names),
        f"src/{package}/__init__.py": _template("init.py").substitute(names),
        f"src/{package}/{chosen.module}.py": render(chosen.name, short, names["Class"]),
        "tests/test_conformance.py": _template(test).substitute(names),
    }
    for path, text in written.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def _class_name(name: str, kind: Kind) -> str:
    """`my-attack` as `MyAttack`; with the kind added where the module imports that name."""
    words = "".join(word.capitalize() for word in name.split("-"))
    taken = words in robench.__all__ or words == "Tensor" or keyword.iskeyword(words)
    return words + kind.noun.title().replace(" ", "") if taken else words


def _template(name: str) -> Template:
    return Template((files(__package__) / "templates" / f"{name}.txt").read_text(encoding="utf-8"))
