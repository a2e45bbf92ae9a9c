"""The network while it is being trained, as attacks see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robench.graph import Graph

__all__ = ["Live", "evaluating"]


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put `network` into evaluation mode meanwhile: batch norm takes its running statistics, and leaves them."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


class Live:
    """A `robench.Classifier` without an identity: its function changes with every step.

    Attacks meet it in evaluation mode, as it will be met: no batch decides about a sample.
    """

    def __init__(self, network: nn.Module, shape: tuple[int, ...], classes: int, device: torch.device) -> None:
        """Wrap `network` for inputs of `shape`."""
        self.network = network
        self.input_shape = shape
        self.classes = classes
        self.device = device
        self.dtype = torch.float32
        self.fingerprint = "0" * 64
        self.graph: Graph | None = None

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of `x`."""
        with evaluating(self.network):
            return self.network(x)  # type: ignore[no-any-return]
