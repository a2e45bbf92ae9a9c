"""The l2 attack of Carlini & Wagner (2017, "Towards evaluating the robustness of neural networks", section VI.A)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from robench import Proposal, param
from robench_plugins.attacks import gradients
from robench_plugins.attacks._nearest import Nearest
from robench_plugins.attacks._runs import Noise, Rows, Runs, propose
from robench_plugins.attacks._trade import Plan, trade
from robench_plugins.attacks._variables import Change

if TYPE_CHECKING:
    from robench import Classifier, Norm, Passes, Stream, Threat

__all__ = ["CW"]


@dataclass(frozen=True)
class CW:
    """The nearest error in l2: Adam on ‖δ‖₂² + c · max(margin, 0), with the smallest c that works found by bisection.

    Deviations, each for a reason: distance and margin are divided by the first-order distance to the boundary and by
    the clean margin, so that c has no unit (there it starts at 0.001 in units of logits, and the search first has to
    find their scale); the change of variables is a sine, which lets pixels at 0 and 1 go where tanh holds them for
    hundreds of steps, so that 300 steps do; in a domain without two sides x itself is the variable, clipped;
    `abort_early` looks at each sample, not at the batch. More runs follow: towards the likeliest classes and
    untargeted, from random points of the sphere that the first one found.

    `cw:variable=tanh,steps=10000,targets=0,starts=0` makes one run of the published length in the
    published variable; the units of c and `abort_early` by sample remain.
    """

    per_eps: ClassVar[bool] = False

    steps: int = param(300, "Adam steps per value of c, in tenths", minimum=1)
    search: int = param(9, "values of c: ten times more until one works, then bisection", minimum=1)
    c: float = param(4.0, "first c, where 2 is what a linear classifier needs", above=0)
    rate: float = param(0.01, "learning rate of Adam", above=0)
    variable: Change = param("sine", "change of variables in a domain with two sides")
    abort_early: bool = param(True, "end a descent when a tenth of its steps gained less than 0.01 %")
    targets: int = param(3, "how many of the most likely other classes get a run of their own", minimum=0)
    starts: int = param(4, "how many more untargeted runs begin at random points", minimum=0)

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        return "cw minimises the l2 distance alone" if norm != "l2" else gradients.applies(classifier)

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose the nearest misclassified points met for `x` [B, ...] with labels `y` [B]."""
        lower, upper = threat.domain.lower, threat.domain.upper
        boxed = lower > float("-inf") and upper < float("inf")
        change: Change = self.variable if boxed else "direct"
        plan = Plan(self.steps, self.search, self.c, self.rate, change, self.abort_early)

        def search(classifier: Classifier, norm: Norm, rows: Rows, noise: Noise) -> tuple[Nearest, Passes]:
            return trade(classifier, rows, plan)

        return propose(classifier, x, y, threat, stream, Runs(self.targets, self.starts), search)
