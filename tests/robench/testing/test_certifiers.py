"""Unsound certifiers are caught, each by the check that is about its lie."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from robench.contracts import Certificates, Certifier
from robench.testing import check_certifier, check_plugin
from robench.testing._oracles import linear_radius

TRUE = 1 - 1e-6


class Exact(Certifier):
    """The exact radius of linear classifiers, a little less of it, with one thing done to it."""

    per_eps = False

    def __init__(self, lie: Callable[..., Any] = lambda lower, **_: lower) -> None:
        self.lie = lie

    def applies(self, classifier: Any, norm: str) -> str | None:
        linear = [node.op for node in classifier.graph.nodes if node.op not in ("input", "reshape")] == ["linear"]
        return None if linear else "not linear"

    def certify(self, classifier, x, y, threat, stream):  # type: ignore[no-untyped-def]
        constants = classifier.graph.nodes[-1].constants
        if not all((constant.abs() < 1e150).all() for constant in constants.values()):
            return Certificates(torch.zeros(len(x), dtype=torch.float64), ["open"] * len(x))
        exact = linear_radius(constants["weight"], constants["bias"], x, y, threat.norm, threat.domain)
        lower = self.lie(lower=exact * TRUE, exact=exact, x=x, y=y, classifier=classifier, stream=stream)
        if isinstance(lower, Certificates):
            return lower
        return Certificates(lower, ["certified" if one > 0 else "open" for one in lower.tolist()])


class AtEps(Exact):
    """The same, asked at one ε at a time."""

    per_eps = True

    def certify(self, classifier, x, y, threat, stream):  # type: ignore[no-untyped-def]
        made = super().certify(classifier, x, y, threat, stream)
        enough = made.lower >= threat.eps
        lower = torch.where(enough, torch.full_like(made.lower, threat.eps), 0.0)
        return Certificates(lower, ["certified" if one else "open" for one in enough.tolist()])


def too_large(lower: Tensor, **_: object) -> Tensor:
    return 1.5 * lower


def open_ball(exact: Tensor, **_: object) -> Tensor:
    return exact


def always(lower: Tensor, **_: object) -> Tensor:
    return lower.clamp_min(1e-9)


def single_precision(lower: Tensor, **_: object) -> Certificates:
    return Certificates(lower.float(), ["certified" if one > 0 else "open" for one in lower.tolist()])


def not_a_number(lower: Tensor, **_: object) -> Tensor:
    return torch.full_like(lower, math.nan)


def unknown_status(lower: Tensor, **_: object) -> Certificates:
    return Certificates(lower, ["robust"] * len(lower))


def said_but_zero(lower: Tensor, **_: object) -> Certificates:
    return Certificates(torch.zeros_like(lower), ["certified"] * len(lower))


def undeclared_points(lower: Tensor, x: Tensor, **_: object) -> Certificates:
    return Certificates(lower, ["certified" if one > 0 else "open" for one in lower.tolist()], points=x)


def half_sure(lower: Tensor, **_: object) -> Certificates:
    sure = torch.full_like(lower, 0.999)
    return Certificates(lower, ["certified" if one > 0 else "open" for one in lower.tolist()], confidence=sure)


def nothing(lower: Tensor, **_: object) -> Tensor:
    return torch.zeros_like(lower)


def by_global_draws(lower: Tensor, **_: object) -> Tensor:
    return lower * (1 - 1e-3 * torch.rand(()).double())


def by_position(lower: Tensor, **_: object) -> Tensor:
    return lower * (1 - 0.01 * torch.arange(len(lower), dtype=torch.float64))


def in_place(lower: Tensor, x: Tensor, **_: object) -> Tensor:
    x.zero_()
    return lower


def backward(lower: Tensor, x: Tensor, classifier: Any, **_: object) -> Tensor:
    classifier.logits(x).sum().backward()
    return lower


def refuses_nothing(lower: Tensor, **_: object) -> Tensor:
    lower.max()
    return lower


LIES = {
    "sound on linear classifiers": [too_large],
    "closed balls": [open_ball, too_large],
    "misclassified": [always],
    "shape": [single_precision, not_a_number, unknown_status, said_but_zero, undeclared_points],
    "confidence": [half_sure],
    "useful": [nothing],
    "random state": [by_global_draws],
    "repeat": [by_global_draws],
    "single": [by_position],
    "order": [by_position],
    "inputs": [in_place],
    "gradients": [backward],
    "empty": [refuses_nothing],
}


@pytest.mark.parametrize(("check", "lie"), [(check, lie) for check, lies in LIES.items() for lie in lies])
def test_a_liar_is_caught(check: str, lie: Callable[..., Any]) -> None:
    (finding,) = [one for one in check_plugin("certifiers", Exact(lie), only=[check]) if one.outcome != "skipped"]
    assert (finding.check, finding.outcome) == (check, "failed")


@pytest.mark.parametrize("honest", [Exact(), AtEps()])
def test_the_honest_one_passes(honest: Certifier) -> None:
    outcomes = {finding.check: finding.outcome for finding in check_certifier(honest)}
    outcomes.pop("device")
    assert outcomes.pop("sound on small networks") == "skipped"  # it is about linear classifiers only
    assert set(outcomes.values()) == {"passed"}


@pytest.mark.parametrize("check", ["sound on linear classifiers", "closed balls"])
def test_a_liar_at_one_eps_is_caught(check: str) -> None:
    failed = [one.check for one in check_plugin("certifiers", AtEps(too_large)) if not one.ok]
    assert check in failed


def test_a_bound_by_samples_is_caught_on_a_network() -> None:
    class Sampled(Certifier):
        """Certifies wherever sixteen random points are classified well: what a bare test would call robust."""

        def certify(self, classifier, x, y, threat, stream):  # type: ignore[no-untyped-def]
            robust = torch.ones(len(x), dtype=torch.bool)
            for child in range(16):
                noise = stream.child(child).uniform(x.shape[1:], -threat.eps, threat.eps, x.dtype)
                at = (x + noise).clamp(threat.domain.lower, threat.domain.upper)
                robust &= classifier.logits(at).argmax(1) == y
            lower = torch.where(robust, torch.full((len(x),), threat.eps, dtype=torch.float64), 0.0)
            return Certificates(lower, ["certified" if one else "open" for one in robust.tolist()])

    findings = check_plugin("certifiers", Sampled(), only=["sound on small networks"])
    (failed,) = [one.seen for one in findings if not one.ok]
    assert "ReLU network" in failed
    assert "but there is a misclassified point at distance" in failed


def test_an_absent_false_comparison_is_no_certificate() -> None:
    class Careless(Exact):
        """`not (bound < 0)` in place of `bound > 0`: NaN becomes a certificate."""

        def certify(self, classifier, x, y, threat, stream):  # type: ignore[no-untyped-def]
            constants = classifier.graph.nodes[-1].constants
            margin = (constants["weight"][0] - constants["weight"][1]) @ x.T
            failing = margin - (constants["weight"][0] - constants["weight"][1]).abs().sum() * 9 < 0
            lower = torch.where(failing, 0.0, 9.0).double()
            return Certificates(lower, ["open" if one else "certified" for one in failing.tolist()])

    (failed,) = [one.seen for one in check_plugin("certifiers", Careless(), only=["overflow"]) if not one.ok]
    assert "NaN weight" in failed
