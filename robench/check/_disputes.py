"""Verifiers that contradict each other where nobody shows a point: imported verdicts without a witness."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from robench.check._findings import Finding, about, named
from robench.metrics import Subject, certified_at
from robench.threat import NORMS

__all__ = ["claimed_without_a_point", "disputes"]


def claimed_without_a_point(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which rows say that a sample can be misclassified within ε, and prove nothing: [N], `upper` is +inf."""
    return np.asarray((rows["kind"] == "verifier") & (rows["status"] == "falsified") & (rows["upper"] == np.inf))


def disputes(subject: Subject) -> Iterator[Finding]:
    """Yield the (sample, norm, ε) that some verifiers call breakable and others prove robust.

    Both are said to be sure, so one side is wrong. Where a witness meets a proof, that contradiction tells more.
    """
    claimed = claimed_without_a_point(subject.rows)
    if not claimed.any():
        return
    rows = subject.rows
    proofs = rows[rows["kind"].isin(("certificate", "verifier")) & (rows["confidence"] == 1.0)]
    for norm in NORMS:
        radii = subject.radii(norm)
        shown = set(radii.sample[radii.contradictions()].tolist())
        mine = rows[claimed & (rows["norm"] == norm).to_numpy() & ~rows["sample"].isin(shown).to_numpy()]
        for key, breakers in mine.dropna(subset="eps").groupby(["sample", "eps"], sort=True):
            sample, eps = cast("tuple[int, float]", key)
            here = proofs[(proofs["sample"] == sample) & (proofs["norm"] == norm)]
            provers = here[certified_at(here["lower"].to_numpy(dtype=float), eps)]
            if len(provers):
                yield _finding(subject, int(sample), norm, float(eps), breakers, provers)


def _finding(
    subject: Subject, sample: int, norm: str, eps: float, breakers: pd.DataFrame, provers: pd.DataFrame
) -> Finding:
    what = "its region" if subject.regions else f"{norm} {eps:.9g}"
    broken, proven = set(map(str, breakers["evaluator"])), set(map(str, provers["evaluator"]))
    return about(
        subject,
        "disagreement",
        f"{subject.called(sample)} of {subject.title}: {what} is certified by {len(proven)} "
        f"({named(proven)}) and called breakable, without a point that shows it, by {len(broken)} ({named(broken)})",
        breakers,
        provers,
        sample=sample,
        norm=norm,
        values={"eps": eps, "certify": len(proven), "falsify": len(broken)},
    )
