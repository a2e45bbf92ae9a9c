"""Base classifiers whose votes are known."""

import torch
from torch import Tensor


class Base:
    """A classifier that keeps how many rows it was passed at once."""

    graph = None
    classes = 2
    device = torch.device("cpu")
    fingerprint = "0" * 64

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> None:
        self.input_shape, self.dtype = shape, dtype
        self.passes: list[int] = []

    def logits(self, x: Tensor) -> Tensor:
        self.passes.append(len(x))
        return self.scores(x)

    def scores(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Half(Base):
    """Class 1 where wᵀx > 0, class 0 where it is below, for a unit vector w: wᵀx is the distance to the boundary."""

    def __init__(self, weight: Tensor, shape: tuple[int, ...] | None = None) -> None:
        super().__init__(shape or tuple(weight.shape), weight.dtype)
        self.weight = weight / weight.norm()

    def at(self, *margins: float) -> Tensor:
        """Return points with these signed distances from the boundary."""
        flat = torch.tensor(margins, dtype=self.dtype)[:, None] * self.weight
        return flat.reshape(len(margins), *self.input_shape)

    def scores(self, x: Tensor) -> Tensor:
        # A sum of products: equal in every batch to the bit, as a matrix product need not be.
        margin = (x.flatten(1) * self.weight).sum(1)
        return torch.stack([-margin, margin], 1)


class Constant(Base):
    """The same logits everywhere."""

    def __init__(self, *logits: float) -> None:
        super().__init__((3,))
        self.held = torch.tensor(logits, dtype=torch.float64)
        self.classes = len(logits)

    def scores(self, x: Tensor) -> Tensor:
        return self.held.expand(len(x), -1)


def half(size: int = 12, dtype: torch.dtype = torch.float64, shape: tuple[int, ...] | None = None) -> Half:
    return Half(torch.linspace(-1, 2, size, dtype=dtype), shape)
