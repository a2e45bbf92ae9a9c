"""A torch module that draws at inference, as a randomized classifier: one row at a time, each draw from its stream."""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from robench.errors import InputError
from robench.graph._classifier import check_input, shape_of
from robench.graph._opaque import module_fingerprint
from robench.graph._torch import kept_random_state

if TYPE_CHECKING:
    from robench.streams import Stream

__all__ = ["RandomModule"]


class RandomModule:
    """Runs a copy of a module that draws from the global generators of torch, numpy or `random`.

    Before each row these generators are seeded from the row's stream, and afterwards they are put back. So a row has
    the same draws in any batch, at the cost of a pass of its own: a classifier that draws from the stream itself, for
    all rows at once, is many times faster.

    `identified` is whether the fingerprint names the function, in this process and others.
    """

    graph = None

    def __init__(
        self,
        module: nn.Module,
        input_shape: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Copy `module` to `device` in `dtype`. Raises InputError unless it maps one input to logits [1, classes].

        Dropout layers may be in training mode, where they draw; nothing else may.
        """
        name = type(module).__name__
        if not isinstance(module, nn.Module):
            raise InputError(f"{name} is no torch.nn.Module")
        for where, layer in module.named_modules():
            if layer.training and not isinstance(layer, nn.modules.dropout._DropoutNd):
                place = f"{where} ({type(layer).__name__})" if where else name
                raise InputError(
                    f"{place} is in training mode: call .eval() first, then .train() on the dropout layers that draw"
                )
        try:
            copied = copy.deepcopy(module)
        except Exception as error:
            raise InputError(f"{name} cannot be copied: {error}") from None
        self._module = copied.requires_grad_(False).to(device=device, dtype=dtype)
        self.input_shape = shape_of(input_shape)
        self.dtype = dtype
        self.device = torch.device(device)
        with torch.no_grad():
            out: Any = self._drawn(torch.zeros((1, *self.input_shape), dtype=dtype, device=self.device), [0])[0]
        if not isinstance(out, Tensor) or out.dim() != 2 or len(out) != 1 or out.shape[1] < 2:
            shown = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise InputError(f"{name} gives {shown} for 1 input: it must return logits [batch, classes]")
        self.classes = int(out.shape[1])
        own, self.identified = module_fingerprint(module, dtype)
        self.fingerprint = hashlib.sha256(f"randomized\0{own}".encode()).hexdigest()

    def sample(self, x: Tensor, stream: Stream) -> Tensor:
        """Return the logits [B, classes] of one draw per row of `x` [B, ...]."""
        check_input(x, self.input_shape, self.dtype)
        if not len(x):
            return x.new_zeros((0, self.classes))
        seeds = (stream.integers((2,), 2**31) * torch.tensor([2**31, 1], device=x.device)).sum(1).tolist()
        return torch.cat(self._drawn(x, seeds))

    def _drawn(self, x: Tensor, seeds: Sequence[int]) -> list[Tensor]:
        made = []
        with kept_random_state():
            for row, seed in enumerate(seeds):
                torch.manual_seed(seed)
                np.random.seed(seed % 2**32)
                random.seed(seed)
                made.append(self._module(x[row : row + 1].clone()))  # it may write into its argument
        return made

    def __repr__(self) -> str:
        """Shapes, precision and identity."""
        return (
            f"RandomModule({list(self.input_shape)} to {self.classes} classes, {self.dtype}, "
            f"{self.device}, draws, {self.fingerprint[:12]})"
        )
