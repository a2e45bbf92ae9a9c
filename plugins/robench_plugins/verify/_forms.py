"""What has to be above 0 so that a sample is safe: linear forms of its logits.

Unsafe outputs are a disjunction of conjunctions of rows · f + offset ≤ 0 (`robench.regions.Condition`). A disjunct
cannot occur where one of its rows is above 0 throughout, a sample is safe where no disjunct can: its margin is the
least over disjuncts of the greatest over rows. Without conditions the rows are f_y − f_j, one disjunct for each j ≠ y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robench.graph import Graph
from robench.graph.intervals import set_margins
from robench.numerics import gamma
from robench.regions import Condition
from robench_plugins.verify._engine.backward import Rows
from robench_plugins.verify._engine.forward import Interval
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.region import Region, below

__all__ = ["Forms", "condition_forms", "forms_of", "interval_forms", "label_forms"]


@dataclass(frozen=True, eq=False)
class Forms:
    """The rows of a batch of samples.

    Attributes:
        owners: the sample of each row.
        coefficients: float64 [R, classes].
        constant: float64 [R], rounded down.
        disjunct: which disjunct each row belongs to, int64 [R].
        whose: the sample of each disjunct, int64 [D].
        samples: how many samples there are.
        labels: the samples' labels [B] where the rows are f_y − f_j for j ≠ y in order; None for other conditions.
    """

    owners: Owners
    coefficients: Tensor
    constant: Tensor
    disjunct: Tensor
    whose: Tensor
    samples: int
    labels: Tensor | None = None

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.disjunct)

    def margin(self, bounds: Tensor) -> Tensor:
        """Return each sample's margin [B] for bounds of all rows [R]; NaN counts as −inf."""
        bounds = bounds.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
        best = bounds.new_full((len(self.whose),), -math.inf).scatter_reduce(0, self.disjunct, bounds, "amax")
        return bounds.new_full((self.samples,), math.inf).scatter_reduce(0, self.whose, best, "amin")

    def rows(self, at: int, part: slice | Tensor | None = None) -> Rows:
        """Return rows, all or some of them, that ask for these forms at the step `at`, which holds the logits."""
        if part is None:
            return Rows(at, self.owners, self.coefficients, constant=self.constant)
        owners = Owners(self.owners.index[part])
        return Rows(at, owners, self.coefficients[part], constant=self.constant[part])

    def select(self, samples: Tensor) -> Forms:
        """Return the rows of `samples`, bool [B]."""
        rank = samples.cumsum(0) - 1
        rows, disjuncts = samples[self.owners.index], samples[self.whose]
        return Forms(
            Owners(rank[self.owners.index[rows]], self.owners.each),
            self.coefficients[rows],
            self.constant[rows],
            (disjuncts.cumsum(0) - 1)[self.disjunct[rows]],
            rank[self.whose[disjuncts]],
            int(samples.sum()),
            None if self.labels is None else self.labels[samples],
        )


def label_forms(y: Tensor, classes: int) -> Forms:
    """Return f_y − f_j for every j ≠ y of labels `y` [B]."""
    count, each = len(y), classes - 1
    others = torch.arange(each, device=y.device).expand(count, each)
    others = (others + (others >= y[:, None])).flatten()
    own = y.repeat_interleave(each)
    rows = torch.zeros(count * each, classes, dtype=torch.float64, device=y.device)
    rows.scatter_(1, own[:, None], 1.0).scatter_(1, others[:, None], -1.0)
    numbers = torch.arange(count * each, device=y.device)
    owners = Owners.uniform(count, each, y.device)
    return Forms(owners, rows, rows.new_zeros(len(rows)), numbers, owners.index, count, y)


def condition_forms(conditions: Sequence[Condition], device: torch.device) -> Forms:
    """Return the rows of every disjunct of the conditions [B]."""
    rows, offsets = [], []
    owners: list[int] = []
    disjunct: list[int] = []
    whose: list[int] = []
    for sample, condition in enumerate(conditions):
        for matrix, constants in condition.disjuncts:
            rows.append(matrix)
            offsets.append(constants)
            owners += [sample] * len(matrix)
            disjunct += [len(whose)] * len(matrix)
            whose.append(sample)

    def tensor(values: object, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(values, dtype=dtype).to(device)

    outputs = conditions[0].outputs if conditions else 1
    return Forms(
        Owners(tensor(owners, torch.int64)),
        tensor(np.concatenate([np.zeros((0, outputs)), *rows]), torch.float64),
        tensor(np.concatenate([np.zeros(0), *offsets]), torch.float64),
        tensor(disjunct, torch.int64),
        tensor(whose, torch.int64),
        len(conditions),
    )


def forms_of(y: Tensor, classes: int, conditions: Sequence[Condition] | None) -> Forms:
    """Return the rows about samples with labels `y` [B], or with conditions of their own."""
    if conditions is None or all(one.label == label for one, label in zip(conditions, y.tolist(), strict=True)):
        return label_forms(y, classes)
    return condition_forms(conditions, y.device)


def interval_forms(forms: Forms, graph: Graph, region: Region, logits: Interval) -> Tensor:
    """Return lower bounds of the rows [R] by interval arithmetic; `logits` are boxes around them."""
    if forms.labels is not None:
        lower = set_margins(graph, region.start, forms.labels)[0]
        others = torch.ones_like(lower, dtype=torch.bool).scatter_(1, forms.labels[:, None], False)
        return lower[others]
    low, high = (values[forms.owners.index] for values in logits)
    rows = forms.coefficients
    ends = torch.where(rows == 0, 0.0, torch.where(rows > 0, low, high))
    most = torch.where(rows == 0, 0.0, torch.maximum(low.abs(), high.abs()))
    error = ((rows.abs() * most).sum(1) + forms.constant.abs()) * (2 * gamma(rows.shape[1] + 8)) + 2.0**-960
    return below((rows * ends).sum(1) + forms.constant, error)
