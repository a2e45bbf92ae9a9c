"""Proven bounds from linear programs: the solver's duals become slopes and multipliers, which float64 evaluates.

A leaf without a point is proven empty the same way (Farkas' lemma): the least sum of violations of its bounds and
splits is above 0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robench.graph.intervals import ieee_arithmetic
from robench_plugins.verify._duals import Asked, Leaves
from robench_plugins.verify._encoding import Encoding, Neurons, ancestors, encode, neurons_of
from robench_plugins.verify._engine.backward import Rows
from robench_plugins.verify._engine.bounds import Bounded
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._highs import INFEASIBLE, OPTIMAL, Floats, Solver

__all__ = ["Closed", "closed"]


@dataclass(frozen=True, eq=False)
class Closed:
    """What linear programs showed about rows over leaves.

    Attributes:
        bound: float64 [R], proven; +inf where the leaf is empty, −inf where nothing is known.
        optimum: float64 [R], the relaxation's, as the solver says; NaN without one.
        points: float64 [R, *input shape], where the solver says it is; NaN without one.
        worst: int64 [R, 2], activation and flat position of the open ReLU whose output is farthest above max(x, 0) at
            the point; −1 where none is.
        words: the solver's, by sample [B].
    """

    bound: Tensor
    optimum: Tensor
    points: Tensor
    worst: Tensor
    words: list[str]


def closed(
    known: Bounded,
    signs: Mapping[int, Tensor],
    rows: Rows,
    *,
    seconds: float = math.inf,
    give_up: float = -math.inf,
) -> Closed:
    """Return proven lower bounds of `rows` over leaves, and what else the programs' solutions tell.

    Args:
        known: one leaf per sample; its bounds must hold on the leaf.
        signs: split signs 1, −1 or 0 for none, by activation [B, *shape]; activations left out have none.
        rows: what is asked; coefficients, not unit rows.
        seconds: for all of it.
        give_up: of a sample whose optimum for one row is at most this, further rows are not solved: CROWN bounds them.

    Raises ValueError where an activation before the rows is not a ReLU.
    """
    deadline = time.monotonic() + seconds
    program = known.program
    before = ancestors(program, rows.at)
    if any(program.activation(position).op != "relu" for position in before):
        raise ValueError("linear programs know ReLUs alone: no sigmoid, no tanh")
    with ieee_arithmetic(known.region.lower.device):
        leaves = Leaves(known, {position: _neurons(known, signs, position) for position in before})
        asked, nothing = Asked(leaves, rows), Asked(leaves, _zero_rows(known, rows.at))
        words = [_solve(leaves, sample, asked, nothing, deadline, give_up) for sample in range(len(known.region))]
        bound = asked.proven()
        empty = leaves.void | (nothing.proven() > 0 if INFEASIBLE in words else torch.zeros_like(leaves.void))
    return Closed(
        torch.where(rows.owners.of(empty), math.inf, bound),
        torch.from_numpy(asked.optimum).to(bound),
        torch.from_numpy(asked.points).to(bound).reshape(len(rows), *program.steps[0].shape),
        torch.from_numpy(asked.worst).to(bound.device),
        words,
    )


def _neurons(known: Bounded, signs: Mapping[int, Tensor], position: int) -> Neurons:
    """Return the ReLUs of all samples, [B, n] each."""
    lower, upper = (side.flatten(1).cpu().numpy() for side in known.inputs[position])
    split = (
        signs[position].flatten(1).cpu().numpy().astype(np.int8)
        if position in signs
        else np.zeros(lower.shape, np.int8)
    )
    return neurons_of(lower, upper, split)


def _zero_rows(known: Bounded, at: int) -> Rows:
    count, device = len(known.region), known.region.lower.device
    zeros = torch.zeros(count, *known.program.steps[at].shape, dtype=torch.float64, device=device)
    return Rows(at, Owners.uniform(count, 1, device), zeros)


def _solve(leaves: Leaves, sample: int, asked: Asked, nothing: Asked, deadline: float, give_up: float) -> str:
    """Solve the programs of one leaf, leave what they tell in `asked` and `nothing`, and return the solver's word."""
    if bool(leaves.void[sample]):
        return INFEASIBLE
    if not leaves.finite[sample]:
        return "no finite bounds"
    known, neurons = leaves.known, leaves.sample(sample)
    region = known.region.select(torch.tensor([sample], device=known.region.lower.device))
    encoding = encode(known.program, region, neurons)
    solver = Solver(encoding.problem)
    word = OPTIMAL
    for row in np.flatnonzero(asked.owner == sample).tolist():
        cost, constant = encoding.form(known.program, asked.rows.at, asked.coefficients[row : row + 1])
        answer = solver.solve(cost[0], seconds=deadline - time.monotonic())
        word = answer.word
        _keep(asked, row, encoding, answer.duals)
        if word == INFEASIBLE:
            elastic = encode(known.program, region, neurons, elastic=True)
            price = np.zeros(len(elastic.problem.cost))
            price[elastic.slack] = 1.0
            found = Solver(elastic.problem).solve(price, seconds=deadline - time.monotonic())
            _keep(nothing, sample, elastic, found.duals)
            break
        if answer.point is not None and len(answer.point) == len(cost[0]):
            asked.optimum[row] = answer.objective + constant[0] + asked.constant[row]
            asked.points[row] = answer.point[encoding.outputs[0]]
            asked.worst[row] = _worst(neurons, encoding, answer.point)
        if word != OPTIMAL or asked.optimum[row] <= give_up:
            break
    return word


def _keep(asked: Asked, row: int, encoding: Encoding, duals: Floats | None) -> None:
    for position, ties in encoding.ties.items():
        kept = ties >= 0
        if duals is not None and len(duals) > ties.max(initial=-1):
            asked.duals[position][row, kept] = duals[ties[kept]]


def _worst(neurons: Mapping[int, Neurons], encoding: Encoding, point: Floats) -> tuple[int, int]:
    found, most = (-1, -1), 1e-9
    for position, one in neurons.items():
        x, z = encoding.inputs[position], encoding.outputs[position]
        gap = np.where(one.open, point[z] - np.maximum(point[x], 0.0), -1.0)
        if len(gap) and gap.max() > most:
            found, most = (position, int(gap.argmax())), float(gap.max())
    return found
