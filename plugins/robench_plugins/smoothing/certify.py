"""Certificates of smoothed classifiers: a radius by CERTIFY (Cohen et al. 2019), or a decision about one ε."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor

from robench import param
from robench.binomial import LARGEST, Integers
from robench.classifier import Classifier, SmoothedClassifier, is_random
from robench.contracts import Certificates, TwoSidedNoise
from robench.errors import InputError
from robench.streams import Stream
from robench.threat import Norm, Threat
from robench_plugins.smoothing._counting import decided, measured, rederived
from robench_plugins.smoothing._recount import doubt
from robench_plugins.smoothing._sequence import N_LARGEST
from robench_plugins.smoothing._terms import Decision, Radius
from robench_plugins.smoothing.smooth import noise_of, vote_spec

__all__ = ["Smoothing"]


@dataclass(frozen=True)
class Smoothing:
    """Certifies the vote of a smoothed classifier, with confidence 1 − α per sample.

    `n0` draws choose the class; where that is not the label nothing is certified, and no more is drawn. Independent
    draws then bound its probability: exactly `n` for a radius, and as few as it takes to decide about an ε. With a
    `tolerance` the first draws are also a pilot that says how many more a sample is worth (Chen et al. 2022).

    Given `sigma`, it certifies the vote over a classifier that does not draw: `smooth` with this sigma and noise. A
    classifier that votes already must do so over these; without `sigma`, `noise=gaussian` asks for nothing, written or
    not, because it is the default.
    """

    mode: Literal["radius", "decide"] = param(
        "radius", "`radius`: the largest that n draws prove; `decide`: whether it is ε, in a fraction of the draws"
    )
    n0: int = param(100, "draws that choose the class", minimum=1, maximum=LARGEST)
    n: int = param(
        100_000,
        "draws of the certificate; the most of them where ε is decided or a tolerance given",
        minimum=1,
        maximum=LARGEST,
    )
    alpha: float = param(0.001, "failure rate of the certificate of each sample, at most 0.5", above=0, maximum=0.5)
    sides: Literal[1, 2] = param(
        1, "1: bound the top class, the others share the rest; 2: bound the runner-up too, with half of alpha for each"
    )
    tolerance: float | None = param(
        None, "radius that a sample may lose by fewer draws, on average, in the domain's units; none: n draws", above=0
    )
    sigma: float | None = param(
        None, "standard deviation of the noise; none: that of a classifier that votes already", above=0
    )
    noise: str = param("gaussian", "distribution of the noise, where sigma is given", spec="noises", apart="sigma")

    deterministic: ClassVar[bool] = False
    complete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raise ValueError for parameters that do not go together."""
        if not 0 < self.alpha <= 0.5:
            raise ValueError(f"alpha must be above 0 and at most 0.5, not {self.alpha!r}")
        for name, value in (("sigma", self.sigma), ("tolerance", self.tolerance)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite, not {value!r}")
        most = LARGEST if self.mode == "radius" else N_LARGEST
        for name, draws, limit in (("n0", self.n0, LARGEST), ("n", self.n, most)):
            if not 1 <= draws <= limit:
                raise ValueError(f"{name} must be from 1 to {limit} in mode={self.mode}, not {draws!r}")
        if self.mode == "decide" and (self.sides == 2 or self.tolerance is not None):
            raise ValueError("sides=2 and tolerance are of mode=radius: mode=decide stops by itself")

    @property
    def per_eps(self) -> bool:
        """Whether it works at one ε at a time."""
        return self.mode == "decide"

    def wraps(self, classifier: Classifier) -> str | None:
        """Return the wrapper that makes the function certified, where `sigma` is given and nothing is drawn yet."""
        return None if self.sigma is None or is_random(classifier) else vote_spec(self.noise, self.sigma)

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or what stands in the way: no vote, another vote than the one asked for, or the norm."""
        if isinstance(classifier, SmoothedClassifier):
            noise = classifier.noise
            if self.sigma is not None or self.noise != "gaussian":
                wanted = noise_of(self.noise, noise.sigma if self.sigma is None else self.sigma)
                if wanted != noise:
                    return f"this classifier votes over {noise!r}, not over {wanted!r}: leave out sigma and noise"
        elif is_random(classifier):
            return "it draws at inference without a vote: r* is not defined, so there is nothing to certify"
        elif self.sigma is None:
            return (
                "smoothing certifies votes over noise, and this classifier is none: "
                "wrap it (' | smooth:sigma=0.25') or give sigma ('smoothing:sigma=0.25')"
            )
        else:
            noise = noise_of(self.noise, self.sigma)
        if norm not in noise.norms:
            return f"{type(noise).__name__.lower()} noise certifies in {' and '.join(noise.norms)}, not in {norm}"
        if self.sides == 2 and not isinstance(noise, TwoSidedNoise):
            return f"{type(noise).__name__.lower()} noise has no radius from bounds on two sides: leave out sides=2"
        return None

    def out_of_reach(self, classifier: Classifier, norm: Norm, eps: float) -> str | None:
        """Return why ε cannot be certified whatever is drawn, and the draws that it takes; None where it can."""
        vote = self._vote(classifier, norm)
        if self.per_eps:
            return self._decision(vote, norm, eps).out_of_reach()
        return self._radius(vote, norm).out_of_reach(eps)

    def certify(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Certificates:
        """Certify `x` [B, ...] with labels `y` [B].

        The detail holds the class chosen and its votes among the n0 draws, the draws and hits of the certificate, the
        looks at them, and the bound `p_low` (on two sides with the most votes of another class, `second`, and the bound
        `p_up`) or the threshold `p0` of ε with the verdict. Where ε is out of reach it holds the reason, and nothing is
        drawn.

        Raises:
            InputError: a classifier or norm that it does not apply to.
        """
        vote = self._vote(classifier, threat.norm)
        if self.per_eps and threat.eps is None:
            raise ValueError("mode=decide needs a budget: it decides about one ε at a time")
        count, labels = len(x), y.tolist()
        lower = torch.zeros(count, dtype=torch.float64)
        confidence = torch.full((count,), 1 - self.alpha, dtype=torch.float64)
        status = ["open"] * count
        if self.per_eps and (reason := self.out_of_reach(classifier, threat.norm, cast(float, threat.eps))):
            return Certificates(lower, status, confidence, detail=[{"reason": reason} for _ in labels])
        if not count:
            return Certificates(lower, status, confidence, detail=[])
        draws = vote.draws(x, stream)
        # The draws without a vote are a class of their own, which is nobody's label.
        first = draws.count(range(count), [self.n0] * count).cpu().numpy()
        chosen: Integers = first.argmax(axis=1)
        votes0: Integers = first.max(axis=1)
        detail: list[dict[str, Any]] = [
            {"class": place if place < vote.classes else -1, "n0": self.n0, "votes0": hits}
            for place, hits in zip(chosen.tolist(), votes0.tolist(), strict=True)
        ]
        rows = np.array([i for i in range(count) if labels[i] == chosen[i] < vote.classes], dtype=np.int64)
        made = (
            decided(self._decision(vote, threat.norm, cast(float, threat.eps)), draws, rows, chosen[rows])
            if self.per_eps
            else measured(self._radius(vote, threat.norm), draws, rows, chosen[rows], votes0[rows])
        )
        for i, (radius, said, figures) in zip(rows.tolist(), made, strict=True):
            lower[i], status[i] = radius, said
            detail[i] |= figures
        return Certificates(lower, status, confidence, detail=detail)

    def rederive(
        self, classifier: Classifier, y: Tensor, details: Sequence[Mapping[str, Any]], threat: Threat
    ) -> Certificates:
        """Return what the counts in `details` [B] prove about labels `y` [B], whatever else the details say."""
        terms = self._terms(classifier, threat.norm, threat.eps)
        made = [rederived(terms, detail, label) for detail, label in zip(details, y.tolist(), strict=True)]
        lower = torch.tensor([radius for radius, _, _ in made], dtype=torch.float64)
        confidence = torch.full_like(lower, 1 - self.alpha)
        return Certificates(lower, [said for _, said, _ in made], confidence, detail=[why for _, _, why in made])

    def recount(
        self, classifier: Classifier, x: Tensor, details: Sequence[Mapping[str, Any]], threat: Threat, stream: Stream
    ) -> list[str | None]:
        """Draw again about `x` [B, ...]; return for each sample why its counts cannot be right, None where they can.

        As many draws as recorded, from 1000 to 10,000. The counts of fixed draws are held against them by Fisher's
        exact test, those of a test that stopped by wealth (`_recount`). A true record is called wrong with probability
        at most 1e-6.
        """
        terms = self._terms(classifier, threat.norm, threat.eps)
        found: list[str | None] = [None] * len(x)
        recorded: list[tuple[int, int, int]] = []
        for i, detail in enumerate(details):
            try:
                if "hits" in detail:
                    recorded.append((i, *terms.counted(detail)))
            except ValueError as error:
                found[i] = str(error)
        draws = [min(max(n, 1000), 10_000) for _, _, n in recorded]
        source = self._vote(classifier, threat.norm).draws(x, stream.child("recount"))
        votes = source.count([i for i, _, _ in recorded], draws).cpu().numpy()
        for (i, hits, n), fresh in zip(recorded, votes, strict=True):
            found[i] = doubt(details[i], hits, n, fresh, self.sides, self.per_eps)
        return found

    def _vote(self, classifier: Classifier, norm: Norm) -> SmoothedClassifier:
        if reason := self.applies(classifier, norm):
            raise InputError(reason)
        if not isinstance(classifier, SmoothedClassifier):
            raise InputError(f"what is certified is the vote, not its base: wrap it (' | {self.wraps(classifier)}')")
        return classifier

    def _terms(self, classifier: Classifier, norm: Norm, eps: float | None) -> Radius | Decision:
        vote = self._vote(classifier, norm)
        if not self.per_eps:
            return self._radius(vote, norm)
        if eps is None:
            raise ValueError("mode=decide is about one ε, and none is given")
        return self._decision(vote, norm, eps)

    def _radius(self, vote: SmoothedClassifier, norm: Norm) -> Radius:
        return Radius(**self._common(vote, norm), sides=self.sides, tolerance=self.tolerance)

    def _decision(self, vote: SmoothedClassifier, norm: Norm, eps: float) -> Decision:
        return Decision(**self._common(vote, norm), eps=eps)

    def _common(self, vote: SmoothedClassifier, norm: Norm) -> dict[str, Any]:
        dimension = math.prod(vote.input_shape)
        own = {"n0": self.n0, "n": self.n, "alpha": self.alpha}
        return {"noise": vote.noise, "norm": norm, "dimension": dimension, "classes": vote.classes, **own}
