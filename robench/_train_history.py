"""The figures of a training's epochs: as a Parquet file, and what they tell."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["co_epoch", "parquet", "stopped"]

_NAMES = {"accuracy": "clean", "robust_accuracy": "robust"}


def parquet(history: Sequence[Mapping[str, float]], seconds: Sequence[float | None]) -> bytes:
    """Return a Parquet file with a row per epoch: `epoch`, `seconds`, and the figures, null where there is none.

    `clean` is the accuracy while training, `robust` that under the recipe's own attack.
    """
    names = list(dict.fromkeys(name for row in history for name in row))
    columns = {
        "epoch": pa.array(range(1, len(history) + 1), pa.int32()),
        "seconds": pa.array(seconds, pa.float64()),
        **{_NAMES.get(name, name): pa.array([_cell(row, name) for row in history], pa.float64()) for name in names},
    }
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def stopped(history: Sequence[Mapping[str, float]]) -> str | None:
    """Say at which epoch the loss stopped being finite, or return None."""
    if not history or math.isfinite(history[-1].get("loss", 0.0)):
        return None
    epoch = len(history)
    return (
        f"the loss became {history[-1]['loss']} in epoch {epoch}: training stopped, the weights are those of epoch "
        f"{epoch - 1}; try a smaller learning rate"
    )


def co_epoch(history: Sequence[Mapping[str, float]]) -> int | None:
    """Return the epoch of catastrophic overfitting (Wong et al. 2020), or None.

    That is the first whose accuracy under PGD is at most a quarter of the best so far while that under FGSM is at least
    nine tenths of what it was then (a best of 5 % or less tells nothing); or below 10 % while that under FGSM is above
    50 %, as where it never rose. Wong et al. stop where the former falls by 20 points.
    """
    best: Mapping[str, float] | None = None
    for epoch, row in enumerate(history, 1):
        if not {"fgsm", "pgd"} <= set(row):
            continue
        if best is None or row["pgd"] > best["pgd"]:
            best = row
        fell = best["pgd"] > 0.05 and row["pgd"] <= best["pgd"] / 4 and row["fgsm"] >= 0.9 * best["fgsm"]
        if fell or (row["pgd"] < 0.1 and row["fgsm"] > 0.5):
            return epoch
    return None


def _cell(row: Mapping[str, float], name: str) -> float | None:
    value = float(row[name]) if name in row else math.nan
    return value if math.isfinite(value) else None
