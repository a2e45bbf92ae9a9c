"""Certifiers whose radii must not be believed."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from robench import Certificates, Certifier, param

_DUAL = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}


def _layer(classifier):
    nodes = classifier.graph.nodes if classifier.graph is not None else ()
    layers = [node for node in nodes if node.op not in ("input", "reshape")]
    return layers[0].constants if len(layers) == 1 and layers[0].op == "linear" else None


@dataclass(frozen=True)
class Radius(Certifier):
    """The exact radius of a linear classifier, times `factor`."""

    per_eps: ClassVar[bool] = False

    factor: float = param(1.5, "what to multiply the truth by", above=0)

    def applies(self, classifier, norm):
        return None if _layer(classifier) is not None else "the network is not a single affine layer"

    def certify(self, classifier, x, y, threat, stream):
        constants = {name: value.to(x.device, torch.float64) for name, value in _layer(classifier).items()}
        weight = constants["weight"]
        logits = x.double().flatten(1) @ weight.T + constants.get("bias", 0.0)
        gap = logits.gather(1, y[:, None]) - logits
        length = torch.linalg.vector_norm(weight[y][:, None] - weight, _DUAL[threat.norm], dim=2)
        radius = (gap / length).scatter(1, y[:, None], torch.inf).amin(1).clamp_min(0)
        lower = self.factor * radius
        return Certificates(lower, ["certified" if value > 0 else "open" for value in lower.tolist()])


@dataclass(frozen=True)
class Raises(Certifier):
    """Raises after its first pass."""

    def certify(self, classifier, x, y, threat, stream):
        classifier.logits(x)
        raise RuntimeError("the solver died")
