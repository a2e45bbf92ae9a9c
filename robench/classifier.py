"""Classifiers as the evaluation sees them: a map from inputs in the dataset's domain to logits.

Normalisation belongs inside. `Classifier` is the deterministic interface, `RandomizedClassifier` the
one that draws at inference, `SmoothedClassifier` the vote over such draws. `Counted` puts a pass counter around each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from robench.errors import InputError, PluginError

if TYPE_CHECKING:
    from robench.contracts import Noise
    from robench.graph import Graph
    from robench.streams import Stream

__all__ = [
    "Classifier",
    "Counted",
    "Draws",
    "Outputs",
    "RandomizedClassifier",
    "SmoothedClassifier",
    "Tally",
    "deterministic",
    "evaluable",
    "is_random",
    "is_smoothed",
    "margins",
    "merely_draws",
    "outputs_of",
    "wrapped_fingerprint",
]


Outputs = Literal["logits", "labels"]
"""What the numbers of a classifier are: scores, or decisions alone, its logits being 1 for one class and 0 else."""


class _Described(Protocol):
    """What every classifier says about itself. One that decides without scores also has `outputs = "labels"`."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""

    @property
    def classes(self) -> int:
        """Number of logits."""

    @property
    def dtype(self) -> torch.dtype:
        """Input dtype: distances and certificates are about samples cast to it."""

    @property
    def device(self) -> torch.device:
        """Where inputs must be."""

    @property
    def fingerprint(self) -> str:
        """The function's identity: 64 hex digits (`robench.graph.fingerprint`)."""

    @property
    def graph(self) -> Graph | None:
        """The network graph, or None where the classifier is opaque."""


@runtime_checkable
class Classifier(_Described, Protocol):
    """A deterministic map from inputs to logits."""

    def logits(self, x: Tensor) -> Tensor:
        """Return logits [B, classes] for `x` [B, ...] in `dtype` on `device`; differentiable where a graph is."""


@runtime_checkable
class RandomizedClassifier(_Described, Protocol):
    """A classifier that draws at inference.

    One that also votes over its draws is a `SmoothedClassifier`; others are merely random.
    """

    def sample(self, x: Tensor, stream: Stream) -> Tensor:
        """Return the logits [B, classes] of one draw."""


class Draws(Protocol):
    """Draws around the samples of one batch; each call goes on where the last ended."""

    def count(self, samples: Sequence[int], draws: Sequence[int]) -> Tensor:
        """Return the votes of fresh draws, int64 [A, classes + 1], on the classifier's device.

        `samples` are positions in the batch, each at most once, `draws` how many for each of them. The last column
        counts the draws without a vote: no class is strictly ahead, or a logit is not finite.
        """


@runtime_checkable
class SmoothedClassifier(RandomizedClassifier, Protocol):
    """A vote: the class that most draws give, of infinitely many. r* is about that class.

    Nobody can evaluate it, only test what it gives (`robench.votes`): `n` and `alpha` are those of such a test, and no
    part of the function or its fingerprint.
    """

    @property
    def base(self) -> Classifier:
        """What is drawn: the classifier that votes."""

    @property
    def noise(self) -> Noise:
        """What is added to the base classifier's inputs."""

    @property
    def n(self) -> int:
        """Draws of a prediction."""

    @property
    def alpha(self) -> float:
        """Failure rate of a prediction, and of all attempts together to show that a sample is misclassified."""

    def draws(self, x: Tensor, stream: Stream) -> Draws:
        """Return the draws around `x` [B, ...], to count votes in bulk; `stream` is not advanced."""


def deterministic(classifier: object, name: str) -> Classifier:
    """Return `classifier` if it maps inputs to logits; raises InputError for one that draws at inference."""
    known = evaluable(classifier, name)
    if is_smoothed(known):
        raise InputError(f"{name} votes over its draws: no wrapper stands behind a vote; wrap its base, once")
    if is_random(known):
        raise InputError(f"{name} draws at inference: what stands here needs one function; take its base")
    return cast(Classifier, known)


def evaluable(classifier: object, name: str) -> Classifier | RandomizedClassifier:
    """Return `classifier` if it can be evaluated: one function, a vote, or merely random. Raises PluginError."""
    if hasattr(classifier, "logits"):
        return cast(Classifier, classifier)
    if not hasattr(classifier, "sample"):
        raise PluginError(name, f"{type(classifier).__name__} has neither logits nor sample")
    told = [one for one in ("draws", "base", "noise", "n", "alpha", "predict") if hasattr(classifier, one)]
    missing = [one for one in ("draws", "base", "noise", "n", "alpha") if one not in told]
    if {"draws", "predict"} & set(told) and missing:
        raise PluginError(name, f"{type(classifier).__name__} votes over its draws, but has no {', '.join(missing)}")
    return cast(RandomizedClassifier, classifier)


def is_random(classifier: object) -> bool:
    """Whether a classifier draws at inference: it has `sample` and no `logits`. One that votes does, too."""
    return classifier.random if isinstance(classifier, Counted) else not hasattr(classifier, "logits")


