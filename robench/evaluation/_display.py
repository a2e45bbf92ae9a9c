"""What boards show beside the numbers, from `--name` and a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robench.errors import InputError
from robench.runs import Display

__all__ = ["display", "first_problem"]


def display(name: str | None = None, meta: Path | str | None = None) -> Display:
    """Return the display metadata; `name` wins over the file's. Unknown keys of the file are kept as they are.

    Raises InputError for a file that is missing or not TOML, and for text that is too long or not printable.
    """
    fields: dict[str, Any] = {}
    if meta is not None:
        try:
            fields = tomllib.loads(Path(meta).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"metadata file {meta}: {error}") from None
    known = {key: fields.pop(key) for key in ("name", "paper", "training_data", "licence") if key in fields}
    if name is not None:
        known["name"] = name
    try:
        return Display(**known, more={key: str(value) for key, value in fields.items()})
    except ValidationError as error:
        raise InputError(f"display metadata: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    """Return where the first problem of a failed validation is, and what it is."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'value'}: {first['msg']}"
