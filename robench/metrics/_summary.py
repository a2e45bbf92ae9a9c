"""The figures of a subject at one (norm, ε), and the document that `eval --json` prints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from robench.bounds import Ceiling, Ceilings
from robench.metrics._compare import certified_at
from robench.metrics._evaluators import EvaluatorCounts, evaluator_table
from robench.metrics._flags import BLOCKING, Flag, flags_at
from robench.metrics._health import Health, health
from robench.metrics._intervals import Interval, clopper_pearson
from robench.metrics._random import random_results
from robench.metrics._statement import RHO, DatasetStatement, dataset_statement
from robench.metrics._subject import RunLike, Subject, subjects
from robench.metrics._trust import Audit, audit_of
from robench.threat import Epsilon, Norm

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["LEVEL", "Result", "Share", "in_order", "joint_interval", "result_at", "results", "summarise"]

LEVEL = 0.95


@dataclass(frozen=True)
class Share:
    """A fraction of n samples with its Clopper-Pearson interval (about the population they were drawn from)."""

    count: int
    n: int
    level: float = LEVEL

    @property
    def value(self) -> float | None:
        """The fraction; None of no samples."""
        return self.count / self.n if self.n else None

    @property
    def interval(self) -> Interval:
        """The exact interval at `level`."""
        return clopper_pearson(self.count, self.n, self.level)


@dataclass(frozen=True)
class Result:
    """One classifier on one split at one (norm, ε).

    Attributes:
        subject: the classifier, the split and all rows about them.
        norm: the norm.
        eps: the budget, as given.
        n: number of samples.
        clean: fraction classified correctly.
        certified: fraction proven robust; None where no certifier was asked.
        empirical: fraction that nothing broke; None where no attack was asked.
        ceiling: what no classifier is above on exactly these samples, the lowest that is known; None where none is.
        abstained: samples on whose clean input a vote abstained: not correct.
        average_radius: mean over the samples of the radius certified, 0 where none is (ACR, Zhai et al. 2020), in the
            domain's units; None unless a certificate of this norm gave radii, all of them finite.
        statement: what statistical certificates say about all samples together; None where none is used.
        confidence: the lowest confidence of a statement used; 1 for proofs, None where a source does not tell.
        contradictions: samples where a proof reaches a verified misclassified point.
        errors: samples with a row that ended in error.
        audit: what came of the audit, where attacks trusted certificates (then no cost is claimed); None elsewhere.
        health: whether the ground under the attacks was probed, and what was found; None where no attack was asked.
        flags: what a reader must know.
        evaluators: what each evaluator did.
    """

    subject: Subject
    norm: Norm
    eps: Epsilon
    n: int
    clean: Share
    certified: Share | None
    empirical: Share | None
    ceiling: Ceiling | None
    abstained: int
    average_radius: float | None
    statement: DatasetStatement | None
    confidence: float | None
    contradictions: int
    errors: int
    health: Health | None
    audit: Audit | None
    flags: tuple[Flag, ...]
    evaluators: tuple[EvaluatorCounts, ...]

    @property
    def joint_interval(self) -> Interval:
        """The bracket's confidence interval: it covers the population's robust accuracy at the level of the shares.

        Half of the error on each side: the lower end of the certified accuracy's interval, less the rate at which
        statistical certificates may be wrong, and the upper end of the empirical one's. An open side is 0 or the
        clean accuracy's upper end; a side is open where a source does not tell how often it is wrong. The ceiling does
        not enter: it is about these samples, not about the population.
        """
        return joint_interval(self.clean, self.certified, self.empirical, self.confidence)

    @property
    def forwards(self) -> int:
        """Rows passed forwards through the classifier by everything that speaks about (norm, ε)."""
        return sum(counts.forwards for counts in self.evaluators)

    @property
    def backwards(self) -> int:
        """Rows passed backwards."""
        return sum(counts.backwards for counts in self.evaluators)

    @property
    def seconds(self) -> float:
        """Wall time of the evaluators."""
        return sum(counts.seconds for counts in self.evaluators)

    @property
    def rankable(self) -> bool:
        """Whether no flag stands against placing the row among others."""
        return not any(flag.code in BLOCKING for flag in self.flags)

    def document(self) -> dict[str, Any]:
        """Return the entry of `eval --json`; a side that was switched off is None."""
        shares = {
            "clean_accuracy": self.clean,
            "certified_accuracy": self.certified,
            "empirical_accuracy": self.empirical,
        }
        intervals = {name: list(share.interval) if share else None for name, share in shares.items()}
        return {
            "classifier": self.subject.classifier,
            "fingerprint": self.subject.fingerprint,
            "dataset": self.subject.dataset,
            "norm": self.norm,
            "eps": self.eps.text,
            "eps_value": None if self.subject.regions else self.eps.value,
            "n": self.n,
            **{name: share.value if share else None for name, share in shares.items()},
            "ceiling": self.ceiling.value if self.ceiling else None,
            "abstained": self.abstained,
            "average_certified_radius": self.average_radius,
            "statistical": asdict(self.statement) if self.statement else None,
            "intervals": {"level": LEVEL, "method": "clopper-pearson", **intervals, "joint": list(self.joint_interval)},
            "contradictions": self.contradictions,
            "errors": self.errors,
            "health": self.health.document() if self.health else None,
            "audit": asdict(self.audit) if self.audit else None,
            "randomized": None,
            "flags": [asdict(flag) for flag in self.flags],
            "evaluators": [asdict(counts) for counts in self.evaluators],
        }


def joint_interval(
    clean: Share, certified: Share | None, empirical: Share | None, confidence: float | None
) -> Interval:
    """Return the interval of `Result.joint_interval` from the shares of a bracket."""
    slack = 1.0 if confidence is None else 1.0 - confidence
    lower = certified.interval.lower - slack if certified else 0.0
    upper = (empirical or clean).interval.upper
    upper = min(1.0, upper + slack) if empirical else upper
    return Interval(max(0.0, lower), upper)


_NONE = Ceilings()


def result_at(subject: Subject, norm: Norm, eps: Epsilon, ceilings: Ceilings = _NONE) -> Result:
    """Return the figures of `subject` at (norm, ε), whether or not anything was searched there."""
    ceiling = ceilings.at(subject.dataset_hash, subject.split, subject.samples_hash, norm, eps.value)
    ceiling = ceiling if subject.regions is None else None  # those are about balls of one ε
    radii, n = subject.radii(norm), len(subject.samples)
    attacked, certified = _sides(subject)
    found = health(subject, norm, eps.value) if attacked else None
    table = evaluator_table(subject, norm, eps.value)
    statement = _statement(subject, norm, eps.value) if certified else None
    audit = audit_of(subject, norm, eps.value)
    rows = subject.rows
    wrong = (rows["status"] == "error") & ((rows["norm"] == norm) | (rows["kind"] == "clean"))
    exact = rows["eps"].isna() | (rows["eps"] == eps.value)
    return Result(
        subject=subject,
        norm=norm,
        eps=eps,
        n=n,
        clean=_share(subject.correct),
        certified=_share(radii.certified(eps.value)) if certified else None,
        empirical=_share(radii.empirical(eps.value)) if attacked else None,
        ceiling=ceiling,
        abstained=int(subject.abstained.sum()),
        average_radius=_average_radius(subject, norm) if certified else None,
        statement=statement,
        confidence=radii.confidence(eps.value),
        contradictions=int(radii.contradictions().sum()),
        errors=int(rows.loc[wrong & exact, "sample"].nunique()),
        health=found,
        audit=audit,
        flags=flags_at(
            subject,
            norm,
            eps.value,
            attacked=attacked,
            certified=certified,
            ceiling=ceiling,
            health=found,
            statement=statement,
            audit=audit,
        ),
        evaluators=tuple(table),
    )


def results(runs: Sequence[RunLike], ceilings: Ceilings = _NONE) -> list[Result]:
    """Return one result per subject and (norm, ε) that was asked for, runs about one function merged.

    Those about classifiers that draw are `random_results`.
    """
    return [
        result_at(subject, norm, eps, ceilings)
        for subject in subjects(runs)
        for norm, epsilons in subject.requested.items()
        for eps in epsilons
    ]


def in_order(found: Iterable[Result], runs: Sequence[RunLike]) -> list[Result]:
    """Return the results in the order in which `runs` speak about their classifiers."""
    order: dict[str, int] = {}
    for run in runs:
        order.setdefault(run.manifest.classifier.fingerprint, len(order))
    return sorted(found, key=lambda result: order.get(result.subject.fingerprint, len(order)))


def summarise(
    runs: Sequence[RunLike],
    ceilings: Ceilings = _NONE,
    *,
    ordered: bool = False,
    found: Sequence[Result] | None = None,
) -> dict[str, Any]:
    """Return the document of `eval --json` about `runs`; `ordered`: classifiers in the order of the runs.

    `run` is the run's id, or a list of ids for several. `found` are the runs' `results`, where they are known already.
    """
    names = sorted({run.manifest.run for run in runs})
    found = results(runs, ceilings) if found is None else found
    return {
        "schema": 1,
        "run": names[0] if len(names) == 1 else names,
        "results": [
            *(result.document() for result in (in_order(found, runs) if ordered else found)),
            *(result.document() for result in random_results(runs)),
        ],
    }


def _average_radius(subject: Subject, norm: Norm) -> float | None:
    rows = subject.rows
    if not (rows["kind"].isin(("certificate", "verifier")) & (rows["norm"] == norm) & rows["eps"].isna()).any():
        return None
    radii = subject.radii(norm)
    mean = float(radii.best_lower[radii.correct].sum() / len(radii.sample))
    return mean if math.isfinite(mean) else None


def _statement(subject: Subject, norm: Norm, eps: float) -> DatasetStatement | None:
    """Return what all certificates at ε say together where some are only claimed; None where no α is told."""
    radii = subject.radii(norm)
    used = radii.certified(eps)
    # Of all samples that a claim was tried for, whatever came out: α must not depend on that.
    alpha = float((1.0 - radii.lower_confidence).max(initial=0.0))
    if not (used & ~certified_at(radii.lower, eps)).any() or math.isnan(alpha):
        return None
    return dataset_statement(len(used), alpha, RHO, int(used.sum()))


def _share(hits: npt.NDArray[np.bool_]) -> Share:
    return Share(int(hits.sum()), len(hits))


def _sides(subject: Subject) -> tuple[bool, bool]:
    """Whether attacks and certificates were asked for, with rows or without (all settled before their turn)."""
    kinds = set(map(str, subject.rows["kind"].unique())) | {info.kind for info in subject.silent}
    return bool(kinds & {"attack", "verifier"}), bool(kinds & {"certificate", "verifier"})
