"""From a torch module to a graph: one forward pass with traced tensors."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as hooks

from robench.errors import GraphError, InputError, RobenchError
from robench.graph._builder import Builder
from robench.graph._ir import Graph
from robench.graph._torch_ops import HANDLERS
from robench.graph._trace import Traced, Tracer
from robench.text import one_line

__all__ = ["from_torch", "kept_random_state", "refuse_training"]


def from_torch(module: nn.Module, input_shape: Sequence[int]) -> Graph:
    """Return the graph of a module in evaluation mode, for inputs [B, *input_shape].

    Raises GraphError where the forward pass does something that graphs cannot express; it names the
    function and the layer. The module's parameters are copied and left as they are.
    """
    refuse_training(module)
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    if isinstance(module, torch.jit.ScriptModule):
        raise GraphError("a TorchScript module cannot be traced: pass the original module, or export it to ONNX")
    parameter = next((p for p in (*module.parameters(), *module.buffers()) if p.is_floating_point()), torch.empty(0))
    builder = Builder(input_shape)
    tracer = Tracer(builder, HANDLERS, parameter)
    names = {id(layer): f"{name} ({type(layer).__name__})" if name else "" for name, layer in module.named_modules()}
    with kept_random_state() as drawn, _noted_layers(tracer, names), torch.no_grad():
        try:
            with tracer:
                out = module(Traced.make(0, builder.shape(0)))
        except RobenchError:
            raise
        except Exception as error:  # whatever the user's code does with a tensor without numbers
            reason = f"{one_line(error, 200)}{tracer.where()}"
            raise GraphError(f"{type(module).__name__} cannot be traced: {reason}") from error
        if drawn():
            raise GraphError("random numbers are drawn in the forward pass: remove them, or call module.eval()")
    if not isinstance(out, Traced):
        raise GraphError(f"{type(module).__name__} returns {type(out).__name__}, not a tensor of logits")
    return builder.finish(out.node)


def refuse_training(module: nn.Module) -> None:
    """Refuse what is no module, or a module of which a part is in training mode. Raises InputError."""
    if not isinstance(module, nn.Module):
        raise InputError(f"{type(module).__name__} is no torch.nn.Module")
    for name, layer in module.named_modules():
        if layer.training:
            where = f"its layer {name} ({type(layer).__name__})" if name else "it"
            raise InputError(f"{type(module).__name__}: {where} is in training mode: call module.eval()")


@contextmanager
def kept_random_state() -> Iterator[Callable[[], bool]]:
    """Restore the random state of torch (CPU and CUDA), numpy and Python; yields whether any of it was used."""
    cuda = torch.cuda.is_available()

    def state() -> tuple[Any, ...]:
        legacy: Any = np.random.get_state(legacy=False)
        bits = legacy["state"]
        return (
            torch.get_rng_state().numpy().tobytes(),
            tuple(s.numpy().tobytes() for s in torch.cuda.get_rng_state_all()) if cuda else (),
            (bits["key"].tobytes(), bits["pos"]) if "key" in bits else repr(bits),
            random.getstate(),
        )

    before = state()
    torch_state, cuda_states = torch.get_rng_state(), torch.cuda.get_rng_state_all() if cuda else []
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield lambda: state() != before
    finally:
        torch.set_rng_state(torch_state)
        if cuda:
            torch.cuda.set_rng_state_all(cuda_states)
        np.random.set_state(numpy_state)
        random.setstate(python_state)


@contextmanager
def _noted_layers(tracer: Tracer, names: dict[int, str]) -> Iterator[None]:
    """Tell the tracer which layer runs, so that errors can name it."""
    handles = [
        hooks.register_module_forward_pre_hook(lambda layer, args: tracer.entered(names.get(id(layer), ""))),
        hooks.register_module_forward_hook(lambda layer, args, out: tracer.left()),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
