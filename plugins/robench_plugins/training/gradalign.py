"""FGSM training with aligned gradients: Andriushchenko & Flammarion 2020."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import grad

from robench import param
from robench.streams import Stream
from robench_plugins.attacks.regions import Region
from robench_plugins.training._data import Batch
from robench_plugins.training._live import evaluating
from robench_plugins.training.fgsm_at import FgsmAt

__all__ = ["GradAlign", "alignment"]


@dataclass(frozen=True)
class GradAlign(FgsmAt):
    """Minimise the loss of `fgsm-at`, plus λ·mean(1 − cos(∇ℓ(x), ∇ℓ(x + u))), u uniform in the ball.

    No random start of the step, and, as in the authors' code, the gradient at x is held fixed: the regulariser reaches
    the weights through the other one alone. Catastrophic overfitting stays away; a double backward pass more is spent.

    As published for CIFAR-10 at ε = 8/255 (PreAct-ResNet-18, crops and flips): `align=0.2,optimizer=sgd,lr=0.3,
    schedule=cyclic,batch=128,weight_decay=0.0005,epochs=30`.

    History, per epoch: as for `fgsm-at`, and `cosine`, the mean over the training.
    """

    start: bool = param(False, "start at a random point of the ball")
    align: float = param(0.2, "weight λ of the regulariser", minimum=0)

    def regularised(
        self,
        loss: Tensor,
        figures: Mapping[str, Tensor],
        network: nn.Module,
        batch: Batch,
        region: Region,
        stream: Stream,
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Add λ·mean(1 − cos)."""
        with evaluating(network):
            cosine = alignment(network, batch.x, region.start(stream.child("u")), batch.y)
        return loss + self.align * (1 - cosine).mean(), {**figures, "cosine": cosine.detach().sum()}


def alignment(network: nn.Module, x: Tensor, other: Tensor, y: Tensor) -> Tensor:
    """Return cos(∇ℓ(x), ∇ℓ(other)) [B], differentiable in the weights through ∇ℓ(other) alone; 1 where one is 0."""
    fixed, moving = (_input_gradient(network, point, y, graph) for point, graph in ((x, False), (other, True)))
    cosine = (_unit(fixed) * _unit(moving)).sum(1)
    return cosine.where((fixed != 0).any(1) & (moving != 0).any(1), 1.0)


def _input_gradient(network: nn.Module, x: Tensor, y: Tensor, graph: bool) -> Tensor:
    """Return ∇ₓ CE(f(x), y), flat [B, ...]; with `graph` it can be differentiated once more."""
    x = x.detach().requires_grad_()
    (gradient,) = grad(F.cross_entropy(network(x), y, reduction="sum"), x, create_graph=graph)
    return gradient.flatten(1)


def _unit(gradient: Tensor) -> Tensor:
    """Return gradients of length 1; divided by their largest entry first, or the squares of small ones would be 0."""
    peak = gradient.detach().abs().amax(1, keepdim=True)
    scaled = gradient / peak.where(peak > 0, 1.0)
    return F.normalize(scaled, dim=1)
