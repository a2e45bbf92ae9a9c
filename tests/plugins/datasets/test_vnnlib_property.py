"""VNN-LIB files: what they state, held against their own words in rational arithmetic, and what is refused."""

import gzip
import math
import re
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robench.errors import DataError
from robench.regions import Condition
from robench_plugins.datasets._vnnlib_logic import Case, Linear, combined
from robench_plugins.datasets.vnnlib import read_property

HEAD = "(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
BOX = "(assert (>= X_0 0.25))\n(assert (<= X_0 0.5))\n(assert (>= X_1 -1))\n(assert (<= X_1 1e-1))\n"
SAFE = "(assert (<= Y_0 Y_1))\n"


def write(path, text):
    path.write_text(text)
    return path


def words(text):
    """The text as nested lists, by an evaluation of the whole text at once."""
    plain = re.sub(r";.*", "", text).replace("(", " [").replace(")", "] ")
    quoted = re.sub(r"[^\s\[\]]+", lambda word: repr(word[0]), plain)
    return eval("[" + re.sub(r"(['\]])\s+(?=['\[])", r"\1,", quoted) + "]")


def value(term, at):
    """A term or a statement at a point, in rational numbers."""
    if isinstance(term, str):
        return at[term] if term in at else Fraction(term)
    head, *rest = term
    parts = [value(one, at) for one in rest]
    if head == "assert":
        return parts[0]
    if head in ("and", "or"):
        return (all if head == "and" else any)(parts)
    if head in ("<=", ">="):
        return all((a <= b) if head == "<=" else (a >= b) for a, b in pairwise(parts))
    if head == "+":
        return sum(parts)
    if head == "*":
        return math.prod(parts)
    return -parts[0] if len(parts) == 1 else parts[0] - sum(parts[1:])


def holds(condition, outputs, strict=False):
    """Whether a condition holds at rational outputs, exactly."""
    disjuncts = condition.strict if strict and condition.strict is not None else condition.disjuncts
    return any(
        all(
            sum(Fraction(c) * y for c, y in zip(row, outputs, strict=True)) + Fraction(offset) <= 0
            for row, offset in zip(rows.tolist(), offsets.tolist(), strict=True)
        )
        for rows, offsets in disjuncts
    )


numbers = st.sampled_from(["0", "1", "-1", "2.5", "0.1", "-0.3", "1e-3", "3", "+.5", "1."])
outputs = st.sampled_from(["Y_0", "Y_1"])
terms = st.recursive(
    outputs | numbers,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["+", "-"]), inner, inner).map(lambda t: f"({' '.join(t)})"),
        inner.map(lambda t: f"(- {t})"),
        st.tuples(numbers, inner).map(lambda t: f"(* {' '.join(t)})"),
    ),
    max_leaves=4,
)
atoms = st.tuples(st.sampled_from(["<=", ">="]), outputs, terms).map(lambda t: f"({' '.join(t)})")
statements = st.recursive(
    atoms,
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda t: f"({t[0]} {' '.join(t[1])})"
    ),
    max_leaves=6,
)


@settings(max_examples=150)
@given(st.lists(statements, min_size=1, max_size=3), st.lists(st.fractions(-4, 4, max_denominator=7), min_size=6))
def test_a_condition_holds_where_the_assertions_do(tmp_path_factory, asserted, values):
    text = HEAD + BOX + "".join(f"(assert {one})\n" for one in asserted)
    try:
        read = read_property(write(tmp_path_factory.getbasetemp() / "p.vnnlib", text))
    except DataError as error:
        assert "without a variable" in str(error)  # an output that cancels
        return
    tree = [one for one in words(text) if one[0] == "assert" and "Y_" in str(one)]
    for pair in zip(values[::2], values[1::2], strict=False):
        at = {"Y_0": pair[0], "Y_1": pair[1]}
        true = all(value(one, at) for one in tree)
        # Offsets that no double holds are rounded either way: witnesses fulfil the one, proofs refute the other.
        assert holds(read.condition, pair, strict=True) <= true <= holds(read.condition, pair)
        if read.condition.strict is None:
            assert holds(read.condition, pair) == true


decimals = st.one_of(
    st.floats(-8, 8, width=32).map(lambda v: repr(float(v))),
    st.floats(-8, 8).map(repr),
    st.decimals(-8, 8, places=20, allow_nan=False).map(lambda v: format(v, "f")),
    st.integers(-9, 9).map(str),
)


