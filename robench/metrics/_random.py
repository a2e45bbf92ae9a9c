"""Classifiers that draw at inference: expected accuracies over their draws, apart from everything about r*.

The share of correct draws at a point estimates the probability that a draw is correct there. Every point was drawn at
twice: of the points known for a sample (the clean input among them) the one with the smallest share of correct *trial*
draws is taken as the worst, and its share of the *other* draws counts. So no figure is the smallest of several
estimates, which would be too low: each is an unbiased estimate of the expected accuracy at the points found. The
expected accuracy under the worst perturbations is at most that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from robench.metrics._compare import searched_at, within
from robench.metrics._evaluators import EvaluatorCounts
from robench.metrics._flags import Flag
from robench.metrics._intervals import Interval, bounded_mean
from robench.metrics._subject import RunLike
from robench.threat import NORMS, Epsilon, Norm

if TYPE_CHECKING:
    from robench.runs import Manifest

__all__ = ["Expected", "RandomResult", "counted_draws", "random_results"]

LEVEL = 0.95
_COUNTS = ("draws", "trial", "correct")
_COLUMNS = ["run", "sample", "evaluator", "kind", "norm", "eps", "status", "forwards", "backwards", "seconds", "detail"]


@dataclass(frozen=True)
class Expected:
    """A mean over n samples of shares of correct draws, and its interval about the population and the draws."""

    value: float
    n: int

    @property
    def interval(self) -> Interval:
        """An interval that covers the expected accuracy (at the points found) at `LEVEL`, whatever its shares are."""
        return bounded_mean(self.value, self.n, LEVEL)


@dataclass(frozen=True)
class RandomResult:
    """One classifier that draws on one split at one (norm, ε).

    Attributes:
        classifier: canonical spec, as the newest run calls it.
        title: the newest display name, else the spec.
        runs: manifests of the runs that speak about it, oldest first.
        draws: fewest draws that a figure of a sample rests on.
        clean: expected accuracy on the clean inputs.
        attacked: expected accuracy at the worst points known within ε; None where no attack was asked.
        errors: samples with a row that ended in error.
        flags: what a reader must know.
        evaluators: what each evaluator did.
    """

    classifier: str
    title: str
    fingerprint: str
    dataset: str
    dataset_hash: str
    split: str
    runs: tuple[Manifest, ...]
    norm: Norm
    eps: Epsilon
    n: int
    draws: int
    clean: Expected
    attacked: Expected | None
    errors: int
    flags: tuple[Flag, ...]
    evaluators: tuple[EvaluatorCounts, ...]

    def document(self) -> dict[str, Any]:
        """Return the entry of `eval --json`: what is about r* is null, the figures are in the block `randomized`."""
        shares = {"clean_accuracy": self.clean, "attacked_accuracy": self.attacked}
        none = dict.fromkeys(("clean_accuracy", "certified_accuracy", "empirical_accuracy"))
        return {
            "classifier": self.classifier,
            "fingerprint": self.fingerprint,
            "dataset": self.dataset,
            "norm": self.norm,
            "eps": self.eps.text,
            "eps_value": self.eps.value,
            "n": self.n,
            **none,
            "ceiling": None,
            "abstained": 0,
            "average_certified_radius": None,
            "statistical": None,
            "intervals": {"level": LEVEL, "method": "clopper-pearson", **none, "joint": None},
            "contradictions": 0,
            "errors": self.errors,
            "health": None,
            "audit": None,
            "randomized": {
                "draws": self.draws,
                **{name: share.value if share else None for name, share in shares.items()},
                "intervals": {
                    "level": LEVEL,
                    "method": "hoeffding",
                    **{name: list(share.interval) if share else None for name, share in shares.items()},
                },
            },
            "flags": [asdict(flag) for flag in self.flags],
            "evaluators": [asdict(counts) for counts in self.evaluators],
        }


def random_results(runs: Sequence[RunLike]) -> list[RandomResult]:
    """Return one result per classifier that draws, split, norm and ε that was asked for; other runs are left out."""
    groups: dict[tuple[str, ...], list[RunLike]] = {}
    for run in sorted(runs, key=lambda run: run.manifest.run):
        manifest = run.manifest
        if manifest.classifier.randomized:
            key = manifest.classifier.fingerprint, manifest.dataset.hash, manifest.dataset.split
            groups.setdefault(key, []).append(run)
    found = [result for mine in groups.values() for result in _results(mine)]
    return sorted(found, key=lambda r: (r.dataset, r.dataset_hash, r.split, r.classifier, r.fingerprint,
                                        NORMS.index(r.norm), r.eps.value))  # fmt: skip


def counted_draws(detail: str | None) -> dict[str, float]:
    """Return draws, trial, correct and distance that a row's detail tells; empty where they cannot be right."""
    try:
        told = json.loads(detail or "null")
        draws, trial, correct = (told[name] for name in _COUNTS)
        distance = float(told.get("distance", 0.0))
    except (ValueError, TypeError, KeyError):
        return {}
    if not all(type(count) is int for count in (draws, trial, correct)) or not distance >= 0:
        return {}
    fits = draws >= 1 and 0 <= trial <= draws and 0 <= correct <= draws
    return {"draws": draws, "trial": trial, "correct": correct, "distance": distance} if fits else {}


