"""Inner bounds by branch and bound: each open neuron's input is bounded over pieces on which earlier signs are decided.

What refining neurons by mixed-integer programs does (RefineZono and RefinePoly, Singh et al. 2019, "Boosting robustness
certification of neural networks"), with the tree's own bounds in place of a solver: every bound is a small problem of
its own, and many go together.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from robench.graph.intervals import ieee_arithmetic
from robench_plugins.verify._engine.bounds import MEMORY, Bounded, tightened
from robench_plugins.verify._engine.narrow import narrowed
from robench_plugins.verify._engine.relax import relax
from robench_plugins.verify._engine.slopes import Schedule
from robench_plugins.verify._memory import out_of_memory
from robench_plugins.verify._tree.pool import Columns, Pool
from robench_plugins.verify._tree.query import Query
from robench_plugins.verify._tree.search import worst
from robench_plugins.verify._tree.signs import Signs

__all__ = ["deepened"]

FEWEST = 4
"""Rounds below which a layer is left as it is."""
STEPS = 4
"""The optimiser's steps on a piece: signs gain more than steps do."""
TOGETHER = 256
"""Bounds that are raised together, at most."""


def deepened(known: Bounded, rounds: int, seconds: float) -> Bounded:
    """Return better bounds of every ReLU's input, and the network without the neurons that are off, within `seconds`.

    Layer by layer: with slopes optimised, then with `rounds` signs decided for each bound, fewer where time is short.
    """
    deadline = time.perf_counter() + seconds
    made = narrowed(known)
    made = Bounded(made.program, made.region, made.boxes, made.errors, dict(made.inputs), {}, {})
    positions = made.program.activations
    with ieee_arithmetic(known.region.lower.device), torch.no_grad():
        for turn, position in enumerate(positions):
            if made.lines:
                made.inputs[position] = tightened(made, position, Schedule())
                rest = (deadline - time.perf_counter()) / (len(positions) - turn)
                try:
                    made.inputs[position] = _branched(made, position, rounds, rest) if rounds else made.inputs[position]
                except (MemoryError, RuntimeError) as error:  # The bounds that are known will do.
                    if not out_of_memory(error):
                        raise
            made.lines[position] = relax("relu", *made.inputs[position])
    return narrowed(made)


def _branched(known: Bounded, position: int, rounds: int, seconds: float) -> tuple[Tensor, Tensor]:
    """Return better bounds of the open inputs of the ReLU at `position`, where `seconds` allow some rounds for all."""
    low, high = known.inputs[position]
    found = torch.stack((low.flatten(1), -high.flatten(1)))
    side, sample, entry = ((found < 0) & (found.flip(0) < 0)).nonzero(as_tuple=True)
    size = max(1, min(TOGETHER, MEMORY // (128 * known.program.widest)))
    asked = [
        part for one in range(len(low)) for part in torch.split((sample == one).nonzero()[:, 0], size) if len(part)
    ]
    start = time.perf_counter()
    for number, part in enumerate(asked):
        place = side[part], sample[part], entry[part]
        tree, pool = _trees(known, position, *place)
        for turn in range(rounds):
            pool = _round(tree, pool)
            spent = time.perf_counter() - start
            if number == turn == 0 and spent * FEWEST * len(asked) > seconds:
                return low, high
            if spent * len(asked) > seconds * (number + 1):
                break
        # Pieces that were dropped lie above 0, nobody knows how far.
        better = torch.zeros_like(found[place]).scatter_reduce(0, pool.sample, tree.proven(pool), "amin")
        found[place] = torch.maximum(found[place], better)
    return found[0].reshape(low.shape), -found[1].reshape(low.shape)


def _trees(known: Bounded, position: int, side: Tensor, sample: Tensor, entry: Tensor) -> tuple[Signs, Pool]:
    """Return a tree with one root for each bound [R], all of one sample.

    Side 0 asks for the lower bound of an entry of the input of the ReLU at `position`, side 1 for minus the upper one.
    """
    source = known.program.steps[position].inputs[0]
    program, count = known.program.upto(source), len(side)
    own = known.select(sample[:1])
    inputs = {at: own.inputs[at] for at in own.lines if at < source}
    sides = {at: _each(one, count) for at, one in inputs.items()}
    root = Bounded(program, own.region, (), own.errors, sides, {at: own.lines[at] for at in inputs})
    rows = torch.zeros(count, math.prod(program.steps[source].shape), dtype=torch.float64, device=side.device)
    rows = rows.scatter(1, entry[:, None], (1.0 - 2.0 * side)[:, None].double())
    none = torch.zeros(count, 1, dtype=torch.int64, device=side.device)
    query = Query(rows.reshape(count, 1, *program.steps[source].shape), none.double(), none)
    tree = Signs(root, query, Columns.of(inputs, side.device), Schedule(STEPS, 0.1, 1.0), None, again=False)
    slopes = known.kept[position].slopes(sample, entry)
    slopes = {at: torch.stack(values.chunk(2))[side, torch.arange(count)] for at, values in slopes.items()}
    low, high = (one.flatten(1)[sample, entry] for one in known.inputs[position])
    return tree, tree.roots(none == 0, slopes, torch.where(side == 0, low, -high)[:, None])


def _each(sides: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    low, high = (side.expand(count, *side.shape[1:]) for side in sides)
    return low, high


def _round(tree: Signs, pool: Pool) -> Pool:
    """Split each root's worst piece, where it has an open sign, and return all that stay open."""
    chosen = worst(pool, int((torch.bincount(pool.sample) > 0).sum()))
    chosen = chosen[pool.take(chosen).free.any(1)]
    if not len(chosen):
        return pool
    rest = torch.ones(len(pool), dtype=torch.bool, device=chosen.device)
    rest[chosen] = False
    return Pool.join([pool.take(rest), tree.round(pool.take(chosen)).open])
