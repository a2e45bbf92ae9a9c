"""What duals of the triangle relaxation prove, evaluated in float64 with its rounding.

The dual of the triangle relaxation is the best choice of CROWN's slopes, one per ReLU and row (Salman et al. 2019, "A
convex relaxation barrier to tight robustness verification of neural networks"), and of a multiplier β ≥ 0 for the
bounds or the split of each ReLU's input. With g the dual of the row that defines x, and ν the coefficient at z,

    slope = clip(g / ν, 0, 1) where ν > 0,        β = |what goes through with that slope − g|,

so any duals give a valid bound, and optimal ones the optimum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from robench.numerics import gamma
from robench_plugins.verify._affine import affine_map, size
from robench_plugins.verify._encoding import Neurons
from robench_plugins.verify._engine.backward import Rows, Split, lower_bounds
from robench_plugins.verify._engine.bounds import Bounded
from robench_plugins.verify._engine.relax import Relaxed, relax
from robench_plugins.verify._highs import Floats

__all__ = ["Asked", "Leaves"]


class Leaves:
    """Leaves, one per sample of `known`, and their ReLUs.

    Attributes:
        known: the network over each leaf's region.
        neurons: [B, n] by activation.
        void: bool [B], a split contradicts the bounds: nothing is in the leaf.
        finite: bool [B], all bounds are numbers.
    """

    def __init__(self, known: Bounded, neurons: Mapping[int, Neurons]) -> None:
        """Take `neurons` [B, n] by activation."""
        self.known = known
        void = np.zeros(len(known.region), dtype=np.bool_)
        self.finite = np.ones(len(known.region), dtype=np.bool_)
        for one in neurons.values():
            void |= (one.lower > one.upper).any(1)
            self.finite &= (np.isfinite(one.lower) & np.isfinite(one.upper)).all(1)
        for side in (known.region.lower, known.region.upper):
            self.finite &= side.flatten(1).isfinite().all(1).cpu().numpy()
        self.void = torch.from_numpy(void).to(known.region.lower.device)
        # What is asked about the empty set has its answer; the lines need some interval.
        here = ~void[:, None]
        self.neurons = {
            position: Neurons(np.where(here, one.lower, 0.0), np.where(here, one.upper, 0.0), one.split)
            for position, one in neurons.items()
        }

    def sample(self, index: int) -> dict[int, Neurons]:
        """Return the ReLUs [n] of one leaf."""
        return {
            position: Neurons(one.lower[index], one.upper[index], one.split[index])
            for position, one in self.neurons.items()
        }


class Asked:
    """Rows over leaves, and what solvers found about them.

    Attributes:
        owner: the leaf of each row, int64 [R].
        coefficients: float64 [R, n].
        constant: float64 [R].
        duals: by activation [R, n], of the rows that define the inputs; NaN where there are none: then the slope is
            CROWN's own, and no bound or split is used.
        optimum, points, worst: as in `Closed`.
    """

    def __init__(self, leaves: Leaves, rows: Rows) -> None:
        """Ask for `rows`, which have coefficients."""
        assert rows.coefficients is not None
        count = len(rows)
        self.leaves, self.rows = leaves, rows
        self.owner = rows.owners.index.cpu().numpy()
        self.coefficients = rows.coefficients.flatten(1).double().cpu().numpy()
        self.constant = np.zeros(count) if rows.constant is None else rows.constant.double().cpu().numpy()
        self.duals = {
            position: np.full((count, one.lower.shape[1]), np.nan) for position, one in leaves.neurons.items()
        }
        self.optimum = np.full(count, np.nan)
        self.points = np.full((count, size(leaves.known.program, 0)), np.nan)
        self.worst = np.full((count, 2), -1)

    def proven(self) -> Tensor:
        """Return the bounds [R] that the duals prove, float64."""
        known, like = self.leaves.known, self.leaves.known.region.lower
        lines, slopes, splits = dict(known.lines), {}, {}
        constant, moved, terms = self.constant, np.abs(self.constant), 1
        for position, neurons in self.leaves.neurons.items():
            shape = known.program.steps[position].shape
            sides = (torch.from_numpy(side).to(like).reshape(-1, *shape) for side in (neurons.lower, neurons.upper))
            lines[position] = relax("relu", *sides)
            slope, push = self._chosen(position, lines[position])
            ends = np.where(push > 0, neurons.lower[self.owner], np.where(push < 0, neurons.upper[self.owner], 0.0))
            with np.errstate(over="ignore", invalid="ignore"):
                parts = push * ends
                constant, moved = constant + parts.sum(1), moved + np.abs(parts).sum(1)
            terms += push.shape[1]
            slopes[position] = torch.from_numpy(slope).to(like).reshape(-1, *shape)
            units = torch.arange(push.shape[1], device=like.device).expand(len(push), -1)
            splits[position] = Split(units, torch.from_numpy(push).to(like))
        with np.errstate(over="ignore", invalid="ignore"):
            constant = constant - (moved * (4 * gamma(terms + 4)) + terms * 2.0**-1000)
        rows = replace(self.rows, constant=torch.from_numpy(constant).to(like))
        return lower_bounds(
            known.program, known.region, lines, rows, slopes=slopes, splits=splits, errors=known.errors
        ).bound

    def _chosen(self, position: int, lines: Relaxed) -> tuple[Floats, Floats]:
        """Return the slopes and the pushes s β [R, n] of an activation; s is 1 for x ≥ l, −1 for x ≤ u."""
        low, high = (side.flatten(1).cpu().numpy()[self.owner] for side in (lines.lower_slope, lines.upper_slope))
        open_ = self.leaves.neurons[position].open[self.owner]
        dual, nu = self.duals[position], self._arriving(position)
        told = np.isfinite(dual)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            slope = np.where(told & open_ & (nu > 0), np.clip(np.nan_to_num(dual / nu), 0.0, 1.0), low)
            push = np.where(nu > 0, slope, high) * nu - dual
        return slope, np.where(told & np.isfinite(push), push, 0.0)

    def _arriving(self, position: int) -> Floats:
        """Return ν [R, n]: the coefficients at the outputs of an activation, given the duals behind it."""
        program = self.leaves.known.program
        total = np.zeros_like(self.duals[position])
        ends = [(self.rows.at, self.coefficients)]
        ends += [(program.steps[later].inputs[0], dual) for later, dual in self.duals.items() if later > position]
        for at, rows in ends:
            part = affine_map(program, at).parts.get(position)
            if part is not None:
                total += (part.T @ np.nan_to_num(rows, posinf=0.0, neginf=0.0).T).T
        return total
