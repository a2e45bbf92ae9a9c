"""From a user's torch module to a classifier: a graph where it can be one, checked, else the module as it is."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from robench.classifier import Classifier
from robench.errors import GraphError, InputError
from robench.graph._classifier import GraphClassifier
from robench.graph._ir import Graph
from robench.graph._module import GraphModule
from robench.graph._opaque import ModuleClassifier
from robench.graph._rounding import forward_error
from robench.graph._torch import from_torch, kept_random_state, refuse_training

__all__ = ["from_module"]


def from_module(
    module: nn.Module,
    input_shape: Sequence[int],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Classifier:
    """Return the classifier that a module in evaluation mode is, for inputs [B, *input_shape].

    A graph where the forward pass can be traced and gives the module's own logits on probe inputs, within
    the bound on rounding errors; otherwise opaque. The module, its gradients' flags and the global random state
    stay as they are. Raises InputError for training mode, random logits, logits that depend on the rest
    of the batch, and outputs that are no logits.
    """
    refuse_training(module)
    shape = tuple(int(size) for size in input_shape)
    parameter = next((p for p in (*module.parameters(), *module.buffers()) if p.is_floating_point()), torch.empty(0))
    probes = _probes(shape).to(parameter)
    logits = _logits_of(module, probes)
    try:
        graph = from_torch(module, shape)
        if graph.classes >= 2 and _agrees(graph, probes, logits):
            return GraphClassifier(graph, device, dtype)
    except GraphError:
        pass
    return ModuleClassifier(module, shape, logits.shape[1], device, dtype)


def _probes(shape: tuple[int, ...]) -> Tensor:
    """Return fixed inputs [6, ...]: images, centred data, zero."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((3, *shape), generator=generator)
    return torch.cat([images, torch.randn((2, *shape), generator=generator), torch.zeros((1, *shape))])


def _logits_of(module: nn.Module, probes: Tensor) -> Tensor:
    """Return the module's logits on the probes. Raises InputError where they are random or no logits."""
    runs = []
    precise = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
    with kept_random_state(), torch.no_grad(), precise:
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
        raise InputError(f"{name} gives different logits for the same input: it is random, not a classifier")
    scale = torch.nan_to_num(first.double()).abs().amax() + 1
    if not torch.allclose(first[:1], single, rtol=0, atol=float(scale) * 1e-3, equal_nan=True):
        raise InputError(f"{name}: the logits of a sample depend on the others in its batch")
    return first


def _agrees(graph: Graph, probes: Tensor, logits: Tensor) -> bool:
    """Whether the graph's logits and the module's differ by rounding errors at most.

    Two tests, because the bound grows with the product of the layers' norms and says little about deep nets: within
    the bound of the exact logits, and half the digits of an execution of the graph.
    """
    exact, bound = forward_error(graph, probes, probes.dtype)
    if not bool(((logits.double() - exact).abs() <= bound).all()):
        return False
    with torch.no_grad():
        run = GraphModule(graph, probes.dtype).to(probes.device)(probes)
    half = torch.finfo(probes.dtype).eps ** 0.5
    return bool(((logits - run).abs() <= half * (logits.abs().amax() + 1)).all())
