"""Parameter types: how the values of a spec are read by annotation, and written back as spec text.

Nothing is converted fuzzily: `1.0` is no integer, `yes` no truth value, a quoted number is a text.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from robench.errors import DataError, InputError
from robench.files import FileRef, find_file
from robench.spec import Atom, Chain, Item, Spec, Text, parse
from robench.threat import Epsilon

__all__ = [
    "Boolean",
    "Budget",
    "Choice",
    "Context",
    "File",
    "Integer",
    "Many",
    "Named",
    "Nested",
    "Number",
    "Optional",
    "Range",
    "String",
    "Type",
    "Written",
]

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


class Written(NamedTuple):
    """A value with its short and its full spec text."""

    value: Any
    canonical: str
    full: str


def _no_nested(kind: str, chain: Chain) -> Written:
    raise InputError(f"no plugins are loaded that could resolve '{chain}'")


@dataclass(frozen=True)
class Context:
    """What reading needs from outside: the registry, and the folders in which files are looked for (here, if none)."""

    search: Sequence[Path] = ()
    resolve: Callable[[str, Chain], Written] = field(default=_no_nested)


class Type(ABC):
    """One parameter type. `words` says what it is; `read` raises InputError with the reason alone."""

    words: str

    @abstractmethod
    def read(self, values: tuple[Atom, ...], context: Context) -> Written:
        """Convert the values of one item."""

    @abstractmethod
    def write(self, value: Any) -> str:
        """Return the spec text of a value; raises TypeError where it is none of this type."""

    def _written(self, value: Any) -> Written:
        text = self.write(value)
        return Written(value, text, text)


@dataclass(frozen=True)
class Range:
    """Limits of a number: `minimum` and `maximum` included, `above` excluded."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None

    def check(self, value: float) -> None:
        """Raise InputError where `value` is outside."""
        below = (self.minimum is not None and value < self.minimum) or (self.above is not None and value <= self.above)
        if below or (self.maximum is not None and value > self.maximum):
            raise InputError(f"must be {self}")

    def __str__(self) -> str:
        """The limits in words."""
        limits = (("≥", self.minimum), (">", self.above), ("≤", self.maximum))
        return " and ".join(f"{sign} {_number_text(limit)}" for sign, limit in limits if limit is not None)


def _number_text(value: float) -> str:
    """The shortest text that reads back to `value`; no `+`, which joins tuples."""
    text = repr(value).replace("e+", "e")
    return text.removesuffix(".0")


def _scalar(values: tuple[Atom, ...], *, bare: bool = False) -> Text:
    """The one text among `values`. Bare atoms are joined again: a scalar may hold a `+` (`a+b.npz`)."""
    texts = [atom for atom in values if isinstance(atom, Text)]
    if len(texts) < len(values):
        raise InputError("takes no spec in parentheses")
    if not texts:
        raise InputError("takes one value, not '()'")
    if bare and texts[0].quoted:
        raise InputError("is not a text: write it without quotes")
    if len(texts) == 1:
        return texts[0]
    for left, right in itertools.pairwise(texts):
        if left.quoted or right.quoted or right.column not in (0, left.column + len(left.text) + 1):
            raise InputError("takes one value: put a text with '+' in double quotes")
    return Text("+".join(text.text for text in texts))


class Boolean(Type):
    """`true` or `false`."""

    words = "true|false"

    def read(self, values: tuple[Atom, ...], context: Context) -> Written:
        """Convert `true` and `false` alone."""
        text = _scalar(values, bare=True).text
        if text not in ("true", "false"):
            raise InputError("must be true or false")
        return self._written(text == "true")

    def write(self, value: Any) -> str:
        """Return `true` or `false`."""
        if not isinstance(value, bool):
            raise TypeError(value)
        return "true" if value else "false"


