"""Health probes: do gradients tell the truth about this classifier, around these samples?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from robench import Proposal
from robench_plugins.attacks import gradients
from robench_plugins.attacks._probe_stages import aside, begin, leap, walk
from robench_plugins.attacks._probe_trail import Figures, Trail
from robench_plugins.attacks.regions import Region

if TYPE_CHECKING:
    from robench import Classifier, Norm, Stream, Threat
    from robench.contracts import Access

__all__ = ["Probe"]


@dataclass(frozen=True)
class Probe:
    """A few steps whose outcome can be foretold: where it comes out otherwise, an attack's number is not to be trusted.

    With g the gradient of −margin at x, and F the point of ball and domain that is furthest along g (FGSM's step):

    1. x, with g: kind and scale of the outputs; zeros in g and entries that are not finite; how far into the domain one
       would have to go, by g, for the margin to reach 0. F. 2 forwards, 1 backward; what is broken leaves.
    2. x + (F − x)/8, x + (F − x)/2 and two more steps along gradients, .35ε and .2ε long: do margins fall as g
       promised, does the gradient half-way still point the same way, do several steps do better than one? 4 forwards,
       2 backwards; what is broken leaves.
    3. ± ε/8 in a random direction: did g foretell the difference? A random point on the ball's rim, with its gradient,
       and again: is it worse than the steps, does the gradient still point the same way, are the answers the same? Two
       steps of an attack with no budget but the domain: does it succeed? 6 forwards, 2 backwards. If so, eight halvings
       of the way to that error: does the margin pass through 0, or does it jump? 8 forwards.

    At most 20 forwards and 5 backwards for a sample that stands. The figures go into the detail's `health`; the
    thresholds of `robench.health` belong to exactly these steps, so that there is nothing to set. The best point met
    is proposed.
    """

    per_eps: ClassVar[bool] = True
    access: ClassVar[Access] = "gradients"

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        return gradients.applies(classifier)

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose the point of lowest margin met for each of `x` [B, ...] with labels `y` [B]."""
        trail, figures = Trail(classifier, x, y), Figures(x)
        if len(x):
            at = begin(trail, figures, Region.around(x, threat), threat, stream)
            for stage in (leap, walk, aside):
                if len(at.rows):
                    at = stage(at)
        margins = ({"margin": None if margin != margin else margin} for margin in trail.margin.tolist())
        detail = [{**one, "health": health} for one, health in zip(margins, figures.of_samples(), strict=True)]
        return Proposal(trail.points, detail, trail.passes)
