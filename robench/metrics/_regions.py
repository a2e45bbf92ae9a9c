"""Sets of the samples' own as a budget: every bound in units of a sample's region.

A row of such a run says of one region that it is safe, that it is not, or nothing. So that the same code merges and
counts it, radii are measured in the region: 1 is all of it. A row that certifies proves 1 and one that falsifies shows
1, at ε = 1; a sample that is wrong from the start has 0. Nothing carries over to other norms. A published verdict of
falsified without a distance shows no point, and stays at +inf.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from robench.threat import NORMS, Epsilon

if TYPE_CHECKING:
    from robench.regions import RegionKind
    from robench.runs import Manifest

__all__ = ["GIVEN", "in_units", "region_kind"]

GIVEN = Epsilon(Fraction(1), "given")
"""The budget of samples with regions: what came with the data."""


def region_kind(manifests: Iterable[Manifest]) -> RegionKind | None:
    """Return what regions the runs of a subject are about, None where ε is a number."""
    kinds = {manifest.dataset.regions for manifest in manifests} - {None}
    return "conditions" if "conditions" in kinds else kinds.pop() if kinds else None


def in_units(rows: pd.DataFrame) -> pd.DataFrame:
    """Return evidence rows with `eps`, `lower`, `upper` and distances of witnesses in units of the sample's region."""
    out = rows.copy()
    clean = (rows["kind"] == "clean").to_numpy()
    status = rows["status"].astype("object").to_numpy()
    upper = rows["upper"].to_numpy(dtype=float)
    shown = ~clean & (status == "falsified") & np.isfinite(upper)  # a claim without a point shows nothing
    out["eps"] = np.where(clean, np.nan, 1.0)
    out["lower"] = np.where(~clean & (status == "certified"), 1.0, 0.0)
    out["upper"] = np.where(clean & (upper == 0), 0.0, np.where(shown, 1.0, np.inf))
    for norm in NORMS:
        if f"witness_{norm}" in out:
            out[f"witness_{norm}"] = np.where((rows["norm"] == norm).to_numpy(), out["upper"], np.inf)
    return out