@dataclass(frozen=True)
class Integer(Type):
    """A whole number of at most 64 bits."""

    range: Range = Range()

    @property
    def words(self) -> str:  # type: ignore[override]
        """The type with its limits."""
        return f"integer {self.range}".strip()

    def read(self, values: tuple[Atom, ...], context: Context) -> Written:
        """Convert decimal digits."""
        text = _scalar(values, bare=True).text
        if _INTEGER.fullmatch(text) is None or abs(int(text)) >= 2**63:
            raise InputError("is not a whole number")
        self.range.check(int(text))
        return self._written(int(text))

    def write(self, value: Any) -> str:
        """Return the digits."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(value)
        return str(value)


@dataclass(frozen=True)
class Number(Type):
    """A finite double."""

    range: Range = Range()

    @property
    def words(self) -> str:  # type: ignore[override]
        """The type with its limits."""
        return f"number {self.range}".strip()

    def read(self, values: tuple[Atom, ...], context: Context) -> Written:
        """Convert a decimal number; infinities and NaN have no notation."""
        text = _scalar(values, bare=True).text
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(value):
            raise InputError("is not a finite number: write it like 0.25 or 1e-3")
        self.range.check(value)
        return self._written(value + 0.0)  # as it is written

    def write(self, value: Any) -> str:
        """Return the shortest text that reads back to the same double."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise TypeError(value)
        return _number_text(float(value) + 0.0)  # -0.0 becomes 0.0


class String(Type):
    """Any text; quoted where needed."""

    words = "text"

    def read(self, values: tuple[Atom, ...], context: Context) -> Written:
        """Take the text as it is."""
        return self._written(_scalar(values).text)

    def write(self, value: Any) -> str:
        """Return the text, quoted where needed."""
        if not isinstance(value, str):
            raise TypeError(value)
        return str(Text.of(value))


@dataclass(frozen=True)
class Choice(Type):
    """One of a few texts or integers (`typing.Literal`)."""

    choices: tuple[str | int, ...]

    @property
    def words(self) -> str:  # type: ignore[override]
        """The choices."""
        return "|".join(map(str, self.choices))

    def read(self, values: tuple[Atom, ...], context: Context) -> Written:
        """Find the choice with this text."""
        given = _scalar(values)
        for choice in self.choices:
            if str(choice) == given.text and (isinstance(choice, str) or not given.quoted):
                return self._written(choice)
        raise InputError(f"is not one of {', '.join(map(str, self.choices))}")

    def write(self, value: Any) -> str:
        """Return the choice as text."""
        if isinstance(value, bool) or value not in self.choices:
            raise TypeError(value)
        return str(Text.of(str(value)))


class Budget(Type):
    """An exact ε (`8/255`, `0.3`)."""

    words = "ε like 8/255 or 0.3"

    def read(self, values: tuple[Atom, ...], context: Context) -> Written:
        """Convert a fraction or a decimal number."""
        return self._written(Epsilon.parse(_scalar(values).text))

    def write(self, value: Any) -> str:
        """Return ε as it was given."""
        if not isinstance(value, Epsilon):
            raise TypeError(value)
        return str(Text.of(str(value)))


class File(Type):
    """A file or a folder, published by name and content."""

    words = "file or folder"

    def read(self, values: tuple[Atom, ...], context: Context) -> Written:
        """Find the file: a path from one of the search folders, or `name@sha256:…` in or below them."""
        text = _scalar(values).text
        if not text or "\0" in text:
            raise InputError("is not a path")
        path = Path(text).expanduser() if text.startswith("~/") else self._among(context.search, text)
        reference = FileRef.parse(text)
        if reference is not None and not path.exists():
            found = find_file(reference, context.search)
            if found is None:
                where = ", ".join(map(str, context.search)) or "no folder was given to look in"
                raise DataError(f"no file {text!r} with this name and content ({where})")
            path = found
        return self._written(path)

    @staticmethod
    def _among(folders: Sequence[Path], text: str) -> Path:
        """Return `text` below the first folder that has it, else below the first one; an absolute path is itself."""
        paths = [folder / text for folder in folders or (Path(),)]
        # Not Path.exists: that one raises on a name that is too long.
        return next((path for path in paths if os.path.exists(path)), paths[0])  # noqa: PTH110

    def write(self, value: Any) -> str:
        """Return `name@sha256:…`, never the path."""
        if not isinstance(value, Path):
            raise TypeError(value)
        return str(Text.of(str(FileRef.of(value))))


