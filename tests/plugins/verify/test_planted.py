"""No certifier certifies where a counterexample was planted: whatever is registered and deterministic, new ones too."""

import inspect
from collections import Counter

import pytest
import torch

from oracles.planted import holds, planted
from oracles.soundness import ball_points, margins
from robench.graph import GraphClassifier
from robench.registry import load_plugins
from robench.streams import Stream
from robench.threat import Threat

CASES = list(planted())
REGISTRY = load_plugins()
SHORT = 0.25
"""Seconds for each sample, where a certifier takes a time limit."""


def deterministic():
    """Yield the spec of every registered certifier that claims certainty, with a short time limit if it takes one."""
    for entry in REGISTRY.entries("certifiers"):
        factory = REGISTRY.factory(entry)
        if factory.deterministic:
            timed = "timeout" in inspect.signature(factory).parameters
            yield f"{entry.name}:timeout={SHORT:g}" if timed else entry.name


def answer(spec, case):
    """Return (lower, status, point) of the case, or None where the certifier does not apply."""
    certifier = REGISTRY.resolve("certifiers", spec).value
    classifier = GraphClassifier(case.graph, dtype=torch.float64)
    if certifier.applies(classifier, "linf") is not None:
        return None
    threat = Threat("linf", case.eps if certifier.per_eps else None, case.domain)
    stream = Stream.for_samples(0, spec, [0])
    found = certifier.certify(classifier, case.x[None], torch.tensor([case.y]), threat, stream)
    return float(found.lower[0]), found.status[0], None if found.points is None else found.points[0]


def test_each_counterexample_is_one():
    assert all(holds(case) for case in CASES)
    assert len({case.name for case in CASES}) == len(CASES) > 20


def test_they_are_hidden():
    """Random points and corners, and descent from all of them, find none of those that are said to be hidden."""
    generator = torch.Generator().manual_seed(0)
    for case in CASES:
        if case.hidden:
            points = ball_points(case.graph, case.x, case.y, "linf", case.eps, case.domain, generator)
            assert margins(case.graph, points, case.y).min() > 0, case.name
    assert sum(case.hidden for case in CASES) > 15


@pytest.mark.parametrize("spec", sorted(deterministic()))
def test_nobody_certifies_them(spec):
    """Certificates are about closed balls: a radius must stay below the counterexample's distance."""
    applied = 0
    for case in CASES:
        found = answer(spec, case)
        if found is None:
            continue
        lower, status, _ = found
        applied += 1
        distance = float((case.point - case.x).abs().max())
        assert not (status == "certified" and lower >= distance), case.name
    assert applied or spec in ("linear", "lipschitz")


@pytest.mark.parametrize(
    "spec", [spec for spec in deterministic() if spec.split(":")[0] in ("ibp", "crown", "lp", "milp")]
)
def test_close_to_them_something_is_certified(spec):
    """A checker that never meets a certificate would prove nothing: at a hundredth of ε most cases are certified."""
    certified = Counter()
    for case in CASES:
        classifier = GraphClassifier(case.graph, dtype=torch.float64)
        certifier = REGISTRY.resolve("certifiers", spec).value
        threat, stream = Threat("linf", case.eps / 100, case.domain), Stream.for_samples(0, spec, [0])
        certified[certifier.certify(classifier, case.x[None], torch.tensor([case.y]), threat, stream).status[0]] += 1
    assert certified["certified"] > 15, certified


def test_milp_finds_what_attacks_do_not():
    """The complete search proposes points for the hidden ones whose numbers a solver can hold."""
    missed = []
    for case in CASES:
        if case.name.split()[0] in ("corner", "needle", "deep", "sorted", "image"):
            _, status, point = answer("milp:timeout=10", case)
            assert status == "falsified", case.name
            if not margins(case.graph, point[None], case.y) <= 0:
                missed.append(case.name)
            assert float((point - case.x).abs().max()) <= case.eps + 1e-12
    assert not missed
