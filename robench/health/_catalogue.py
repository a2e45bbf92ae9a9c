"""Every indicator, with its thresholds and their sources."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from robench.health._indicator import Indicator

__all__ = ["CATALOGUE", "LEAST_BACKWARDS"]

LEAST_BACKWARDS: Final = 20
"""Backward passes that gradient attacks must have spent on a sample at ε before another attack can contradict them: on
honest nets most successes come within that many, and an attack that stopped before tells nothing about gradients."""

_FEW: Final = 2
"""One sample may always be odd, however few were looked at."""

_AUTOATTACK: Final = "Croce & Hein 2020, checks of the authors' code"
_CARLINI: Final = "Carlini et al. 2019, On Evaluating Adversarial Robustness"
_ATHALYE: Final = "Athalye et al. 2018, Obfuscated Gradients Give a False Sense of Security, section 3.1"
_MEASURED: Final = "benchmarks/attacks/health.py"


def _contradiction(code: str, *, share: float, measures: str, source: str, text: str) -> Indicator:
    """An indicator from rows: two kinds of attack contradict each other on a sample.

    AutoAttack's authors warn where Square breaks more than .2 % of all samples. On the bundled classifiers, none of
    which is masked, after 20 to 1,000 gradients per sample Square (1,000 queries) still broke up to 11 of 441 samples
    (2.5 %), DDN and FMN up to 17 (3.9 %), single steps and smaller budgets one: share and count lie above that.
    """
    return Indicator(
        code=code, origin="rows", measures=measures, threshold=0.5, share=share, source=source, text=text, count=5
    )


_ALL: Final = (
    Indicator(
        code="randomness",
        origin="probe",
        measures="largest difference of two sets of logits of the same input, a random point on the ball's rim, as a "
        "share of the largest logit",
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
        text="logits lie so far apart that a plain cross-entropy saturates; the losses here depend on no scale",
        decides=False,
    ),
    Indicator(
        code="zero-gradient-ce",
        origin="probe",
        measures="1 where the gradient of the cross-entropy by the logits is 0 in their own precision",
        threshold=0.5,
        share=0.1,
        source=f"{_AUTOATTACK} (check_zero_gradients)",
        text="the gradient of a plain cross-entropy is zero; the losses here depend on no scale",
        decides=False,
    ),
    Indicator(
        code="zero-gradient-margin",
        origin="probe",
        measures="share of the entries of the input gradient of the margin that are exactly 0",
        threshold=0.9,
        share=0.05,
        source=f"{_AUTOATTACK} (check_zero_gradients); threshold: {_MEASURED}",
        text="the gradient of the margin is zero: no loss shows a direction",
        count=_FEW,
    ),
    Indicator(
        code="non-finite-gradient",
        origin="probe",
        measures="1 where an entry of the input gradient of the margin is not finite",
        threshold=0.5,
        share=0.0,
        source=_ATHALYE,
        text="gradients are not finite",
    ),
    Indicator(
        code="vanishing-gradient",
        origin="probe",
        measures="the clean margin over the most by which it could fall anywhere in the domain if it were linear",
        threshold=10.0,
        share=0.05,
        source=f"{_ATHALYE}: vanishing gradients; threshold: {_MEASURED}",
        text="gradients are so small that, by them, no point of the domain is misclassified",
        count=_FEW,
    ),
    Indicator(
        code="loss-not-rising",
        origin="probe",
        measures="what steps of ε/8, ε/2 and ε along the gradient took off the margin, as a share of what the gradient "
        "promised; the least of the three",
        threshold=0.1,
        direction="below",
        share=0.08,
        source=f"{_CARLINI}, section 5: the loss must rise over the iterations; threshold: {_MEASURED}",
        text="steps along the gradient do not raise the loss as it promises",
        count=_FEW,
    ),
    Indicator(
        code="gradient-differs",
        origin="probe",
        measures="change of the margin from ε/8 in a random direction to ε/8 in its opposite, less what the gradient "
        "foretells about it, in units of what it foretells about random directions (root mean square)",
        threshold=0.5,
        share=0.15,
        source=f"the definition of a gradient, by central differences; threshold: {_MEASURED}",
        text="gradients do not foretell what random steps change",
        count=_FEW,
    ),
    Indicator(
        code="single-step-stronger",
        origin="probe",
        measures="margin after three smaller steps less the margin after a large one, as a share of the clean margin",
        threshold=0.05,
        share=0.1,
        source=f"{_ATHALYE}: one-step attacks perform better than iterative attacks; threshold: {_MEASURED}",
        text="one large step along the gradient does better than several smaller ones",
        count=_FEW,
    ),
    Indicator(
        code="noise-stronger",
        origin="probe",
        measures="margin at the best point that gradients led to less the margin at a random point on the ball's rim, "
        "as a share of the clean margin",
        threshold=0.0,
        share=0.1,
        source=f"{_ATHALYE}: random sampling finds adversarial examples; share: {_MEASURED}",
        text="a random point of the ball does better than the gradient",
        count=_FEW,
        decides=False,
    ),
    Indicator(
        code="gradient-alignment",
        origin="probe",
        measures="cosine of the input gradients of the margin at the sample and at a random point on the ball's rim",
        threshold=0.1,
        direction="below",
        share=0.3,
        source="Andriushchenko & Flammarion 2020, Understanding and Improving Fast Adversarial Training, section 4; "
        f"threshold: {_MEASURED}",
        text="gradients change direction within the ball, as after catastrophic overfitting",
        count=_FEW,
    ),
    Indicator(
        code="gradient-turns",
        origin="probe",
        measures="cosine of the input gradients of the margin at the sample and half a step of FGSM away",
        threshold=0.3,
        direction="below",
        share=0.15,
        source=f"Andriushchenko & Flammarion 2020, section 4, on the way that an attack takes; threshold: {_MEASURED}",
        text="gradients turn aside on the way that they point to",
        count=_FEW,
    ),
    Indicator(
        code="unbounded-not-zero",
        origin="probe",
        measures="1 where two steps that may go anywhere in the domain find no misclassified point",
        threshold=0.5,
        share=0.05,
        source=f"{_ATHALYE}: unbounded attacks do not reach 100 % success; share: {_MEASURED}",
        text="an attack without a budget does not succeed",
        count=_FEW,
    ),
    Indicator(
        code="margin-jumps",
        origin="probe",
        measures="fall of the margin over that 256th of the straight way to an error in which it passes through 0, "
        "as a share of its fall over all of that way",
        threshold=0.2,
        share=0.05,
        source="a function that gradients describe is continuous: near its boundary the margin is near 0; threshold: "
        f"{_MEASURED}",
        text="the margin jumps at the decision boundary: it does not tell how near the boundary is",
        count=_FEW,
    ),
    _contradiction(
        "blackbox-stronger",
        share=0.03,
        measures="1 where an attack without gradients broke what gradient attacks left open at the same ε",
        source=f"{_AUTOATTACK} (check_square_sr: more than .2 %, which honest classifiers exceed); {_ATHALYE}",
        text="attacks without gradients break what gradient attacks left open",
    ),
    _contradiction(
        "transfer-stronger",
        share=0.03,
        measures="1 where points found on another classifier broke what gradient attacks left open at the same ε",
        source=f"{_CARLINI}, section 5",
        text="points found on another classifier break what gradient attacks left open",
    ),
    _contradiction(
        "single-step-breaks-more",
        share=0.002,
        measures="1 where an attack of a single step broke what iterative attacks left open at the same ε",
        source=f"{_ATHALYE}: one-step attacks perform better than iterative attacks",
        text="an attack of a single step breaks what iterative attacks left open",
    ),
    _contradiction(
        "minimum-norm-disagrees",
        share=0.05,
        measures="1 where a minimum-norm attack found a point within ε that gradient attacks at ε did not find",
        source=f"{_CARLINI}, section 5",
        text="minimum-norm attacks find points within ε that attacks at ε do not find",
    ),
    _contradiction(
        "budget-not-helping",
        share=0.002,
        measures="1 where gradient attacks broke the sample at a smaller ε and left it open at this one",
        source=f"{_ATHALYE}: increasing the distortion bound does not increase success",
        text="gradient attacks leave open what they broke with a smaller budget",
    ),
)

CATALOGUE: Final[Mapping[str, Indicator]] = MappingProxyType({one.code: one for one in _ALL})
"""Every indicator by its code, in the order in which they are shown."""
