"""From assertions to a box of inputs and a condition on the outputs, in exact arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Final

from robench_plugins.datasets._vnnlib_read import Form, Token, number, problem, shown, variable

__all__ = ["Case", "Linear", "assertion"]

MOST_CASES: Final = 20_000
_RELATIONS: Final = ("<=", ">=")
_SIGNS: Final = ("+", "-", "*")

Variable = tuple[str, int]


@dataclass(frozen=True)
class Linear:
    """Σ terms[v] · v + constant."""

    terms: Mapping[Variable, Fraction]
    constant: Fraction = Fraction(0)

    def scaled(self, factor: Fraction) -> Linear:
        """Return it times a number."""
        return Linear({name: value * factor for name, value in self.terms.items()}, self.constant * factor)

    def plus(self, other: Linear) -> Linear:
        """Return the sum, without the variables that cancel."""
        terms = dict(self.terms)
        for name, value in other.terms.items():
            terms[name] = terms.get(name, Fraction(0)) + value
        return Linear({name: value for name, value in terms.items() if value}, self.constant + other.constant)


@dataclass(frozen=True)
class Case:
    """A conjunction: bounds of inputs, (upper, index) → numbers, and linear expressions of outputs that are ≤ 0."""

    bounds: tuple[tuple[bool, int, Fraction, int], ...] = ()
    outputs: tuple[Linear, ...] = field(default=())

    def both(self, other: Case) -> Case:
        """Return the conjunction of two."""
        return Case(self.bounds + other.bounds, self.outputs + other.outputs)


def assertion(path: Path, form: Form, counts: Mapping[str, int]) -> list[Case]:
    """Return the disjunction that an assertion states, about inputs and outputs of which `counts` tells the numbers.

    Raises DataError with the line of what VNN-LIB 1 does not have, or of what is no box and no condition.
    """
    reader = _Reader(path, counts)
    match form.parts:
        case (Token("assert"), Form() as stated):
            return reader.cases(stated)
        case (Token("assert"), *_):
            raise problem(path, form.line, "an assertion is not of the form (assert (…))")
        case (Token(word), *_):
            raise problem(path, form.line, f"{shown(word)} is not read: VNN-LIB 1 has declare-const and assert")
    raise problem(path, form.line, "a list that begins with no word")


@dataclass(frozen=True)
class _Reader:
    path: Path
    counts: Mapping[str, int]

    def cases(self, stated: Form) -> list[Case]:
        head, *parts = stated.parts or (Token("", stated.line),)
        word = head.text if isinstance(head, Token) else ""
        if word in _RELATIONS:
            return [self._relations(stated, word, parts)]
        if word in ("<", ">"):
            raise problem(self.path, stated.line, f"{word} is strict: sets are closed, write {word}=")
        if word not in ("and", "or"):
            what = shown(word) if word else "an empty list, or one that begins with a list,"
            raise problem(self.path, stated.line, f"{what} is not read: use <=, >=, and, or")
        if not parts:
            raise problem(self.path, stated.line, f"{word} of nothing")
        inner = [self.cases(self._form(part)) for part in parts]
        found = [one for some in inner for one in some] if word == "or" else list(self._products(stated, inner))
        if len(found) > MOST_CASES:
            raise problem(self.path, stated.line, f"more than {MOST_CASES} cases")
        return found

    def _products(self, stated: Form, inner: Iterable[list[Case]]) -> Iterator[Case]:
        found = [Case()]
        for some in inner:
            if len(found) * len(some) > MOST_CASES:
                raise problem(self.path, stated.line, f"more than {MOST_CASES} cases")
            found = [one.both(other) for one in found for other in some]
        yield from found

    def _form(self, part: Token | Form) -> Form:
        if isinstance(part, Token):
            raise problem(self.path, part.line, f"{shown(part.text)} is no inequality")
        return part

    def _relations(self, stated: Form, word: str, parts: list[Token | Form]) -> Case:
        if len(parts) < 2:
            raise problem(self.path, stated.line, f"{word} of fewer than two terms")
        case = Case()
        for left, right in pairwise(map(self._linear, parts)):
            low, high = (left, right) if word == "<=" else (right, left)
            case = case.both(self._atom(stated, low.plus(high.scaled(Fraction(-1)))))
        return case

    def _atom(self, stated: Form, linear: Linear) -> Case:
        """Return what `linear` ≤ 0 says: a bound of one input, or a relation of outputs."""
        letters = {letter for letter, _ in linear.terms}
        if letters == {"Y"}:
            return Case(outputs=(linear,))
        if letters == {"X"} and len(linear.terms) == 1:
            ((_, index), factor), *_ = linear.terms.items()
            return Case(bounds=((factor > 0, index, -linear.constant / factor, stated.line),))
        if letters == {"X"}:
            what = "a relation between inputs: only boxes are read"
        elif letters:
            what = "a relation between inputs and outputs: only boxes and conditions on outputs are read"
        else:
            what = "an inequality without a variable"
        raise problem(self.path, stated.line, what)

    def _linear(self, part: Token | Form) -> Linear:
        if isinstance(part, Token):
            return self._word(part)
        head, *rest = part.parts or (Token("", part.line),)
        word = head.text if isinstance(head, Token) else ""
        if word not in _SIGNS or not rest:
            raise problem(self.path, part.line, f"{shown(word)} is not read in a term: use +, -, *")
        first, *others = map(self._linear, rest)
        if word == "-" and not others:
            return first.scaled(Fraction(-1))
        for other in others:
            if word != "*":
                first = first.plus(other if word == "+" else other.scaled(Fraction(-1)))
            elif first.terms and other.terms:
                raise problem(self.path, part.line, "a product of variables: only linear terms are read")
            else:
                first = first.scaled(other.constant) if first.terms else other.scaled(first.constant)
        return first.plus(Linear({}))

    def _word(self, token: Token) -> Linear:
        if (name := variable(token.text)) is not None:
            if name[1] >= self.counts[name[0]]:
                raise problem(self.path, token.line, f"{token.text} is not declared")
            return Linear({name: Fraction(1)})
        if (value := number(token.text)) is not None:
            if abs(value.adjusted()) > 400:
                raise problem(self.path, token.line, f"{shown(token.text)} is no number that a network computes with")
            return Linear({}, Fraction(value))
        raise problem(self.path, token.line, f"{shown(token.text)} is neither a number nor a variable X_i or Y_j")