def _results(runs: Sequence[RunLike]) -> Iterator[RandomResult]:
    manifests = tuple(run.manifest for run in runs)
    rows = _rows(runs)
    if rows.empty:
        return
    newest = manifests[-1]
    names = [manifest.display.name for manifest in manifests if manifest.display.name]
    asked: dict[Norm, dict[float, Epsilon]] = {}
    for manifest in manifests:
        for text in manifest.request.eps if manifest.request.norm else ():
            eps = Epsilon.parse(text)
            asked.setdefault(cast(Norm, manifest.request.norm), {}).setdefault(eps.value, eps)
    samples = np.unique(rows["sample"])
    for norm, budgets in asked.items():
        attacked = any(one.kind == "attack" and one.norm in (None, norm) for m in manifests for one in m.evaluators)
        for value in sorted(budgets):
            clean, worst = _clean(rows), _worst(rows, norm, value)
            wrong = rows[_spoken(rows, norm, value) & (rows["status"] == "error")]
            yield RandomResult(
                classifier=newest.classifier.canonical,
                title=names[-1] if names else newest.classifier.canonical,
                fingerprint=newest.classifier.fingerprint,
                dataset=newest.dataset.canonical,
                dataset_hash=newest.dataset.hash,
                split=newest.dataset.split,
                runs=manifests,
                norm=norm,
                eps=budgets[value],
                n=len(samples),
                draws=int(min(clean["draws"].min(), worst["draws"].min())) if len(clean) else 0,
                clean=_expected(clean, len(samples)),
                attacked=_expected(worst, len(samples)) if attacked else None,
                errors=int(wrong["sample"].nunique()),
                flags=tuple(sorted(_flags(manifests, rows, worst, norm, value, int(wrong["sample"].nunique())))),
                evaluators=tuple(_evaluators(rows[_spoken(rows, norm, value)])),
            )


def _rows(runs: Sequence[RunLike]) -> pd.DataFrame:
    """All rows of the runs, with what their details count: 0 draws where nothing is counted."""
    parts = [part.select(_COLUMNS) for run in runs for part in run.iter_evidence()]
    if not parts:
        return pd.DataFrame()
    rows: pd.DataFrame = pa.concat_tables(parts).unify_dictionaries().to_pandas()
    for name in ("run", "evaluator", "kind", "norm", "status"):
        rows[name] = rows[name].astype("object")
    told = pd.DataFrame([counted_draws(text) for text in rows.pop("detail")], index=rows.index)
    for name in (*_COUNTS, "distance"):
        rows[name] = told[name].fillna(0).to_numpy() if name in told else 0
    order = ["sample", "kind", "run", "evaluator", "norm", "eps"]
    return rows.sort_values(order, kind="stable", na_position="first").reset_index(drop=True)


def _clean(rows: pd.DataFrame) -> pd.DataFrame:
    """One clean row per sample: of several runs' the one with most draws, the newest of those."""
    clean = rows[(rows["kind"] == "clean") & (rows["draws"] > 0)]
    return clean.sort_values(["sample", "draws", "run"], kind="stable").drop_duplicates("sample", keep="last")


def _worst(rows: pd.DataFrame, norm: Norm, eps: float) -> pd.DataFrame:
    """The row of each sample whose point within ε had the smallest share of correct trial draws, the attacks' first."""
    inside = within(rows["distance"].to_numpy(dtype=float), np.full(len(rows), eps))
    attack = ((rows["kind"] == "attack") & (rows["norm"] == norm) & (rows["status"] == "open")).to_numpy() & inside
    known = pd.concat([rows[attack & (rows["draws"] > 0).to_numpy()], _clean(rows)])
    known = known.assign(share=known["trial"] / known["draws"])
    return known.sort_values(["sample", "share"], kind="stable").drop_duplicates("sample")


def _expected(rows: pd.DataFrame, n: int) -> Expected:
    return Expected(float((rows["correct"] / rows["draws"]).sum() / n), n)


def _spoken(rows: pd.DataFrame, norm: Norm, eps: float) -> pd.Series[bool]:
    """Rows that speak about (norm, ε) itself."""
    here = (rows["norm"] == norm).to_numpy() & searched_at(rows["eps"].to_numpy(dtype=float), eps)
    return pd.Series(here | (rows["kind"] == "clean").to_numpy(), index=rows.index)


def _evaluators(rows: pd.DataFrame) -> Iterator[EvaluatorCounts]:
    for kind in ("clean", "attack"):
        for name, group in rows[rows["kind"] == kind].groupby("evaluator", sort=True):
            yield EvaluatorCounts(
                evaluator=str(name), kind=kind, n=len(group), certified=0, falsified=0,
                open=int((group["status"] == "open").sum()), abstain=0, timeout=0,
                error=int((group["status"] == "error").sum()), forwards=int(group["forwards"].sum()),
                backwards=int(group["backwards"].sum()), seconds=float(group["seconds"].sum()),
            )  # fmt: skip


def _flags(
    manifests: Sequence[Manifest], rows: pd.DataFrame, worst: pd.DataFrame, norm: Norm, eps: float, errors: int
) -> Iterator[Flag]:
    yield Flag("randomized", "draws at inference: expected accuracies over draws, r* is not defined")
    for manifest in manifests:
        if not manifest.complete:
            yield Flag("incomplete", f"run {manifest.run} is not complete: go on with --resume")
        yield from (Flag(flag.code, flag.text) for flag in manifest.flags)
    if errors:
        yield Flag("errors", f"{errors} sample{'' if errors == 1 else 's'} ended in error: no attack counts there")
    tried = rows.loc[_spoken(rows, norm, eps) & (rows["kind"] == "attack"), "sample"]
    waiting = worst[(worst["trial"] > 0) & ~worst["sample"].isin(tried)]
    if len(waiting):
        yield Flag("coverage", f"{len(waiting)} samples with correct draws were never attacked")
