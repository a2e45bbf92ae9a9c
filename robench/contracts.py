"""What each kind of plugin must offer, and what it hands back.

The protocols may be subclassed for their defaults or satisfied by shape alone. A factory is a frozen
dataclass whose fields (declared with `robench.param`) are its parameters. Nothing here imports torch
at run time, so that plugins can be listed without it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor

    from robench.classifier import Classifier, RandomizedClassifier
    from robench.importing import ImportedRun
    from robench.samples import Samples
    from robench.streams import Stream
    from robench.threat import Norm, Threat

__all__ = [
    "Access",
    "Attack",
    "AttackModifier",
    "Bound",
    "BoundCurve",
    "Certificates",
    "Certifier",
    "CompositeAttack",
    "CountingCertifier",
    "Dataset",
    "HeldOut",
    "Importer",
    "Model",
    "Noise",
    "Outcome",
    "Passes",
    "Proposal",
    "Recipe",
    "TrainContext",
    "TrainState",
    "Trained",
    "Transform",
    "TwoSidedNoise",
    "Wrapper",
]

Detail = Mapping[str, Any]

Access = Literal["gradients", "logits", "labels", "transfer"]
"""What an attack asks a classifier for: gradients, its logits, its decisions alone, or nothing until the end."""


@dataclass(frozen=True)
class Passes:
    """Rows passed through the classifier per sample, int64 [B] each.

    Optional: the runner counts the total itself and only uses this to say which sample cost what.
    """

    forwards: Tensor
    backwards: Tensor


@dataclass(frozen=True)
class Proposal:
    """What an attack found: points, not verdicts. The runner judges every one of them.

    Attributes:
        points: [B, ...], one per sample; the clean input where nothing was found.
        detail: the attack's own figures per sample (JSON values), or None.
        passes: passes per sample, where the attack drops samples early.
    """

    points: Tensor
    detail: Sequence[Detail | None] | None = None
    passes: Passes | None = None


@dataclass(frozen=True)
class Outcome:
    """What the runner made of a stage's proposal: sent back to a composite attack.

    Attributes:
        broken: bool [B], a witness within the budget was verified.
        margin: float64 [B], margin at the judged point (f_y − max_{j≠y} f_j; negative is misclassified).
        forwards: int64 [B], passes that the stage spent.
        backwards: int64 [B].
        detail: the stage's own figures.
    """

    broken: Tensor
    margin: Tensor
    forwards: Tensor
    backwards: Tensor
    detail: Sequence[Detail | None]


@dataclass(frozen=True)
class Certificates:
    """What a certifier proved, per sample.

    Attributes:
        lower: float64 [B]; the *closed* ball of this radius holds no misclassified point. 0 proves nothing.
            An open-ball radius is stored one double lower (`robench.numerics.open_to_closed`).
        status: `certified`, `open`, `abstain`, `timeout`, `error`, or (verifiers with a point) `falsified`; [B].
        confidence: float64 [B]; 1.0 for a proof, 1 − α for a statistical statement. None means 1.0.
        points: [B, ...] counterexamples that a verifier proposes (judged like an attack's), or None.
        detail: the certifier's own figures per sample (JSON values), or None.
    """

    lower: Tensor
    status: Sequence[str]
    confidence: Tensor | None = None
    points: Tensor | None = None
    detail: Sequence[Detail | None] | None = None


@runtime_checkable
class Dataset(Protocol):
    """Labelled samples."""

    def load(self, split: str) -> Samples:
        """Return a split. Raises DataError for an unknown split or a bad file."""


@runtime_checkable
class Transform(Protocol):
    """Dataset to dataset. `selects` says that rows are only chosen: inputs and labels stay as they are.

    It may have `fits`: True says that what it does to an input depends on the samples of `train`, so that rows that
    are chosen before it belong to the dataset's identity.
    """

    selects: ClassVar[bool] = False

    def apply(self, dataset: Dataset) -> Dataset:
        """Return the transformed dataset; what must be fitted is fitted on `train`."""


@runtime_checkable
class Model(Protocol):
    """Where a classifier comes from.

    It may have an attribute or property `card`, a mapping of texts that boards show beside the numbers: `name`,
    `paper`, `training_data`, `licence` and any others (`recipe`, the command that trains it, …). `--name` and `--meta`
    are put above it.
    """

    def load(self, device: torch.device, dtype: torch.dtype) -> Classifier | RandomizedClassifier:
        """Return the classifier on `device` with weights and inputs in `dtype`."""


@runtime_checkable
class Wrapper(Protocol):
    """Classifier to classifier. The wrapped function's fingerprint is the hash of (base, wrapper spec)."""

    def wrap(self, classifier: Classifier) -> Classifier | RandomizedClassifier:
        """Return the wrapped classifier."""


@runtime_checkable
class Noise(Protocol):
    """A distribution of noise on the inputs, and what a vote over it proves.

    Coordinates are independent and identically distributed. The factory's positional parameter is `sigma`, the
    standard deviation of each coordinate in the domain's units; it has a default, which `smooth` replaces.

    Let p be the probability that the base classifier gives a class at x + noise. `radius` and `threshold` are two sides
    of one theorem: the class wins the vote everywhere in the *closed* ball of radius r around x if p > threshold(r).
    """

    norms: ClassVar[tuple[Norm, ...]]

    @property
    def sigma(self) -> float:
        """Standard deviation of each coordinate, in the domain's units."""

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Overwrite `out` with draws of `generator`, in place; both are on one device."""

    def draw(self, stream: Stream, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return one draw [B, *shape] per row of `stream`: the same on every device."""

    def radius(self, p_low: npt.ArrayLike, norm: Norm, dimension: int) -> npt.NDArray[np.float64]:
        """Return the radii of closed balls that lower bounds `p_low` of p prove, rounded down; 0: none.

        `dimension` is the number of input coordinates. Not decreasing in `p_low`; 0 for p_low ≤ 1/2.
        """

    def threshold(self, eps: float, norm: Norm, dimension: int) -> float:
        """Return the probability, rounded up, above which the closed ball of radius `eps` is certified; 1: none."""


@runtime_checkable
class TwoSidedNoise(Noise, Protocol):
    """A noise with a theorem about the runner-up too: the classes other than the top one need not share the rest."""

    def two_sided_radius(
        self, p_low: npt.ArrayLike, p_up: npt.ArrayLike, norm: Norm, dimension: int
    ) -> npt.NDArray[np.float64]:
        """Return the radii, as `radius`, for upper bounds `p_up` of every other class's probability as well."""


@runtime_checkable
class Attack(Protocol):
    """Proposes misclassified points.

    `per_eps = False` marks a minimum-norm attack: it is called once with `threat.eps` None and looks for the
    nearest misclassified point; every ε is answered from the distance found. As a stage of a composite it gets the
    ε of the schedule and may stop at the first point within it.

    `access` says what the attack asks the classifier for, so that readers can tell where gradients mislead. A detail
    with the key `health` maps indicators (`robench.health`) to what was measured on that sample.

    Where samples come with sets of their own (`threat.region`), points are moved into the box whatever the attack does;
    `robench.distances.linf_box` gives its sides. `regions = True` says that it also reads `threat.region.conditions`.

    An attack may also have `randomized`: True says that it takes classifiers that draw at inference, with `sample`
    instead of `logits`. Any other attack meets those through the default attack modifier (`eot`).
    """

    per_eps: ClassVar[bool] = True
    access: ClassVar[Access] = "gradients"

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the attack cannot run on this classifier or norm."""
        return None

    def perturb(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Proposal:
        """Propose points for `x` [B, ...] with labels `y` [B], all correctly classified."""


@runtime_checkable
class CompositeAttack(Protocol):
    """A schedule of attacks; each stage is an evaluator of its own in the evidence."""

    def stages(
        self, classifier: Classifier, threat: Threat
    ) -> Generator[tuple[str, Attack, Tensor | None], Outcome, None]:
        """Yield (canonical spec, attack, bool mask over the batch or None for all); receive that stage's Outcome.

        Each sample is in the mask of at least one stage. The runner takes samples that are broken out of every mask;
        an Outcome always has one entry per sample of the batch. A sample's schedule must depend on that sample's
        outcomes alone. A spec yielded again becomes `spec#2` in the evidence.
        """


@runtime_checkable
class AttackModifier(Protocol):
    """Attack to attack."""

    def modify(self, attack: Attack) -> Attack:
        """Return the modified attack."""


@runtime_checkable
class Certifier(Protocol):
    """Proves lower bounds on the robust radius.

    `per_eps = False` marks certificates that give a radius: called once with `threat.eps` None.
    `complete = True` marks verifiers, which may also propose points; their rows have the kind `verifier`.

    A certifier may certify another function than the one it is given: `wraps(classifier)` then returns the wrapper that
    makes this function, as a spec (`smooth:sigma=0.25`), and the evidence is about that subject. None, or no such
    method: the classifier itself.

    `out_of_reach(classifier, norm, eps) -> str | None`, where there is one, says why nothing can be certified at ε
    whatever comes out, so that nobody waits for it: asked before a run, which is refused where no ε is within reach.

    `regions = True` says that it reads `threat.region`, where samples come with sets of their own: `certified` with
    lower = `threat.eps` then says that each sample's box is safe from its condition, and points are to lie in the box.
    Any other certifies the ball of radius `threat.eps`, which contains the box, against other labels.

    One with `deterministic = False` may be a `CountingCertifier`, for `robench replay`.
    """

    per_eps: ClassVar[bool] = True
    deterministic: ClassVar[bool] = True
    complete: ClassVar[bool] = False

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or why the certifier cannot say anything about this classifier or norm."""
        return None

    def certify(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Certificates:
        """Certify `x` [B, ...] with labels `y` [B], all correctly classified."""


@runtime_checkable
class CountingCertifier(Certifier, Protocol):
    """A certifier whose statements rest on counts, which its details tell: `robench replay` asks it about them.

    Details come out of files that anybody may have written: mappings of texts to JSON values, whatever those are.
    """

    def rederive(self, classifier: Classifier, y: Tensor, details: Sequence[Detail], threat: Threat) -> Certificates:
        """Return what `certify` would have returned for the counts in `details` [B], about labels `y` [B].

        Lower, status and confidence are held against the row. Counts that no run could have made have the status
        `error`, with the `reason` in the detail. Nothing is certified about another class than y, or without counts.
        """

    def recount(
        self, classifier: Classifier, x: Tensor, details: Sequence[Detail], threat: Threat, stream: Stream
    ) -> Sequence[str | None]:
        """Draw anew about `x` [B, ...]; return for each sample why its counts cannot be right, None where they can.

        A true record is called wrong with probability at most `robench.binomial.FALSE_ALARM` per sample, 1e-6.
        """


@dataclass(frozen=True)
class BoundCurve:
    """What a bound says about the robust accuracy of any classifier, at each ε that it was asked for.

    Attributes:
        value: robust accuracy in 0 … 1, one per ε, rounded to the safe side (a ceiling up, a floor down).
        direction: `ceiling`: no classifier is above it; `floor`: some classifier reaches it.
        scope: `samples`: about exactly the samples given; `population`: about the distribution they stand for.
        assumptions: what must hold, in one line.
        source: paper and equation.
        detail: the bound's own figures at each ε (JSON values), or None.
        facts: its figures about the samples as a whole (JSON values), or None.
    """

    value: Sequence[float]
    direction: Literal["ceiling", "floor"]
    scope: Literal["samples", "population"]
    assumptions: str
    source: str
    detail: Sequence[Detail | None] | None = None
    facts: Detail | None = None


@runtime_checkable
class Bound(Protocol):
    """A theoretical statement about every classifier on a dataset; it never sees one."""

    def evaluate(
        self, samples: Samples, norm: Norm, epsilons: Sequence[float], progress: Callable[[int, int], None]
    ) -> BoundCurve:
        """Return the bound at `epsilons` (ascending). Call `progress` with (steps done, steps) during long work.

        Classifiers see the samples in their own precision: a statement about the samples must allow for rounding
        each input to float32.
        """


@dataclass(frozen=True)
class HeldOut:
    """Samples that are not trained on, to be watched while others are: `samples`, and ε of a linf ball around each."""

    samples: Samples
    eps: float


@dataclass(frozen=True)
class TrainState:
    """All that it takes to go on after an epoch.

    Attributes:
        history: the figures of the epochs that are done.
        tensors: weights, optimizer, generator: what the recipe needs, by names of its own.
    """

    history: Sequence[Mapping[str, float]]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class TrainContext:
    """What a recipe is given besides the data.

    Attributes:
        seed: the only source of randomness.
        device: where to train.
        report: called after each epoch with (epoch, epochs, figures of that epoch).
        held_out: what to measure after each epoch: `fgsm` and `pgd`, the accuracies under one step and under ten, and
            `alignment`, the mean cosine between the gradients of the loss at x and at the point of the one step.
        resume: the state to go on from, where an earlier training with equal parameters, data and seed was cut short.
        keep: called after each epoch with the state, if given, before `report`; what it keeps it copies.

    A recipe may ignore `held_out` and `resume`; then there are no such figures, and a training starts anew.
    """

    seed: int
    device: torch.device
    report: Callable[[int, int, Mapping[str, float]], None] = field(default=lambda epoch, epochs, figures: None)
    held_out: HeldOut | None = None
    resume: TrainState | None = None
    keep: Callable[[TrainState], None] | None = None


@dataclass(frozen=True)
class Trained:
    """What a recipe made: a module in evaluation mode and the figures of each epoch.

    A last epoch whose `loss` is not finite ended the training: the weights are those of the epoch before it.
    """

    module: torch.nn.Module
    history: Sequence[Mapping[str, float]]


@runtime_checkable
class Recipe(Protocol):
    """Trains a classifier on a dataset.

    It may have `evaluate`, the options of `robench eval` that its classifiers are for, word by word: what is proposed
    next after `robench train`.
    """

    def train(self, train: Samples, context: TrainContext) -> Trained:
        """Train on `train`; deterministic on the CPU for equal seeds."""


@runtime_checkable
class Importer(Protocol):
    """Reads other people's published per-sample results."""

    def read(self, path: Path) -> Iterable[ImportedRun]:
        """Yield one imported run per classifier and setting found under `path`. Raises DataError."""
