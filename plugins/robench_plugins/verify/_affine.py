"""The affine maps between what a program's activations give and what they take, as sparse matrices.

Found by asking every affine step forward about unit vectors, so that an encoding shares nothing with rows that are
pushed back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from robench_plugins.verify._engine.lower import Activation, Program
from robench_plugins.verify._engine.steps import Affine, Conv, Gather, Linear, Mix, Scale

__all__ = ["Map", "affine_map", "map_entries", "size"]

MEMORY = 2**26
"""Bytes that the unit vectors passed at once may take."""


@dataclass(frozen=True, eq=False)
class Map:
    """A step's value as Σ_k matrix_k v_k + constant, v_k the flat values of activations and of the input.

    Attributes:
        constant: float64 [n].
        parts: by position of v_k, CSR [n, size of v_k].
    """

    constant: npt.NDArray[np.float64]
    parts: Mapping[int, sparse.csr_array]


_MAPS: WeakKeyDictionary[Program, dict[int, Map]] = WeakKeyDictionary()


def size(program: Program, position: int) -> int:
    """Return how many numbers the step at `position` has."""
    return math.prod(program.steps[position].shape)


def affine_map(program: Program, position: int) -> Map:
    """Return the map to the step at `position`; kept with the program."""
    kept = _MAPS.setdefault(program, {})
    if position not in kept:
        with torch.no_grad():
            kept[position] = _found(program.to(torch.float64, torch.device("cpu")), position)
    return kept[position]


def map_entries(program: Program) -> int:
    """Return how many entries the maps to all activations and to the last step have, zeros included."""
    targets = [program.steps[position].inputs[0] for position in program.activations] + [program.last]
    return sum(size(program, at) * sum(size(program, end) for end in _segment(program, at)[1]) for at in targets)


def _found(program: Program, position: int) -> Map:
    between, ends = _segment(program, position)
    zeros = {end: torch.zeros(1, *program.steps[end].shape, dtype=torch.float64) for end in ends}
    constant = _forward(program, between, zeros)[position]
    plain = {at: _homogeneous(step) for at, step in between.items()}
    parts = {}
    for end in sorted(ends):
        width = size(program, end)
        piece = max(1, MEMORY // (8 * max([width, *(math.prod(step.shape) for step in between.values())])))
        columns = []
        for start in range(0, width, piece):
            units = torch.zeros(min(piece, width - start), width, dtype=torch.float64)
            units[torch.arange(len(units)), start + torch.arange(len(units))] = 1.0
            given = {end: units.reshape(-1, *program.steps[end].shape)}
            columns.append(sparse.csr_array(_forward(program, plain, given)[position].flatten(1).numpy()))
        parts[end] = sparse.csr_array(sparse.vstack(columns).T)
    return Map(constant.flatten().numpy(), parts)


def _segment(program: Program, position: int) -> tuple[dict[int, Affine], set[int]]:
    """Return the affine steps between `position` and the activations (or the input) before it, and those."""
    between: dict[int, Affine] = {}
    ends: set[int] = set()
    pending = [position]
    while pending:
        at = pending.pop()
        step = program.steps[at]
        if at == 0 or isinstance(step, Activation):
            ends.add(at)
        elif at not in between:
            between[at] = step
            pending.extend(step.inputs)
    return dict(sorted(between.items())), ends


def _forward(program: Program, between: Mapping[int, Affine], given: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Return the values behind those `given`; other ends are 0, and so is, left out, what depends on them alone."""
    values, like = dict(given), next(iter(given.values()))
    for at, step in between.items():
        if any(source in values for source in step.inputs):
            values[at] = step.forward(
                *(
                    values[source] if source in values else like.new_zeros(len(like), *program.steps[source].shape)
                    for source in step.inputs
                )
            )
    return values


def _homogeneous(step: Affine) -> Affine:
    if isinstance(step, Linear | Conv):
        return replace(step, bias=None)
    if isinstance(step, Scale):
        return replace(step, shift=None)
    if isinstance(step, Mix):
        return replace(step, shift=0.0)
    return replace(step, fill=0.0) if isinstance(step, Gather) else step
