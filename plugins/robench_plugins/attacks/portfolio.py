"""robench's default attack: a schedule that spends passes where samples still fall."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from robench.health import CATALOGUE, beyond, readings
from robench_plugins.attacks import gradients
from robench_plugins.attacks.apgd import APGD
from robench_plugins.attacks.fab import FAB
from robench_plugins.attacks.hopskipjump import HopSkipJump
from robench_plugins.attacks.probe import Probe
from robench_plugins.attacks.race import Race
from robench_plugins.attacks.square import Square

if TYPE_CHECKING:
    from torch import Tensor

    from robench import Attack, Classifier, Norm, Outcome, Threat

__all__ = ["Portfolio"]

_PROBE: Final[tuple[str, Attack]] = ("probe", Probe())
_SHORT: Final[tuple[str, Attack]] = ("apgd:steps=20", APGD(steps=20))
_RACE: Final[tuple[str, Attack]] = ("race", Race())
_MORE: Final[tuple[str, Attack]] = ("race:targets=3", Race(targets=3))
_LONG: Final[tuple[str, Attack]] = ("apgd", APGD())
_RESTARTS: Final[tuple[str, Attack]] = ("apgd:loss=dlr,restarts=10", APGD(loss="dlr", restarts=10))
_CORNERS: Final[tuple[str, Attack]] = ("square", Square())
_NEAREST: Final[tuple[str, Attack]] = ("fab:restarts=1,steps=10,targets=3", FAB(restarts=1, steps=10, targets=3))
_SCORES: Final[tuple[str, Attack]] = ("square:queries=125", Square(queries=125))
_DECISIONS: Final[tuple[str, Attack]] = ("hopskipjump:queries=150", HopSkipJump(queries=150))
_NEAREST_IN_FULL: Final[tuple[str, Attack]] = ("fab:restarts=1,targets=9", FAB(restarts=1, targets=9))
_DECISIONS_IN_FULL: Final[tuple[str, Attack]] = ("hopskipjump:queries=3000", HopSkipJump(queries=3000))
_SCORES_IN_FULL: Final[tuple[str, Attack]] = ("square:queries=2000", Square(queries=2000))

_CLOSE, _CLOSER, _VERGE = 0.3, 0.1, 0.03
"""The lowest margin met, as a share of the clean one, below which a sample gets more. What late restarts towards a
class broke had got below .3; what long runs, and Square after all gradients, broke had got below .03."""

_FURTHER = 0.05
"""The search by scores got further than gradients when its margin is lower by more than this share of the clean one: as
for the probe's `single-step-stronger`. By less, both may have got to the same corner of the ball."""

_RARE = 0.08
"""An indicator is rare on honest classifiers when it takes no more than this share of the samples to raise it."""


@dataclass(frozen=True)
class Portfolio:
    """Probes, short runs, many restarts for what is close to falling, checks by other means; in full where these warn.

    Every stage sees the samples that those before it left, and is an evaluator of its own:

    1. `probe`: do gradients tell the truth? It breaks what falls to three steps.
    2. `apgd:steps=20`: a short untargeted run.
    3. `race`: short runs towards nine classes, then restarts towards the two that got furthest.
    4. What is close to falling gets more, by the lowest margin met as a share of the clean one: `race:targets=3` below
       .3, `apgd` below .1, `apgd:loss=dlr,restarts=10` below .03, and there in linf `square`.
    5. `fab:restarts=1,steps=10,targets=3`, `square:queries=125`, `hopskipjump:queries=150`: the checks, by a
       minimum-norm attack, without gradients, and by decisions alone.
    6. `fab:restarts=1,targets=9`, `hopskipjump:queries=3000`, `square:queries=2000` for samples where gradients seem to
       mislead: one rare indicator of the probe is beyond its threshold, or two others, or scores met a margin lower
       than all gradients did by more than a twentieth of the clean one. Decisions get the most: where gradients
       mislead, scores often do too.
    """

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        return gradients.applies(classifier)

    def stages(
        self, classifier: Classifier, threat: Threat
    ) -> Generator[tuple[str, Attack, Tensor | None], Outcome, None]:
        """Yield the stages; who gets which is decided by the sample's own outcomes."""
        probed = yield *_PROBE, None
        misled = _flags(probed, _misled)
        clean = torch.tensor([_clean_margin(one) for one in probed.detail], dtype=torch.float64).to(probed.margin)
        lowest = _known(probed.margin)
        for spec, attack in (_SHORT, _RACE):
            lowest = torch.fmin(lowest, _known((yield spec, attack, None).margin))
        for (spec, attack), share in ((_MORE, _CLOSE), (_LONG, _CLOSER), (_RESTARTS, _VERGE)):
            lowest = torch.fmin(lowest, _known((yield spec, attack, lowest < share * clean).margin))
        if threat.norm == "linf":
            yield *_CORNERS, lowest < _VERGE * clean
        yield *_NEAREST, None
        checked = yield *_SCORES, None
        misled |= _known(checked.margin) < lowest - _FURTHER * clean
        yield *_DECISIONS, None
        yield *_NEAREST_IN_FULL, misled
        yield *_DECISIONS_IN_FULL, misled
        yield *_SCORES_IN_FULL, misled


def _misled(detail: Any) -> bool:
    """Whether what the probe measured on a sample says that gradients mislead there."""
    signs = [CATALOGUE[code] for code in beyond(detail)]
    signs = [sign for sign in signs if sign.decides]
    return len(signs) > 1 or any(sign.share <= _RARE for sign in signs)


def _flags(outcome: Outcome, test: Any) -> Tensor:
    """Return the samples whose detail passes `test`, bool [B]."""
    return torch.tensor([test(one) for one in outcome.detail], dtype=torch.bool, device=outcome.broken.device)


def _clean_margin(detail: Any) -> float:
    """Return the margin at the clean input, as the probe saw it; 0 where it did not: nothing is close to that."""
    return readings(detail).get("logit-scale", 0.0)


def _known(margin: Tensor) -> Tensor:
    """Return margins with inf for those that nobody met or that are not finite."""
    return torch.where(margin.isfinite(), margin, torch.inf)
