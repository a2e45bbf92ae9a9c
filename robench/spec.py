"""The spec grammar: how plugins and their parameters are written in commands, manifests and tables.

    chain := spec (" | " spec)*
    spec  := [distribution "/"] name [":" item ("," item)*]
    item  := [key "="] value            key=value when the text before the first "=" is an identifier;
                                        only the first item may go without a key (the positional parameter)
    value := "()" | atom ("+" atom)*    more than one atom is a tuple, "()" is the empty one
    atom  := "(" chain ")" | JSON string in double quotes | bare text

Parsing knows no plugin: values stay text until `robench.params` converts them by annotation. Specs come
from the command line and from files of others, so length and nesting are limited.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import NoReturn

from robench.errors import SpecError

__all__ = ["MAX_DEPTH", "MAX_LENGTH", "Atom", "Chain", "Item", "Spec", "Text", "parse"]

MAX_LENGTH = 8192
MAX_DEPTH = 8

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*) *=")
_STOPS = frozenset(',()+"|')
_PLAIN = re.compile(r"[A-Za-z0-9_.@:/~%^-]+")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Text:
    """A value as written: bare, or in double quotes (then never read as a number, a truth value or `none`)."""

    text: str
    quoted: bool = False
    column: int = field(default=0, compare=False, repr=False)

    @classmethod
    def of(cls, text: str, *, quoted: bool = False) -> Text:
        """Return `text` bare where that reads back unchanged, otherwise quoted."""
        return cls(text, quoted or _PLAIN.fullmatch(text) is None)

    def __str__(self) -> str:
        """The text as it stands in a spec."""
        return json.dumps(self.text, ensure_ascii=not self.text.isprintable()) if self.quoted else self.text


@dataclass(frozen=True)
class Item:
    """One parameter: `key` (None for the positional one) and its values (several for a tuple)."""

    key: str | None
    values: tuple[Atom, ...]
    column: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        """`key=value`, `value`, `a+b` or `()`."""
        joined = "+".join(f"({atom})" if isinstance(atom, Chain) else str(atom) for atom in self.values) or "()"
        return joined if self.key is None else f"{self.key}={joined}"


@dataclass(frozen=True)
class Spec:
    """A plugin's name and its parameters, as written."""

    name: str
    items: tuple[Item, ...] = ()
    distribution: str | None = None
    column: int = field(default=0, compare=False, repr=False)

    @property
    def qualified(self) -> str:
        """`name`, or `distribution/name` where the spec says so."""
        return self.name if self.distribution is None else f"{self.distribution}/{self.name}"

    def __str__(self) -> str:
        """The spec as text; parses again to an equal value."""
        return f"{self.qualified}:{','.join(map(str, self.items))}" if self.items else self.qualified


@dataclass(frozen=True)
class Chain:
    """A spec and what is applied to it, in order: `base | modifier | modifier`."""

    specs: tuple[Spec, ...]

    def __str__(self) -> str:
        """The chain as text; parses again to an equal value."""
        return " | ".join(map(str, self.specs))


Atom = Text | Chain


def parse(text: str) -> Chain:
    """Parse a spec or a chain of specs. Raises SpecError that says what is wrong, and in which column."""
    if len(text) > MAX_LENGTH:
        raise SpecError(f"spec {text[:20]!r}… has {len(text)} characters: at most {MAX_LENGTH} are allowed")
    parser = _Parser(text)
    chain = parser.chain(0)
    if parser.at < len(text):  # only a closing parenthesis stops a chain before its end
        parser.fail("a ')' without its '('", "remove it, or put the value in double quotes")
    return chain


