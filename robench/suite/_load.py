"""From a TOML file to a checked suite; whatever is wrong is one line that names the place."""

from __future__ import annotations

import codecs
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from robench.errors import InputError
from robench.params import suggest
from robench.suite._cells import Suite, expand
from robench.suite._format import SuiteFile, keys_at
from robench.text import one_line

__all__ = ["load_suite", "make_suite", "parse_suite"]

_LARGEST = 1 << 20  # bytes

_WORDS = {
    "missing": "is missing",
    "too_short": "holds nothing: give at least one",
    "string_type": "must be a text in quotes",
    "string_too_short": "is empty",
    "int_type": "must be a whole number",
    "dict_type": "must be a table",
    "model_type": "must be a table",
}


def load_suite(path: Path | str) -> Suite:
    """Read a suite file, resolve every spec in it and lay out its cells; loads no model and no data.

    Files that its specs name are relative to the file's own folder. Raises InputError.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"cannot read the suite file {str(path)!r}: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{str(path)!r} is no path of a suite file") from None
    if len(data) > _LARGEST:
        raise InputError(f"{path}: more than {_LARGEST >> 20} MiB: that is no suite file")
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no UTF-8 at byte {error.start}: a suite file is a TOML text") from None
    return parse_suite(text, str(path), path.parent)


def parse_suite(text: str, where: str = "suite.toml", folder: Path = Path()) -> Suite:
    """Read a suite from its text; `where` is its name in messages, `folder` what its files are relative to."""
    try:
        content = tomllib.loads(text)
    except RecursionError:
        raise InputError(f"{where}: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, or a number with thousands of digits
        raise InputError(f"{where}: not TOML: {one_line(str(error))}") from None
    return make_suite(content, where, folder)


def make_suite(content: Mapping[str, Any], where: str, folder: Path = Path()) -> Suite:
    """Return the suite that a file with this content stands for. Raises InputError."""
    try:
        file = SuiteFile.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{where}: {_complaint(error)}") from None
    return expand(file, where, folder)


def _complaint(error: ValidationError) -> str:
    """The first thing that is wrong, after its place: `evaluations[1].threats[0].eps: …`."""
    details: list[ErrorDetails] = error.errors(include_url=False, include_input=False)
    first = min(details, key=lambda one: one["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    place = first["loc"]
    if first["type"] == "extra_forbidden":
        known, name = keys_at(place[:-1]), str(place[-1])
        place, said = place[:-1], f"unknown key {name[:40]!r}{suggest(name[:40], known)}"
        said += f"; there are {', '.join(known)}" if known and "did you mean" not in said else ""
    else:
        said = _WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
    return one_line(f"{_written(place)}{said}{more}", 400)


def _written(place: tuple[Any, ...]) -> str:
    text = ""
    for step in place[:8]:
        text += f"[{step}]" if isinstance(step, int) else f".{str(step)[:40]}"
    return f"{text.removeprefix('.')}: " if text else ""
