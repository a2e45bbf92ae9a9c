"""The points behind every `upper`: there, readable, in the domain and the budget, as far as they say, misclassified."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from robench.check._findings import Finding
from robench.errors import DataError
from robench.evidence import decode_clean, decode_point
from robench.metrics import within
from robench.threat import NORMS

if TYPE_CHECKING:
    from robench.runs import Manifest

__all__ = ["witnesses_of_run"]

Key = tuple[int, str, str, float | None]
_KEY = ["sample", "evaluator", "norm", "eps"]
# Recorded distances are rounded up from float64 sums: never below the true one, hardly above.
_ABOVE = 1e-9


def witnesses_of_run(manifest: Manifest, rows: pd.DataFrame, parts: Iterable[pa.Table]) -> tuple[list[Finding], int]:
    """Check one run's witnesses, part by part, against its rows and their own points: findings, number of witnesses.

    Those of a classifier that draws are the points that were counted at: nothing is said about their class.
    """
    drawn = manifest.classifier.randomized
    falsified = rows[((rows["upper"] > 0) | drawn) & np.isfinite(rows["upper"]) & (rows["kind"] != "clean")]
    upper = {_key(row): float(row["upper"]) for row in falsified[[*_KEY, "upper"]].to_dict("records")}
    label = dict(zip(rows["sample"], rows["label"], strict=True))
    about_labels = manifest.dataset.regions != "conditions"
    findings: list[Finding] = []
    seen: set[Key] = set()
    count = 0
    for part in parts:
        witnesses = part.to_pylist()  # a part holds all rows of its samples
        count += len(witnesses)
        cleans = _clean_inputs(witnesses)
        for witness in witnesses:
            key, sample = _key(witness), int(witness["sample"])
            repeated = [("witness", "two witnesses of one row")] if key in seen else []
            seen.add(key)
            found = [*repeated, *_against_row(witness, upper.get(key))]
            found += [] if drawn else _verdict(witness, label.get(sample) if about_labels else None)
            try:
                found += _point(witness, cleans.get(sample), manifest.dataset.bounds)
            except DataError as error:
                found.append(("point", str(error)))
            findings += (_finding(manifest, witness, code, what) for code, what in found)
    if manifest.origin == "measured":
        for key in sorted(upper.keys() - seen, key=str):
            row = dict(zip(_KEY, key, strict=True))
            findings.append(_finding(manifest, row, "witness", f"falsified at {upper[key]:.9g} without a witness"))
    return findings, count


def _against_row(witness: Mapping[str, Any], upper: float | None) -> Iterator[tuple[str, str]]:
    own = float(witness[witness["norm"]])
    if upper is None:
        yield "witness", f"a witness at {own:.9g} without a falsified row"
    elif upper != own:
        yield "distance", f"the row's upper bound is {upper:.17g}, its witness's distance {own:.17g}"
    eps = math.nan if witness["eps"] is None or pd.isna(witness["eps"]) else float(witness["eps"])
    if not bool(within(np.array([own]), np.array([eps]))[0]):
        yield "distance", f"the witness lies at {own:.17g}, outside its ε = {eps:.17g}"


def _verdict(witness: Mapping[str, Any], label: int | None) -> Iterator[tuple[str, str]]:
    margin = float(witness["margin"])
    if not margin <= 0:
        yield "verdict", f"the witness has the margin {margin:.6g}: it is not misclassified"
    elif margin < 0 and label is not None and int(witness["prediction"]) == int(label):
        yield "verdict", f"the witness is classified as {int(label)}, its label"


def _point(
    witness: Mapping[str, Any], clean: npt.NDArray[Any] | None, bounds: tuple[float, float]
) -> Iterator[tuple[str, str]]:
    point = decode_point(witness)
    if not np.isfinite(point).all():
        yield "point", "the witness has a coordinate that is not a finite number"
        return
    # The domain, widened by the rounding to the model's dtype and by the clean input itself.
    number = point.dtype.type
    low = np.nextafter(number(bounds[0]), number(-np.inf))
    high = np.nextafter(number(bounds[1]), number(np.inf))
    if clean is not None:
        low, high = np.minimum(low, clean), np.maximum(high, clean)
    outside = int(((point < low) | (point > high)).sum())
    if outside:
        yield "point", f"{outside} of the witness's {point.size} coordinates lie outside the domain {list(bounds)}"
    yield from _norms(witness, point.size)
    if clean is not None:
        yield from _distances(witness, np.abs(point.astype(np.longdouble) - clean.astype(np.longdouble)).ravel())


def _norms(witness: Mapping[str, Any], d: int) -> Iterator[tuple[str, str]]:
    """The three recorded distances against each other: linf ≤ l2 ≤ l1 and l1 ≤ √d l2, l2 ≤ √d linf."""
    linf, l2, l1 = (float(witness[norm]) for norm in ("linf", "l2", "l1"))
    most = math.sqrt(d) * (1 + _ABOVE)
    if not (linf <= l2 * (1 + _ABOVE) and l2 <= l1 * (1 + _ABOVE) and l1 <= most * l2 and l2 <= most * linf):
        yield "distance", f"no point has the distances linf {linf:.9g}, l2 {l2:.9g} and l1 {l1:.9g} at once"


def _distances(witness: Mapping[str, Any], step: npt.NDArray[np.longdouble]) -> Iterator[tuple[str, str]]:
    """Recorded distances against the point's own, in extended precision."""
    scale = step.max(initial=0)
    root = scale * np.sqrt(np.square(step / scale).sum()) if scale > 0 else scale
    true = {"linf": scale, "l2": root, "l1": step.sum()}
    for norm in NORMS:
        recorded = float(witness[norm])
        exact = float(true[norm])
        if not exact * (1 - 1e-15) <= recorded <= exact * (1 + _ABOVE):
            yield "distance", f"the recorded {norm} distance is {recorded:.17g}, that of the point {exact:.17g}"


def _clean_inputs(witnesses: list[dict[str, Any]]) -> dict[int, npt.NDArray[Any]]:
    """The clean input of each sample that any of its witnesses keeps."""
    cleans: dict[int, npt.NDArray[Any]] = {}
    for witness in witnesses:
        if witness.get("clean") is not None and int(witness["sample"]) not in cleans:
            try:
                clean = decode_clean(witness)
            except DataError:
                continue  # reported with its point
            if clean is not None:
                cleans[int(witness["sample"])] = clean
    return cleans


def _key(row: Mapping[Any, Any]) -> Key:
    eps = row["eps"]
    return int(row["sample"]), str(row["evaluator"]), str(row["norm"]), None if pd.isna(eps) else float(eps)


def _finding(manifest: Manifest, row: Mapping[str, Any], code: str, what: str) -> Finding:
    at = f"{row['norm']}" + ("" if row["eps"] is None or pd.isna(row["eps"]) else f" {row['eps']:g}")
    return Finding(
        code=code,
        text=f"sample {int(row['sample'])} of {manifest.classifier.canonical}: {row['evaluator']} at {at}: {what} "
        f"(run {manifest.run})",
        classifier=manifest.classifier.canonical,
        fingerprint=manifest.classifier.fingerprint,
        sample=int(row["sample"]),
        norm=str(row["norm"]),
        evaluators=(str(row["evaluator"]),),
        runs=(manifest.run,),
    )
