"""Rows that cannot be right by themselves, and runs whose rows are not about the samples they name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from robench.check._disputes import claimed_without_a_point
from robench.check._findings import Finding
from robench.metrics import certified_at, falsified_at
from robench.runs import samples_hash

if TYPE_CHECKING:
    from robench.runs import Manifest

__all__ = ["rows_of_run", "samples_of_run"]


def rows_of_run(manifest: Manifest, rows: pd.DataFrame) -> Iterator[Finding]:
    """Check one run's evidence: statuses against bounds, budgets and correctness; the samples against the manifest."""
    status, kind = rows["status"].astype("object"), rows["kind"].astype("object")
    eps = rows["eps"].to_numpy(dtype=float)
    lower, upper = rows["lower"].to_numpy(dtype=float), rows["upper"].to_numpy(dtype=float)
    clean = (kind == "clean").to_numpy()
    correct = (rows["prediction"] == rows["label"]).to_numpy(dtype=bool, na_value=False)
    budget, radius = ~np.isnan(eps), np.isnan(eps)
    sure = _sure(manifest, rows)
    failed = ~clean & status.isin(("abstain", "error")).to_numpy()
    # A region is safe or not, whatever ball lies in it; and its condition may be about no label.
    own_sets = manifest.dataset.regions is not None
    named = correct if manifest.dataset.regions != "conditions" else np.ones_like(correct)
    certified, falsified = (status == "certified").to_numpy(), (status == "falsified").to_numpy()
    falsified = falsified & (~claimed_without_a_point(rows) | (manifest.origin == "measured"))

    wrong = {
        "is certified with a lower bound below its ε": certified & budget & ~certified_at(lower, eps) & ~own_sets,
        "is certified with a radius of 0": certified & radius & ~(lower > 0) & ~own_sets,
        "is falsified beyond its ε": falsified & budget & ~falsified_at(upper, eps),
        "is falsified without a distance": falsified & radius & ~np.isfinite(upper),
        "settles something although it failed": failed & ((lower > 0) | ((upper > 0) & np.isfinite(upper))),
        "proves a radius of a misclassified sample": ~clean & ~correct & (lower > 0),
        "is clean and proves a radius": clean & (lower > 0),
        "is correct with an upper bound": clean & (status == "correct").to_numpy() & np.isfinite(upper),
        "is incorrect with an upper bound above 0": clean & (status == "incorrect").to_numpy() & (upper > 0),
        "is correct although the prediction is not the label": clean & (status == "correct").to_numpy() & ~named,
        "is a clean row with a norm or an ε": clean & (rows["norm"].notna().to_numpy() | budget),
        "has no norm": ~clean & rows["norm"].isna().to_numpy(),
        "is a clean status": ~clean & status.isin(("correct", "incorrect")).to_numpy(),
        "is a test's, and claims to be sure": sure & (status != "error").to_numpy(),
        "is no clean status": clean & ~status.isin(("correct", "incorrect", "error", "abstain")).to_numpy(),
    }
    for what, hit in wrong.items():
        for position in np.flatnonzero(hit):
            row = rows.iloc[int(position)]
            where = [str(row["norm"])] if not pd.isna(row["norm"]) else []
            where += [f"{row['eps']:g}"] if not pd.isna(row["eps"]) else []
            at = f" at {' '.join(where)}" if where else ""
            yield Finding(
                code="row",
                text=f"sample {int(row['sample'])} of {manifest.classifier.canonical}: {row['evaluator']}{at} {what} "
                f"(lower {row['lower']:g}, upper {row['upper']:g}, run {manifest.run})",
                classifier=manifest.classifier.canonical,
                fingerprint=manifest.classifier.fingerprint,
                sample=int(row["sample"]),
                norm=None if pd.isna(row["norm"]) else str(row["norm"]),
                evaluators=(str(row["evaluator"]),),
                runs=(manifest.run,),
                values={"lower": float(row["lower"]), "upper": _finite(row["upper"])},
            )
    yield from samples_of_run(manifest, rows)


def _sure(manifest: Manifest, rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows of a measured run that say they cannot be wrong, or not how surely they hold, and are the outcome of a test.

    Those without a verdict too: they spend their α, or whoever erases his failures would buy radius.
    """
    if manifest.origin != "measured":
        return np.zeros(len(rows), dtype=bool)
    tests = [info.canonical for info in manifest.evaluators if not info.deterministic]
    tested = rows["evaluator"].isin(tests).to_numpy() | manifest.classifier.smoothed
    return np.asarray(tested & ~(rows["confidence"] < 1).to_numpy(dtype=bool, na_value=False))


def samples_of_run(manifest: Manifest, rows: pd.DataFrame) -> Iterator[Finding]:
    """Check that one run's rows are about the samples that its manifest names."""
    found = np.unique(rows["sample"].to_numpy(dtype=np.int64))
    promised = manifest.dataset.samples_hash or manifest.request.samples_hash
    if promised != (manifest.request.samples_hash or promised):
        what = "a manifest whose request and dataset name different samples"
    elif not manifest.complete:
        return
    elif len(found) != manifest.dataset.n:
        what = f"rows about {len(found)} samples instead of {manifest.dataset.n}"
    elif promised is not None and samples_hash(found) != promised:
        what = "rows about other samples than it was asked for"
    else:
        return
    yield Finding(
        code="samples",
        text=f"run {manifest.run} of {manifest.classifier.canonical} holds {what}",
        classifier=manifest.classifier.canonical,
        fingerprint=manifest.classifier.fingerprint,
        runs=(manifest.run,),
    )


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return float(value) if np.isfinite(value) else None
