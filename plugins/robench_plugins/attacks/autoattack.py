"""AutoAttack (Croce & Hein 2020, "Reliable evaluation of adversarial robustness …"; in l1 2021, "Mind the box")."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from robench import param
from robench_plugins.attacks import gradients
from robench_plugins.attacks.apgd import APGD
from robench_plugins.attacks.eot import EOT
from robench_plugins.attacks.fab import FAB
from robench_plugins.attacks.square import Square

if TYPE_CHECKING:
    from torch import Tensor

    from robench import Attack, Classifier, Norm, Outcome, Threat

__all__ = ["AutoAttack"]

_APGD_T = ("apgd:loss=dlr,targets=9", APGD(loss="dlr", targets=9))
_FAB_T = ("fab:restarts=1,targets=9", FAB(restarts=1, targets=9))
_SQUARE = ("square", Square())

_STANDARD: list[tuple[str, Attack]] = [("apgd", APGD()), _APGD_T, _FAB_T, _SQUARE]
_STANDARD_L1: list[tuple[str, Attack]] = [
    ("apgd:restarts=5", APGD(restarts=5)),
    ("apgd:loss=dlr,targets=5", APGD(loss="dlr", targets=5)),
    _FAB_T,
    _SQUARE,
]
_PLUS: list[tuple[str, Attack]] = [
    ("apgd:restarts=5", APGD(restarts=5)),
    ("apgd:loss=dlr,restarts=5", APGD(loss="dlr", restarts=5)),
    ("fab", FAB()),
    _SQUARE,
    _APGD_T,
    _FAB_T,
]
_RAND: list[tuple[str, Attack]] = [
    ("apgd | eot", EOT(draws=20).modify(APGD())),
    ("apgd:loss=dlr | eot", EOT(draws=20).modify(APGD(loss="dlr"))),
]


@dataclass(frozen=True)
class AutoAttack:
    """The published cascade: every attack sees the samples that those before it left, and is an evaluator of its own.

    `standard` (the default of the authors' package and of RobustBench): Auto-PGD on cross-entropy, Auto-PGD on the
    targeted difference of logits ratio, targeted FAB, Square. `plus` adds untargeted runs and restarts, `rand` is for
    classifiers that draw: Auto-PGD on two losses, each over 20 draws (`eot`). With fewer classes than targets there is
    a target for each other class.
    """

    version: Literal["standard", "plus", "rand"] = param(
        "standard", "the published schedule: standard, plus (longer) or rand (classifiers that draw)", positional=True
    )

    @property
    def randomized(self) -> bool:
        """Whether it takes classifiers that draw as they are."""
        return self.version == "rand"

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run."""
        return EOT().modify(APGD()).applies(classifier, norm) if self.randomized else gradients.applies(classifier)

    def stages(
        self, classifier: Classifier, threat: Threat
    ) -> Generator[tuple[str, Attack, Tensor | None], Outcome, None]:
        """Yield the attacks in the published order, each for all samples that are left."""
        standard = _STANDARD_L1 if threat.norm == "l1" else _STANDARD
        for spec, attack in {"standard": standard, "plus": _PLUS, "rand": _RAND}[self.version]:
            yield spec, attack, None