class _Parser:
    """Recursive descent over `text`; `at` is the position of the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, what: str, advice: str, at: int | None = None) -> NoReturn:
        at = self.at if at is None else at
        shown = self.text if len(self.text) <= 100 else f"{self.text[max(0, at - 40) : at + 40]}…"
        shown = shown if shown.isprintable() else ascii(shown)[1:-1]
        raise SpecError(f"spec '{shown}': {what} at column {at + 1}: {advice}")

    def peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def skip_spaces(self) -> None:
        while self.peek() == " ":
            self.at += 1

    def chain(self, depth: int) -> Chain:
        if depth > MAX_DEPTH:
            self.fail(f"parentheses nested more than {MAX_DEPTH} deep", "name the parts in a simpler spec")
        specs = [self.spec(depth)]
        while self.peek() == "|":
            if self.text[self.at - 1] != " " or self.text[self.at + 1 : self.at + 2] != " ":
                self.fail("a '|' without a space on both sides", "write 'base | modifier', or quote the value")
            self.at += 1
            specs.append(self.spec(depth))
        return Chain(tuple(specs))

    def spec(self, depth: int) -> Spec:
        self.skip_spaces()
        column = self.at + 1
        first = self.name()
        distribution = None
        if self.peek() == "/":
            self.at += 1
            distribution, first = first, self.name()
        items: list[Item] = []
        if self.peek() == ":":
            self.at += 1
            items.append(self.item(depth, first=True))
            while self.peek() == ",":
                self.at += 1
                items.append(self.item(depth, first=False))
            self.no_repeats(items)
        self.skip_spaces()
        if self.peek() not in ("", "|", ")"):
            self.fail(f"unexpected {self.peek()!r} after {first!r}", "parameters follow a ':', as in name:key=value")
        return Spec(first, tuple(items), distribution, column)

    def no_repeats(self, items: list[Item]) -> None:
        seen: set[str] = set()
        for item in items:
            if item.key in seen:
                self.fail(f"parameter {item.key!r} given twice", "keep one", item.column - 1)
            seen.add(item.key or "")

    def name(self) -> str:
        match = _NAME.match(self.text, self.at)
        if match is None:
            what = "nothing" if self.peek() in ("", "|", ")", ",") else f"{self.peek()!r}"
            self.fail(f"{what} where a plugin's name should stand", "`robench plugins` lists the names")
        self.at = match.end()
        return match[0]

    def item(self, depth: int, *, first: bool) -> Item:
        self.skip_spaces()
        column = self.at + 1
        match = _KEY.match(self.text, self.at)
        key = None
        if match is not None:
            key = match[1]
            self.at = match.end()
        values = self.values(depth, key)
        if key is None and not first:
            self.fail("a value without its key", "only the first item may go without: write key=value", column - 1)
        return Item(key, values, column)

    def values(self, depth: int, key: str | None) -> tuple[Atom, ...]:
        self.skip_spaces()
        if self.text.startswith("()", self.at):
            self.at += 2
            self.end_of_value()
            return ()
        values = [self.atom(depth, key)]
        while self.peek() == "+":
            self.at += 1
            values.append(self.atom(depth, key))
        return tuple(values)

    def atom(self, depth: int, key: str | None) -> Atom:
        self.skip_spaces()
        start = self.at
        if self.peek() == "(":
            self.at += 1
            chain = self.chain(depth + 1)
            if self.peek() != ")":
                self.fail("a '(' that is never closed", "add the ')'", start)
            self.at += 1
            self.end_of_value()
            return chain
        if self.peek() == '"':
            return self.quoted(start)
        return self.bare(start, key)

    def quoted(self, start: int) -> Text:
        try:
            value, self.at = _DECODER.raw_decode(self.text, start)
            value.encode()
        except ValueError as error:  # JSONDecodeError, or a lone surrogate
            reason = error.msg.removesuffix(" at").lower() if isinstance(error, json.JSONDecodeError) else "bad text"
            self.fail(f"no JSON string ({reason})", 'write it like "a b", with \\" and \\\\ inside', start)
        self.end_of_value()
        return Text(value, True, start + 1)

    def bare(self, start: int, key: str | None) -> Text:
        while (character := self.peek()) and character not in _STOPS:
            if not character.isprintable():
                self.fail(f"{character!a} in a bare value", "put the value in double quotes")
            self.at += 1
        if self.peek() in ("(", '"') and self.at > start:
            self.fail(f"{self.peek()!r} inside a bare value", "put the whole value in double quotes")
        text = self.text[start : self.at].rstrip(" ")
        if not text:
            wanted = "a value" if key is None else f"the value of {key!r}"
            self.fail(f"nothing where {wanted} should stand", 'write key=value, or key="" for an empty text', start)
        return Text(text, False, start + 1)

    def end_of_value(self) -> None:
        self.skip_spaces()
        if self.peek() not in ("", ",", ")", "+", "|"):
            self.fail(f"unexpected {self.peek()!r} after a value", "separate parameters by ','")