@settings(max_examples=120)
@given(decimals, decimals)
def test_the_box_holds_the_decimals_and_the_inner_one_lies_in_them(tmp_path_factory, one, other):
    low, high = sorted((one, other), key=Fraction)
    bounds = f"(assert (>= X_0 {low}))\n(assert (<= X_0 {high}))\n(assert (>= X_1 0))\n(assert (<= X_1 0))\n"
    read = read_property(write(tmp_path_factory.getbasetemp() / "p.vnnlib", HEAD + bounds + SAFE))
    least, most = Fraction(low), Fraction(high)
    assert Fraction(read.lower[0]) <= least <= Fraction(read.least[0])
    assert Fraction(read.most[0]) <= most <= Fraction(read.upper[0])
    # And no double lies between: the nearest on each side.
    assert read.least[0] in (read.lower[0], math.nextafter(read.lower[0], math.inf))
    assert read.most[0] in (read.upper[0], math.nextafter(read.upper[0], -math.inf))
    assert read.lower[0] == read.least[0] or Fraction(read.lower[0]) < least < Fraction(read.least[0])


lines = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "", "; X_0 ) (", "(assert (<= X_0 0.4)) ", "(assert (<= X_0 0.4)) ; so", "  (assert (>= X_1 -0.5))",
                "(assert (and (<= X_0 0.45) (>= X_0 0.3)))", "(assert (<= X_0\n0.35))", "(assert (<= (* 2 X_0) 0.9))",
                "(assert (or", "(and (<= Y_0 Y_1))", "))", "(assert (<= X_1 1e-2))", "(declare-const X_2 Real)",
                "(assert (<= X_2 3))", "(assert (>= X_2 -3))", "(assert (<= X_0 1e900))", "(assert (<= X_7 1))",
            ]
        )
    ),
    max_size=8,
)  # fmt: skip


