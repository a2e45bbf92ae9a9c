"""What every certifier of votes must do: `check_certifier`, where one certifies smoothed classifiers.

Its certificates may be wrong, at their rate: what is checked is the number of those that are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy.stats import binom
from torch import Tensor

from robench.contracts import Certificates, CountingCertifier
from robench.streams import Stream
from robench.testing._findings import Check, NotApplicable, Violation
from robench.testing._guard import Traces, watch
from robench.testing._linear_vote import SIGMA, LinearVote, exact_radius
from robench.threat import NORMS, Domain, Norm, Threat

__all__ = ["VOTE_CHECKS", "VoteCase", "certifies_votes"]

_MANY = 1000
_SURE = 0.9999
_FEW = (2.0, 1.0, 0.5, 0.1, 0.0, -0.5)


def certifies_votes(certifier: Any) -> bool:
    """Whether a certifier makes statistical statements about smoothed classifiers."""
    if getattr(certifier, "deterministic", True):
        return False
    applies = getattr(certifier, "applies", None)
    try:
        return applies is None or any(applies(LinearVote(), norm) is None for norm in NORMS)
    except Exception:  # it does not know such a classifier
        return False


@dataclass
class VoteCase:
    """A certifier of votes, and how it is asked. Margins are in units of the noise's standard deviation."""

    certifier: Any
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    traces: Traces = field(default_factory=Traces)

    @property
    def per_eps(self) -> bool:
        """Whether it works at one ε at a time."""
        return bool(getattr(self.certifier, "per_eps", True))

    @property
    def voter(self) -> LinearVote:
        """The vote that is certified."""
        return LinearVote(device=self.device)

    def norms(self) -> Iterator[Norm]:
        """Yield the norms that it certifies in."""
        applies = getattr(self.certifier, "applies", None)
        yield from (norm for norm in NORMS if applies is None or applies(self.voter, norm) is None)

    def exact(self, margin: float, norm: Norm) -> float:
        """Return the robust radius at a margin."""
        return max(exact_radius(margin * SIGMA, norm, self.voter.input_shape[0]), 0.0)

    def ask(
        self,
        margins: tuple[float, ...],
        norm: Norm,
        eps: float,
        rows: list[int] | None = None,
        label: int = 1,
    ) -> Certificates:
        """Return certificates at ε, or radii where it gives radii; `rows` chooses samples and their streams."""
        rows = list(range(len(margins))) if rows is None else rows
        x = self.voter.at([margins[i] * SIGMA for i in rows])
        y = torch.full((len(rows),), label, dtype=torch.int64, device=self.device)
        stream = Stream.for_samples(0, "conformance", rows, self.device)
        with watch(self.traces, x=x, y=y):
            made = self.certifier.certify(self.voter, x, y, self.threat(norm, eps), stream)
        if not isinstance(made, Certificates):
            raise Violation(f"certify returned {type(made).__name__}, not Certificates")
        return made

    def threat(self, norm: Norm, eps: float) -> Threat:
        """Return the threat that it is asked about."""
        return Threat(norm, eps if self.per_eps else None, Domain.unbounded())

    def proven(self, made: Certificates) -> Tensor:
        """Return the radius [B] that counts as proven."""
        said = torch.tensor([status == "certified" for status in made.status], dtype=torch.bool)
        return torch.where(said, made.lower.detach().cpu().double(), 0.0)

    def details(self, made: Certificates) -> list[Any]:
        """Return the details as a table of evidence keeps them. NotApplicable without any."""
        if made.detail is None:
            raise NotApplicable("its certificates have no details")
        return [json.loads(json.dumps(None if one is None else dict(one), allow_nan=False)) for one in made.detail]


def _shape(case: VoteCase) -> str:
    for norm in case.norms():
        eps = case.exact(0.5, norm)
        made = case.ask(_FEW, norm, eps)
        if made.lower.dtype != torch.float64 or made.lower.shape != (len(_FEW),) or not bool((made.lower >= 0).all()):
            raise Violation(f"{norm}: lower is {made.lower.dtype} {made.lower.tolist()}")
        known = {"certified", "open", "abstain", "timeout", "error"}
        if len(made.status) != len(_FEW) or set(made.status) - known:
            raise Violation(f"{norm}: status is {list(made.status)}")
        for lower, status in zip(made.lower.tolist(), made.status, strict=True):
            if status == "certified" and not (lower >= eps if case.per_eps else lower > 0):
                raise Violation(f"{norm}: certified with lower = {lower:.6g} at ε = {eps:.6g}")
        if made.detail is not None and len(made.detail) != len(_FEW):
            raise Violation(f"{norm}: detail has {len(made.detail)} entries for {len(_FEW)} samples")
        if made.detail is not None:
            case.details(made)
    return f"in {' and '.join(case.norms())}"


