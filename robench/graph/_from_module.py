"""From a user's torch module to a classifier: a graph where it can be one, checked, else the module as it is."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, overload

import numpy as np
import torch
from torch import Tensor, nn

from robench.classifier import Classifier
from robench.errors import GraphError, InputError
from robench.graph._classifier import GraphClassifier, shape_of
from robench.graph._ir import Graph
from robench.graph._module import GraphModule
from robench.graph._opaque import ModuleClassifier
from robench.graph._precision import full_precision
from robench.graph._random_module import RandomModule
from robench.graph._torch import from_torch, kept_random_state, refuse_training
from robench.text import safe

__all__ = ["from_module"]

_EXACT = 1e-9
"""Relative deviation of two float64 evaluations of one net. Rounding errors are 2^29 times as large in float32: a net
that rounds worse than this in float64 has no correct digit in float32. Other settings show far above it."""


@overload
def from_module(
    module: nn.Module,
    input_shape: Sequence[int],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    randomized: Literal[False] = False,
) -> Classifier: ...


@overload
def from_module(
    module: nn.Module,
    input_shape: Sequence[int],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    randomized: Literal[True],
) -> RandomModule: ...


@full_precision()
def from_module(
    module: nn.Module,
    input_shape: Sequence[int],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    randomized: bool = False,
) -> Classifier | RandomModule:
    """Return the classifier that a module in evaluation mode is, for inputs [B, *input_shape].

    A graph where the forward pass can be traced and the graph computes what the module computes on probe inputs;
    otherwise opaque, with the reason as its `why`. The module, its gradients' flags and the global random state stay
    as they are: a copy is run, or, where it cannot be copied, the module, whose buffers are put back.
    Raises InputError for training mode, random logits, logits that depend on the rest of the batch, and
    outputs that are no logits.

    With `randomized` it is a classifier that draws at inference: `RandomModule`, which runs one row at a time.
    """
    if randomized:
        return RandomModule(module, input_shape, device, dtype)
    refuse_training(module)
    shape = shape_of(input_shape)
    parameter = next((p for p in (*module.parameters(), *module.buffers()) if p.is_floating_point()), torch.empty(0))
    probes = _probes(shape).to(parameter)
    with _kept_buffers(module):
        runs = _copied(module)
        logits = _logits_of(runs, probes)
    try:
        with _kept_buffers(module):
            graph = from_torch(runs, shape)
            _compare(runs, graph, probes, logits)
        return GraphClassifier(graph, device, dtype)
    except GraphError as error:
        return ModuleClassifier(module, shape, logits.shape[1], device, dtype, why=safe(error))


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy, so that what the forward pass changes stays in it; the module itself where it has none."""
    try:
        return copy.deepcopy(module)
    except Exception:  # whatever the user's code does when it is copied
        return module


@contextmanager
def _kept_buffers(module: nn.Module) -> Iterator[None]:
    """Put the module's buffers back to what they were."""
    kept = [(layer, key, held, held.clone()) for layer in module.modules() for key, held in layer._buffers.items()
            if held is not None]  # fmt: skip
    try:
        yield
    finally:
        with torch.no_grad():
            for layer, key, held, before in kept:
                if not torch.equal(held, before):
                    held.copy_(before)
                layer._buffers[key] = held


def _probes(shape: tuple[int, ...]) -> Tensor:
    """Return fixed inputs [6, ...], float32: images, centred data, far from any data, zero."""
    generator = torch.Generator().manual_seed(0)
    images, centred = torch.rand((3, *shape), generator=generator), torch.randn((2, *shape), generator=generator)
    return torch.cat([images, centred[:1], 10 * centred[1:], torch.zeros((1, *shape))])


def _logits_of(module: nn.Module, probes: Tensor) -> Tensor:
    """Return the module's logits on the probes. Raises InputError where they are random or no logits."""
    runs = []
    with kept_random_state(), torch.no_grad(), full_precision():
        for seed, inputs in ((1, probes), (2, probes), (1, probes[:1])):
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            try:
                runs.append(module(inputs.clone()))
            except Exception as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise InputError(
                    f"{type(module).__name__} fails on inputs of shape {list(inputs.shape)}: {reason}"
                ) from error
    name = type(module).__name__
    first, second, single = runs
    if not isinstance(first, Tensor) or first.dim() != 2 or len(first) != len(probes) or first.shape[1] < 2:
        shown = list(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise InputError(f"{name} gives {shown} for {len(probes)} inputs: it must return logits [batch, classes]")
    slack = 0.0 if probes.device.type == "cpu" else 1e-4
    if not torch.allclose(first, second, rtol=slack, atol=slack, equal_nan=True):
        raise InputError(
            f"{name} gives different logits for the same input: it is random; if that is meant, say so by "
            "robench.from_module(module, input_shape, randomized=True)"
        )
    scale = torch.nan_to_num(first.double()).abs().amax() + 1
    if not torch.allclose(first[:1], single, rtol=0, atol=float(scale) * 1e-3, equal_nan=True):
        raise InputError(f"{name}: the logits of a sample depend on the others in its batch")
    return first


def _compare(module: nn.Module, graph: Graph, probes: Tensor, logits: Tensor) -> None:
    """Raise GraphError unless `graph` computes what the module computes, up to rounding.

    A copy of the module in float64 must agree with its own trace to `_EXACT`; in its own dtype, where weights that
    are computed on the fly are rounded, the module agrees with `graph` to half of the digits. The second test stands
    alone for modules that cannot be copied or do not stay in float64.
    """
    double = _in_double(module, probes)
    if double is not None:
        copied, there = double
        _refuse_deviation(from_torch(copied, probes.shape[1:]), probes.double(), there, _EXACT)
    _refuse_deviation(graph, probes, logits, torch.finfo(probes.dtype).eps ** 0.5)


def _in_double(module: nn.Module, probes: Tensor) -> tuple[nn.Module, Tensor] | None:
    """Return a float64 copy of the module and its logits; None where there is none that computes in float64."""
    try:
        copied = copy.deepcopy(getattr(module, "_orig_mod", module)).requires_grad_(False).double()
        with kept_random_state(), torch.no_grad(), full_precision():
            logits = copied(probes.to(torch.float64, copy=True))
        return (copied, logits) if logits.dtype == torch.float64 else None
    except Exception:  # whatever the user's code does in another dtype
        return None


def _refuse_deviation(graph: Graph, probes: Tensor, logits: Tensor, tolerance: float) -> None:
    """Raise GraphError where the graph's logits are off by more than `tolerance` times the module's largest."""
    with torch.no_grad(), full_precision():
        found = GraphModule(graph, probes.dtype).to(probes.device)(probes)
    if found.shape != logits.shape:
        raise GraphError(f"the trace gives {found.shape[1]} logits, the module {logits.shape[1]}")
    deviation = float((found - logits).abs().amax()) / max(float(logits.abs().amax()), 5e-324)
    if not deviation <= tolerance:
        raise GraphError(f"the trace is not the module: its logits are off by {deviation:.1e} of the largest")
