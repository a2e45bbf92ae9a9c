"""What every bound must do: `check_bound`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robench.bounds import answer_problem
from robench.contracts import Bound, BoundCurve
from robench.errors import RobenchError
from robench.testing._findings import ALL, Check, Choice, Finding, NotApplicable, Violation, run_checks
from robench.testing._guard import Traces, watch
from robench.testing._separated import Separated, cast_apart, identical, known_sets, on_a_grid, one_class
from robench.threat import NORMS, Norm

__all__ = ["bound_findings"]


@dataclass
class BoundCase:
    """A bound, asked about sets of samples on which the best accuracy is known."""

    bound: Any
    traces: Traces = field(default_factory=Traces)
    steps: list[tuple[Any, ...]] = field(default_factory=list)

    def ask(self, known: Separated, norm: Norm, epsilons: Sequence[float]) -> BoundCurve:
        """Return the answer, held to its contract."""
        samples = known.samples()
        with watch(self.traces):
            curve = self.bound.evaluate(samples, norm, list(epsilons), lambda *step: self.steps.append(step))
        if not (np.array_equal(samples.x[0 : len(samples)], known.x) and np.array_equal(samples.y, known.y)):
            self.traces.changed["inputs"].append("the samples")
        if problem := answer_problem(curve, len(epsilons)):
            raise Violation(f"{known.name}, {norm}: {problem}")
        answered: BoundCurve = curve
        return answered

    def each(self, *sets: Separated) -> Iterator[tuple[Separated, Norm, str]]:
        """Yield every set with every norm that the bound takes, and how to call them."""
        norms = list(self.norms())
        if not norms:
            raise NotApplicable("it refuses every norm")
        for known in sets:
            for norm in norms:
                yield known, norm, f"{known.name}, {norm}"

    def norms(self) -> Iterator[Norm]:
        """Yield the norms that the bound does not refuse."""
        for norm in NORMS:
            try:
                self.ask(identical(), norm, [0.01])
            except RobenchError:
                continue
            yield norm

    def about_samples(self, curve: BoundCurve) -> None:
        """Leave the check where the answer is about the population."""
        if curve.scope != "samples":
            raise NotApplicable("its statements are about the population, not about these samples")


def _answers(case: BoundCase) -> str:
    seen: dict[str, None] = {}
    for known, norm, _ in case.each(*known_sets(), one_class()):
        case.ask(known, norm, [0.1])
        case.ask(known, norm, known.budgets(norm))
        seen[norm] = None
    return f"in {', '.join(seen)}"


def _hold(case: BoundCase, known: Separated, norm: Norm, where: str, epsilons: Sequence[float]) -> int:
    """Hold an answer against the best classifier; returns how often it said more than nothing."""
    curve, n, told = case.ask(known, norm, epsilons), len(known.y), 0
    case.about_samples(curve)
    for eps, value in zip(epsilons, curve.value, strict=True):
        best = known.best(norm, eps)
        reaches = f"the nearest neighbour among {best} of {n} samples is right on them within ε = {eps!r}"
        if curve.direction == "ceiling" and value < best / n:
            raise Violation(f"{where}: the ceiling is {value}, but {reaches}, {best / n}")
        if curve.direction == "floor" and value > best / n:
            raise Violation(f"{where}: the floor is {value}, but no classifier is right on more than {best} of {n}")
        told += value < 1 if curve.direction == "ceiling" else value > 0
    return told


def _true(case: BoundCase) -> str:
    told = sum(_hold(case, known, norm, where, known.budgets(norm)) for known, norm, where in case.each(*known_sets()))
    return f"true on {len(known_sets())} sets, and more than nothing at {told} ε"


def _closed(case: BoundCase) -> str:
    for known, norm, where in case.each(on_a_grid(), *known_sets()):
        _hold(case, known, norm, where, known.touching(norm))
    return "true where two balls touch, and one double below"


def _cast(case: BoundCase) -> str:
    for known, norm, where in case.each(cast_apart()):
        _hold(case, known, norm, where, known.touching(norm))
    return "true for classifiers in float32"


def _identical(case: BoundCase) -> str:
    for known, norm, where in case.each(identical()):
        _hold(case, known, norm, where, [known.budgets(norm)[0]])
    return "the majority label of each input stays possible"


def _single_class(case: BoundCase) -> str:
    for known, norm, where in case.each(one_class(), one_class().take([0])):
        _hold(case, known, norm, where, [0.01, 10.0])
    return "a constant classifier stays possible"


def _useful(case: BoundCase) -> str:
    for known, norm, _ in case.each(identical(), *known_sets()):
        curve = case.ask(known, norm, [10.0])
        case.about_samples(curve)
        least = case.ask(known, norm, known.budgets(norm)[:1])
        if curve.direction == "ceiling" and curve.value[0] < 1:
            return f"a ceiling of {curve.value[0]:.4g} on {known.name} where all balls meet"
        if curve.direction == "floor" and least.value[0] > 0:
            return f"a floor of {least.value[0]:.4g} on {known.name} at a small ε"
    raise Violation("nothing said where every two balls meet, nor where none do")


def _repeat(case: BoundCase) -> str:
    for known, norm, where in case.each(*known_sets()):
        first, second = (case.ask(known, norm, known.budgets(norm)) for _ in range(2))
        if (list(first.value), first.detail) != (list(second.value), second.detail):
            raise Violation(f"{where}: asked twice, {list(first.value)} and {list(second.value)}")
    return "equal to the bit"


def _order(case: BoundCase) -> str:
    for known, norm, where in case.each(*known_sets()):
        rows = np.random.default_rng(11).permutation(len(known.y)).tolist()
        first, second = (list(case.ask(one, norm, known.budgets(norm)).value) for one in (known, known.take(rows)))
        if not np.allclose(first, second, rtol=0, atol=1e-12):
            raise Violation(f"{where}: {first}, and {second} in another order")
    return "permuted samples have the same values"


def _alone(case: BoundCase) -> str:
    for known, norm, where in case.each(*known_sets()):
        epsilons = known.budgets(norm)
        together = list(case.ask(known, norm, epsilons).value)
        alone = [case.ask(known, norm, [eps]).value[0] for eps in epsilons]
        if not np.allclose(together, alone, rtol=0, atol=1e-12):
            raise Violation(f"{where}: {together} together, {alone} one by one")
    return "one ε at a time gives what all together gave"


def _subset(case: BoundCase) -> str:
    for known, norm, where in case.each(*known_sets()):
        epsilons = known.budgets(norm)
        whole = case.ask(known, norm, epsilons)
        case.about_samples(whole)
        if whole.direction != "ceiling":
            raise NotApplicable("it is no ceiling")
        for rows in (list(range(0, len(known.y), 2)), list(range(len(known.y) // 2)), list(range(1, len(known.y)))):
            part = case.ask(known.take(rows), norm, epsilons)
            for eps, all_of, some in zip(epsilons, whole.value, part.value, strict=True):
                errors, fewer = len(known.y) * (1 - all_of), len(rows) * (1 - some)
                if fewer > errors + 1e-9:
                    raise Violation(f"{where}, ε = {eps:g}: {fewer:.6g} errors on {len(rows)} of the samples, "
                                    f"{errors:.6g} on all {len(known.y)}")  # fmt: skip
    return "fewer samples, not more errors"


def _progress(case: BoundCase) -> str:
    case.steps.clear()
    for known, norm, _ in case.each(*known_sets()[:1]):
        case.ask(known, norm, known.budgets(norm))
    for step in case.steps:
        if len(step) != 2 or not all(isinstance(count, int) for count in step) or not 0 <= step[0] <= step[1]:
            raise Violation(f"progress was called with {step!r}")
    return f"{len(case.steps)} calls"


def _left(topic: str) -> Callable[[BoundCase], str]:
    def run(case: BoundCase) -> str:
        for known, norm, where in case.each(*known_sets()):
            case.traces = Traces()
            for _ in range(2):
                case.ask(known, norm, [0.1])
            case.traces.refuse(topic, where)
        return "as it was"

    return run


CHECKS: list[Check[BoundCase]] = [
    Check(
        "answer",
        "a BoundCurve: a value in 0 … 1 for each ε, a ceiling never rising, the known words, JSON details",
        "compute refuses others",
        _answers,
    ),
    Check(
        "true",
        "no ceiling below what a nearest-neighbour classifier reaches, no floor above what the best one does",
        "a ceiling above which somebody is accuses honest certificates",
        _true,
    ),
    Check(
        "closed balls",
        "samples of two classes exclude each other only where they are at most 2ε apart, surely",
        "a distance that rounding made too small accuses honest certificates",
        _closed,
    ),
    Check(
        "casts",
        "true for classifiers that round the inputs to float32",
        "certificates are about the sample in the classifier's own precision",
        _cast,
    ),
    Check(
        "identical inputs",
        "the majority label of identical inputs stays possible",
        "some classifier is right on it",
        _identical,
    ),
    Check("one class", "samples of one class allow 1", "a constant classifier is robust everywhere", _single_class),
    Check("useful", "something is said where all balls meet, or none do", "1 is always a ceiling", _useful),
    Check("repeat", "asked again, the same values and details", "a bound must be repeatable", _repeat),
    Check("order", "permuted samples have the same values", "the same samples have one identity", _order),
    Check(
        "alone",
        "the value at an ε does not depend on which others are asked",
        "ceilings computed at different times stand in one curve",
        _alone,
    ),
    Check(
        "subset",
        "leaving samples out never adds errors",
        "whoever is right on all of them is right on some of them",
        _subset,
    ),
    Check("progress", "progress gets whole numbers, done of steps", "a bar shows it", _progress),
    Check(
        "random state",
        "the global random state is neither used nor set",
        "other code in the process must see what it would have seen",
        _left("random"),
    ),
    Check("inputs", "samples and labels are not written to", "others go on with the same arrays", _left("inputs")),
]


def bound_findings(bound: Bound, choice: Choice = ALL) -> list[Finding]:
    """Run every check of bounds, on sets of at most twelve samples."""
    return run_checks(CHECKS, BoundCase(bound), choice)
