"""Theoretical bounds against each other and against what is certified: no classifier is above a ceiling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from robench.bounds import BoundRun, Ceiling, Ceilings
from robench.check._findings import Finding
from robench.metrics import Subject, above, beyond, certified_at
from robench.threat import NORMS, Norm

__all__ = ["above_ceilings", "of_bounds"]


def of_bounds(bounds: Sequence[BoundRun], damaged: Iterable[str]) -> Iterator[Finding]:
    """What cannot be right in bounds: `damaged` folders (a line each), ceilings that rise, floors above ceilings."""
    for problem in damaged:
        yield Finding(code="bound", text=problem)
    ceilings = Ceilings(bounds)
    for bound in bounds:
        manifest = bound.manifest
        name, about = f"bound {manifest.bound.canonical} (run {manifest.run})", manifest.dataset
        if row := bound.rises:
            text = f"{name}: its ceiling rises to {row.value:.9g} at {row.norm} {row.eps.text}"
            yield Finding(code="bound", text=text, norm=row.norm, runs=(manifest.run,))
        for row in bound.rows:
            if (row.direction, row.scope) != ("floor", "samples"):
                continue
            ceiling = ceilings.at(about.hash, about.split, row.samples_hash, row.norm, row.eps.value)
            if ceiling is not None and ceiling.value < row.value:
                yield Finding(
                    code="ceiling",
                    text=f"{name}: its floor {row.value:.9g} at {row.norm} {row.eps.text} lies above the ceiling "
                    f"{_named(ceiling)}",
                    norm=row.norm,
                    runs=(manifest.run, ceiling.run),
                    values={"eps": row.eps.value, "floor": row.value, "ceiling": ceiling.value},
                )


def above_ceilings(subject: Subject, ceilings: Ceilings) -> tuple[list[Finding], list[str]]:
    """Return where more samples of a subject are certified than a ceiling allows, and notes about the rest.

    Proofs contradict a ceiling surely. Statistical certificates do where more of them must be wrong than chance
    explains. Attacks that leave more unbroken are too weak, which is worth a note. Runs may be about different samples:
    a ceiling counts where it is about all of them together, or about those of one run. Sets of the samples' own are no
    balls of one ε: nothing is said about them.
    """
    findings: list[Finding] = []
    notes: list[str] = []
    if subject.regions is not None:
        return findings, notes
    for part in _parts(subject, ceilings):
        key = _key(part)
        for norm in NORMS:
            for eps, _ in ceilings.curve(*key, norm):
                if ceiling := ceilings.at(*key, norm, eps):
                    more, remarks = _certified(part, norm, eps, ceiling)
                    findings += more
                    notes += remarks
            if _attacked(part):
                for budget in part.requested.get(norm, ()):
                    if ceiling := ceilings.at(*key, norm, budget.value):
                        notes += _attacks(part, norm, budget.value, ceiling)
    return findings, notes


def _parts(subject: Subject, ceilings: Ceilings) -> list[Subject]:
    """Return the subject, and the subject on the samples of each of its runs, where a ceiling is about those."""
    parts = {subject.samples_hash: subject}
    runs, samples = subject.rows["run"].astype(str).to_numpy(), subject.rows["sample"].to_numpy()
    for manifest in subject.runs:
        own = np.unique(samples[runs == manifest.run])
        if len(own) < len(subject.samples):
            part = replace(subject, rows=subject.rows[np.isin(samples, own)].reset_index(drop=True))
            if any(ceilings.curve(*_key(part), norm) for norm in NORMS):
                parts.setdefault(part.samples_hash, part)
    return list(parts.values())


def _key(subject: Subject) -> tuple[str, str, str]:
    return subject.dataset_hash, subject.split, subject.samples_hash


def _certified(subject: Subject, norm: Norm, eps: float, ceiling: Ceiling) -> tuple[list[Finding], list[str]]:
    """Proofs, or statistical certificates on top of them where the proofs alone are within the ceiling."""
    found = beyond(subject.radii(norm), eps, ceiling.value)
    n = len(found.proven)
    if found.proofs:
        count = int(found.proven.sum())
        text = (
            f"{subject.title}: {count} of {n} samples are certified at {norm} {eps:.9g}, an accuracy of "
            f"{count / n:.9g}, {found.proofs} more than the ceiling {_named(ceiling)} allows"
        )
        return [_finding("ceiling", text, subject, norm, eps, ceiling, found.proven)], []
    if not found.claims:
        return [], []
    text = (
        f"{subject.title}: {int(found.claimed.sum())} of {n} samples are certified at {norm} {eps:.9g}, {found.claims} "
        f"more than the ceiling {_named(ceiling)} allows; {found.doubtful} of the certificates hold with a confidence"
    )
    if found.expected is None:
        return [], [f"{text} that its source does not tell, so nothing can be concluded"]
    if not found.too_many:
        return [], [f"{text}, and up to {found.expected} of those may be wrong by chance"]
    text += f", but no more than {found.expected} of those are wrong by chance"
    return [_finding("chance", text, subject, norm, eps, ceiling, found.claimed)], []


def _attacks(subject: Subject, norm: Norm, eps: float, ceiling: Ceiling) -> Iterator[str]:
    unbroken = subject.radii(norm).empirical(eps)
    count, n = int(unbroken.sum()), len(unbroken)
    if missed := above(count, n, ceiling.value):
        yield (
            f"{subject.title}: {count} of {n} samples are unbroken at {norm} {eps:.9g}, {missed} more than the ceiling "
            f"{_named(ceiling)} allows: the attacks are too weak"
        )


def _attacked(subject: Subject) -> bool:
    kinds = set(map(str, subject.rows["kind"].unique())) | {info.kind for info in subject.silent}
    return bool(kinds & {"attack", "verifier"})


def _named(ceiling: Ceiling) -> str:
    return f"{ceiling.value:.9g} of {ceiling.bound} (run {ceiling.run})"


def _finding(
    code: str,
    text: str,
    subject: Subject,
    norm: Norm,
    eps: float,
    ceiling: Ceiling,
    certified: npt.NDArray[np.bool_],
) -> Finding:
    rows = subject.bounds(norm)
    rows = rows[rows["sample"].isin(subject.samples[certified]) & rows["proves_lower"]]
    rows = rows[certified_at(rows["proves"].to_numpy(), eps)]
    return Finding(
        code=code,
        text=text,
        classifier=subject.classifier,
        fingerprint=subject.fingerprint,
        norm=norm,
        evaluators=tuple(sorted(set(map(str, rows["evaluator"])))),
        runs=tuple(sorted({*map(str, rows["run"]), ceiling.run})),
        values={"eps": eps, "certified": float(certified.mean()), "ceiling": ceiling.value},
    )
