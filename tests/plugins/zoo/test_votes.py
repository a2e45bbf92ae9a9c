"""Votes over the bundled classifiers: certificates and witnesses contradict each other no more often than by chance."""

from dataclasses import dataclass, replace

import pytest

from robench.api import evaluate
from robench.check import check
from robench.metrics import contradictions_by_chance, subjects
from robench.runs import find_runs
from robench_plugins.smoothing.certify import Smoothing

NETS = ["digits-standard", "digits-gaussian", "digits-pgd-l2", "digits-pgd-linf", "digits-ibp", "digits-aol"]
ALPHA = 0.01


@dataclass(frozen=True)
class Boastful(Smoothing):
    """Claims a multiple of the radius that it proves."""

    times: float = 2.5

    def certify(self, classifier, x, y, threat, stream):
        made = super().certify(classifier, x, y, threat, stream)
        return replace(made, lower=self.times * made.lower)


def evaluated(out, nets, certifier):
    for net in nets:
        vote = f"{net} | smooth:alpha={ALPHA},n=400,sigma=0.25"
        evaluate(vote, "digits | subset:n=30", eps=["0.2", "0.5", "1"], norm="l2",
                 attacks="smoothadv:draws=4,steps=6", certifiers=[certifier], out=out)  # fmt: skip
    return find_runs(out)


def test_contradictions_are_explained_by_chance(tmp_path):
    runs = evaluated(tmp_path, NETS, Smoothing(n=1000, alpha=ALPHA))
    found = [contradictions_by_chance(subject.radii("l2")) for subject in subjects(runs)]
    assert len(found) == len(NETS)
    # A certificate, a prediction and the attempts together.
    assert all(2 * ALPHA < one.alpha <= 3 * ALPHA + 1e-9 and one.n == 30 for one in found)
    assert sum(one.observed for one in found) <= sum(one.expected for one in found)
    checked = check(runs)
    assert checked.findings == ()
    assert sum("expected" in note for note in checked.notes) == len(NETS)


def test_a_certifier_that_claims_too_much_is_found_out(tmp_path):
    (finding,) = check(evaluated(tmp_path, ["digits-standard"], Boastful(n=1000, alpha=ALPHA))).findings
    assert finding.code == "chance"
    assert finding.values["observed"] > finding.values["expected"]


@pytest.mark.parametrize("net", NETS)
def test_every_bundled_classifier_votes(net, tmp_path):
    made = evaluate(f"{net} | smooth:sigma=0.12", "digits | subset:n=4", eps="0.1", norm="l2", attacks="none",
                    certifiers="smoothing:n=300", out=tmp_path)  # fmt: skip
    assert made.summary["results"][0]["errors"] == 0
