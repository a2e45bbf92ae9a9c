"""FAB (Croce & Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack")."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from robench import Proposal, param
from robench_plugins.attacks import gradients
from robench_plugins.attacks._fab_search import Pace, search
from robench_plugins.attacks._runs import Runs, propose

if TYPE_CHECKING:
    from torch import Tensor

    from robench import Access, Classifier, Norm, Stream, Threat

__all__ = ["FAB"]


@dataclass(frozen=True)
class FAB:
    """The nearest error in linf, l2 or l1: over and over onto the linearised boundary, drawn towards the clean input.

    Algorithm 1 of the paper. Each step projects the point and the clean input onto the boundary and box together,
    exactly, goes a little beyond both projections, and to the mean of the two, the nearer the clean input the nearer
    that one's projection. From every error met the search goes back towards the clean input. Later restarts begin at
    random points, half as far away as the nearest error met.

    With `targets=N` every restart is N runs instead of one, each onto the boundary to one of the most likely other
    classes: a gradient instead of one per class and step. AutoAttack's `fab` is `fab`, its `fab-t` is
    `fab:restarts=1,targets=9`. Given an ε, as a stage of another attack, a sample is left at the first error within it.
    """

    per_eps: ClassVar[bool] = False
    access: ClassVar[Access] = "gradients"

    steps: int = param(100, "steps per run (N_iter)", minimum=1)
    targets: int = param(0, "targeted runs, towards so many of the most likely other classes; 0: untargeted", minimum=0)
    restarts: int = param(5, "how often all runs are made, from the clean input, then from random points", minimum=1)
    alpha_max: float = param(0.1, "largest weight of the clean input's projection", minimum=0, maximum=1)
    eta: float = param(1.05, "how far beyond the boundary a step goes (overshoot)", minimum=1)
    beta: float = param(0.9, "what an error keeps of its perturbation when the search goes back", above=0, maximum=1)

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        return gradients.applies(classifier)

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose the nearest misclassified points met for `x` [B, ...] with labels `y` [B]."""
        runs = Runs(self.targets, self.restarts - 1, rounds=True, share=0.5)
        pace = Pace(self.steps, self.alpha_max, self.eta, self.beta, threat.eps or 0.0)
        return propose(classifier, x, y, threat, stream, runs, partial(search, pace))
