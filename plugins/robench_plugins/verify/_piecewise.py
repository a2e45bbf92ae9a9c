"""What the solvers of linear and mixed-integer programs share: whom they apply to, and where they start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robench.classifier import Classifier
from robench.graph import Graph, intervals
from robench.threat import Norm, Threat
from robench_plugins.verify._affine import map_entries
from robench_plugins.verify._engine.backward import Rows, lower_bounds
from robench_plugins.verify._engine.bounds import Bounded, bounded, pieces, refined
from robench_plugins.verify._engine.lower import lower, unsupported
from robench_plugins.verify._engine.region import region_of
from robench_plugins.verify._engine.slopes import Schedule
from robench_plugins.verify._forms import Forms, forms_of, interval_forms

__all__ = ["Method", "Start", "refusal", "starts", "time_limits"]

Method = Literal["ibp", "crown", "alpha"]

LARGEST = 2**31
"""Entries of all affine maps that are worth computing, zeros included: some minutes."""


def refusal(name: str, classifier: Classifier, norm: Norm) -> str | None:
    """Return None, or why `name` cannot encode the classifier over balls of `norm` as a linear program."""
    graph = classifier.graph
    if graph is None:
        return f"{name} reads the network's graph, and this classifier has none"
    for position, node in enumerate(graph.nodes[1:], 1):
        if node.op in ("sigmoid", "tanh"):
            return f"node {position}: {node.op} is not piecewise linear"
    if norm == "l2":
        return f"{name} takes linf and l1 balls and boxes: an l2 ball has no linear constraints"
    reason = unsupported(graph) or intervals.unsupported(graph)
    if reason is None and (entries := map_entries(lower(graph))) > LARGEST:
        return f"{name} is for small networks: the matrices between the ReLUs of this one have {entries:.1e} entries"
    return reason


@dataclass(frozen=True, eq=False)
class Start:
    """One sample, everything proven.

    Attributes:
        known: the network over its set.
        forms: its rows.
        bounds: lower bounds of the rows, float64 [R].
    """

    known: Bounded
    forms: Forms
    bounds: Tensor

    @property
    def margin(self) -> float:
        """The margin's lower bound."""
        return float(self.forms.margin(self.bounds))

    def undecided(self, bounds: Tensor) -> Tensor:
        """Return the rows [k] of disjuncts of which no row is above 0 in `bounds` [R], the lowest disjuncts first."""
        best = self.best(bounds)
        rows = (~(best > 0)).nonzero()[:, 0]
        return rows[best[rows].argsort(stable=True)]

    def best(self, bounds: Tensor) -> Tensor:
        """Return for each row the greatest of `bounds` [R] in its disjunct."""
        safe = bounds.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        each = safe.new_full((len(self.forms.whose),), -torch.inf).scatter_reduce(0, self.forms.disjunct, safe, "amax")
        return each[self.forms.disjunct]

    def rows(self, index: Tensor) -> Rows:
        """Return the rows at `index` [k]."""
        return self.forms.rows(self.known.program.last, index)


def starts(graph: Graph, x: Tensor, y: Tensor, threat: Threat, method: Method) -> list[Start]:
    """Return where `x` [B, ...] with labels `y` [B] start: bounds of ReLUs by `method`, of the margins by CROWN.

    Raises ValueError without a budget.
    """
    # The search of slopes needs gradients, and tensors that may have them.
    with torch.inference_mode(False):
        return _starts(graph, x.detach().clone(), y.clone(), threat, method)


def _starts(graph: Graph, x: Tensor, y: Tensor, threat: Threat, method: Method) -> list[Start]:
    region = region_of(x, threat)
    if not len(x):
        return []
    forms = forms_of(y, graph.classes, None if threat.region is None else threat.region.conditions)
    known = bounded(graph, region, "ibp" if method == "ibp" else "crown")
    if method == "alpha":
        known = refined(known, Schedule())
    bounds = interval_forms(forms, graph, region, known.boxes[-1])
    for part in pieces(known.program, len(forms)):
        rows = forms.rows(known.program.last, part)
        found = lower_bounds(known.program, region, known.lines, rows, errors=known.errors).bound
        bounds[part] = torch.maximum(bounds[part], found)
    made = []
    for sample in range(len(x)):
        chosen = torch.arange(len(x), device=x.device) == sample
        mine = bounds[forms.owners.index == sample]
        made.append(Start(known.select(chosen.nonzero()[:, 0]), forms.select(chosen), mine))
    return made


def time_limits(threat: Threat, timeout: float, count: int) -> Sequence[float]:
    """Return the seconds that each sample may take: `timeout`, or less where the data say so."""
    given = None if threat.region is None else threat.region.seconds
    return [timeout if given is None else min(timeout, given[sample]) for sample in range(count)]
