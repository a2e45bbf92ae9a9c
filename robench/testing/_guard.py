"""What a plugin must leave as it found it: global random state, gradients, modes, and the tensors it was handed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robench.testing._findings import Violation

__all__ = ["Traces", "watch"]

_SEEDS = itertools.count(20_000)


class Traces:
    """What was found changed, by topic: `random`, `gradients`, `inputs`."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.changed: dict[str, list[str]] = {"random": [], "gradients": [], "inputs": []}
        self.calls = 0

    def refuse(self, topic: str, where: str) -> None:
        """Raise Violation where something of `topic` was changed."""
        if self.changed[topic]:
            raise Violation(f"{where}: changed {', '.join(sorted(set(self.changed[topic])))}")


def _random_states() -> dict[str, str]:
    return {
        "torch's global random state": torch.random.get_rng_state().numpy().tobytes().hex(),
        "numpy's global random state": _numpy_state(),
        "random's global state": repr(random.getstate()),
    }


def _numpy_state() -> str:
    state: Any = np.random.get_state(legacy=False)
    # As bytes: writing out an array's numbers takes longer than most plugins do.
    inner = {
        name: value.tobytes() if isinstance(value, np.ndarray) else value for name, value in state["state"].items()
    }
    return repr({**state, "state": inner})


@contextmanager
def watch(traces: Traces, module: nn.Module | None = None, **tensors: Tensor) -> Iterator[None]:
    """Record in `traces` what the body changes.

    The body sees another global random state each time, so that using it shows; the caller's own is put back.
    Changes of that state count from the second call on: libraries imported at first use may draw from it.
    """
    traces.calls += 1
    kept = torch.random.get_rng_state(), np.random.get_state(legacy=False), random.getstate()
    seed = next(_SEEDS)
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    random_before = _random_states()
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    parameters = dict(module.named_parameters()) if module is not None else {}
    values = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    modes = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        yield
    finally:
        for name, state in _random_states().items():
            if traces.calls > 1 and state != random_before[name]:
                traces.changed["random"].append(name)
        torch.random.set_rng_state(kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])
        for name, tensor in tensors.items():
            if not torch.equal(tensor.detach(), copies[name]):
                traces.changed["inputs"].append(name)
            if tensor.requires_grad or tensor.grad is not None:
                traces.changed["inputs"].append(f"{name} (it tracks gradients)")
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                traces.changed["gradients"].append(f"the gradient of parameter {name}")
                parameter.grad = None
            if not parameter.requires_grad:
                traces.changed["gradients"].append(f"requires_grad of parameter {name}")
                parameter.requires_grad_(True)
            if not torch.equal(parameter, values[name]):
                traces.changed["gradients"].append(f"the value of parameter {name}")
        if module is not None and any(part.training for part in module.modules()):
            traces.changed["gradients"].append("the module's mode (training)")
            module.eval()
        if (torch.is_grad_enabled(), torch.get_default_dtype()) != modes:
            traces.changed["gradients"].append("torch's global settings (gradients enabled, default dtype)")
            torch.set_grad_enabled(modes[0])
            torch.set_default_dtype(modes[1])
