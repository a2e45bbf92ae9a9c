"""The boundaries between the label and other classes, as they are if the classifier is linear at a point."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robench.classifier import Classifier, margins
from robench.errors import InputError
from robench_plugins.attacks.gradients import rounding
from robench_plugins.attacks.losses import likely_targets

__all__ = ["Planes", "planes"]


@dataclass(frozen=True, eq=False)
class Planes:
    """Per row [R]: margin and largest |logit|; per class j looked at [R, K]: f_y − f_j and −∇(f_y − f_j) [R, K, D].

    `values` are what separates the row from that class, and what rounding may take from it.
    """

    margin: Tensor
    scale: Tensor
    others: Tensor
    values: Tensor
    normals: Tensor

    def select(self, rows: Tensor) -> Planes:
        """Return some rows (bool mask or int64 positions)."""
        return Planes(*(part[rows] for part in (self.margin, self.scale, self.others, self.values, self.normals)))


def planes(classifier: Classifier, x: Tensor, y: Tensor, others: Tensor | None, count: int) -> Planes:
    """Return the boundaries at `x` [R, ...] to the classes `others` [R, K], by default the `count` most likely ones.

    One forward pass and one backward pass per class. Raises InputError where the logits carry no gradient.
    """
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        logits = classifier.logits(point)
        if not logits.requires_grad:
            raise InputError("the classifier gives no gradients: use an attack that needs only its outputs")
        seen = logits.detach()
        others = likely_targets(torch.nan_to_num(seen), y, count) if others is None else others
        label = torch.zeros_like(seen).scatter(1, y[:, None], 1)
        found = []
        for rank in range(others.shape[1]):
            way = torch.zeros_like(seen).scatter(1, others[:, rank, None], 1) - label
            last = rank + 1 == others.shape[1]
            (g,) = torch.autograd.grad(
                logits, point, way, retain_graph=not last, allow_unused=True, materialize_grads=True
            )
            found.append(torch.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0).flatten(1))
    margin, scale = margins(seen, y), seen.abs().amax(1)
    values = seen.gather(1, y[:, None]) - seen.gather(1, others) + rounding(scale)[:, None]
    return Planes(margin, scale, others, values, torch.stack(found, 1))
