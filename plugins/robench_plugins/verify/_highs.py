"""Linear and mixed-integer programs for HiGHS (Huangfu & Hall 2018), and its answers as plain numbers.

Nothing that comes back is believed anywhere: words are told, duals and points are starting points for proofs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

__all__ = ["INFEASIBLE", "OPTIMAL", "OUT_OF_RANGE", "TIME_LIMIT", "Answer", "Problem", "Solver"]

Floats = npt.NDArray[np.float64]

OPTIMAL, INFEASIBLE, TIME_LIMIT = "optimal", "infeasible", "time limit reached"
OUT_OF_RANGE = "numbers out of range"

LARGEST = 1e12
"""Largest finite number that a program may hold: beyond, tolerances mean nothing and searches need not end."""

TOLERANCE = 1e-9
"""Primal and dual feasibility tolerance, absolute."""


@dataclass(frozen=True, eq=False)
class Problem:
    """min cost · v, row_lower ≤ matrix v ≤ row_upper, lower ≤ v ≤ upper; `integer` entries of v are whole numbers.

    Attributes:
        cost: [columns].
        lower: [columns], −inf where there is none.
        upper: [columns].
        matrix: [rows, columns], CSR.
        row_lower: [rows].
        row_upper: [rows].
        integer: bool [columns]; None: none.
    """

    cost: Floats
    lower: Floats
    upper: Floats
    matrix: sparse.csr_array
    row_lower: Floats
    row_upper: Floats
    integer: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """What the solver said.

    Attributes:
        word: its status in lower case: `optimal`, `infeasible`, `time limit reached`, …
        objective: of the point, NaN without one.
        bound: below every feasible point's objective, as it says; −inf without one.
        point: [columns], None where there is none.
        duals: of the rows, None where there are none (always for integers).
    """

    word: str
    objective: float = math.nan
    bound: float = -math.inf
    point: Floats | None = None
    duals: Floats | None = None


class Solver:
    """One program; costs and column bounds may change between solves, which then start from the last basis."""

    def __init__(self, problem: Problem, threads: int = 1) -> None:
        """Hand `problem` over to HiGHS, which may use `threads`."""
        import highspy

        self.problem = problem
        self._inner = highspy.Highs()  # type: ignore[no-untyped-call]
        matrix, count = problem.matrix, len(problem.cost)
        for name, value in (
            ("output_flag", False),
            ("threads", threads),
            ("primal_feasibility_tolerance", TOLERANCE),
            ("dual_feasibility_tolerance", TOLERANCE),
            ("mip_feasibility_tolerance", TOLERANCE),
            ("mip_rel_gap", 1e-6),
        ):
            self._inner.setOptionValue(name, value)
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = count, matrix.shape[0]
        model.col_cost_, model.col_lower_, model.col_upper_ = problem.cost, problem.lower, problem.upper
        model.row_lower_, model.row_upper_ = problem.row_lower, problem.row_upper
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_ = matrix.indptr.astype(np.int32)
        model.a_matrix_.index_ = matrix.indices.astype(np.int32)
        model.a_matrix_.value_ = matrix.data
        if problem.integer is not None:
            kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
            model.integrality_ = [kinds[int(whole)] for whole in problem.integer.tolist()]
        self._error = highspy.HighsStatus.kError
        sides = (problem.cost, problem.lower, problem.upper, problem.row_lower, problem.row_upper, matrix.data)
        self._bad = not all(map(_fair, sides)) or self._inner.passModel(model) == self._error

    def solve(self, cost: Floats | None = None, *, seconds: float = math.inf, target: float = -math.inf) -> Answer:
        """Solve, with another `cost` [columns] if given; with integers stop at a point whose objective is `target`.

        Raises MemoryError where the solver's memory runs out.
        """
        inner = self._inner
        if self._bad or (cost is not None and not _fair(cost)):
            return Answer(OUT_OF_RANGE)
        if seconds <= 0:
            return Answer(TIME_LIMIT)
        if cost is not None:
            inner.changeColsCost(len(cost), np.arange(len(cost), dtype=np.int32), cost)
        # The limit is about the solver's whole life.
        inner.setOptionValue("time_limit", inner.getRunTime() + min(seconds, 1e9))
        if self.problem.integer is not None:
            inner.setOptionValue("objective_target", target)
        if inner.run() == self._error:
            # The pool of threads is the process's: another number than before takes a new one.
            inner.resetGlobalScheduler(True)
            inner.run()
        word = inner.modelStatusToString(inner.getModelStatus()).lower()
        found, info = inner.getSolution(), inner.getInfo()
        point = np.array(found.col_value, dtype=np.float64) if found.value_valid else None
        duals = np.array(found.row_dual, dtype=np.float64) if found.dual_valid else None
        whole = self.problem.integer is not None
        return Answer(
            word,
            float(info.objective_function_value) if point is not None else math.nan,
            float(info.mip_dual_bound) if whole else -math.inf,
            point,
            None if whole else duals,
        )


def _fair(values: Floats) -> bool:
    return not bool((np.isnan(values) | (np.isfinite(values) & (np.abs(values) > LARGEST))).any())
