"""A certifier for affine classifiers: the distance to the nearest decision hyperplane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from robench import Certificates, Certifier, Classifier, Norm, Stream, Threat
from robench.numerics import gamma, open_to_closed, round_up

__all__ = ["Hyperplane"]

_DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}


@dataclass(frozen=True)
class Hyperplane(Certifier):
    """min over j ≠ y of (f_y − f_j)(x) / ‖w_y − w_j‖_q, with 1/p + 1/q = 1, for f(x) = W x + b.

    Exact without a box (Hein & Andriushchenko 2017, section 2), a lower bound with one. Every step is rounded
    towards the smaller radius: a certificate must hold for the real-arithmetic function.
    """

    per_eps: ClassVar[bool] = False  # it gives a radius: asked once, for every budget

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return why nothing can be said about `classifier`."""
        return None if _affine(classifier) else "the network is not a single affine layer"

    def certify(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Certificates:
        """Certify `x` [B, ...] with labels `y` [B]."""
        affine = _affine(classifier)
        if affine is None:
            raise ValueError("the network is not a single affine layer")
        weight, bias = (constant.to(x.device, torch.float64) for constant in affine)
        flat, n = x.double().flatten(1), weight.shape[1]
        logits = flat @ weight.T + bias
        # Twice the bound of Higham 2002, (3.5), which covers its own evaluation; the last term is for underflow.
        error = 2 * gamma(n + 4) * (flat.abs() @ weight.abs().T + bias.abs()) + n * torch.finfo(torch.float64).tiny
        gap = (logits - error).gather(1, y[:, None]) - (logits + error)
        slope = (weight[y][:, None] - weight).abs()  # [B, classes, n]
        scale = slope.amax(2).clamp_min(torch.finfo(torch.float64).tiny)  # squares must not underflow
        length = torch.linalg.vector_norm(slope / scale[..., None], _DUAL[threat.norm], dim=2) * scale
        radius = gap / round_up(length * (1 + 2 * gamma(n + 4))) * (1 - 2 * gamma(4))
        radius = torch.where(gap > 0, radius, 0.0)  # false for NaN: what overflowed proves nothing
        radius.scatter_(1, y[:, None], torch.inf)
        lower = open_to_closed(radius.amin(1))
        return Certificates(lower, ["certified" if value > 0 else "open" for value in lower.tolist()])


def _affine(classifier: Classifier) -> tuple[Tensor, Tensor] | None:
    """Return (weight [classes, n], bias [classes]) of an affine classifier, otherwise None."""
    nodes = classifier.graph.nodes if classifier.graph is not None else ()
    layers = [node for node in nodes if node.op not in ("input", "reshape")]
    if len(layers) != 1 or layers[0].op != "linear":
        return None
    weight = layers[0].constants["weight"]
    return weight, layers[0].constants.get("bias", torch.zeros(len(weight)))
