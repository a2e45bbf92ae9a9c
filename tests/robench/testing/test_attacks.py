"""Liars are caught, each by the check that is about its lie; and by no other where the lie is all there is."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from robench.classifier import is_smoothed
from robench.contracts import Attack, Proposal
from robench.errors import SpecError
from robench.streams import Stream
from robench.testing import ConformanceError, check_attack, check_plugin
from robench.testing._modifiers import OneStep
from robench.testing._subjects import linear
from robench.testing._voters import Voter
from robench.votes import predict


class Lying(Attack):
    """An honest attack with one thing done to it."""

    def __init__(self, lie: Callable[..., Tensor]) -> None:
        self.lie = lie

    def perturb(self, classifier, x, y, threat, stream):  # type: ignore[no-untyped-def]
        honest = OneStep().perturb(classifier, x, y, threat, stream).points
        return Proposal(self.lie(points=honest, x=x, y=y, classifier=classifier, threat=threat, stream=stream))


def over_budget(points: Tensor, x: Tensor, **_: object) -> Tensor:
    return x + 1.5 * (points - x)


def out_of_domain(points: Tensor, threat, **_: object) -> Tensor:  # type: ignore[no-untyped-def]
    return torch.where(points == points.amax(), points + 0.5 * (points > threat.domain.upper - 0.3), points)


def by_global_draws(points: Tensor, x: Tensor, **_: object) -> Tensor:
    return x + (points - x) * (1 - 1e-3 * torch.rand(1, dtype=x.dtype))


def by_numpy_draws(points: Tensor, x: Tensor, **_: object) -> Tensor:
    return x + (points - x) * (1 - 1e-3 * np.random.uniform())


def by_position(points: Tensor, x: Tensor, **_: object) -> Tensor:
    scale = 1 - 0.02 * torch.arange(len(x), dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return x + (points - x) * scale


def in_place(points: Tensor, x: Tensor, **_: object) -> Tensor:
    x.copy_(points)
    return points


def backward(points: Tensor, x: Tensor, y: Tensor, classifier, **_: object) -> Tensor:  # type: ignore[no-untyped-def]
    torch.nn.functional.cross_entropy(classifier.logits(points), y).backward()
    return points


def lazy(x: Tensor, **_: object) -> Tensor:
    return x.clone()


def half(points: Tensor, x: Tensor, **_: object) -> Tensor:
    return x + 0.5 * (points - x)


def wrong_dtype(points: Tensor, **_: object) -> Tensor:
    return points.half()


def not_finite(points: Tensor, **_: object) -> Tensor:
    return torch.full_like(points, torch.nan)


def refuses_nothing(points: Tensor, x: Tensor, **_: object) -> Tensor:
    if len(x) == 0:
        raise IndexError("max() of an empty tensor")
    return points


def training_mode(points: Tensor, classifier, **_: object) -> Tensor:  # type: ignore[no-untyped-def]
    classifier.module.train()
    return points


LIES = {
    "budget": [over_budget],
    "domain": [out_of_domain],
    "random state": [by_global_draws, by_numpy_draws],
    "repeat": [by_global_draws, by_numpy_draws],
    "single": [by_position],
    "order": [by_position],
    "inputs": [in_place],
    "gradients": [backward, training_mode],
    "closeness": [lazy, half],
    "shape": [wrong_dtype, not_finite],
    "difficult": [not_finite],
    "empty": [refuses_nothing],
}


@pytest.mark.parametrize(("check", "lie"), [(check, lie) for check, lies in LIES.items() for lie in lies])
def test_a_liar_is_caught(check: str, lie: Callable[..., Tensor]) -> None:
    (finding,) = [one for one in check_plugin("attacks", Lying(lie), only=[check]) if one.outcome != "skipped"]
    assert (finding.check, finding.outcome) == (check, "failed")
    assert finding.required and finding.why and finding.seen


def test_what_failed_is_said_in_one_line_each() -> None:
    with pytest.raises(ConformanceError, match=r"^failed: budget: required: points within ε .*; why: .*; seen: .*ε = "):
        check_attack(Lying(over_budget))


def test_the_honest_one_passes_every_check() -> None:
    findings = check_attack(OneStep())
    assert {finding.outcome for finding in findings if finding.check != "device"} == {"passed"}


def test_what_raises_is_a_finding() -> None:
    class Ending(Attack):
        def perturb(self, *_: object) -> Proposal:  # type: ignore[override]
            raise SystemExit("bye")

    findings = check_plugin("attacks", Ending())
    assert all("SystemExit: bye" in one.seen for one in findings if one.outcome == "failed")
    assert any(one.outcome == "failed" for one in findings)


def test_an_unknown_check_cannot_be_skipped() -> None:
    with pytest.raises(ValueError, match="no check named budgets: choose from shape, budget"):
        check_attack(OneStep(), skip=["budgets"])


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(SpecError, match="no kind of plugin is called 'atack'; did you mean 'attack'"):
        check_plugin("atack", OneStep())


def test_an_attack_that_applies_nowhere_is_not_said_to_pass() -> None:
    class Nowhere(OneStep):
        def applies(self, *_: object) -> str:
            return "only on Tuesdays"

    findings = check_plugin("attacks", Nowhere())
    assert {one.outcome for one in findings} == {"skipped"}


def test_the_callers_random_state_stays() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_plugin("attacks", Lying(by_global_draws))
    assert torch.equal(torch.rand(3), expected)


class Half(OneStep):
    def perturb(self, classifier, x, y, threat, stream):  # type: ignore[no-untyped-def]
        return super().perturb(classifier, x, y, dataclasses.replace(threat, eps=threat.eps / 2), stream)


class Composite:
    """Half a step, then the whole one for what is left; `lost` forgets those."""

    def __init__(self, lost: bool = False) -> None:
        self.lost = lost

    def stages(self, classifier, threat):  # type: ignore[no-untyped-def]
        outcome = yield "half", Half(), None
        yield "whole", OneStep(), outcome.broken if self.lost else ~outcome.broken


def test_a_composite_is_driven_through_its_stages() -> None:
    findings = check_attack(Composite())
    assert {one.outcome for one in findings if one.check != "device"} == {"passed"}


def test_a_composite_that_forgets_its_survivors_is_caught() -> None:
    failed = [one.check for one in check_plugin("attacks", Composite(lost=True)) if not one.ok]
    assert failed == ["closeness"]


class OnVotes(Attack):
    """Along the gradient of one draw, on votes alone; `reach` times the budget."""

    randomized = True

    def __init__(self, reach: float = 1.0) -> None:
        self.reach = reach

    def applies(self, classifier, norm):  # type: ignore[no-untyped-def]
        return None if is_smoothed(classifier) and norm == "linf" else "votes in linf only"

    def perturb(self, classifier, x, y, threat, stream):  # type: ignore[no-untyped-def]
        assert not hasattr(classifier, "logits")
        point = x.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(classifier.sample(point, stream), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point)
        step = self.reach * threat.eps * gradient.nan_to_num(0).sign()
        return Proposal((x + step).clamp(threat.domain.lower, threat.domain.upper))


def test_attacks_on_votes_are_asked_about_votes() -> None:
    findings = check_plugin("attacks", OnVotes())
    assert {finding.outcome for finding in findings if finding.check != "device"} == {"passed"}
    for reach, check in ((1.5, "budget"), (0.5, "closeness")):
        (finding,) = [one for one in check_plugin("attacks", OnVotes(reach), only=[check]) if one.check == check]
        assert finding.outcome == "failed"


def test_the_vote_that_they_are_asked_about_is_the_bases_decision() -> None:
    subject = linear()
    voter, stream = Voter(subject.classifier), Stream.for_samples(0, "kit", range(len(subject.x)))
    assert is_smoothed(voter)
    assert torch.equal(predict(voter, subject.x, stream, 0.001), subject.y)
    draws = voter.draws(subject.x, stream)
    votes = torch.cat([draws.count(range(len(subject.x)), [10] * len(subject.x)) for _ in range(2)], 1)
    assert votes.sum().item() == 20 * len(subject.x)
