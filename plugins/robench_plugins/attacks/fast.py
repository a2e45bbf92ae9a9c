"""Search in lower precision, compiled where asked for; what comes of it is verified at full precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from robench import Passes, Proposal, param
from robench.classifier import Classifier, is_random, margins
from robench.distances import project
from robench.graph import full_precision
from robench.numerics import per_sample
from robench_plugins.attacks import gradients
from robench_plugins.attacks._cheap import SPACING, CheapView, Precision, compiled
from robench_plugins.attacks._modified import Modified, ModifiedStages, named
from robench_plugins.attacks.probe import Probe

if TYPE_CHECKING:
    from robench import Attack, Norm, RandomizedClassifier, Stream, Threat

__all__ = ["Fast"]

_NEAR = 4.0
"""Margins below four spacings of the largest |logit| do not tell on which side of the boundary a point lies."""


@dataclass(frozen=True)
class Fast:
    """The attack searches in lower precision; every point proposed is judged at full precision, like any other.

    A low-precision error that is none would end a search too early: attacks stop on a sample once it is broken. Asking
    again at each such point would make an accelerator wait at every step, and what an attack asks about carries no
    label. So the points proposed are asked about once, at the end, at full precision, and those found correct there in
    lower precision too. Where the two margins differ by more than the smaller of them, or that one is within rounding
    of 0, or one is not finite, the sample is searched again, by the same attack on the classifier as it is. What is
    lost is time, and errors that a search at full precision would have met far from the point proposed.

    A sample costs the passes of the attack, one or two more, and those of the second search; a pass in lower precision
    is a pass. Minimum-norm attacks end on the boundary, so that many samples are searched twice. In a schedule, `probe`
    sees the classifier as it is: rounding is not the classifier's.

    Programs are compiled for batches of 16, 64 and 256 rows, with and without gradients; others are cut into these.
    `bf16` and `fp16` are torch's autocast, which leaves float64 alone; `tf32` changes nothing on a CPU.
    """

    precision: Precision = param("fp16", "what the search computes in: fp16 or bf16 by autocast, tf32 on GPUs, full")
    compile: bool = param(False, "compile the network's graph (torch.compile): minutes at the start, faster passes")

    def __post_init__(self) -> None:
        """Refuse a search like that without the modifier. Raises ValueError."""
        if self.precision == "full" and not self.compile:
            raise ValueError("precision=full without compile=true is the attack as it is: leave the modifier out")

    def modify(self, attack: Any) -> Any:
        """Return `attack`, which may be a schedule of attacks, with its search in lower precision."""
        return _Stages(attack, self) if hasattr(attack, "stages") else _Searching(attack, self)


@dataclass(frozen=True)
class _Cheaply(Modified):
    """What both kinds of attack have in common."""

    fast: Fast
    programs: dict[object, Callable[[Tensor], Tensor]] = field(default_factory=dict, compare=False, repr=False)

    def applies(self, classifier: Classifier | RandomizedClassifier, norm: Norm) -> str | None:
        """Return None, or why there is nothing to be had in lower precision."""
        if is_random(classifier):
            return "the classifier draws at inference: write `ATTACK | fast | eot`"
        if isinstance(self.attack, Probe):
            return "the probe measures the classifier as it is: leave `| fast` out"
        if gradients.applies(cast(Classifier, classifier)):
            return "the classifier gives no gradients, so it computes beyond torch's reach: leave `| fast` out"
        if self.fast.compile and classifier.graph is None:
            return "the classifier has no graph that could be compiled: leave compile=true out"
        return super().applies(classifier, norm)

    def view(self, classifier: Classifier) -> CheapView:
        """Return what the attack searches on. A program is kept for the classifier met last."""
        if not self.fast.compile:
            return CheapView(classifier, self.fast.precision)
        key = classifier.fingerprint, classifier.dtype, classifier.device
        if key not in self.programs:
            self.programs.clear()
            self.programs[key] = compiled(classifier)
        return CheapView(classifier, self.fast.precision, self.programs[key])


class _Searching(_Cheaply):
    """An attack that searches in lower precision."""

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose points for `x` [B, ...] with labels `y` [B], some of them searched for exactly."""
        # The second search draws what the first one drew.
        fresh = stream.select(torch.arange(len(x), device=x.device))
        view = self.view(classifier)
        made: Proposal = self.attack.perturb(view, x, y, threat, stream)
        with torch.no_grad():
            doubtful, forwards = self._doubtful(classifier, view, _judged(made.points, x, threat), y)
        cost = Passes(forwards, torch.zeros_like(forwards))
        rows = doubtful.nonzero()[:, 0]
        again = None
        if len(rows):
            with full_precision():
                again = self.attack.perturb(classifier, x[rows], y[rows], threat.select(rows), fresh.select(rows))
        return _joined(made, cost, again, rows)

    def _doubtful(self, classifier: Classifier, view: CheapView, points: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the search may have ended in an error that is none, bool [B], and the forwards asked [B]."""
        doubtful, forwards = torch.zeros_like(y, dtype=torch.bool), torch.ones_like(y)
        if not len(y):
            return doubtful, forwards
        with full_precision(), torch.autocast(points.device.type, enabled=False):
            exact = margins(classifier.logits(points), y)
        rows = (exact > 0).nonzero()[:, 0]
        if len(rows):
            forwards[rows] += 1
            logits = view.logits(points[rows])
            cheap, exact = margins(logits, y[rows]), exact[rows]
            rounding = _NEAR * SPACING[self.fast.precision] * logits.abs().amax(1)
            # Not-a-number is doubtful.
            doubtful[rows] = ~(torch.minimum(cheap, exact) > torch.maximum((cheap - exact).abs(), rounding))
        return doubtful, forwards


class _Stages(_Cheaply, ModifiedStages):
    """A schedule whose attacks search in lower precision; it decides what to run by what the runner found."""

    def stage(self, spec: str, attack: Attack) -> tuple[str, Attack]:
        """Return the stage under the modifier's name too; the probe as it is."""
        if isinstance(attack, Probe):
            return spec, attack
        return f"{spec} | {named('fast', self.fast)}", cast("Attack", _Searching(attack, self.fast, self.programs))


def _judged(points: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """Return the points as the runner will judge them."""
    points = points.detach().to(x)
    finite = points.flatten(1).isfinite().all(1)
    return project(torch.where(per_sample(finite, points), points, x), x, threat)


def _joined(made: Proposal, cost: Passes, again: Proposal | None, rows: Tensor) -> Proposal:
    """Return the proposal with what the second search proposes for `rows`, and with the passes of both."""
    points, passes = made.points, _sum(made.passes, cost, torch.arange(len(made.points)))
    # What a search in lower precision measured about health is about the precision.
    detail = [_without_health(one) for one in made.detail or [None] * len(points)]
    if again is not None:
        points = points.detach().clone()
        points[rows] = again.points.to(points)
        for row, one in zip(rows.tolist(), again.detail or [None] * len(rows), strict=True):
            detail[row] = {**(one or {}), "searched_again": True}
        passes = _sum(passes, again.passes, rows)
    return Proposal(points, detail, passes)


def _sum(whole: Passes | None, part: Passes | None, rows: Tensor) -> Passes | None:
    """Return the passes of a batch with those of some of its rows added; None where either is not told."""
    if whole is None or part is None:
        return None
    pairs = ((whole.forwards, part.forwards), (whole.backwards, part.backwards))
    return Passes(*(total.cpu().index_add(0, rows.cpu(), more.cpu()) for total, more in pairs))


def _without_health(detail: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return detail and {key: value for key, value in detail.items() if key != "health"}
