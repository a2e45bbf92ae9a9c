"""What each evaluator did at one (norm, ε), and which of them settled a sample first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from robench.metrics._compare import certified_at, falsified_at, searched_at
from robench.threat import Norm

if TYPE_CHECKING:
    import pandas as pd

    from robench.metrics._subject import Subject

__all__ = ["EvaluatorCounts", "attribution", "evaluator_table", "relevant"]


@dataclass(frozen=True)
class EvaluatorCounts:
    """One evaluator's rows about a subject at one (norm, ε): outcomes and cost.

    `n` rows end as `certified`, `falsified`, `open`, `abstain`, `timeout` or `error`. A radius counts as certified
    where it reaches ε, a smallest perturbation as falsified where it lies within. The clean pass falsifies the samples
    that it misclassifies and certifies nothing: its other rows are correct, and counted nowhere else.
    Rows that answer every ε (`eps` null) cost the same at each.
    """

    evaluator: str
    kind: str
    n: int
    certified: int
    falsified: int
    open: int
    abstain: int
    timeout: int
    error: int
    forwards: int
    backwards: int
    seconds: float


def relevant(rows: pd.DataFrame, norm: Norm, eps: float) -> pd.DataFrame:
    """Return the rows that speak about (norm, ε) itself: clean rows, those made at ε, and those about radii."""
    here = (rows["norm"] == norm).to_numpy() & searched_at(rows["eps"].to_numpy(dtype=float), eps)
    return rows[here | (rows["kind"] == "clean").to_numpy()]


def evaluator_table(subject: Subject, norm: Norm, eps: float) -> list[EvaluatorCounts]:
    """Return one entry per evaluator: the clean pass first, then attacks, certificates, verifiers, each by name."""
    rows = relevant(subject.rows, norm, eps)
    out = []
    for kind in ("clean", "attack", "certificate", "verifier"):
        of_kind = rows[rows["kind"] == kind]
        for evaluator, group in of_kind.groupby("evaluator", observed=True, sort=True):
            out.append(_counts(str(evaluator), kind, group, eps))
        # Asked, but every sample was settled before their turn.
        asked = {info.canonical for info in subject.silent if info.kind == kind and info.norm in (None, norm)}
        for name in sorted(asked - {entry.evaluator for entry in out}):
            out.append(EvaluatorCounts(name, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0))
    return out


def _counts(evaluator: str, kind: str, rows: pd.DataFrame, eps: float) -> EvaluatorCounts:
    status = rows["status"].astype("object").to_numpy()
    if kind == "clean":
        certified = np.zeros(len(rows), dtype=bool)
        falsified = status == "incorrect"
        still_open = certified
    else:
        certified = (status == "certified") & certified_at(rows["lower"].to_numpy(dtype=float), eps)
        falsified = (status == "falsified") & falsified_at(rows["upper"].to_numpy(dtype=float), eps)
        still_open = np.isin(status, ("certified", "falsified", "open")) & ~certified & ~falsified
    counted = {name: int((status == name).sum()) for name in ("abstain", "timeout", "error")}
    return EvaluatorCounts(
        evaluator=evaluator,
        kind=kind,
        n=len(rows),
        certified=int(certified.sum()),
        falsified=int(falsified.sum()),
        open=int(still_open.sum()),
        **counted,
        forwards=int(rows["forwards"].sum()),
        backwards=int(rows["backwards"].sum()),
        seconds=float(rows["seconds"].sum()),
    )


def attribution(subject: Subject, norm: Norm, eps: float, side: Literal["certified", "falsified"]) -> dict[str, int]:
    """Return how many samples each evaluator settled first at ε: the oldest run's, in the order they were asked.

    `certified`: the first row whose `lower` reaches ε; `falsified`: the first whose `upper` lies within (the clean
    pass for misclassified samples). In the norm itself; evidence carried over from other norms is not counted.
    """
    rows = subject.rows
    here = ((rows["norm"] == norm) | (rows["kind"] == "clean")).to_numpy()
    if side == "certified":
        settled = here & certified_at(rows["lower"].to_numpy(dtype=float), eps)
        settled &= np.isin(rows["sample"].to_numpy(), subject.samples[subject.correct])
    else:
        settled = here & falsified_at(rows["upper"].to_numpy(dtype=float), eps)
    asked: dict[tuple[str, str], int] = {}
    for manifest in subject.runs:
        for name in (name for info in manifest.evaluators for name in info.names):
            asked.setdefault((manifest.run, name), len(asked))
    found = rows.loc[settled, ["sample", "run", "evaluator", "kind"]].copy()
    pairs = zip(found["run"], found["evaluator"], found["kind"], strict=True)
    found["turn"] = [-1 if kind == "clean" else asked.get((run, name), len(asked)) for run, name, kind in pairs]
    first = found.sort_values(["sample", "run", "turn", "evaluator"], kind="stable").drop_duplicates("sample")
    counts = first["evaluator"].astype("object").value_counts(sort=False)
    return {str(name): int(counts[name]) for name in sorted(counts.index)}
