"""lower ≤ r* ≤ upper, sample by sample, over everything that is known about one function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from robench.check._findings import Finding, about, named
from robench.metrics import Subject, certified_at, contradictions_by_chance, falsified_at, most_by_chance
from robench.threat import NORMS, Norm

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["chain"]


def chain(subject: Subject) -> tuple[list[Finding], list[str]]:
    """Return contradictions between proofs, more chance contradictions than expected, and notes about the expected."""
    findings: list[Finding] = []
    # A certificate meets a witness in its own norm first; carried bounds can only add where distances are unknown.
    reported: set[int] = set()
    for norm in NORMS:
        findings += _contradictions(subject, norm, reported, native=True)
    for norm in NORMS:
        findings += _contradictions(subject, norm, reported, native=False)
    more, notes = _by_chance(subject)
    if subject.smoothed:
        predicted, remarks = _predictions(subject)
        return [*findings, *more, *_clean(subject, ("label",)), *predicted], [*notes, *remarks]
    return [*findings, *more, *_clean(subject, ("label", "prediction"))], notes


def _contradictions(subject: Subject, norm: Norm, reported: set[int], *, native: bool) -> Iterator[Finding]:
    radii = subject.radii(norm)
    at = np.flatnonzero(radii.contradictions())
    if not len(at):
        return
    rows = subject.bounds(norm)
    rows = rows[rows["sample"].isin(radii.sample[at]) & (rows["confidence"] == 1.0)]
    for position in at:
        sample, lower, upper = int(radii.sample[position]), float(radii.lower[position]), float(radii.upper[position])
        mine = rows[rows["sample"] == sample]
        proofs = mine[certified_at(mine["proves"].to_numpy(), upper) & mine["proves_lower"].to_numpy()]
        if native and not (proofs["norm"] == norm).any():
            continue
        if sample in reported:
            continue
        reported.add(sample)
        points = mine[falsified_at(mine["shows"].to_numpy(), lower) & mine["shows_upper"].to_numpy()]
        proof, point = _who(proofs, "proves"), _who(points, "shows", smallest=True)
        what = f"{proof} certifies {norm} {lower:.9g}, but {point} is misclassified at {upper:.9g}"
        if subject.regions is not None:
            what = f"{proof} certifies its region, but {point} has a counterexample in it"
        yield about(
            subject,
            "contradiction",
            f"{subject.called(sample)} of {subject.title}: {what}",
            proofs,
            points,
            sample=sample,
            norm=norm,
            values={} if subject.regions is not None else {"lower": lower, "upper": upper},
        )


def _who(rows: pd.DataFrame, column: str, smallest: bool = False) -> str:
    """The evaluator of the best row and its run; the others by name, and how many rows more."""
    best = rows.sort_values([column, "run", "evaluator"], ascending=[smallest, True, True]).iloc[0]
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    others = named(set(map(str, rows["evaluator"])) - {str(best["evaluator"])})
    return f"{best['evaluator']} (run {best['run']}{more}{': ' if others else ''}{others})"


def _by_chance(subject: Subject) -> tuple[list[Finding], list[str]]:
    """Contradictions that involve a statistical statement, beside the number that chance explains."""
    findings, notes = [], []
    certifiers = subject.rows["kind"].isin(("certificate", "verifier"))
    attacked = bool((subject.rows["kind"] == "attack").any())
    stated = {norm for norm in NORMS if (subject.rows.loc[certifiers, "norm"] == norm).any()}
    counted: set[int] = set()
    for norm in sorted(NORMS, key=lambda norm: norm not in stated):  # where certificates were stated first
        found = contradictions_by_chance(subject.radii(norm), counted)
        if not found.observed and not (found.n and norm in stated and attacked):
            continue
        counted |= set(map(int, found.samples))
        samples = ", ".join(map(str, found.samples[:20])) + (", …" if found.observed > 20 else "")
        which = f" (samples {samples})" if found.observed else ""
        text = f"{subject.title}: {found.observed} contradictions in {norm} with statistical bounds{which}"
        expected = f"{found.expected} of {found.n} are expected at α = {found.alpha or 0:.3g}"
        if found.expected is None:
            notes.append(f"{text}; their confidence is not told, so nothing can be concluded")
        elif not found.too_many:
            notes.append(f"{text}; up to {expected}")
        else:
            rows = subject.bounds(norm)
            rows = rows[rows["sample"].isin(found.samples)]
            findings.append(
                about(
                    subject,
                    "chance",
                    f"{text}; no more than {expected}",
                    rows,
                    norm=norm,
                    evaluators=tuple(sorted({str(name) for name in rows["evaluator"] if name != "clean"})),
                    values={"observed": found.observed, "expected": found.expected, "alpha": found.alpha},
                )
            )
    return findings, notes


def _predictions(subject: Subject) -> tuple[list[Finding], list[str]]:
    """Samples for which a vote's predictions name different classes, beside the number that chance explains."""
    clean = subject.rows[(subject.rows["kind"] == "clean") & (subject.rows["prediction"] >= 0)]
    spread = clean.groupby("sample")["prediction"].agg(["min", "max"])
    apart = spread.index[spread["min"] != spread["max"]].to_numpy()
    spent = (1.0 - clean["confidence"]).groupby(clean["sample"]).sum()
    expected = most_by_chance(len(spent), min(1.0, float(spent.max()))) if len(spent) else 0
    if not len(apart):
        return [], []
    samples = ", ".join(map(str, apart[:20])) + (", …" if len(apart) > 20 else "")
    text = f"{subject.title}: predictions of {len(apart)} samples name different classes (samples {samples})"
    if len(apart) <= expected:
        return [], [f"{text}; up to {expected} of {len(spent)} are expected"]
    return [
        about(
            subject,
            "chance",
            f"{text}; no more than {expected} of {len(spent)} are expected",
            clean,
            evaluators=("clean",),
            values={"observed": len(apart), "expected": expected},
        )
    ], []


def _clean(subject: Subject, columns: tuple[str, ...]) -> Iterator[Finding]:
    """Samples whose rows name different labels or clean predictions; a source may not tell the label (−1)."""
    rows = subject.rows[subject.rows["label"] >= 0]
    for column in columns:
        spread = rows.groupby("sample")[column].agg(["min", "max"])
        for sample in map(int, spread.index[spread["min"] != spread["max"]][:10_000]):
            if spread.loc[sample].isna().any():
                continue
            mine = rows[rows["sample"] == sample]
            values = sorted({int(value) for value in mine[column].dropna()})
            given = ", ".join(map(str, values))
            text = f"{subject.called(sample)} of {subject.title}: rows give it the {column}s {given}"
            yield about(subject, "clean", text, mine, sample=sample)
    told = set(map(int, subject.disputed))
    for sample in sorted(told):
        mine = rows[(rows["sample"] == sample) & (rows["kind"] == "clean")]
        if mine["status"].nunique() > 1 and mine["prediction"].nunique() < 2:
            said = " and ".join(sorted(set(mine["status"])))
            text = f"{subject.called(sample)} of {subject.title}: clean rows say {said}"
            yield about(subject, "clean", text, mine, sample=sample, evaluators=())
