"""What every attack must do: `check_attack`."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from torch import Tensor

from robench.contracts import Attack, CompositeAttack
from robench.distances import distance
from robench.testing._attack_case import CLOSE, AttackCase
from robench.testing._findings import ALL, Check, Choice, Finding, NotApplicable, Violation, run_checks
from robench.testing._guard import Traces
from robench.testing._subjects import Subject, constant, linear, poisoned, relu_net
from robench.threat import Domain, Norm, Threat

__all__ = ["attack_findings"]

SLACK = 1e-4
"""Rounding that a proposal may show: relative to ε, and to the width of the domain."""


def _plain() -> list[Subject]:
    return [
        linear(),
        linear(3, (1, 4, 4), dtype=torch.float32),
        linear(domain=Domain.unbounded()),
        relu_net(dtype=torch.float32),
    ]


def _shape(case: AttackCase) -> str:
    looked = 0
    for subject, norm, eps, where in case.each(*_plain(), linear(10, (1, 4, 4))):
        x, proposal = case.ask(subject, case.threat(subject, norm, eps))
        points = proposal.points
        if points.shape != x.shape or points.dtype != x.dtype or points.device != x.device:
            raise Violation(
                f"{where}: points are {points.dtype} {list(points.shape)} on {points.device} "
                f"for samples {x.dtype} {list(x.shape)} on {x.device}"
            )
        if not torch.isfinite(points).all():
            raise Violation(f"{where}: points that are not finite")
        if proposal.detail is not None:
            if len(proposal.detail) != len(x):
                raise Violation(f"{where}: detail has {len(proposal.detail)} entries for {len(x)} samples")
            json.dumps([None if one is None else dict(one) for one in proposal.detail], allow_nan=False)
        if proposal.passes is not None:
            for count in (proposal.passes.forwards, proposal.passes.backwards):
                if tuple(count.shape) != (len(x),) or count.dtype != torch.int64:
                    raise Violation(f"{where}: passes are {count.dtype} {list(count.shape)}, not int64 [{len(x)}]")
        looked += 1
    return f"{looked} settings"


def _budget(case: AttackCase) -> str:
    if not case.per_eps:
        raise NotApplicable("a minimum-norm attack has no budget")
    worst = 0.0
    for subject, norm, eps, where in case.each(*_plain()):
        for budget in (eps / 10, eps, 10 * eps):
            x, proposal = case.ask(subject, Threat(norm, budget, subject.domain))
            far = float(distance(proposal.points, x, norm).max())
            worst = max(worst, far / budget)
            if not far <= budget * (1 + SLACK):
                raise Violation(f"{where}: a point at distance {far:.6g} with ε = {budget:.6g}")
    return f"the farthest point used {worst:.6f} of its budget"


def _domain(case: AttackCase) -> str:
    for subject, norm, eps, where in case.each(*_plain()):
        _, proposal = case.ask(subject, case.threat(subject, norm, 10 * eps))
        low, high = float(proposal.points.min()), float(proposal.points.max())
        if low < subject.domain.lower - SLACK or high > subject.domain.upper + SLACK:
            raise Violation(f"{where}: coordinates from {low:.6g} to {high:.6g}")
    return "every coordinate in the domain, at ten times the usual ε too"


def _same(case: AttackCase, subject: Subject, where: str, norm: Norm, eps: float, parts: list[Tensor]) -> None:
    """Ask for the rows in `parts` and compare with the whole batch in order."""
    threat = case.threat(subject, norm, eps)
    rows = torch.arange(len(subject.x))
    _, whole = case.ask(subject, threat)
    reference, broken = whole.points, case.broken(subject, whole, rows)
    differ = 0
    for part in parts:
        _, made = case.ask(subject, threat, part)
        wrong = case.broken(subject, made, part) != broken[part]
        if wrong.any():
            raise Violation(f"{where}: sample {int(part[wrong][0])} is broken in one batch and not in the other")
        gap = (made.points - reference[part]).abs().flatten(1).amax(1)
        differ += int((gap > 1e-6 * (1 + float(reference.abs().max()))).sum())
    # Ties between equally good points may go another way with another rounding; draws by position change them all.
    if differ > len(rows) // 4:
        raise Violation(f"{where}: {differ} of {len(rows)} points depend on the batch that the sample is in")


def _repeat(case: AttackCase) -> str:
    for subject, norm, eps, where in case.each(*_plain()):
        threat = case.threat(subject, norm, eps)
        first, second = case.ask(subject, threat)[1].points, case.ask(subject, threat)[1].points
        if not torch.equal(first, second):
            raise Violation(f"{where}: the same streams gave other points")
    return "equal to the bit"


def _single(case: AttackCase) -> str:
    for subject, norm, eps, where in case.each(linear(), linear(3, (1, 4, 4))):
        _same(case, subject, where, norm, eps, [torch.tensor([i]) for i in range(len(subject.x))])
    return "batches of one gave what the whole batch gave"


def _order(case: AttackCase) -> str:
    for subject, norm, eps, where in case.each(linear(), linear(3, (1, 4, 4))):
        count = len(subject.x)
        _same(case, subject, where, norm, eps, [torch.arange(count).roll(3).flip(0)])
    return "permuted samples gave permuted points"


def _empty(case: AttackCase) -> str:
    for subject, norm, eps, where in case.each(linear(), linear(3, (1, 4, 4))):
        x, proposal = case.ask(subject, case.threat(subject, norm, eps), torch.zeros(0, dtype=torch.int64))
        if proposal.points.shape != x.shape:
            raise Violation(f"{where}: points {list(proposal.points.shape)} for samples {list(x.shape)}")
    return "no samples, no points"


def _misclassified(case: AttackCase) -> str:
    for subject, norm, eps, where in case.each(linear(), linear(3, (1, 4, 4))):
        others = (subject.y + 1) % subject.classifier.classes
        x, proposal = case.ask(subject, case.threat(subject, norm, eps), labels=others)
        if proposal.points.shape != x.shape or not torch.isfinite(proposal.points).all():
            raise Violation(f"{where}: points that are not finite, or not of the samples' shape")
        if case.per_eps and not float(distance(proposal.points, x, norm).max()) <= eps * (1 + SLACK):
            raise Violation(f"{where}: a point outside the budget")
    return "points within the threat"


def _difficult(case: AttackCase) -> str:
    for subject, norm, eps, where in case.each(constant(), poisoned()):
        x, proposal = case.ask(subject, case.threat(subject, norm, eps))
        if not torch.isfinite(proposal.points).all():
            raise Violation(f"{where}: points that are not finite")
        if case.per_eps and not float(distance(proposal.points, x, norm).max()) <= eps * (1 + SLACK):
            raise Violation(f"{where}: a point outside the budget")
    return "finite points within the threat"


def _closeness(case: AttackCase) -> str:
    seen = []
    for subject, norm, _, where in case.each(linear(domain=Domain.unbounded())):
        optimum = subject.radius(norm)
        for row in range(len(subject.x)):
            rows = torch.tensor([row])
            best = float(optimum[row])
            x, proposal = case.ask(subject, case.threat(subject, norm, CLOSE * best), rows)
            reached = float(distance(proposal.points, x, norm)[0]) / best
            if not case.broken(subject, proposal, rows)[0]:
                raise Violation(f"{where}: sample {row} not broken at {CLOSE} times its exact radius {best:.6g}")
            if reached > CLOSE * (1 + SLACK):
                raise Violation(f"{where}: sample {row} broken at {reached:.4f} times its exact radius {best:.6g}")
            seen.append(reached)
    return f"broken at {max(seen):.4f} times the exact radius at worst"


def _device(case: AttackCase) -> str:
    if not torch.cuda.is_available():
        raise NotApplicable("no CUDA device here")
    for subject, norm, eps, where in case.each(linear(), relu_net(dtype=torch.float32)):
        subject.classifier.to(torch.device("cuda"))
        x, proposal = case.ask(subject, case.threat(subject, norm, eps))
        if proposal.points.device != x.device:
            raise Violation(f"{where}: points on {proposal.points.device} for samples on {x.device}")
        subject.classifier.to(torch.device("cpu"))
    return "points where the samples are"


def _left(topic: str) -> Callable[[AttackCase], str]:
    def run(case: AttackCase) -> str:
        for subject, norm, eps, where in case.each(linear(), linear(3, (1, 4, 4), dtype=torch.float32)):
            case.traces = Traces()
            for _ in range(2):
                case.ask(subject, case.threat(subject, norm, eps))
            case.traces.refuse(topic, where)
        return "as it was"

    return run


CHECKS: list[Check[AttackCase]] = [
    Check("shape", "one finite point per sample, in its dtype, on its device", "the runner refuses others", _shape),
    Check(
        "budget",
        "points within ε of their samples, in the norm asked for",
        "the runner pulls others back, and what they showed is lost",
        _budget,
    ),
    Check("domain", "points inside the domain", "the runner clips others, and what they showed is lost", _domain),
    Check("repeat", "equal streams give equal points", "a run must be repeatable", _repeat),
    Check(
        "single",
        "a sample alone gives the same point as in a batch",
        "results must not depend on the batch size",
        _single,
    ),
    Check("order", "permuted samples give permuted points", "runs are resumed and sharded by sample", _order),
    Check("empty", "an empty batch gives an empty proposal", "settled samples leave, sometimes all of them", _empty),
    Check(
        "misclassified",
        "a sample that is misclassified already is no error",
        "rounding differs between two passes near a tie",
        _misclassified,
    ),
    Check(
        "difficult",
        "zero gradients, flat inputs and NaN logits give finite points within the threat",
        "real classifiers saturate and overflow",
        _difficult,
    ),
    Check(
        "random state",
        "the global random state is neither used nor set: draws come from the stream",
        "other code in the process must see what it would have seen",
        _left("random"),
    ),
    Check(
        "gradients",
        "the classifier's parameters, their gradients, its mode and torch's settings stay as they were",
        "the classifier belongs to somebody who may go on training it",
        _left("gradients"),
    ),
    Check("inputs", "samples and labels are not written to", "others go on with the same tensors", _left("inputs")),
    Check(
        "closeness",
        f"on a linear classifier without a box, broken within {CLOSE} times the exact radius",
        "an attack that misses a half-space overstates every robust accuracy",
        _closeness,
    ),
    Check("device", "the attack runs where the classifier is", "nothing may assume the CPU", _device),
]


def attack_findings(attack: Attack | CompositeAttack, choice: Choice = ALL) -> list[Finding]:
    """Run every check of attacks."""
    return run_checks(CHECKS, AttackCase(attack), choice)
