"""Complete verification: attack, bounds, optimised bounds, then branch and bound until proven or refuted.

After beta-CROWN (Wang et al. 2021) and its branch and bound (Bunel et al. 2020), with one tree for all classes, inner
bounds proven again on every piece, and every piece accepted in float64 with its rounding error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from robench import param
from robench.classifier import Classifier
from robench.contracts import Certificates
from robench.streams import Stream
from robench.threat import Norm, Threat
from robench_plugins.verify._engine.lower import lower, unsupported
from robench_plugins.verify._tree.run import Effort, Run

__all__ = ["BaB"]


@dataclass(frozen=True)
class BaB:
    """Decides whether a sample is robust at ε: certified, falsified with a point, or out of time with the gap reached.

    Complete for piecewise linear networks, given time; for sigmoid and tanh by halving boxes, which is complete for any
    margin above 0 but slow beyond a few inputs.
    """

    timeout: float = param(60.0, "seconds for each sample", above=0)
    batch: int = param(64, "pieces that are bounded at once", minimum=2, maximum=2**16)
    steps: int = param(20, "optimiser's steps on each piece", minimum=1, maximum=10_000)
    strong_branching: int = param(
        1000, "signs that are tried at each root, to learn which are worth deciding", minimum=0, maximum=2**20
    )
    split: Literal["auto", "signs", "inputs"] = param(
        "auto", "`signs` of ReLUs, or `inputs`; auto: inputs where they are few beside the ReLUs, or one is smooth"
    )
    inner: int = param(
        128, "signs that are decided to raise each inner bound, where signs are split", minimum=0, maximum=2**16
    )
    restarts: int = param(3, "random starts of the attack before anything is proven", minimum=0, maximum=10_000)

    per_eps: ClassVar[bool] = True
    deterministic: ClassVar[bool] = True
    complete: ClassVar[bool] = True
    regions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse a time limit that is no time."""
        if not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise ValueError(f"timeout must be positive and finite, not {self.timeout!r}")

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or what stands in the way: no graph, an operator without linear bounds, impossible splits."""
        graph = classifier.graph
        if graph is None:
            return "bab reads the network's graph, and this classifier has none"
        reason = unsupported(graph)
        if reason is None and self.split == "signs" and not lower(graph).piecewise_linear:
            return "split=signs needs ReLUs, and an activation is smooth: take split=inputs"
        return reason

    def certify(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Certificates:
        """Decide about `x` [B, ...] with labels `y` [B] at `threat.eps`, or on the threat's own region."""
        assert classifier.graph is not None
        if threat.eps is None:
            raise ValueError("bab needs a budget: it decides about one ε at a time")
        inputs = None if self.split == "auto" else self.split == "inputs"
        effort = Effort(self.timeout, self.batch, self.steps, self.strong_branching, self.inner, inputs, self.restarts)
        # The search needs gradients, and tensors that may have them.
        with torch.inference_mode(False):
            return Run(effort, classifier, x.detach().clone(), y.clone(), threat, stream).decide()
