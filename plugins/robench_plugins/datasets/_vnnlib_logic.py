"""From assertions to a box of inputs and a condition on the outputs, in exact arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, pairwise, product
from pathlib import Path
from typing import Final

from robench_plugins.datasets._vnnlib_read import Form, Token, number, problem, shown, variable

__all__ = ["Case", "Linear", "assertion", "combined"]

MOST_CASES: Final = 20_000
MOST_PARTS: Final = 1 << 24
"""Inequalities of all cases together, each counted in every case that it is part of."""
_LONGEST: Final = 4096
"""Bits of a product's numerator, and of its denominator: two of the longest numbers go in, and no denominator grows."""
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

    @classmethod
    def sum(cls, parts: Iterable[Linear]) -> Linear:
        """Return the sum, without the variables that cancel."""
        terms, constant = dict[Variable, Fraction](), Fraction(0)
        for part in parts:
            constant += part.constant
            for name, value in part.terms.items():
                terms[name] = terms.get(name, Fraction(0)) + value
        return cls({name: value for name, value in terms.items() if value}, constant)


@dataclass(frozen=True)
class Case:
    """A conjunction: bounds of inputs, (upper, index) → numbers, and linear expressions of outputs that are ≤ 0."""

    bounds: tuple[tuple[bool, int, Fraction, int], ...] = ()
    outputs: tuple[Linear, ...] = field(default=())

    @classmethod
    def all_of(cls, cases: Sequence[Case]) -> Case:
        """Return the conjunction of several."""
        join = chain.from_iterable
        return cls(tuple(join(case.bounds for case in cases)), tuple(join(case.outputs for case in cases)))


def combined(path: Path, choices: Iterable[tuple[list[Case], int]]) -> list[Case]:
    """Return the conjunction of disjunctions as one: a case for every choice of one of each, the last varying fastest.

    `choices` are taken one by one, each with its line. Raises DataError with the line of the one at which the cases
    or their inequalities become too many, before any is built.
    """
    taken: list[list[Case]] = []
    count, size = 1, 0
    for some, line in choices:
        size = size * len(some) + count * sum(len(case.bounds) + len(case.outputs) for case in some)
        count *= len(some)
        if count > MOST_CASES:
            raise problem(path, line, f"more than {MOST_CASES} cases")
        if size > MOST_PARTS:
            raise problem(path, line, f"more than {MOST_PARTS} inequalities in all cases together")
        taken.append(some)
    return taken[0] if len(taken) == 1 else [Case.all_of(chosen) for chosen in product(*taken)]


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
        inner = (self.cases(self._form(part)) for part in parts)
        if word == "and":
            return combined(self.path, ((some, stated.line) for some in inner))
        found: list[Case] = []
        for some in inner:
            found += some
            if len(found) > MOST_CASES:
                raise problem(self.path, stated.line, f"more than {MOST_CASES} cases")
        return found

    def _form(self, part: Token | Form) -> Form:
        if isinstance(part, Token):
            raise problem(self.path, part.line, f"{shown(part.text)} is no inequality")
        return part

    def _relations(self, stated: Form, word: str, parts: list[Token | Form]) -> Case:
        if len(parts) < 2:
            raise problem(self.path, stated.line, f"{word} of fewer than two terms")
        atoms = []
        for left, right in pairwise(map(self._linear, parts)):
            low, high = (left, right) if word == "<=" else (right, left)
            atoms.append(self._atom(stated, Linear.sum((low, high.scaled(Fraction(-1))))))
        return Case.all_of(atoms)

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
        parts = map(self._linear, rest)
        if word == "*":
            return self._product(part, parts)
        if word == "+":
            return Linear.sum(parts)
        first = next(parts)
        if len(rest) == 1:
            return first.scaled(Fraction(-1))
        return Linear.sum(chain((first,), (one.scaled(Fraction(-1)) for one in parts)))

    def _product(self, stated: Form, parts: Iterable[Linear]) -> Linear:
        """Return the product of numbers and of one term with variables; lengths are bounded at each step."""
        factor, term = Fraction(1), None
        for part in parts:
            if not part.terms:
                factor = self._bounded(stated, factor * part.constant)
            elif term is None:
                term = part
            else:
                raise problem(self.path, stated.line, "a product of variables: only linear terms are read")
        if term is None:
            return Linear({}, factor)
        whole = Linear.sum((term.scaled(factor),))
        for value in (*whole.terms.values(), whole.constant):
            self._bounded(stated, value)
        return whole

    def _bounded(self, stated: Form, value: Fraction) -> Fraction:
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > _LONGEST:
            raise problem(self.path, stated.line, f"a product of more than {_LONGEST} bits: round its numbers")
        return value

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
