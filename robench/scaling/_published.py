"""What papers say about curves that are measured here, to be drawn beside them: facts with their source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from robench.spec import parse
from robench.threat import Epsilon, Norm

__all__ = ["Published", "published_for"]


@dataclass(frozen=True)
class Published:
    """A curve, or the part of it that a paper states: (n, accuracy), ascending, and what else it says of it."""

    dataset: str
    quantity: str
    norm: Norm
    eps: str
    points: tuple[tuple[float, float], ...]
    says: str
    source: str


_MNIST: Final = Published(
    "mnist",
    "certified",
    "l2",
    "36/255",
    ((60000 / 1024, 0.76), (60000 / 512, 0.83), (60000 / 256, 0.90)),
    "90 % at about 234 training samples, about 7 points per doubling below, the best at about 15,000, from a larger "
    "network with augmentation and long training",
    "Prach & Lampert 2025, Intriguing properties of robust classification, Figure 7 and its text",
)


def published_for(dataset: str, quantity: str, norm: Norm | None, eps: Epsilon | None) -> Sequence[Published]:
    """Return what is published about an accuracy on a dataset (canonical spec) at (norm, ε)."""
    if norm is None or eps is None:
        return ()
    specs = parse(dataset).specs
    if len(specs) > 1:  # transformed: other data
        return ()
    return [
        one
        for one in (_MNIST,)
        if (one.dataset, one.quantity, one.norm) == (specs[0].name, quantity, norm)
        and Epsilon.parse(one.eps).value == eps.value
    ]
