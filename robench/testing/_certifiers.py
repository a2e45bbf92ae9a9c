"""What every certifier must do: `check_certifier`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from robench.contracts import Certificates, Certifier
from robench.errors import RobenchError
from robench.streams import Stream
from robench.testing._findings import ALL, Check, Choice, Finding, NotApplicable, Violation, run_checks
from robench.testing._guard import Traces, watch
from robench.testing._subjects import Subject, linear, overflowing, relu_net, tie
from robench.testing._votes import VOTE_CHECKS, VoteCase, certifies_votes
from robench.threat import NORMS, Domain, Norm, Threat

__all__ = ["certifier_findings"]

STATUSES = {"certified", "open", "abstain", "timeout", "error", "falsified"}


@dataclass
class CertifierCase:
    """A certifier, and how it is asked."""

    certifier: Any
    traces: Traces = field(default_factory=Traces)

    @property
    def per_eps(self) -> bool:
        """Whether it works at one ε at a time."""
        return bool(getattr(self.certifier, "per_eps", True))

    @property
    def deterministic(self) -> bool:
        """Whether its certificates are proofs."""
        return bool(getattr(self.certifier, "deterministic", True))

    def each(self, *subjects: Subject) -> Iterator[tuple[Subject, Norm, str]]:
        """Yield every (subject, norm) that the certifier takes; NotApplicable where there is none."""
        applies, wraps = (getattr(self.certifier, name, None) for name in ("applies", "wraps"))
        seen = False
        for subject in subjects:
            if wraps is not None and wraps(subject.classifier) is not None:
                continue  # what it certifies is another function
            for norm in NORMS:
                if applies is None or applies(subject.classifier, norm) is None:
                    seen = True
                    yield subject, norm, f"{subject.name}, {norm}"
        if not seen:
            raise NotApplicable("the certifier applies to none of the classifiers that this check asks about")

    def ask(
        self,
        subject: Subject,
        norm: Norm,
        eps: float,
        rows: Tensor | None = None,
        *,
        labels: Tensor | None = None,
    ) -> Certificates:
        """Return certificates for `rows` of the subject at ε, or radii where the certifier gives radii."""
        rows = torch.arange(len(subject.x)) if rows is None else rows
        network = subject.classifier
        x, y = subject.x[rows].to(network.device), (subject.y if labels is None else labels)[rows].to(network.device)
        stream = Stream.for_samples(0, "conformance", rows.tolist(), network.device)
        threat = Threat(norm, eps if self.per_eps else None, subject.domain)
        with watch(self.traces, network.module, x=x, y=y):
            made = self.certifier.certify(network, x, y, threat, stream)
        if not isinstance(made, Certificates):
            raise Violation(f"certify returned {type(made).__name__}, not Certificates")
        return made

    def proven(self, made: Certificates) -> Tensor:
        """Return the radius [B] that counts as proven: 0 where the status is not `certified`."""
        said = torch.tensor([status == "certified" for status in made.status], dtype=torch.bool)
        return torch.where(said, made.lower.detach().cpu().double(), 0.0)

    def budgets(self, subject: Subject, norm: Norm) -> list[float]:
        """Return the budgets to ask at: below, at and above the radii; one of any size where radii are given."""
        if not self.per_eps:
            return [1.0]
        exact = subject.radius(norm)
        exact = exact[exact.isfinite()].sort().values
        small, middle, large = float(exact[0]), float(exact[len(exact) // 2]), float(exact[-1])
        return [small / 100, small, middle, large, 2 * large]


def _linears() -> list[Subject]:
    return [
        linear(),
        linear(3, (1, 4, 4), dtype=torch.float32),
        linear(domain=Domain.unbounded()),
        linear(4, domain=Domain.unbounded(), dtype=torch.float32),
    ]


def _nets() -> list[Subject]:
    return [relu_net(), relu_net((2, 6, 6, 2)), relu_net(dtype=torch.float32), relu_net((2, 4, 2), seed=11)]


def _shape(case: CertifierCase) -> str:
    looked = 0
    for subject, norm, where in case.each(*_linears(), *_nets()):
        count = len(subject.x)
        for eps in case.budgets(subject, norm)[:2]:
            made = case.ask(subject, norm, eps)
            if made.lower.dtype != torch.float64 or tuple(made.lower.shape) != (count,):
                raise Violation(f"{where}: lower is {made.lower.dtype} {list(made.lower.shape)}")
            if not bool((made.lower >= 0).all()):
                raise Violation(f"{where}: lower is {made.lower.tolist()}")
            if len(made.status) != count or set(made.status) - STATUSES:
                raise Violation(f"{where}: status is {list(made.status)}")
            if made.detail is not None:
                if len(made.detail) != count:
                    raise Violation(f"{where}: detail has {len(made.detail)} entries for {count} samples")
                json.dumps([None if one is None else dict(one) for one in made.detail], allow_nan=False)
            if made.points is not None and made.points.shape != subject.x.shape:
                raise Violation(f"{where}: points are {list(made.points.shape)}")
            if made.points is not None and not getattr(case.certifier, "complete", False):
                raise Violation(f"{where}: points from a certifier that does not say `complete = True`")
            for lower, status in zip(made.lower.tolist(), made.status, strict=True):
                if status == "certified" and not (lower >= eps if case.per_eps else lower > 0):
                    raise Violation(f"{where}: certified with lower = {lower:.6g} at ε = {eps:.6g}")
            looked += 1
    return f"{looked} settings"


def _confidence(case: CertifierCase) -> str:
    for subject, norm, where in case.each(*_linears(), *_nets()):
        made = case.ask(subject, norm, case.budgets(subject, norm)[0])
        sure = torch.ones(len(subject.x)) if made.confidence is None else made.confidence.cpu().double()
        if tuple(sure.shape) != (len(subject.x),) or not bool(((sure > 0) & (sure <= 1)).all()):
            raise Violation(f"{where}: confidence is {sure.tolist()}")
        if case.deterministic != bool((sure == 1).all()):
            raise Violation(f"{where}: deterministic is {case.deterministic}, confidence is {sure.tolist()}")
    return "1 for proofs, below 1 for statistical statements"


def _sound(case: CertifierCase, subjects: list[Subject]) -> str:
    best, claims = 0.0, 0
    for subject, norm, where in case.each(*subjects):
        exact = subject.radius(norm)
        for eps in case.budgets(subject, norm):
            lower = case.proven(case.ask(subject, norm, eps))
            if (wrong := lower > exact * (1 + 1e-9)).any():
                i = int(wrong.nonzero()[0, 0])
                raise Violation(
                    f"{where}: sample {i} certified to {float(lower[i]):.9g}, "
                    f"but there is a misclassified point at distance {float(exact[i]):.9g}"
                )
            claims += int((lower > 0).sum())
            best = max(best, float((lower / exact).max()))
    return f"{claims} certificates, the largest {best:.4f} of the known radius"


def _closed(case: CertifierCase) -> str:
    subject = tie()
    for _, norm, where in case.each(subject):
        exact = subject.radius(norm)
        for eps in exact.tolist() if case.per_eps else [1.0]:
            lower = case.proven(case.ask(subject, norm, eps))
            if (wrong := lower >= exact).any():
                i = int(wrong.nonzero()[0, 0])
                raise Violation(
                    f"{where}: the closed ball of radius {float(lower[i])} certified, but its boundary holds "
                    f"a tie, at distance {float(exact[i])} exactly"
                )
    return "no certified ball touches the decision boundary"


def _useful(case: CertifierCase) -> str:
    for subject, norm, _ in case.each(linear(), relu_net((2, 4, 2), seed=11)):
        eps = float(subject.radius(norm).min()) / 1000
        if (case.proven(case.ask(subject, norm, eps)) > 0).any():
            return f"certified on {subject.name}"
    raise Violation("nothing certified at a thousandth of the smallest known radius")


def _same(case: CertifierCase, parts: Callable[[int], list[Tensor]]) -> None:
    for subject, norm, where in case.each(linear(), linear(3, (1, 4, 4)), relu_net()):
        eps = float(subject.radius(norm).median()) / 2
        whole = case.ask(subject, norm, eps)
        for part in parts(len(subject.x)):
            made = case.ask(subject, norm, eps, part)
            if list(made.status) != [whole.status[i] for i in part.tolist()]:
                raise Violation(f"{where}: samples {part.tolist()} have another status in another batch")
            if not torch.allclose(case.proven(made), case.proven(whole)[part], rtol=1e-9, atol=0):
                raise Violation(f"{where}: samples {part.tolist()} have another radius in another batch")


def _repeat(case: CertifierCase) -> str:
    for subject, norm, where in case.each(linear(), linear(3, (1, 4, 4), dtype=torch.float32), relu_net()):
        eps = float(subject.radius(norm).median()) / 2
        first, second = case.ask(subject, norm, eps), case.ask(subject, norm, eps)
        if not torch.equal(first.lower, second.lower) or list(first.status) != list(second.status):
            raise Violation(f"{where}: asked twice, {first.lower.tolist()} and {second.lower.tolist()}")
    return "equal to the bit"


def _single(case: CertifierCase) -> str:
    _same(case, lambda count: [torch.tensor([i]) for i in range(count)])
    return "batches of one gave what the whole batch gave"


def _order(case: CertifierCase) -> str:
    _same(case, lambda count: [torch.arange(count).roll(3).flip(0)])
    return "permuted samples gave permuted certificates"


def _empty(case: CertifierCase) -> str:
    for subject, norm, where in case.each(linear(), linear(3, (1, 4, 4)), relu_net()):
        made = case.ask(subject, norm, 0.1, torch.zeros(0, dtype=torch.int64))
        if tuple(made.lower.shape) != (0,) or len(made.status):
            raise Violation(f"{where}: lower {list(made.lower.shape)} and {len(made.status)} statuses for no samples")
    return "no samples, no certificates"


def _misclassified(case: CertifierCase) -> str:
    for subject, norm, where in case.each(linear(), linear(3, (1, 4, 4)), relu_net()):
        others = (subject.y + 1) % subject.classifier.classes
        lower = case.proven(case.ask(subject, norm, float(subject.radius(norm).min()) / 1000, labels=others))
        if (lower > 0).any():
            raise Violation(f"{where}: a misclassified sample certified to {float(lower.max()):.6g}")
    return "nothing certified"


def _overflow(case: CertifierCase) -> str:
    looked = 0
    for subject, norm, where in case.each(*overflowing()):
        try:
            lower = case.proven(case.ask(subject, norm, 1.0))
        except RobenchError:
            continue  # refused, with a message for the user
        looked += 1
        if (lower > subject.radius(norm)).any():
            raise Violation(f"{where}: certified to {lower.tolist()}, the radii are {subject.radius(norm).tolist()}")
    return f"nothing false in {looked} settings; refused where there is no more"


def _device(case: CertifierCase) -> str:
    if not torch.cuda.is_available():
        raise NotApplicable("no CUDA device here")
    for subject, norm, where in case.each(linear(), linear(domain=Domain.unbounded())):
        exact = subject.radius(norm)
        subject.classifier.to(torch.device("cuda"))
        lower = case.proven(case.ask(subject, norm, float(exact.median()) / 2))
        subject.classifier.to(torch.device("cpu"))
        if (lower > exact).any():
            raise Violation(f"{where}: an unsound certificate")
    return "sound there too"


def _left(topic: str) -> Callable[[CertifierCase], str]:
    def run(case: CertifierCase) -> str:
        for subject, norm, where in case.each(linear(), linear(3, (1, 4, 4), dtype=torch.float32), relu_net()):
            case.traces = Traces()
            for _ in range(2):
                case.ask(subject, norm, float(subject.radius(norm).median()) / 2)
            case.traces.refuse(topic, where)
        return "as it was"

    return run


CHECKS: list[Check[CertifierCase]] = [
    Check(
        "shape",
        "per sample a float64 lower ≥ 0 and a known status; certified means lower ≥ ε, or > 0 for a radius",
        "the runner refuses others, and counts a certificate below ε as open",
        _shape,
    ),
    Check(
        "confidence",
        "1 (or None) for proofs, below 1 for statistical statements, as `deterministic` says",
        "statements that may be wrong are combined by a union bound only",
        _confidence,
    ),
    Check(
        "sound on linear classifiers",
        "no certificate above the exact radius, in a box or without, in both precisions",
        "a certificate above a misclassified point is false",
        lambda case: _sound(case, _linears()),
    ),
    Check(
        "sound on small networks",
        "no certificate above a misclassified point found by dense search",
        "a certificate above a misclassified point is false",
        lambda case: _sound(case, _nets()),
    ),
    Check(
        "closed balls",
        "`lower` is a closed ball's radius: strictly below the distance of the nearest tie",
        "a tie is an error; open-ball radii are stored one double lower (robench.numerics.open_to_closed)",
        _closed,
    ),
    Check("useful", "something is certified at a thousandth of the radius", "0 is always sound", _useful),
    Check("repeat", "equal streams give equal certificates", "a run must be repeatable", _repeat),
    Check(
        "single",
        "a sample alone gets the same certificate as in a batch",
        "results must not depend on the batch size",
        _single,
    ),
    Check("order", "permuted samples get permuted certificates", "runs are resumed and sharded by sample", _order),
    Check("empty", "an empty batch gives empty certificates", "settled samples leave, sometimes all of them", _empty),
    Check(
        "misclassified",
        "nothing is certified about a misclassified sample",
        "rounding differs between two passes near a tie, and its radius is 0",
        _misclassified,
    ),
    Check(
        "overflow",
        "where sums overflow or weights are NaN, nothing is certified beyond the radius",
        "NaN compares as false: a certificate must need a true comparison, not the absence of a false one",
        _overflow,
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
    Check("device", "the certifier runs where the classifier is", "nothing may assume the CPU", _device),
]


def certifier_findings(certifier: Certifier, choice: Choice = ALL) -> list[Finding]:
    """Run every check of certifiers, or of certifiers of votes."""
    if certifies_votes(certifier):
        return run_checks(VOTE_CHECKS, VoteCase(certifier), choice)
    return run_checks(CHECKS, CertifierCase(certifier), choice)
