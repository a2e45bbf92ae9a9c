"""Certifiers of votes that do not keep their rate, or their word, are caught."""

import numpy as np
import pytest
import torch

from robench import Certificates, Certifier
from robench.binomial import lower_bound
from robench.classifier import is_smoothed
from robench.streams import Stream
from robench.testing import check_certifier, check_plugin
from robench.testing._linear_vote import SIGMA, LinearVote, exact_radius
from robench.testing._votes import certifies_votes


class Certify(Certifier):
    """CERTIFY for two classes, as somebody else might write it; the methods are what the lies change."""

    per_eps, deterministic = False, False
    n0, n, alpha = 50, 1000, 0.05

    def applies(self, classifier, norm):
        if not is_smoothed(classifier):
            return "no vote"
        return None if norm in classifier.noise.norms else "another norm"

    def certify(self, classifier, x, y, threat, stream):
        draws, count = classifier.draws(x, stream), len(x)
        first = draws.count(range(count), [self.n0] * count)
        chosen = first.argmax(1)
        votes = self.votes(draws, first, count)
        detail = [{"class": int(chosen[i]), "hits": int(votes[i, chosen[i]]), "n": self.n} for i in range(count)]
        lower = torch.tensor([self.derived(classifier, threat.norm, one) for one in detail], dtype=torch.float64).where(
            chosen == self.label(y, chosen), 0.0
        )
        for i in range(count):
            if lower[i] == 0:
                detail[i] = {}
        status = ["certified" if one > 0 else "abstain" for one in lower.tolist()]
        return Certificates(lower, status, torch.full((count,), self.sure(), dtype=torch.float64), detail=detail)

    def votes(self, draws, first, count):
        return draws.count(range(count), [self.n] * count)

    def label(self, y, chosen):
        return y

    def sure(self):
        return 1 - self.alpha

    def bound(self, hits):
        return lower_bound(hits, self.n, self.alpha)

    def radius(self, low, classifier, norm):
        return float(classifier.noise.radius(low, norm, classifier.input_shape[0]))

    def derived(self, classifier, norm, detail):
        if not detail or not self.known(detail):
            return 0.0
        return self.radius(self.bound(detail["hits"]), classifier, norm)

    def known(self, detail):
        return type(detail["hits"]) is int and type(detail["n"]) is int and detail["n"] == self.n

    def rederive(self, classifier, y, details, threat):
        lower = [self.derived(classifier, threat.norm, one) for one in details]
        lower = [radius if one.get("class") == label else 0.0
                 for radius, one, label in zip(lower, details, y.tolist(), strict=True)]  # fmt: skip
        status = [
            "error" if one and not self.known(one) else "certified" if radius > 0 else "abstain"
            for radius, one in zip(lower, details, strict=True)
        ]
        lower = torch.tensor(lower, dtype=torch.float64)
        return Certificates(lower, status, torch.full_like(lower, self.sure()))

    def recount(self, classifier, x, details, threat, stream):
        fresh = classifier.draws(x, stream).count(range(len(x)), [self.n] * len(x))[:, 1].tolist()
        return [
            "not these counts" if one and abs(one["hits"] - now) > 300 else None
            for one, now in zip(details, fresh, strict=True)
        ]


class TooFar(Certify):
    def radius(self, low, classifier, norm):
        return 1.1 * super().radius(low, classifier, norm)


class Share(Certify):
    def bound(self, hits):
        return hits / self.n


class TwiceAlpha(Certify):
    def bound(self, hits):
        return lower_bound(hits, self.n, 2 * self.alpha)


class UntilItWorks(Certify):
    """Draws again where the bound does not tell: each time at the full α."""

    def votes(self, draws, first, count):
        best = super().votes(draws, first, count)
        for _ in range(4):
            again = super().votes(draws, first, count)
            best = torch.where((again[:, 1] > best[:, 1])[:, None], again, best)
        return best


class AnyClass(Certify):
    def label(self, y, chosen):
        return chosen


class Proof(Certify):
    def sure(self):
        return 1.0


class Nothing(Certify):
    def radius(self, low, classifier, norm):
        return 0.0


class Batch(Certify):
    def votes(self, draws, first, count):
        return super().votes(draws, first, count).roll(1, 0)