def _alpha(made: Certificates) -> float:
    sure = torch.ones(1) if made.confidence is None else made.confidence.cpu().double()
    if made.confidence is not None and sure.shape != made.lower.shape:
        raise Violation(f"confidence has shape {list(sure.shape)}")
    if not bool(((sure > 0) & (sure < 1)).all()):
        raise Violation(f"confidence is {sure.tolist()[:4]}…, of statements that may be wrong")
    return 1 - float(sure.min())


def _confidence(case: VoteCase) -> str:
    alpha = max(_alpha(case.ask(_FEW, norm, case.exact(0.5, norm))) for norm in case.norms())
    return f"wrong at a rate of at most {alpha:g}"


def _sound(case: VoteCase) -> str:
    seen = []
    for norm in case.norms():
        for margin in (0.0, 0.3, 1.0, 2.0):
            exact = case.exact(margin, norm)
            made = case.ask((margin,) * _MANY, norm, exact or case.exact(0.01, norm))
            lower = case.proven(made)
            # The boundary is a tie: the closed ball that reaches it is not robust.
            false = int(((lower > 0) & (lower >= exact)).sum())
            allowed = int(binom.ppf(_SURE, _MANY, _alpha(made)))
            if false > allowed:
                raise Violation(
                    f"{norm}: of {_MANY} votes whose radius is {exact:.6g}, {false} certified to it or beyond, "
                    f"the farthest to {float(lower.max()):.6g}: by chance at most {allowed}"
                )
            seen.append(false)
    return f"{sum(seen)} false ones of {len(seen) * _MANY}, never more at once than chance allows"


def _useful(case: VoteCase) -> str:
    for norm in case.norms():
        made = case.ask((2.0,) * 20, norm, case.exact(1.0, norm))
        if int((case.proven(made) > case.exact(0.5, norm)).sum()) < 15:
            raise Violation(f"{norm}: of 20 votes at two deviations from the boundary, hardly any certified")
    return "votes far from the boundary are certified"


def _misclassified(case: VoteCase) -> str:
    for norm in case.norms():
        made = case.ask((1.0,) * _MANY, norm, case.exact(0.01, norm), label=0)
        wrong = int((case.proven(made) > 0).sum())
        if wrong > int(binom.ppf(_SURE, _MANY, _alpha(made))):
            raise Violation(f"{norm}: {wrong} of {_MANY} certified with a label that loses the vote")
    return "nothing certified"


def _same(case: VoteCase, parts: list[list[int]]) -> None:
    for norm in case.norms():
        eps = case.exact(0.5, norm)
        whole = case.ask(_FEW, norm, eps)
        for part in parts:
            made = case.ask(_FEW, norm, eps, part)
            if list(made.status) != [whole.status[i] for i in part] or not torch.equal(made.lower, whole.lower[part]):
                raise Violation(f"{norm}: samples {part} have other certificates than in another batch")


def _repeat(case: VoteCase) -> str:
    _same(case, [list(range(len(_FEW)))] * 2)
    return "equal to the bit"


def _batches(case: VoteCase) -> str:
    _same(case, [[i] for i in range(len(_FEW))] + [[3, 0, 5, 1, 4, 2], [4, 2]])
    return "alone, in another order, in another batch"


def _empty(case: VoteCase) -> str:
    for norm in case.norms():
        made = case.ask(_FEW, norm, case.exact(0.5, norm), [])
        if tuple(made.lower.shape) != (0,) or len(made.status):
            raise Violation(f"{norm}: lower {list(made.lower.shape)} and {len(made.status)} statuses for no samples")
    return "no samples, no certificates"


def _counting(case: VoteCase) -> Any:
    """Return the certifier as one that replay asks. NotApplicable where it is none, and is not meant to be."""
    if isinstance(case.certifier, CountingCertifier):
        return case.certifier
    if half := [name for name in ("rederive", "recount") if hasattr(case.certifier, name)]:
        raise Violation(f"it has {' and '.join(half)}, and yet is no CountingCertifier: something of it is missing")
    raise NotApplicable("it derives nothing again")


