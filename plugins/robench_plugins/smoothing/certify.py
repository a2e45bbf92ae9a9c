"""Certificates of smoothed classifiers: a radius by CERTIFY (Cohen et al. 2019), or a decision about one ε."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor

from robench import param
from robench.binomial import LARGEST, Integers, lower_bound
from robench.classifier import Classifier, Draws, SmoothedClassifier, is_smoothed
from robench.contracts import Certificates
from robench.errors import InputError
from robench.streams import Stream
from robench.threat import Norm, Threat
from robench_plugins.smoothing._sequence import N_LARGEST, Plan, Verdict, decide, plan

__all__ = ["Smoothing"]


@dataclass(frozen=True)
class Smoothing:
    """Certifies the vote of a smoothed classifier, with confidence 1 − α per sample.

    `n0` draws choose the class; where that is not the label nothing is certified, and no more is drawn. Independent
    draws then bound its probability: exactly `n` for a radius, and as few as it takes to decide about an ε.
    """

    mode: Literal["radius", "decide"] = param(
        "radius", "`radius`: the largest that n draws prove; `decide`: whether it is ε, in a fraction of the draws"
    )
    n0: int = param(100, "draws that choose the class", minimum=1, maximum=LARGEST)
    n: int = param(100_000, "draws of the certificate, the most of them where ε is decided", minimum=1, maximum=LARGEST)
    alpha: float = param(0.001, "failure rate of the certificate of each sample, below 1", above=0, maximum=0.5)

    deterministic: ClassVar[bool] = False
    complete: ClassVar[bool] = False

    @property
    def per_eps(self) -> bool:
        """Whether it works at one ε at a time."""
        return self.mode == "decide"

    def applies(self, classifier: Classifier, norm: Norm) -> str | None:
        """Return None, or what stands in the way: no vote, the norm, or more draws than can be reckoned with."""
        if not is_smoothed(classifier):
            return "smoothing certifies votes over noise, and this classifier is none: wrap it (' | smooth:sigma=…')"
        noise = cast(SmoothedClassifier, classifier).noise
        if norm not in noise.norms:
            return f"{type(noise).__name__.lower()} noise certifies in {' and '.join(noise.norms)}, not in {norm}"
        if self.mode == "decide" and self.n > N_LARGEST:
            return f"mode=decide takes at most n = {N_LARGEST}"
        return None

    def certify(self, classifier: Classifier, x: Tensor, y: Tensor, threat: Threat, stream: Stream) -> Certificates:
        """Certify `x` [B, ...] with labels `y` [B].

        The detail holds the class chosen and its votes among the n0 draws, the draws and hits of the certificate, the
        looks at them, the seed of the noise, and the bound `p_low` or the threshold `p0` of ε with the verdict.

        Raises:
            InputError: n draws can never prove ε: the message says how many can.
        """
        if reason := self.applies(classifier, threat.norm):
            raise InputError(reason)
        smoothed = cast(SmoothedClassifier, classifier)
        test = self._test(smoothed, threat)
        count, labels = len(x), y.tolist()
        lower = torch.zeros(count, dtype=torch.float64)
        confidence = torch.full((count,), 1 - self.alpha, dtype=torch.float64)
        if not count:
            return Certificates(lower, [], confidence, detail=[])
        draws = smoothed.draws(x, stream)
        # The draws without a vote are a class of their own, which is nobody's label.
        first = draws.count(range(count), [self.n0] * count).cpu().numpy()
        chosen: Integers = first.argmax(axis=1)
        status = ["open"] * count
        detail: list[dict[str, Any]] = [
            {
                "class": int(chosen[i]) if chosen[i] < smoothed.classes else -1,
                "n0": self.n0,
                "votes0": int(first[i, chosen[i]]),
                "seed": draws.seeds[i],
            }
            for i in range(count)
        ]
        rows = np.array([i for i in range(count) if chosen[i] == labels[i]], dtype=np.int64)
        made = (
            self._decided(test, draws, rows, chosen, threat.eps)
            if test is not None and threat.eps is not None
            else self._radii(smoothed, draws, rows, chosen, threat)
        )
        for i, (radius, said, figures) in zip(rows.tolist(), made, strict=True):
            lower[i], status[i] = radius, said
            detail[i] |= figures
        return Certificates(lower, status, confidence, detail=detail)

    def _test(self, classifier: SmoothedClassifier, threat: Threat) -> Plan | None:
        if self.mode == "radius":
            return None
        if threat.eps is None:
            raise ValueError("mode=decide needs a budget: it decides about one ε at a time")
        try:
            p0 = classifier.noise.threshold(threat.eps, threat.norm, math.prod(classifier.input_shape))
            return plan(p0, self.alpha, n_max=self.n)
        except ValueError as error:
            reason = str(error).replace("n_max", "n")
            raise InputError(f"smoothing cannot decide about eps = {threat.eps:g} in {threat.norm}: {reason}") from None

    def _radii(
        self, classifier: SmoothedClassifier, draws: Draws, rows: Integers, chosen: Integers, threat: Threat
    ) -> list[tuple[float, str, dict[str, Any]]]:
        """Return lower, status and figures of samples: CERTIFY."""
        votes = draws.count(rows.tolist(), [self.n] * len(rows)).cpu().numpy()
        hits = votes[np.arange(len(rows)), chosen[rows]]
        bound = lower_bound(hits, self.n, self.alpha)
        radii = classifier.noise.radius(bound, threat.norm, math.prod(classifier.input_shape))
        return [
            (radius, "certified" if radius > 0 else "abstain", {"n": self.n, "hits": hit, "p_low": low, "looks": 1})
            for radius, hit, low in zip(radii.tolist(), hits.tolist(), bound.tolist(), strict=True)
        ]

    def _decided(
        self, test: Plan, draws: Draws, rows: Integers, chosen: Integers, eps: float
    ) -> list[tuple[float, str, dict[str, Any]]]:
        """Return lower, status and figures of samples, each drawn for until it is told."""

        def hits(active: Integers, count: int) -> Integers:
            left = rows[active]
            votes = draws.count(left.tolist(), [count] * len(left))
            # Only these leave the device.
            columns = torch.from_numpy(chosen[left]).to(votes.device)
            found: Integers = votes.gather(1, columns[:, None])[:, 0].cpu().numpy()
            return found

        made = decide(test, hits, len(rows))
        looks = np.searchsorted(test.looks, made.draws) + 1
        results: list[tuple[float, str, dict[str, Any]]] = []
        for verdict, n, hit, look in zip(
            made.verdict.tolist(), made.draws.tolist(), made.hits.tolist(), looks.tolist(), strict=True
        ):
            ended = Verdict(verdict).name.lower()
            figures = {"n": n, "hits": hit, "p0": test.threshold, "looks": look, "verdict": ended}
            sure = verdict == Verdict.CERTIFIED
            results.append((eps if sure else 0.0, "certified" if sure else "open", figures))
        return results