@settings(max_examples=150)
@given(lines)
def test_plain_lines_read_by_pattern_say_what_they_say_as_expressions(tmp_path_factory, some):
    path = write(tmp_path_factory.getbasetemp() / "p.vnnlib", HEAD + BOX + "\n".join([*some, SAFE]))

    def read(quick):
        try:
            return read_property(path, quick=quick)
        except DataError as error:
            return str(error)

    one, other = read(True), read(False)
    if isinstance(other, str):
        assert isinstance(one, str)
        return
    for name in ("lower", "upper", "least", "most"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert [rows.tolist() for rows, _ in one.condition.disjuncts] == [
        rows.tolist() for rows, _ in other.condition.disjuncts
    ]


def test_the_usual_form_is_about_a_label(tmp_path):
    cases = " ".join(f"(and (>= Y_{j} Y_2))" for j in (4, 0, 3, 1))
    text = "".join(f"(declare-const {v} Real)\n" for v in ("X_0", *(f"Y_{j}" for j in range(5))))
    text += f"(assert (<= X_0 1.0))\n(assert (>= X_0 0.0))\n(assert (or {cases}))\n"
    read = read_property(write(tmp_path / "p.vnnlib", text))
    assert (read.label, read.inputs, read.outputs) == (2, 1, 5)
    assert read.condition.is_of_label(2) and not read.condition.is_of_label(1)
    packed = tmp_path / "p.vnnlib.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_property(packed).condition.is_of_label(2)
    missing = text.replace("(and (>= Y_3 Y_2))", "")
    assert read_property(write(tmp_path / "q.vnnlib", missing)).label is None


def test_a_box_in_every_case_is_the_box(tmp_path):
    text = HEAD + "(assert (or (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1) (>= Y_0 1))\n"
    same = text + "(and (<= X_0 1) (>= X_0 0) (>= X_1 0) (<= X_1 1) (>= Y_1 2))))"
    read = read_property(write(tmp_path / "p.vnnlib", same))
    assert (read.lower.tolist(), read.upper.tolist()) == ([0, 0], [1, 1])
    assert len(read.condition.disjuncts) == 2
    other = text + "(and (<= X_0 1) (>= X_0 0) (>= X_1 0) (<= X_1 0.5) (>= Y_1 2))))"
    with pytest.raises(DataError, match="line 6: cases with other boxes"):
        read_property(write(tmp_path / "q.vnnlib", other))


DEEP = "(" * 70 + ")" * 70
REFUSED = {
    "never closed": (HEAD + BOX + "(assert (<= Y_0 Y_1)\n\n", "line 9: a parenthesis is never closed"),
    "one too many": (HEAD + BOX + "(assert (<= Y_0 Y_1)))\n", "line 9: a closing parenthesis too many"),
    "unknown": (HEAD + BOX + "(assert (<= Y_0\n Y_2))\n", "line 10: Y_2 is not declared"),
    "unknown input": (HEAD + BOX + SAFE + "(assert (<= X_5 1))\n", "line 10: X_5 is not declared"),
    "unknown word": (HEAD + BOX + "(assert (<= Y_0 Z))\n", "line 9: 'Z' is neither a number nor a variable"),
    "unbounded": (HEAD + BOX.replace("(assert (>= X_1 -1))", "") + SAFE, "line 2: X_1 has no lower bound"),
    "empty box": (HEAD + BOX + "(assert (>= X_0 0.6))\n" + SAFE, "line 9: X_0 is at least 0.6 and at most 0.5"),
    "barely empty": (
        HEAD + BOX + "(assert (>= X_0 0.50000000000000000000000000001))\n" + SAFE, "line 9: X_0 is at least 0.5"
    ),
    "strict": (HEAD + BOX + "(assert (< Y_0 Y_1))\n", "line 9: < is strict"),
    "nan": (HEAD + BOX + "(assert (<= Y_0 nan))\n", "line 9: 'nan' is neither"),
    "infinite": (HEAD + BOX + "(assert (<= Y_0 1e999))\n", "line 9: '1e999' is no number that a network computes"),
    "infinite bound": (HEAD + BOX + "(assert (<= X_0 1e999))\n" + SAFE, "line 9: '1e999' is no number"),
    "beyond doubles": (HEAD + BOX + "(assert (<= Y_0 1e350))\n", "line 9: a bound beyond all doubles"),
    "mixed": (HEAD + BOX + "(assert (<= Y_0 X_0))\n", "line 9: a relation between inputs and outputs"),
    "two inputs": (HEAD + BOX + SAFE + "(assert (<= X_0 X_1))\n", "line 10: a relation between inputs"),
    "nonlinear": (HEAD + BOX + "(assert (<= (* Y_0 Y_1) 1))\n", "line 9: a product of variables"),
    "constants": (HEAD + BOX + SAFE + "(assert (<= 0 1))\n", "line 10: an inequality without a variable"),
    "division": (HEAD + BOX + "(assert (<= (/ Y_0 2) 1))\n", "line 9: '/' is not read in a term"),
    "not": (HEAD + BOX + "(assert (not (<= Y_0 1)))\n", "line 9: 'not' is not read"),
    "equal": (HEAD + BOX + "(assert (= Y_0 1))\n", "line 9: '=' is not read: use <=, >="),
    "or of nothing": (HEAD + BOX + "(assert (or))\n", "line 9: or of nothing"),
    "one term": (HEAD + BOX + "(assert (<= Y_0))\n", "line 9: <= of fewer than two terms"),
    "bare word": (HEAD + BOX + "(assert true)\n", "line 9: an assertion is not of the form"),
    "word in or": (HEAD + BOX + "(assert (or Y_0))\n", "line 9: 'Y_0' is no inequality"),
    "outside": (HEAD + BOX + SAFE + "hello\n", "line 10: 'hello' stands outside parentheses"),
    "command": (HEAD + BOX + SAFE + "(check-sat)\n", "line 10: 'check-sat' is not read"),
    "other version": ("(vnnlib-version <2.0>)\n" + HEAD + BOX + SAFE, "line 1: 'vnnlib-version' is not read"),
    "empty list": (HEAD + BOX + SAFE + "()\n", "line 10: a list that begins with no word"),
    "no condition": (HEAD + BOX, "no condition on the outputs"),
    "condition in one case": (HEAD + BOX + "(assert (or (<= Y_0 1) (<= X_0 0.5)))\n", "line 9: "),
    "twice": (HEAD + "(declare-const X_1 Real)\n" + BOX + SAFE, "line 5: X_1 is declared twice"),
    "gap": (HEAD + "(declare-const X_3 Real)\n" + BOX + SAFE, "line 5: X_3 is declared, but not all before it"),
    "integer": (HEAD + "(declare-const X_2 Int)\n" + BOX + SAFE, "line 5: a declaration that is not"),
    "no inputs": ("(declare-const Y_0 Real)\n" + SAFE, "line 1: declares no X_0"),
    "no outputs": ("(declare-const X_0 Real)\n(assert (<= X_0 1))\n(assert (>= X_0 1))\n", "line 1: declares no Y_0"),
    "empty": ("", "line 1: declares no X_0"),
    "deep": (HEAD + BOX + DEEP, "line 9: nested deeper than 64 parentheses"),
    "many cases": (
        HEAD + BOX + "(assert (or (<= Y_0 0) (<= Y_1 0)))\n" * 20, "more than 20000 cases"
    ),
    "factor": (
        HEAD + BOX + "(assert (<= (* 0.12345678901234567891 Y_0) (* 0.1 Y_1)))\n", "a factor of an output that no"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("quick", [True, False])
def test_what_cannot_be_is_refused_with_its_line(name, quick, tmp_path):
    text, why = REFUSED[name]
    with pytest.raises(DataError) as error:
        read_property(write(tmp_path / "p.vnnlib", text), quick=quick)
    assert why in str(error.value)
    assert "p.vnnlib, line " in str(error.value)
    assert "\n" not in str(error.value)


TINY = "1e-400 "
HOSTILE = {
    "long product": ("(assert (<= (* " + TINY * 20_000 + "Y_0) Y_1))\n", "line 9: a product of more than 4096 bits"),
    "product after": ("(assert (<= (* Y_0 " + TINY * 20_000 + ") Y_1))\n", "line 9: a product of more than 4096 bits"),
    "no variable": ("(assert (<= (* 1e400 1e400 1e400 1e400) Y_1))\n", "line 9: a product of more than 4096 bits"),
    "nested": ("(assert (<= " + "(* 1e400 " * 50 + "Y_0" + ")" * 50 + " Y_1))\n", "line 9: a product of more"),
    "cases of or": (
        "(assert (or " + ("(and " + "(or (<= Y_0 0) (<= Y_1 0))" * 14 + ")\n") * 500 + "))", "more than 20000 cases"
    ),
    "cases of and": (
        "(assert (and " + ("(and " + "(or (<= Y_0 0) (<= Y_1 0))" * 14 + ")\n") * 500 + "))", "more than 20000 cases"
    ),
    "assertions of cases": (
        ("(assert (and " + "(or (<= Y_0 0) (<= Y_1 0))" * 14 + "))\n") * 500, "line 10: more than 20000 cases"
    ),
    "copied": (
        "(assert (and " + "(or (<= Y_0 0) (<= Y_1 0))" * 14 + "(<= Y_0 Y_1)" * 2000 + "))",
        "line 9: more than 16777216 inequalities in all",
    ),
    "copied by assertions": (
        "(assert (or (<= Y_0 0) (<= Y_1 0)))\n" * 14 + "(assert (and " + "(<= Y_0 Y_1)" * 2000 + "))",
        "line 23: a condition of too many inequalities",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_small_files_that_mean_much_are_refused_before_it_is_built(name, tmp_path):
    # Built, they would take minutes, or all memory.
    text, why = HOSTILE[name]
    with pytest.raises(DataError) as error:
        read_property(write(tmp_path / "p.vnnlib", HEAD + BOX + text))
    assert why in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("term", ["(+ {} {})", "(- {} {})", "(* (+ {}) {})", "(* {1} (+ {0}))"])
def test_long_terms_are_read_right(term, tmp_path):
    count = 12_000  # a copy of all terms at each step would take 20 s
    declared = "".join(f"(declare-const Y_{j} Real)\n" for j in range(2, count))
    text = term.format(" ".join(f"Y_{j}" for j in range(count)), "1 " * count)
    read = read_property(write(tmp_path / "p.vnnlib", f"{HEAD}{declared}{BOX}(assert (<= {text} 0))"))
    ((rows, offsets),) = read.condition.disjuncts
    signs = [1, *([-1 if term[1] == "-" else 1] * (count - 1))]
    assert rows.tolist() == [signs] and offsets.tolist() == [{"+": count, "-": -count, "*": 0}[term[1]]]


def test_long_conjunctions_are_joined(tmp_path):
    one, many = Case(outputs=(Linear({("Y", 0): Fraction(1)}),)), 200_000  # a copy at each step would take 40 s
    (joined,) = combined(tmp_path, (([one], 1) for _ in range(many)))
    assert joined.outputs == one.outputs * many
    text = f"{HEAD}{BOX}(assert (<= {'Y_0 Y_1 ' * 50}))(assert (and {'(<= Y_0 Y_1)(<= Y_1 2)' * 50}))"
    ((rows, offsets),) = read_property(write(tmp_path / "p.vnnlib", text)).condition.disjuncts
    assert rows.tolist() == [[1, -1], [-1, 1]] * 49 + [[1, -1]] + [[1, -1], [0, 1]] * 50
    assert offsets.tolist() == [0] * 99 + [0, -2] * 50


def test_the_tightest_of_boxes_in_cases_is_the_box(tmp_path):
    """A bound that a case repeats, loosely or to the letter, makes no other box."""
    text = (
        HEAD
        + BOX
        + "(assert (or (and (<= X_0 0.4) (<= X_1 7) (<= Y_0 0))\n(and (<= X_0 0.5) (<= X_0 0.40) (<= Y_1 0))))"
    )
    read = read_property(write(tmp_path / "p.vnnlib", text))
    assert Fraction(read.most[0]) <= Fraction("0.4") <= Fraction(read.upper[0]) and read.upper[0] < 0.41
    with pytest.raises(DataError, match="line 10: cases with other boxes"):
        read_property(write(tmp_path / "q.vnnlib", text.replace("(<= X_0 0.40) ", "")))


def test_files_that_are_no_text_or_too_large_are_refused(tmp_path):
    (tmp_path / "bytes.vnnlib").write_bytes(b"; fine\n\xff\xfe")
    with pytest.raises(DataError, match=r"bytes\.vnnlib, line 2: not text"):
        read_property(tmp_path / "bytes.vnnlib")
    (tmp_path / "cut.vnnlib.gz").write_bytes(gzip.compress(b"; x\n" * 1000)[:-20])
    with pytest.raises(DataError, match=r"cut\.vnnlib\.gz: cannot be"):
        read_property(tmp_path / "cut.vnnlib.gz")
    (tmp_path / "bomb.vnnlib.gz").write_bytes(gzip.compress(b"\n" * (65 << 20), 9))
    with pytest.raises(DataError, match="larger than 64 MiB"):
        read_property(tmp_path / "bomb.vnnlib.gz")
    with pytest.raises(DataError, match="cannot be read"):
        read_property(tmp_path / "none.vnnlib")
    (tmp_path / "esc.vnnlib").write_text(HEAD + BOX + "(assert (<= Y_0 \x1b[31mred))")
    with pytest.raises(DataError) as error:
        read_property(tmp_path / "esc.vnnlib")
    assert "\x1b" not in str(error.value)


def test_a_condition_is_no_labels_where_an_offset_is_not_0():
    rows = np.array([[1.0, -1.0]])
    assert Condition(((rows, np.zeros(1)),)).label == 0
    assert Condition(((rows, np.array([1e-300])),)).label is None
    assert Condition(((2 * rows, np.zeros(1)),)).label is None
    assert Condition(((rows, np.zeros(1)), (-rows, np.zeros(1)))).label is None


soup = st.lists(
    st.sampled_from(
        ["(", ")", "(", ")", "assert", "and", "or", "<=", ">=", "X_0", "X_1", "Y_0", "Y_1", "0.5", "1e400", "-", "*",
         "+", "declare-const", "Real", "\n", ";", "X_00", "Y_99999999999", "nan", "é", "\x00"]
    ),
    max_size=40,
).map(" ".join)  # fmt: skip


@settings(max_examples=300)
@given(soup, st.booleans())
def test_whatever_a_file_says_is_read_or_refused_in_a_line(tmp_path_factory, text, complete):
    path = write(tmp_path_factory.getbasetemp() / "p.vnnlib", (HEAD + BOX + SAFE if complete else "") + text)
    try:
        read = read_property(path)
    except DataError as error:
        assert str(error).isprintable() and len(str(error)) < 400 + len(str(path))
    else:
        assert (read.lower <= read.upper).all() and read.condition.outputs == read.outputs
