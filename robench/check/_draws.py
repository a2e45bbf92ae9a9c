"""Runs about classifiers that draw: rows that say nothing about r* and count draws that can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from robench.check._findings import Finding
from robench.metrics import counted_draws, within

if TYPE_CHECKING:
    from robench.runs import Manifest

__all__ = ["rows_of_random_run", "with_counts", "with_distances", "with_settled"]


def with_counts(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with what their details count, `draws` 0 where they count nothing, in place of the details."""
    told = pd.DataFrame([counted_draws(text) for text in rows["detail"]], index=rows.index)
    told = told.reindex(columns=["draws", "trial", "correct", "distance"]).fillna(0)
    return pd.concat([rows.drop(columns="detail"), told], axis=1)


def with_settled(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows as if a point where no trial draw was correct were a witness: whoever runs later passes it by."""
    opened, counted = rows["status"] == "open", rows["draws"] > 0
    none = opened & counted & (rows["trial"] == 0)
    status = np.where(opened & (rows["kind"] == "clean"), np.where(none, "incorrect", "correct"), rows["status"])
    return rows.assign(status=status, upper=np.where(none, rows["distance"], np.inf))


def with_distances(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the distance of each point that was counted as its upper bound."""
    return rows.assign(upper=np.where((rows["status"] == "open") & (rows["draws"] > 0), rows["distance"], np.inf))


def rows_of_random_run(manifest: Manifest, rows: pd.DataFrame) -> Iterator[Finding]:
    """Check the rows (`with_counts`) of one run."""
    eps = rows["eps"].to_numpy(dtype=float)
    clean = (rows["kind"] == "clean").to_numpy()
    opened, counted = (rows["status"] == "open").to_numpy(), (rows["draws"] > 0).to_numpy()
    silent = (rows["lower"] == 0) & (rows["upper"] == np.inf)
    wrong = {
        "is of a kind that no classifier that draws has": ~(clean | (rows["kind"] == "attack").to_numpy()),
        "has a status that no classifier that draws has": ~(opened | (rows["status"] == "error").to_numpy()),
        "says something about r*, which is not defined": ~silent.to_numpy(),
        "counts no draws": opened & ~counted,
        "counts other draws than were asked for": counted & (rows["draws"] != (manifest.request.draws or 0)).to_numpy(),
        "counts at a point beyond its ε": opened & ~clean & ~within(rows["distance"].to_numpy(dtype=float), eps),
        "is a clean row with a norm or an ε": clean & (rows["norm"].notna().to_numpy() | ~np.isnan(eps)),
        "has no norm": ~clean & rows["norm"].isna().to_numpy(),
    }
    for what, hit in wrong.items():
        for position in np.flatnonzero(hit):
            row = rows.iloc[int(position)]
            yield Finding(
                code="row",
                text=f"sample {int(row['sample'])} of {manifest.classifier.canonical}: {row['evaluator']} {what} "
                f"(run {manifest.run})",
                classifier=manifest.classifier.canonical,
                fingerprint=manifest.classifier.fingerprint,
                sample=int(row["sample"]),
                norm=None if pd.isna(row["norm"]) else str(row["norm"]),
                evaluators=(str(row["evaluator"]),),
                runs=(manifest.run,),
            )
