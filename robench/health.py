"""The catalogue of health indicators: what shows that an empirical number rests on gradients that mislead.

An indicator is a figure about one sample with a threshold; it is raised about an evaluation when more than `share` of
the samples, and at least `count` of them, are beyond it. Where a figure comes from is its `origin`:

* `probe`: measured on the sample by an attack, usually `probe`, which puts it into the detail of the row as
  `"health": {code: number}`. Samples on which nobody measured it do not count, neither for nor against.
* `rows`: derived from the evidence of several attacks about the sample by `robench.metrics.health`, 1 where the attacks
  contradict each other. Its share is taken of all samples classified correctly.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

__all__ = ["CATALOGUE", "LEAST_BACKWARDS", "Grade", "Indicator", "Origin", "beyond", "readings"]

LEAST_BACKWARDS: Final = 20
"""Backward passes that gradient attacks must have spent on a sample at ε before another attack can contradict them: on
honest nets most successes come within that many, and an attack that stopped before tells nothing about gradients."""

Origin = Literal["probe", "rows"]
"""Who measures an indicator: an attack, sample by sample, or the metrics, from the rows of several attacks."""

Grade = Literal["clean", "flagged", "unprobed"]
"""Probed and nothing raised; something raised; nobody looked."""


@dataclass(frozen=True)
class Indicator:
    """One thing that can be wrong with the ground under an attack.

    Attributes:
        code: its name in details, documents and pages.
        origin: who measures it (`Origin`).
        measures: the figure about one sample, with its unit.
        threshold: where the figure becomes a bad sign.
        share: the indicator is raised when more than this share of the samples measured is beyond the threshold …
        source: where indicator and threshold come from.
        text: what a raised indicator says, a clause for people: "…, on 12.0 % of 500 samples" follows.
        direction: `above` or `below`: on which side of the threshold the bad sign lies (at the threshold: none).
        count: … and at least this many samples are.
        decides: whether raising it makes the grade `flagged`; the others are only shown.
    """

    code: str
    origin: Origin
    measures: str
    threshold: float
    share: float
    source: str
    text: str
    direction: Literal["above", "below"] = "above"
    count: int = 1
    decides: bool = True

    def beyond(self, value: float) -> bool:
        """Whether a sample's figure is a bad sign; NaN is none."""
        return value > self.threshold if self.direction == "above" else value < self.threshold


_AUTOATTACK: Final = "Croce & Hein 2020, checks of the authors' code"
_CARLINI: Final = "Carlini et al. 2019, On Evaluating Adversarial Robustness"
_ATHALYE: Final = "Athalye et al. 2018, Obfuscated Gradients Give a False Sense of Security, section 3.1"


def _contradiction(code: str, *, measures: str, source: str, text: str) -> Indicator:
    """An indicator from rows: two kinds of attack contradict each other on a sample.

    The share is the one that AutoAttack's authors warn at when Square is the one that breaks more, .2 % of all samples.
    The count is what seeds alone do not explain: on honest nets two seeds of one attack differ by up to three of fifty
    survivors, and so does a black-box attack from a white-box one.
    """
    return Indicator(
        code=code, origin="rows", measures=measures, threshold=0.5, share=0.002, source=source, text=text, count=5
    )