class Believes(Certify):
    """The counts prove a tenth more than it said; so does its next of kin with the status, and with the confidence."""

    def certify(self, classifier, x, y, threat, stream):
        made = super().certify(classifier, x, y, threat, stream)
        return Certificates(0.9 * made.lower, made.status, made.confidence, detail=made.detail)


class Renames(Certify):
    def rederive(self, classifier, y, details, threat):
        made = super().rederive(classifier, y, details, threat)
        return Certificates(made.lower, ["certified"] * len(y), made.confidence)


class Surer(Certify):
    def rederive(self, classifier, y, details, threat):
        made = super().rederive(classifier, y, details, threat)
        return Certificates(made.lower, made.status, (1 + made.confidence) / 2)


class AnyLabel(Certify):
    def rederive(self, classifier, y, details, threat):
        return super().rederive(classifier, torch.ones_like(y), details, threat)


class Half(Certify):
    """It derives, and draws nothing anew."""

    @property
    def recount(self):
        raise AttributeError


class Gullible(Certify):
    def rederive(self, classifier, y, details, threat):
        def whole(value):
            return min(max(value, 0), 1000) if type(value) is int else 1000

        counts = [{"class": 1, "hits": whole(one["hits"]), "n": 1000} if one else {} for one in details]
        return super().rederive(classifier, y, counts, threat)


class Trusting(Certify):
    def recount(self, classifier, x, details, threat, stream):
        return [None] * len(x)


class Suspicious(Certify):
    def recount(self, classifier, x, details, threat, stream):
        return ["I do not like it" if one else None for one in details]


class Global(Certify):
    def bound(self, hits):
        np.random.rand()
        return super().bound(hits)


class Writes(Certify):
    def certify(self, classifier, x, y, threat, stream):
        made = super().certify(classifier, x, y, threat, stream)
        x.zero_()
        return made


LIES = {
    TooFar: "sound on votes",
    Share: "sound on votes",
    TwiceAlpha: "sound on votes",
    UntilItWorks: "sound on votes",
    AnyClass: "misclassified",
    Proof: "confidence",
    Nothing: "useful",
    Batch: "batches",
    Believes: "derived again",
    Renames: "derived again",
    Surer: "derived again",
    AnyLabel: "derived again",
    Half: "drawn again",
    Gullible: "derived again",
    Trusting: "drawn again",
    Suspicious: "drawn again",
    Global: "random state",
    Writes: "inputs",
}


def test_an_honest_certifier_of_votes_conforms():
    findings = check_certifier(Certify())
    assert {one.check for one in findings if one.outcome == "skipped"} <= {"device"}
    assert "sound on votes" in {one.check for one in findings}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_caught_by_its_check(lie):
    (finding,) = [one for one in check_plugin("certifiers", lie(), only=[LIES[lie]]) if one.check == LIES[lie]]
    assert finding.outcome == "failed", str(finding)
    assert "it raised" not in finding.seen


def test_who_certifies_votes():
    class Sure(Certify):
        deterministic = True

    class Lost(Certify):
        def applies(self, classifier, norm):
            return str(classifier.graph.nodes)

    assert certifies_votes(Certify())
    assert not certifies_votes(Sure())
    assert not certifies_votes(Lost())


def test_the_vote_is_what_it_is_said_to_be():
    """The network behind `sample` gives the shares that `draws` counts, and its boundary is at the radius."""
    voter, margin = LinearVote(), 0.7 * SIGMA

    x = voter.at([margin] * 20_000)
    stream = Stream.for_samples(0, "test", range(len(x)))
    single = float((voter.sample(x, stream).argmax(1) == 1).double().mean())
    counted = float(voter.draws(x[:1], stream.select(torch.tensor([0]))).count([0], [10**6])[0, 1]) / 10**6
    assert single == pytest.approx(counted, abs=0.02)
    w = torch.ones(16, dtype=torch.float64)
    moves = {"linf": w, "l2": w / 4, "l1": torch.eye(16, dtype=torch.float64)[0]}
    for norm, move in moves.items():
        edge = x[:1] - exact_radius(margin, norm, 16) * move
        assert float(voter.margin(edge)) == pytest.approx(0, abs=1e-12)
