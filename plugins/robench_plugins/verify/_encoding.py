"""A piecewise linear network over one set of inputs as a linear or mixed-integer program.

Columns are the input and, for each ReLU, its input x within proven bounds [l, u]; where its sign is open also its
output z:

    z ≥ 0,  z ≥ x,  z ≤ u (x − l) / (u − l)                         (the triangle: Ehlers 2017, "Planet")
    z ≥ 0,  z ≥ x,  z ≤ x − l (1 − a),  z ≤ u a,  a ∈ {0, 1}        (Tjeng et al. 2019, section 4.1)

One row per x ties it to the columns before. A split fixes a sign: then z is x ≥ 0, or z is 0 and x ≤ 0. A ReLU that
the bounds alone say is off has no columns. An l1 ball takes a column and two rows per coordinate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from robench_plugins.verify._affine import affine_map
from robench_plugins.verify._engine.program import Activation, Program
from robench_plugins.verify._engine.region import Region
from robench_plugins.verify._highs import Floats, Problem

__all__ = ["Encoding", "Integers", "Neurons", "Signs", "ancestors", "below_zero", "encode", "neurons_of"]

Integers = npt.NDArray[np.int64]
Signs = npt.NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Neurons:
    """The ReLUs of one activation.

    Attributes:
        lower: l, float64 [n], of the input; at least 0 where a split says so.
        upper: u [n], at most 0 where a split says so.
        split: [n]: 1, −1, or 0 where no sign is assumed.
    """

    lower: Floats
    upper: Floats
    split: Signs

    @property
    def open(self) -> npt.NDArray[np.bool_]:
        """Bool [n]: neither bounds nor a split tell the sign."""
        return (self.lower < 0) & (self.upper > 0)

    @property
    def off(self) -> npt.NDArray[np.bool_]:
        """Bool [n]: the output is 0."""
        return (self.lower < 0) & (self.upper <= 0)

    @property
    def empty(self) -> bool:
        """Whether a split contradicts the bounds."""
        return bool((self.lower > self.upper).any())


def neurons_of(lower: Floats, upper: Floats, split: Signs) -> Neurons:
    """Return the ReLUs with inputs in [lower, upper] [n], and on the side that `split` [n] says."""
    return Neurons(
        np.where(split > 0, np.maximum(lower, 0.0), lower), np.where(split < 0, np.minimum(upper, 0.0), upper), split
    )


@dataclass(frozen=True, eq=False)
class Encoding:
    """A program, its cost 0, and what its columns mean.

    Attributes:
        problem: the program.
        outputs: column of each z [n], −1 where it is 0, by activation; at 0 those of the input.
        inputs: column of each x by activation [n], −1 where there is none.
        ties: by activation the row that defines each x [n], −1 where there is none.
        slack: columns [k] of what an elastic program may violate; empty otherwise.
    """

    problem: Problem
    outputs: Mapping[int, Integers]
    inputs: Mapping[int, Integers]
    ties: Mapping[int, Integers]
    slack: Integers

    def form(self, program: Program, position: int, rows: Floats) -> tuple[Floats, Floats]:
        """Return (cost [R, columns], constant [R]) of linear forms `rows` [R, n] at the step at `position`."""
        found = affine_map(program, position)
        cost = np.zeros((len(rows), len(self.problem.cost)))
        for source, part in found.parts.items():
            columns = self.outputs[source]
            kept = columns >= 0
            cost[:, columns[kept]] += (part.T @ rows.T).T[:, kept]
        return cost, rows @ found.constant


def below_zero(problem: Problem, cost: Floats, constant: Floats) -> Problem:
    """Return `problem` with a last column t ≤ 0, to be minimised, above the forms cost [k, columns] · v + constant [k].

    It is feasible where some point makes all forms at most 0, and its optimum is the least value of the largest one.
    """
    forms = sparse.csr_array(np.hstack((cost, np.full((len(cost), 1), -1.0))))
    old = problem.matrix
    widened = sparse.csr_array((old.data, old.indices, old.indptr), shape=(old.shape[0], old.shape[1] + 1))
    return Problem(
        np.append(np.zeros(len(problem.cost)), 1.0),
        np.append(problem.lower, -np.inf),
        np.append(problem.upper, 0.0),
        sparse.csr_array(sparse.vstack((widened, forms))),
        np.append(problem.row_lower, np.full(len(cost), -np.inf)),
        np.append(problem.row_upper, -constant),
        None if problem.integer is None else np.append(problem.integer, False),
    )


def ancestors(program: Program, position: int) -> list[int]:
    """Return the positions of the activations that the step at `position` depends on, itself included; ascending."""
    seen, pending = {position}, [position]
    while pending:
        new = set(program.steps[pending.pop()].inputs) - seen
        seen |= new
        pending.extend(new)
    return sorted(at for at in seen if isinstance(program.steps[at], Activation))


def encode(
    program: Program, region: Region, neurons: Mapping[int, Neurons], *, whole: bool = False, elastic: bool = False
) -> Encoding:
    """Return the program of the one sample in `region`.

    Args:
        program: the network.
        region: of one sample: a box, or an l1 ball within one; of an l2 ball its box alone.
        neurons: by activation, ascending; all ReLUs, and with each the ones it depends on.
        whole: with integers, exactly the network; otherwise the triangle relaxation.
        elastic: bounds and splits may be violated, at the price of a column `slack` ≥ 0 for each: never infeasible.
    """
    made = _Program()
    low, high = (side.flatten().cpu().double().numpy() for side in (region.lower, region.upper))
    outputs = {0: made.columns(low, high)}
    if region.eps is not None and region.norm == "l1":
        _ball(made, outputs[0], region)
    inputs: dict[int, Integers] = {}
    ties: dict[int, Integers] = {}
    for position, known in neurons.items():
        kept = np.flatnonzero(~known.off | (known.split != 0))
        low, high = known.lower[kept], known.upper[kept]
        x = made.columns(*((low, high) if not elastic else (low - np.inf, high + np.inf)))
        slack = _slack(made, x, low, high) if elastic else None
        found = affine_map(program, program.steps[position].inputs[0])
        parts = [(outputs[source], -part[kept]) for source, part in found.parts.items()]
        inputs[position], ties[position], outputs[position] = np.full((3, len(known.lower)), -1)
        inputs[position][kept] = x
        ties[position][kept] = made.rows([(x, 1.0), *parts], found.constant[kept], found.constant[kept])
        outputs[position][kept] = np.where(known.off[kept], -1, x)
        open_ = known.open[kept]
        outputs[position][kept[open_]] = _open(
            made, x[open_], low[open_], high[open_], None if slack is None else slack[:, open_], whole
        )
    return Encoding(made.problem(), outputs, inputs, ties, np.concatenate([_NONE, *made.slack]))


def _ball(made: _Program, x: Integers, region: Region) -> None:
    """Add |x − centre| ≤ v and Σ v ≤ ε."""
    assert region.eps is not None
    centre, none = region.centre.flatten().cpu().double().numpy(), np.full(len(x), np.inf)
    v = made.columns(np.zeros(len(x)), none)
    made.rows([(x, 1.0), (v, -1.0)], -none, centre)
    made.rows([(x, 1.0), (v, 1.0)], centre, none)
    made.rows([(v, sparse.csr_array(np.ones((1, len(x)))))], -none[:1], region.eps.cpu().double().numpy())


def _slack(made: _Program, x: Integers, low: Floats, high: Floats) -> Integers:
    """Add x ≥ l − below and x ≤ u + above, and return (below, above) [2, k]."""
    none = np.full(len(x), np.inf)
    below, above = (made.columns(np.zeros(len(x)), none) for _ in range(2))
    made.rows([(x, 1.0), (below, 1.0)], low, none)
    made.rows([(x, 1.0), (above, -1.0)], -none, high)
    made.slack += [below, above]
    return np.stack((below, above))


def _open(made: _Program, x: Integers, low: Floats, high: Floats, slack: Integers | None, whole: bool) -> Integers:
    """Add the outputs of ReLUs whose sign is open, and return their columns [k]."""
    none, zeros = np.full(len(x), np.inf), np.zeros(len(x))
    z = made.columns(zeros, high if slack is None else none)
    made.rows([(z, 1.0), (x, -1.0)], zeros, none)
    if whole:
        a = made.columns(zeros, zeros + 1)
        made.integers.append(a)
        made.rows([(z, 1.0), (x, -1.0), (a, -low)], -none, -low)
        made.rows([(z, 1.0), (a, -high)], -none, zeros)
        return z
    slope = high / (high - low)
    forgiven = [] if slack is None else [(slack[0], -slope), (slack[1], slope - 1)]
    made.rows([(z, 1.0), (x, -slope), *forgiven], -none, -slope * low)
    return z


_NONE: Integers = np.empty(0, dtype=np.int64)


class _Program:
    """Columns and rows so far."""

    def __init__(self) -> None:
        self.sides: list[tuple[Floats, Floats]] = []
        self.limits: list[tuple[Floats, Floats]] = []
        self.entries: list[tuple[Integers, Integers, Floats]] = []
        self.integers: list[Integers] = []
        self.slack: list[Integers] = []
        self.width = self.height = 0

    def columns(self, lower: Floats, upper: Floats) -> Integers:
        """Add columns with these bounds."""
        self.sides.append((lower, upper))
        self.width += len(lower)
        return np.arange(self.width - len(lower), self.width)

    def rows(
        self, parts: Sequence[tuple[Integers, float | Floats | sparse.csr_array]], lower: Floats, upper: Floats
    ) -> Integers:
        """Add rows lower ≤ Σ matrix · v[columns] ≤ upper; numbers are diagonals, a column −1 is v = 0."""
        for columns, matrix in parts:
            if isinstance(matrix, sparse.csr_array):
                row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
                column, value = columns[matrix.indices], matrix.data
            else:
                row, column, value = np.arange(len(columns)), columns, np.broadcast_to(matrix, len(columns))
            kept = (column >= 0) & (value != 0)
            self.entries.append((row[kept] + self.height, column[kept], value[kept]))
        self.limits.append((lower, upper))
        self.height += len(lower)
        return np.arange(self.height - len(lower), self.height)

    def problem(self) -> Problem:
        """Return the program, its cost 0."""
        none = np.empty(0)
        lower, upper = (np.concatenate(side) for side in zip(*self.sides, strict=True))
        least, most = (np.concatenate(side) for side in zip((none, none), *self.limits, strict=True))
        row, column, value = (np.concatenate(one) for one in zip((_NONE, _NONE, none), *self.entries, strict=True))
        integer = np.zeros(self.width, dtype=np.bool_)
        integer[np.concatenate([_NONE, *self.integers])] = True
        matrix = sparse.csr_array((value, (row, column)), shape=(self.height, self.width))
        return Problem(np.zeros(self.width), lower, upper, matrix, least, most, integer if integer.any() else None)
