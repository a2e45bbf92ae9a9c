"""Bounds that lie are caught, each by the check that is about its lie; the enumeration itself is held to arithmetic."""

import math
import random
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.bounds import Exact
from robench import BoundCurve, InputError, PluginError
from robench.testing import ConformanceError, check_bound, check_plugin
from robench.testing._separated import Separated, cast_apart, identical, known_sets, on_a_grid, one_class


def failed(lie: Any, direction: str = "ceiling", only: set[str] | None = None) -> set[str]:
    return {finding.check for finding in check_plugin("bound", Exact(direction, lie), only=only) if not finding.ok}


def test_the_exact_bound_conforms_in_both_directions():
    findings = check_bound(Exact())
    assert all(finding.outcome == "passed" for finding in findings)
    findings = check_plugin("bounds", Exact("floor"))
    assert [finding.check for finding in findings if finding.outcome != "passed"] == ["subset"]


def _bits(chosen, n):
    return [i for i in range(n) if chosen >> i & 1]


def same_class_too(known, norm, epsilons, **_):
    apart = Separated("a class for each sample", known.x, np.arange(len(known.y)))
    return [apart.best(norm, eps) / len(known.y) for eps in epsilons]


def twice_too_far(known, norm, epsilons, **_):
    return [known.best(norm, 2 * eps) / len(known.y) for eps in epsilons]


def a_little_too_far(known, norm, epsilons, **_):
    return [known.best(norm, eps * (1 + 1e-9)) / len(known.y) for eps in epsilons]


def only_in_double(known, norm, epsilons, **_):
    return [known._most(norm, eps, "float64") / len(known.y) for eps in epsilons]


def one_lower(known, values, **_):
    return [max(0.0, value - 1 / len(known.y)) for value in values]


def nothing(values, **_):
    return [1.0] * len(values)


def rising(values, **_):
    return sorted(values)


def above_one(values, **_):
    return [value + 1 for value in values]


def not_a_number(values, **_):
    return [math.nan] * len(values)


def too_few(values, **_):
    return values[:-1]


def no_curve(values, **_):
    return BoundCurve("high", "ceiling", "samples", "none", "nowhere")


def endless_detail(values, **_):
    return BoundCurve(values, "ceiling", "samples", "none", "nowhere", detail=[{"x": object()}] * len(values))


def of_the_global_state(values, **_):
    return [value + (1 - value) * np.random.random() * 0 + (1 - value) * 1e-6 * random.random() for value in values]


def first_comes_first(values, known, norm, epsilons, **_):
    """A matching found greedily in the order given: true, but another order finds another."""
    out = []
    for eps in epsilons:
        reach, used = (2 * Fraction(eps)) ** (2 if norm == "l2" else 1), set()
        for (i, j), gap in known.gaps(norm).items():
            if gap <= reach and gap <= known.gaps(norm, "float32")[i, j] <= reach and not {i, j} & used:
                used |= {i, j}
        out.append(1 - len(used) / 2 / len(known.y))
    return out


def of_the_others(values, epsilons, **_):
    return values if len(epsilons) == 1 else [max(values)] * len(values)


def more_in_small_sets(values, known, **_):
    return values if len(known.y) < 9 else [min(1.0, value + 0.5) for value in values]


def writes(values, samples, **_):
    samples.y[...] = samples.y[::-1].copy()
    return values


@pytest.mark.parametrize(
    ("lie", "checks"),
    [
        (same_class_too, {"true", "one class", "closed balls"}),
        (twice_too_far, {"true", "closed balls"}),
        (a_little_too_far, {"closed balls"}),
        (only_in_double, {"casts"}),
        (one_lower, {"true", "identical inputs", "one class", "closed balls", "casts"}),
        (nothing, {"useful"}),
        (rising, {"answer"}),
        (above_one, {"answer"}),
        (not_a_number, {"answer"}),
        (too_few, {"answer"}),
        (no_curve, {"answer"}),
        (endless_detail, {"answer"}),
        (of_the_global_state, {"repeat", "random state"}),
        (first_comes_first, {"order"}),
        (of_the_others, {"alone"}),
        (more_in_small_sets, {"subset"}),
        (writes, {"inputs"}),
    ],
)
def test_a_lie_is_caught_by_the_check_about_it(lie, checks):
    assert checks == failed(lie, only=checks)


def test_a_floor_above_the_best_classifier_is_caught():
    assert "true" in failed(lambda values, **_: [min(1.0, value + 0.2) for value in values], "floor")
    assert "useful" in failed(lambda values, **_: [0.0] * len(values), "floor")


