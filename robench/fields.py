"""Checked types for files that also come from strangers: text, hashes, ε, times, counts, JSON. Pydantic, strict."""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from robench.errors import InputError
from robench.text import one_line
from robench.threat import Epsilon

__all__ = [
    "Count",
    "EpsilonText",
    "Identity",
    "Json",
    "Key",
    "Line",
    "Sha256",
    "SpecText",
    "Strict",
    "Text",
    "Time",
    "first_problem",
]

_DEEPEST = 16  # levels of nested JSON
_LONGEST = 2000  # characters of a string in JSON


def _printable(text: str) -> str:
    if not all(c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs" for c in text):
        raise ValueError("holds control characters")
    return text


def _one_line(text: str) -> str:
    if "\n" in text:
        raise ValueError("is more than one line")
    return text


def _epsilon(text: str) -> str:
    try:
        return Epsilon.parse(text).text
    except InputError as error:
        raise ValueError(str(error)) from None


def _utc(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError("has no time zone")
    return time.astimezone(UTC).replace(microsecond=0)


def _plain(value: Any, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"is nested deeper than {_DEEPEST} levels")
    if isinstance(value, str):
        if len(value) > _LONGEST:
            raise ValueError(f"holds a text of more than {_LONGEST} characters")
        return _printable(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("holds a number that is not finite")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("holds a whole number of more than 64 bits")
    if isinstance(value, dict):
        for key, inner in value.items():
            _plain(key, depth)
            _plain(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _plain(inner, depth + 1)
    return value


Line = Annotated[str, StringConstraints(max_length=500), AfterValidator(_printable), AfterValidator(_one_line)]
Text = Annotated[str, StringConstraints(max_length=20_000), AfterValidator(_printable)]
SpecText = Annotated[str, StringConstraints(min_length=1, max_length=20_000), AfterValidator(_printable)]
Identity = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64}|import:[0-9a-f]{16,64})$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.\-]{0,63}$")]
EpsilonText = Annotated[str, AfterValidator(_epsilon)]
Time = Annotated[datetime, AfterValidator(_utc)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Json = Annotated[JsonValue, AfterValidator(_plain)]


class Strict(BaseModel):
    """A frozen model that converts nothing and knows no other fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


def first_problem(error: ValidationError) -> str:
    """Return the first of a model's complaints on one line; names from the file are cut and made printable."""
    details = error.errors(include_url=False, include_input=False, include_context=False)
    at = ".".join(str(step)[:40] for step in details[0]["loc"][:6])
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return one_line(f"{at + ': ' if at else ''}{details[0]['msg']}{more}", 400)