@dataclass(frozen=True)
class Nested(Type):
    """Another plugin, as a spec in parentheses."""

    kind: str
    noun: str

    @property
    def words(self) -> str:  # type: ignore[override]
        """The kind of spec."""
        return f"({self.noun})"

    def read(self, values: tuple[Atom, ...], context: Context) -> Written:
        """Resolve the spec with the loaded plugins."""
        if len(values) != 1 or not isinstance(values[0], Chain):
            raise InputError(f"must be one {self.noun} spec in parentheses")
        value, canonical, full = context.resolve(self.kind, values[0])
        return Written(value, f"({canonical})", f"({full})")

    def write(self, value: Any) -> str:
        """Refuse: an object does not know its spec, so such a default must be None."""
        raise TypeError(value)


@dataclass(frozen=True)
class Named(Type):
    """Another plugin, as its name or its spec in parentheses. The value is the canonical spec, a text.

    `apart` names the parameter of that plugin that the one around it gives: it has a default, and stands in no spec.
    """

    kind: str
    noun: str
    apart: str = ""

    @property
    def words(self) -> str:  # type: ignore[override]
        """The kind of spec."""
        return f"{self.noun}|({self.noun}:…)"

    def read(self, values: tuple[Atom, ...], context: Context) -> Written:
        """Resolve the spec with the loaded plugins."""
        if len(values) == 1 and isinstance(values[0], Chain):
            chain = values[0]
        else:
            chain = parse(_scalar(values, bare=True).text)
            if chain.specs[0].items:
                raise InputError("must stand in parentheses")
        if any(self._is_apart(item) for item in chain.specs[0].items):
            raise InputError(f"must leave out {self.apart}, which is given outside")
        _, canonical, full = context.resolve(self.kind, chain)
        short, whole = (self._without(text) for text in (canonical, full))
        return Written(short, self.write(short), self.write(whole))

    def write(self, value: Any) -> str:
        """Return the name, or the spec in parentheses."""
        if not isinstance(value, str):
            raise TypeError(value)
        try:
            chain = parse(value)
        except InputError:
            raise TypeError(value) from None
        return f"({value})" if len(chain.specs) > 1 or chain.specs[0].items else value

    def _is_apart(self, item: Item) -> bool:
        return bool(self.apart) and item.key in (None, self.apart)

    def _without(self, text: str) -> str:
        spec = parse(text).specs[0]
        return str(Spec(spec.name, tuple(item for item in spec.items if not self._is_apart(item)), spec.distribution))


@dataclass(frozen=True)
class Optional(Type):
    """`none`, or another type."""

    inner: Type
    none: ClassVar[str] = "none"

    @property
    def words(self) -> str:  # type: ignore[override]
        """The type in words."""
        return f"{self.inner.words} or none"

    def read(self, values: tuple[Atom, ...], context: Context) -> Written:
        """Convert a bare `none`, and all else as the inner type."""
        if len(values) == 1 and isinstance(values[0], Text) and not values[0].quoted and values[0].text == self.none:
            return Written(None, self.none, self.none)
        value, canonical, full = self.inner.read(values, context)
        return Written(value, self._guarded(canonical), self._guarded(full))

    def write(self, value: Any) -> str:
        """Return `none`, or the inner type's text."""
        return self.none if value is None else self._guarded(self.inner.write(value))

    def _guarded(self, text: str) -> str:
        return f'"{text}"' if text == self.none else text


@dataclass(frozen=True)
class Many(Type):
    """A tuple, its items joined by `+`."""

    inner: Type

    @property
    def words(self) -> str:  # type: ignore[override]
        """The type in words."""
        return f"{self.inner.words}, several joined by +"

    def read(self, values: tuple[Atom, ...], context: Context) -> Written:
        """Convert each item."""
        items = [self.inner.read((atom,), context) for atom in values]
        canonical, full = self._join([i.canonical for i in items]), self._join([i.full for i in items])
        return Written(tuple(item.value for item in items), canonical, full)

    def write(self, value: Any) -> str:
        """Return the items joined by `+`, or `()`."""
        if not isinstance(value, tuple):
            raise TypeError(value)
        return self._join([self.inner.write(item) for item in value])

    def _join(self, items: list[str]) -> str:
        return "+".join(items) or "()"