def is_smoothed(classifier: object) -> bool:
    """Whether a classifier that draws votes over its draws, so that r* is defined for it."""
    return (
        classifier.smoothed
        if isinstance(classifier, Counted)
        else is_random(classifier) and hasattr(classifier, "draws")
    )


def merely_draws(classifier: object) -> bool:
    """Whether a classifier draws at inference without a vote: r* is not defined for it."""
    return is_random(classifier) and not is_smoothed(classifier)


def margins(logits: Tensor, y: Tensor) -> Tensor:
    """Return f_y − max_{j≠y} f_j [B]: correct where positive, an error where 0 or below, NaN where not finite."""
    label = logits.gather(1, y[:, None])[:, 0]
    rest = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    finite = logits.abs().amax(1) < torch.inf
    return (label - rest).masked_fill(~finite, torch.nan)


def outputs_of(classifier: object) -> Outputs:
    """Return what the classifier's logits are: scores unless it says otherwise."""
    return "labels" if getattr(classifier, "outputs", "logits") == "labels" else "logits"


class Tally:
    """Rows passed forwards and backwards through the classifiers that share it."""

    def __init__(self) -> None:
        """Start at 0."""
        self.forwards = 0
        self.backwards = 0

    def take(self) -> tuple[int, int]:
        """Return (forwards, backwards) since the last call, and start again at 0."""
        counts = self.forwards, self.backwards
        self.forwards = self.backwards = 0
        return counts


class Counted:
    """A classifier, deterministic or randomized, that counts the rows passed forwards and backwards through it.

    Plugins get one of their own: what they do to it changes neither what the runner asks nor what it counted. A
    classifier of unknown make is asked about copies, so that it cannot write into the points that are judged.
    """

    def __init__(self, classifier: Any, tally: Tally | None = None) -> None:
        """Wrap `classifier` and count into `tally`."""
        from robench.graph import GraphClassifier, ModuleClassifier, RandomModule

        self._inner = classifier
        # These leave their argument alone, or copy it themselves.
        self._known = type(classifier) in (GraphClassifier, ModuleClassifier, RandomModule, Counted)
        self._tally = tally or Tally()
        self.input_shape: tuple[int, ...] = classifier.input_shape
        self.classes: int = classifier.classes
        self.dtype: torch.dtype = classifier.dtype
        self.device: torch.device = classifier.device
        self.fingerprint: str = classifier.fingerprint
        self.graph: Graph | None = classifier.graph
        self.random = is_random(classifier)
        self.smoothed = is_smoothed(classifier)
        if self.smoothed:
            self.n: int = classifier.n
            self.alpha: float = classifier.alpha
            self.noise: Noise = classifier.noise
            self.base = Counted(classifier.base, self._tally)
        self.outputs: Outputs = outputs_of(classifier)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of `x`, counting its rows; a gradient taken through them is counted too."""
        return self._counted(self._inner.logits(x if self._known else x.clone()), len(x))

    def sample(self, x: Tensor, stream: Stream) -> Tensor:
        """Return the logits of one draw of a randomized classifier, counted likewise."""
        return self._counted(self._inner.sample(x if self._known else x.clone(), stream), len(x))

    def draws(self, x: Tensor, stream: Stream) -> Draws:
        """Return the draws of a smoothed classifier, counted likewise."""
        return _CountedDraws(self._inner.draws(x.clone(), stream), self._tally, self.classes)

    def _counted(self, out: Any, count: int) -> Tensor:
        if not isinstance(out, Tensor) or out.shape != (count, self.classes) or not out.is_floating_point():
            shown = f"{out.dtype} {list(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise InputError(
                f"the model gives {shown} for {count} inputs: logits must be a tensor of floats "
                f"[{count}, {self.classes}]"
            )
        self._tally.forwards += count
        if out.requires_grad:
            out.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return out

    def _count_backward(self, gradient: Tensor) -> None:
        self._tally.backwards += len(gradient)

    def charge(self, forwards: int, backwards: int = 0) -> None:
        """Count passes that are made elsewhere."""
        self._tally.forwards += forwards
        self._tally.backwards += backwards

    def take(self) -> tuple[int, int]:
        """Return (forwards, backwards) since the last call, and start again at 0."""
        return self._tally.take()


class _CountedDraws:
    """Draws that count their passes."""

    def __init__(self, inner: Draws, tally: Tally, classes: int) -> None:
        self._inner, self._tally, self._classes = inner, tally, classes

    def count(self, samples: Sequence[int], draws: Sequence[int]) -> Tensor:
        votes: Any = self._inner.count(samples, draws)
        expected = (len(samples), self._classes + 1)
        if not isinstance(votes, Tensor) or votes.shape != expected or votes.dtype != torch.int64:
            shown = f"{votes.dtype} {list(votes.shape)}" if isinstance(votes, Tensor) else type(votes).__name__
            raise InputError(f"the model counts votes as {shown}: they must be int64 {list(expected)}")
        self._tally.forwards += sum(draws)
        return votes


def wrapped_fingerprint(base: Classifier, spec: str) -> str:
    """Return the identity of `base` behind a wrapper: the hash of both (`spec` says all that the wrapper does)."""
    return hashlib.sha256(f"{base.fingerprint} | {spec}".encode()).hexdigest()
