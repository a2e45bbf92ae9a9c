"""Certifiers of votes by the textbook: Clopper-Pearson as a quantile of the beta distribution, radius σ Φ⁻¹(p)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy.stats import beta, fisher_exact, norm

from robench import Certificates, Certifier, hookimpl, param

robench_api = 1


@hookimpl
def robench_register_certifiers(register):
    """Register what is below."""
    register("counts", f"{__name__}:Counts", summary="n draws of the label")
    register("counts-silent", f"{__name__}:Silent", summary="the same, with nothing for a replay")
    register("counts-short", f"{__name__}:Short", summary="the same, with too few answers")


@dataclass(frozen=True)
class Silent(Certifier):
    """Counts n draws of the label."""

    n: int = param(300, "draws")
    alpha: float = param(0.001, "failure rate of each certificate")

    per_eps: ClassVar[bool] = False
    deterministic: ClassVar[bool] = False

    def applies(self, classifier, norm):
        return None if hasattr(classifier, "noise") and norm == "l2" else "for votes, in l2"

    def radius(self, classifier, hits, n):
        low = beta.ppf(self.alpha, hits, n - hits + 1) if hits else 0.0
        return max(0.0, classifier.noise.sigma * norm.ppf(low)) if low > 0.5 else 0.0

    def certify(self, classifier, x, y, threat, stream):
        votes = classifier.draws(x, stream).count(range(len(x)), [self.n] * len(x))
        hits = votes.gather(1, y[:, None])[:, 0].tolist()
        lower = torch.tensor([self.radius(classifier, k, self.n) for k in hits], dtype=torch.float64)
        detail = [{"class": c, "n": self.n, "hits": k} for c, k in zip(y.tolist(), hits, strict=True)]
        status = ["certified" if radius > 0 else "abstain" for radius in lower.tolist()]
        return Certificates(lower, status, torch.full_like(lower, 1 - self.alpha), detail=detail)


@dataclass(frozen=True)
class Counts(Silent):
    """With both methods for a replay."""

    def rederive(self, classifier, y, details, threat):
        radii, status = [], []
        for one, label in zip(details, y.tolist(), strict=True):
            n, hits = one["n"], one["hits"]
            known = type(n) is int and type(hits) is int and n == self.n and 0 <= hits <= n
            radii.append(self.radius(classifier, hits, n) if known and one["class"] == label else 0.0)
            status.append("error" if not known else "certified" if radii[-1] > 0 else "abstain")
        why = [{"reason": "they are no counts"} if said == "error" else None for said in status]
        lower = torch.tensor(radii, dtype=torch.float64)
        return Certificates(lower, status, torch.full_like(lower, 1 - self.alpha), detail=why)

    def recount(self, classifier, x, details, threat, stream):
        votes = classifier.draws(x, stream).count(range(len(x)), [self.n] * len(x))
        answers = []
        for one, row in zip(details, votes.tolist(), strict=True):
            table = [[k, self.n - k] for k in (one["hits"], row[one["class"]])]
            answers.append(None if fisher_exact(table).pvalue > 1e-6 else "fresh draws say otherwise")
        return answers


@dataclass(frozen=True)
class Short(Counts):
    """Answers about one sample fewer than asked."""

    def recount(self, classifier, x, details, threat, stream):
        return super().recount(classifier, x, details, threat, stream)[1:]