def test_population_statements_are_not_held_against_samples():
    class Population(Exact):
        def evaluate(self, *given: Any) -> BoundCurve:
            return replace(super().evaluate(*given), scope="population", value=[0.0] * len(given[2]))

    findings = {finding.check: finding.outcome for finding in check_plugin("bound", Population())}
    assert findings["true"] == findings["useful"] == findings["subset"] == "skipped"
    assert findings["answer"] == findings["repeat"] == "passed"


def test_a_norm_may_be_refused_but_not_all():
    class OnlyL2(Exact):
        refused: tuple[str, ...] = ("linf", "l1")

        def evaluate(self, samples: Any, norm: Any, *rest: Any) -> BoundCurve:
            if norm in self.refused:
                raise InputError(f"no {norm}")
            return super().evaluate(samples, norm, *rest)

    check_bound(OnlyL2())
    OnlyL2.refused = ("linf", "l2", "l1")
    with pytest.raises(ConformanceError):
        check_bound(OnlyL2())


def test_what_raises_is_a_finding_of_every_check():
    def raises(**_: Any) -> Any:
        raise RuntimeError("the solver died")

    findings = check_plugin("bound", Exact("ceiling", raises))
    assert findings and all("the solver died" in finding.seen for finding in findings if not finding.ok)
    assert any(not finding.ok for finding in findings)
    refuses = check_plugin("bound", Exact("ceiling", lambda **_: (_ for _ in ()).throw(PluginError("b", "no"))))
    assert {finding.outcome for finding in refuses} == {"skipped"}


@pytest.mark.parametrize("known", [*known_sets(), identical(), on_a_grid(), one_class()], ids=lambda one: one.name)
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_nearest_neighbour_reaches_what_the_enumeration_says_and_nobody_more(known, norm):
    """Attack the classifier of the proof: midpoints of conflicting samples, and random points of every ball."""
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    x, n = known.x.reshape(len(known.y), -1).astype(float), len(known.y)
    far = np.array([[np.linalg.norm(a - b, order) for b in x] for a in x])
    for eps in known.budgets(norm):
        near = (far <= 2 * eps) & (known.y[:, None] != known.y)
        best = known.best(norm, eps)
        kept = next(c for c in range(1 << n) if c.bit_count() == best and not near[np.ix_(*[_bits(c, n)] * 2)].any())
        chosen = _bits(kept, n)
        draw = np.random.default_rng(1).normal(size=(200, x.shape[1]))
        draw /= np.linalg.norm(draw, order, axis=1, keepdims=True)
        for i in chosen:
            points = x[i] + eps * draw
            distances = np.stack([np.linalg.norm(points - x[j], order, axis=1) for j in chosen])
            answers = known.y[np.array(chosen)[distances.argmin(0)]]
            assert (answers == known.y[i]).all()
        # One more sample always brings two balls that meet: their midpoint is a point of both.
        assert all(near[np.ix_(*[_bits(c, n)] * 2)].any() for c in range(1 << n) if c.bit_count() == best + 1)


def test_float32_moves_the_pair_apart():
    known = cast_apart()
    for norm in ("linf", "l2", "l1"):
        exact, rounded = known.gaps(norm)[0, 1], known.gaps(norm, "float32")[0, 1]
        assert exact < rounded
        below, at = known.touching(norm)
        assert known.best(norm, below) == 2 and known._most(norm, at, "float64") in (1, 2)
        assert known.best(norm, at) == 2
    assert known._most("linf", known.touching("linf")[-1], "float64") == 1


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1)), min_size=1, max_size=8), st.integers(1, 16))
def test_on_a_line_two_classes_need_as_many_errors_as_a_matching_has_edges(points, sixteenths):
    """König 1931: in a bipartite graph the smallest vertex cover is the largest matching."""
    x = np.array([[value / 8] for value, _ in points], dtype=np.float32)
    y = np.array([label for _, label in points])
    eps = sixteenths / 16
    edges = {i: [j for j in range(len(y)) if y[i] < y[j] and abs(x[i] - x[j])[0] <= 2 * eps] for i in range(len(y))}
    partner: dict[int, int] = {}

    def augment(i: int, seen: set[int]) -> bool:
        for j in edges[i]:
            if j not in seen:
                seen.add(j)
                if j not in partner or augment(partner[j], seen):
                    partner[j] = i
                    return True
        return False

    matching = sum(augment(i, set()) for i in range(len(y)))
    for norm in ("linf", "l2", "l1"):
        assert Separated("line", x, y).best(norm, eps) == len(y) - matching
