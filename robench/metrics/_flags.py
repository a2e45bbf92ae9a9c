"""What a reader of a number must know about it: one code and one sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robench.metrics._beyond import beyond
from robench.metrics._chance import contradictions_by_chance
from robench.metrics._compare import above, certified_at, falsified_at
from robench.metrics._evaluators import relevant
from robench.threat import Norm

if TYPE_CHECKING:
    import pandas as pd

    from robench.bounds import Ceiling
    from robench.metrics._health import Health
    from robench.metrics._statement import DatasetStatement
    from robench.metrics._subject import Subject
    from robench.metrics._trust import Audit

__all__ = ["BLOCKING", "Flag", "flags_at"]

BLOCKING = frozenset(
    {
        *("audit-failed", "chance-contradictions", "contradictions", "coverage", "disputed", "errors", "incomplete"),
        "unsearched",
    }
)
"""Codes that keep a row from being ranked."""


_TRUST = {
    "imported": "published per-sample results, not measured here",
    "aggregate": "published totals, not measured here",
    "self-reported": "reported by its authors, not measured here",
}


@dataclass(frozen=True, order=True)
class Flag:
    """Something that a reader of the numbers must know; `code` is for programs, `text` for people."""

    code: str
    text: str


def flags_at(
    subject: Subject,
    norm: Norm,
    eps: float,
    *,
    attacked: bool,
    certified: bool,
    ceiling: Ceiling | None = None,
    health: Health | None = None,
    statement: DatasetStatement | None = None,
    audit: Audit | None = None,
) -> tuple[Flag, ...]:
    """Return the flags of a subject at (norm, ε), sorted by code, each once."""
    found = {
        *_run_flags(subject),
        *_evidence_flags(subject, norm, eps, attacked, certified, trusting=audit is not None),
        *_chance_flags(subject, norm, eps, statement),
        *(_ceiling_flags(subject, norm, eps, attacked, ceiling) if ceiling else ()),
        *(_health_flags(health) if health else ()),
        *(_audit_flags(audit) if audit else ()),
    }
    return tuple(sorted(found))


def _run_flags(subject: Subject) -> Iterator[Flag]:
    for manifest in subject.runs:
        if not manifest.complete:
            yield Flag("incomplete", f"run {manifest.run} is not complete: go on with --resume")
        if manifest.origin == "imported":
            yield Flag("imported", _TRUST.get(manifest.trust, manifest.trust))
        elif manifest.classifier.opaque and manifest.classifier.fingerprint == subject.fingerprint:
            yield Flag("opaque", "the classifier has no graph: evidence is about the map as executed")
        for flag in manifest.flags:
            yield Flag(flag.code, flag.text)


def _evidence_flags(
    subject: Subject, norm: Norm, eps: float, attacked: bool, certified: bool, *, trusting: bool
) -> Iterator[Flag]:
    radii, rows = subject.radii(norm), relevant(subject.rows, norm, eps)
    contradictions = int(radii.contradictions().sum())
    if contradictions:
        yield Flag(
            "contradictions", f"{_samples(contradictions)} certified beyond a verified counterexample: `robench check`"
        )
    if len(subject.disputed):
        yield Flag("disputed", f"rows disagree about the clean prediction of {_samples(len(subject.disputed))}")
    errors = _distinct(rows[rows["status"] == "error"])
    if errors:
        yield Flag("errors", f"{_samples(errors)} ended in error: counted as unbroken and as not certified")
    numerical = _distinct(rows[rows["numerical"]])
    if numerical:
        yield Flag("numerical", f"{_samples(numerical)} left open within rounding error of the decision boundary")
    if attacked != certified:
        yield Flag("one-sided", "only attacked: no certificates" if attacked else "only certified: no attacks")
    at_eps = rows[rows["kind"] != "clean"]
    if attacked:
        settled = falsified_at(radii.best_upper, eps)
        settled |= certified_at(radii.lower, eps) if trusting else False
        yield from _coverage(subject, at_eps, settled, ("attack", "verifier"), "attacked", eps)
    if certified:
        settled = falsified_at(radii.best_upper, eps) | certified_at(radii.best_lower, eps)
        yield from _coverage(subject, at_eps, settled, ("certificate", "verifier"), "given to a certifier", eps)


def _coverage(
    subject: Subject, rows: pd.DataFrame, settled: np.ndarray, kinds: tuple[str, ...], what: str, eps: float
) -> Iterator[Flag]:
    """Say where correct samples that nothing settles at ε were never looked at."""
    seen = rows.loc[rows["kind"].isin(kinds), "sample"].to_numpy()
    waiting = subject.correct & ~settled
    missed = int((waiting & ~np.isin(subject.samples, seen)).sum())
    if missed and missed == int(waiting.sum()) and not len(seen):
        where = f"at ε = {eps:g} itself" if subject.regions is None else "with its own set"
        yield Flag("unsearched", f"no sample was {what} {where}: values carry over from elsewhere")
    elif missed:
        yield Flag("coverage", f"{missed} of {int(subject.correct.sum())} correct samples were never {what}")


def _chance_flags(subject: Subject, norm: Norm, eps: float, statement: DatasetStatement | None) -> Iterator[Flag]:
    radii = subject.radii(norm)
    confidence = radii.confidence(eps)
    if confidence is None:
        yield Flag("confidence-unknown", "rests on statistical evidence whose confidence the source does not tell")
    elif confidence < 1:
        together = (
            f"; no more than {statement.false_at_most} of the {statement.certified} "
            f"certificates fail, with confidence {1 - statement.rho:g}"
            if statement
            else ""
        )
        text = f"each sample's statement holds with confidence {confidence:.6g}, not surely{together}"
        yield Flag("probabilistic", text)
    found = contradictions_by_chance(radii)
    if not found.observed:
        return
    text = f"{_samples(found.observed)} with statistical bounds that contradict each other"
    if found.expected is None:
        yield Flag("confidence-unknown", f"{text}: nothing can be concluded, their source tells no confidence")
    elif found.too_many:
        yield Flag("chance-contradictions", f"{text}; no more than {found.expected} of {found.n} are expected")
    else:
        yield Flag("probabilistic", f"{text}; up to {found.expected} of {found.n} are expected")


def _ceiling_flags(subject: Subject, norm: Norm, eps: float, attacked: bool, ceiling: Ceiling) -> Iterator[Flag]:
    """Say where more samples are certified, or unbroken, than any classifier can get right."""
    found, n = beyond(subject.radii(norm), eps, ceiling.value), len(subject.samples)
    limit = f"than any classifier can be right on within ε = {eps:g} ({ceiling.bound})"
    if found.proofs:
        text = f"{_samples(found.proofs)} more certified {limit}: a certificate or the bound is wrong: `robench check`"
        yield Flag("contradictions", text)
        return  # what the attacks missed would follow from the bound
    if found.claims:
        more = f"{_samples(found.claims)} more certified with a confidence {limit}"
        if found.expected is None:
            yield Flag("confidence-unknown", f"{more}: nothing can be concluded, their source tells no confidence")
        elif found.too_many:
            yield Flag("chance-contradictions", f"{more}; no more than {found.expected} are expected")
        else:
            yield Flag("probabilistic", f"{more}; up to {found.expected} are expected")
    unbroken = int(subject.radii(norm).empirical(eps).sum())
    if attacked and (missed := above(unbroken, n, ceiling.value)):
        yield Flag(
            "above-ceiling",
            f"the attacks are too weak: at least {missed} of the {unbroken} unbroken samples can be broken, since no "
            f"classifier is right within ε = {eps:g} on more than {unbroken - missed} of these {n} ({ceiling.bound})",
        )


def _health_flags(health: Health) -> Iterator[Flag]:
    if health.grade == "flagged":
        yield Flag("health", f"the empirical accuracy may be too high: {'; '.join(health.reasons)}")


def _audit_flags(audit: Audit) -> Iterator[Flag]:
    """Say what attacks did not search, and where an audit breaks what was trusted."""
    yield Flag(
        "trusted",
        f"no attack searched {_samples(audit.skipped)}, trusting certificates; {audit.audited} more were audited; no "
        "cost is claimed",
    )
    if audit.broken:
        some = ", ".join(map(str, audit.broken[:10])) + (", …" if len(audit.broken) > 10 else "")
        yield Flag(
            "audit-failed",
            f"do not trust the certificates of {', '.join(audit.certifiers)}: {len(audit.broken)} of {audit.audited} "
            f"audited samples are broken ({some}); the empirical accuracy rests on them: evaluate again without "
            "--trust-certificates",
        )


def _distinct(rows: pd.DataFrame) -> int:
    return int(rows["sample"].nunique())


def _samples(count: int) -> str:
    return "1 sample" if count == 1 else f"{count} samples"