_ALL: Final = (
    Indicator(
        code="randomness",
        origin="probe",
        measures="largest difference of two sets of logits of the same input, as a share of the largest logit",
        threshold=1e-4,
        share=0.0,
        source=f"{_AUTOATTACK} (check_randomized)",
        text="the classifier answers the same input differently",
    ),
    Indicator(
        code="softmax-outputs",
        origin="probe",
        measures="1 where the logits are probabilities: all in [0, 1], with sum 1",
        threshold=0.5,
        share=0.5,
        source=f"{_AUTOATTACK} (check_range_output)",
        text="the outputs are probabilities, not logits: losses saturate on them",
    ),
    Indicator(
        code="logit-scale",
        origin="probe",
        measures="the clean margin, in logits",
        threshold=100.0,
        share=0.1,
        source="exp(-104) is 0 in single precision: there the gradient of the cross-entropy vanishes",
        text="logits lie so far apart that the cross-entropy saturates",
    ),
    Indicator(
        code="zero-gradient-ce",
        origin="probe",
        measures="share of the entries of the input gradient of the cross-entropy that are exactly 0",
        threshold=0.99,
        share=0.05,
        source=f"{_AUTOATTACK} (check_zero_gradients)",
        text="the gradient of the cross-entropy is zero",
    ),
    Indicator(
        code="zero-gradient-margin",
        origin="probe",
        measures="share of the entries of the input gradient of the margin that are exactly 0",
        threshold=0.99,
        share=0.05,
        source=f"{_AUTOATTACK} (check_zero_gradients)",
        text="the gradient of the margin is zero: no loss shows a direction",
    ),
    Indicator(
        code="non-finite-gradient",
        origin="probe",
        measures="1 where an entry of the input gradient of the cross-entropy or of the margin is not finite",
        threshold=0.5,
        share=0.0,
        source=_ATHALYE,
        text="gradients are not finite",
    ),
    Indicator(
        code="loss-not-rising",
        origin="probe",
        measures="what the steps of the probe took off the margin, as a share of what its gradient promised",
        threshold=0.05,
        direction="below",
        share=0.1,
        source=f"{_CARLINI}, section 5: the loss must rise over the iterations",
        text="steps along the gradient do not raise the loss",
    ),
    Indicator(
        code="single-step-stronger",
        origin="probe",
        measures="margin after small steps less the margin after one large step, as a share of the clean margin",
        threshold=0.05,
        share=0.1,
        source=f"{_ATHALYE}: one-step attacks perform better than iterative attacks",
        text="one large step along the gradient does better than several small ones",
    ),
    Indicator(
        code="noise-stronger",
        origin="probe",
        measures="margin at the best point that gradients led to less the margin at a random point of the same ball, "
        "as a share of the clean margin",
        threshold=0.0,
        share=0.05,
        source=f"{_ATHALYE}: random sampling finds adversarial examples",
        text="a random point of the ball does better than the gradient",
    ),
    Indicator(
        code="gradient-alignment",
        origin="probe",
        measures="cosine of the input gradients at the sample and at a random point of the ball",
        threshold=0.1,
        direction="below",
        share=0.5,
        source="Andriushchenko & Flammarion 2020, Understanding and Improving Fast Adversarial Training, section 4",
        text="gradients change direction within the ball, as after catastrophic overfitting",
    ),
    Indicator(
        code="unbounded-not-zero",
        origin="probe",
        measures="1 where an attack that may go anywhere in the domain finds no misclassified point",
        threshold=0.5,
        share=0.05,
        source=f"{_ATHALYE}: unbounded attacks do not reach 100 % success",
        text="an attack without a budget does not succeed",
    ),
    _contradiction(
        "blackbox-stronger",
        measures="1 where an attack without gradients broke what gradient attacks left open at the same ε",
        source=f"{_AUTOATTACK} (check_square_sr: more than .2 %); {_ATHALYE}",
        text="attacks without gradients break what gradient attacks left open",
    ),
    _contradiction(
        "transfer-stronger",
        measures="1 where points found on another classifier broke what gradient attacks left open at the same ε",
        source=f"{_CARLINI}, section 5",
        text="points found on another classifier break what gradient attacks left open",
    ),
    _contradiction(
        "single-step-breaks-more",
        measures="1 where an attack of a single step broke what iterative attacks left open at the same ε",
        source=f"{_ATHALYE}: one-step attacks perform better than iterative attacks",
        text="an attack of a single step breaks what iterative attacks left open",
    ),
    _contradiction(
        "minimum-norm-disagrees",
        measures="1 where a minimum-norm attack found a point within ε that gradient attacks at ε did not find",
        source=f"{_CARLINI}, section 5",
        text="minimum-norm attacks find points within ε that attacks at ε do not find",
    ),
    _contradiction(
        "budget-not-helping",
        measures="1 where gradient attacks broke the sample at a smaller ε and left it open at this one",
        source=f"{_ATHALYE}: increasing the distortion bound does not increase success",
        text="gradient attacks leave open what they broke with a smaller budget",
    ),
)

CATALOGUE: Final[Mapping[str, Indicator]] = MappingProxyType({one.code: one for one in _ALL})
"""Every indicator by its code, in the order in which they are shown."""


def readings(detail: object) -> dict[str, float]:
    """Return the indicators that a row's detail measured; anything else that may stand there is left out.

    `detail` may be a stranger's: unknown codes, those that rows alone can show, and values that are no finite numbers
    are ignored.
    """
    health: Any = detail.get("health") if isinstance(detail, Mapping) else None
    if not isinstance(health, Mapping):
        return {}
    found = {}
    for code, indicator in CATALOGUE.items():
        value = health.get(code)
        if indicator.origin == "probe" and isinstance(value, int | float) and -1e300 < value < 1e300:
            found[code] = float(value)
    return found


def beyond(detail: object) -> list[str]:
    """Return the codes whose figure in a row's detail is a bad sign about that sample."""
    return [code for code, value in readings(detail).items() if CATALOGUE[code].beyond(value)]
