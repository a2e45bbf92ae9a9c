"""What a training needs to go on after a kill, as named tensors, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from robench.errors import DataError

__all__ = ["restore", "state_of"]


def state_of(module: nn.Module, optimizer: Optimizer, generator: torch.Generator) -> dict[str, Tensor]:
    """Return weights, the optimizer's tensors (`optimizer.3.exp_avg` of the fourth parameter) and the generator.

    The learning rate follows from the number of steps, so that a schedule need not be kept.
    """
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    for index, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in entries.items() if isinstance(value, Tensor)}
    return {**tensors, "generator": generator.get_state()}


def restore(tensors: Mapping[str, Tensor], module: nn.Module, optimizer: Optimizer, generator: torch.Generator) -> None:
    """Put back what `state_of` returned. Raises DataError where it does not fit, whatever it is."""
    try:
        weights = {name.removeprefix("module."): tensors[name] for name in tensors if name.startswith("module.")}
        module.load_state_dict(weights)
        fresh = optimizer.state_dict()
        fresh["state"] = dict(_entries(tensors, optimizer))
        optimizer.load_state_dict(fresh)
        generator.set_state(tensors["generator"])
    except (KeyError, RuntimeError, TypeError, ValueError):
        raise DataError("the state of the unfinished training does not fit this network: train without it") from None


def _entries(tensors: Mapping[str, Tensor], optimizer: Optimizer) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Yield the optimizer's tensors of each parameter; each has its shape, or is a number."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters):
        start = f"optimizer.{index}."
        entries = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
        if any(value.shape not in (parameter.shape, torch.Size()) for value in entries.values()):
            raise ValueError("another shape")
        if entries:
            yield index, entries