def _rederived(case: VoteCase) -> str:
    certifier, wrongs = _counting(case), (-1, 10**30, "many", None, True, 0.5)
    for norm in case.norms():
        threat = case.threat(norm, case.exact(0.5, norm))
        made = case.ask(_FEW * 5, norm, case.exact(0.5, norm))
        details, y = case.details(made), torch.ones(len(_FEW) * 5, dtype=torch.int64, device=case.device)
        again = certifier.rederive(case.voter, y, details, threat)
        for name, said, now in (("status", made.status, again.status), ("lower", made.lower, again.lower)):
            if len(said) != len(now):
                raise Violation(f"{norm}: {len(now)} of {name} for {len(said)} samples")
        for i, detail in enumerate(details):
            lower, found = float(made.lower[i]), float(again.lower[i])
            if not abs(found - lower) <= 1e-9 * lower or again.status[i] != made.status[i]:
                proved = f"{made.status[i]} {lower:.9g}, and {again.status[i]} {found!r}"
                raise Violation(f"{norm}: {detail} proved {proved} when derived again")
        if not torch.equal(_surety(again), _surety(made)):
            raise Violation(f"{norm}: confidence {_surety(again).tolist()[:4]}… when derived again")
        for wrong in wrongs:
            counts = [
                {key: wrong if isinstance(value, int) else value for key, value in one.items()} for one in details
            ]
            _nothing(certifier.rederive(case.voter, y, counts, threat), counts, f"{norm}: no counts")
        _nothing(
            certifier.rederive(case.voter, 1 - y, details, threat), details, f"{norm}: another class than the label"
        )
    return "the counts prove what was said; what are no counts, or another class's, prove nothing"


def _nothing(made: Certificates, details: list[Any], what: str) -> None:
    for found, said, detail in zip(made.lower.tolist(), made.status, details, strict=True):
        if found > 0 or said == "certified":
            raise Violation(f"{what}, and {said} {found!r} derived from {detail}")


def _surety(made: Certificates) -> Tensor:
    return torch.ones_like(made.lower) if made.confidence is None else made.confidence


def _recounted(case: VoteCase) -> str:
    certifier = _counting(case)
    for norm in case.norms():
        eps = case.exact(0.5, norm)
        margins = (2.0, 1.0, 0.5, 0.2) * 50
        details = case.details(case.ask(margins, norm, eps))
        stream = Stream.for_samples(1, "conformance", range(len(margins)), case.device)
        x = case.voter.at([margin * SIGMA for margin in margins])
        honest = list(certifier.recount(case.voter, x, details, case.threat(norm, eps), stream))
        if len(honest) != len(margins) or any(one is not None for one in honest):
            raise Violation(f"{norm}: of {len(margins)} honest counts it said {[one for one in honest if one][:1]}")
        # The counts of a safe sample, said of one as far behind the boundary: few draws are enough to see it.
        planted = [details[i - i % 4] for i in range(len(details))]
        found = list(
            certifier.recount(case.voter, -x[::4].repeat_interleave(4, 0), planted, case.threat(norm, eps), stream)
        )
        if not all(isinstance(one, str) and one for one in found):
            raise Violation(f"{norm}: counts of 98 % of the draws pass where the class has 2 %")
    return "honest counts pass, planted ones do not"


def _left(topic: str) -> Callable[[VoteCase], str]:
    def run(case: VoteCase) -> str:
        case.traces = Traces()
        for norm in [*case.norms()] * 2:
            case.ask(_FEW, norm, case.exact(0.5, norm))
        case.traces.refuse(topic, "certify")
        return "as it was"

    return run


def _device(case: VoteCase) -> str:
    if not torch.cuda.is_available():
        raise NotApplicable("no CUDA device here")
    return _sound(VoteCase(case.certifier, torch.device("cuda")))


VOTE_CHECKS: list[Check[VoteCase]] = [
    Check(
        "shape",
        "per sample a float64 lower ≥ 0 and a known status; certified means lower ≥ ε, or > 0 for a radius",
        "the runner refuses others, and counts a certificate below ε as open",
        _shape,
    ),
    Check("confidence", "below 1, for each sample", "statements that may be wrong are combined as such", _confidence),
    Check(
        "sound on votes",
        "no more false certificates than their confidence allows, at the radius itself and at a tie",
        "a certificate above a misclassified point is false",
        _sound,
    ),
    Check("useful", "votes far from the boundary are certified", "0 is always sound", _useful),
    Check(
        "misclassified",
        "nothing is certified about a class that loses the vote",
        "the label of a sample need not be its class",
        _misclassified,
    ),
    Check("repeat", "equal streams give equal certificates", "a run must be repeatable", _repeat),
    Check("batches", "a sample has the same certificate in any batch", "runs are resumed and sharded", _batches),
    Check("empty", "an empty batch gives empty certificates", "settled samples leave, sometimes all of them", _empty),
    Check(
        "derived again",
        "`rederive` says what was said from the counts in the detail alone, and proves nothing from what are no counts",
        "replay asks it about files of others",
        _rederived,
    ),
    Check(
        "drawn again",
        "`recount` lets honest counts pass and finds planted ones",
        "replay asks it whether counts can be right",
        _recounted,
    ),
    Check(
        "random state",
        "the global random state is neither used nor set: draws come from the stream",
        "other code in the process must see what it would have seen",
        _left("random"),
    ),
    Check("inputs", "samples and labels are not written to", "others go on with the same tensors", _left("inputs")),
    Check("device", "the certifier runs where the classifier is", "nothing may assume the CPU", _device),
]
