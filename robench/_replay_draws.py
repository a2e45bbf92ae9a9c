"""Draw again: the counts of a classifier that draws at inference, from the streams that its run had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from robench.distances import distances
from robench.errors import DataError
from robench.evidence import decode_points
from robench.metrics import counted_draws
from robench.runner import draws_stream, vote
from robench.threat import NORMS, parse_norm

if TYPE_CHECKING:
    from robench._replay import Asker, Row
    from robench.runs import Run

__all__ = ["replay_draws"]


def replay_draws(asker: Asker, run: Run, evidence: pa.Table) -> None:
    """Draw again at every clean input and every point kept, and compare the counts with those of the rows.

    Equal streams give equal draws; a few may fall on the other side of a tie where another device rounds otherwise.
    """
    counted = asker.known(evidence.filter(pc.equal(evidence["status"].cast(pa.string()), "open")).to_pylist())
    clean = [row for row in counted if row["kind"] == "clean"]
    waiting = {_key(row): row for row in counted if row["kind"] != "clean"}
    for start in range(0, len(clean), asker.size):
        part = clean[start : start + asker.size]
        _recount(asker, run, part, part, asker.inputs(part)[0])
        asker.result.clean += len(part)
        asker.asked()
    for table in run.iter_witnesses():
        for start in range(0, len(table), asker.size):
            _points(asker, run, table.slice(start, asker.size), waiting)
            asker.asked()
    for row in waiting.values():
        asker.found("witness", row, "draws are counted, but the point is not kept")


def _points(asker: Asker, run: Run, table: pa.Table, waiting: dict[Any, Row]) -> None:
    rows: list[Row] = table.drop_columns(["point", "clean"]).to_pylist()
    points = torch.from_numpy(np.ascontiguousarray(decode_points(table)))
    places: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        if row["sample"] not in asker.position:
            asker.found("witness", row, "the dataset has no such sample")
        elif _key(row) not in waiting:
            asker.found("witness", row, "a point without a row that counts draws there")
        else:
            places.setdefault(_key(row)[1:], []).append(i)
    for chosen in places.values():  # draws at different points of a sample are from different streams
        mine = [rows[i] for i in chosen]
        x, _ = asker.inputs(mine)
        at = points[chosen]
        if at.shape != x.shape or at.dtype != x.dtype:
            found, taken = f"{at.dtype} {list(at.shape)}", f"{x.dtype} {list(x.shape)}"
            raise DataError(f"run {run.manifest.run}: points are {found}, the model takes {taken}")
        at = at.to(x.device)
        low, high = asker.data.whole.domain.box(x)
        inside = ((at >= low) & (at <= high)).flatten(1).all(1).tolist()
        apart = {norm: value.tolist() for norm, value in distances(at, x).items()}
        for i, row in enumerate(mine):
            if not inside[i]:
                asker.found("witness", row, "the point lies outside the domain")
            elif row["eps"] is not None and not apart[row["norm"]][i] <= row["eps"]:
                asker.found(
                    "witness", row, f"the point is {apart[row['norm']][i]!r} away, more than ε = {row['eps']!r}"
                )
            elif any(apart[norm][i] > row[norm] for norm in NORMS):
                asker.found("witness", row, "the recorded distances are smaller than the point's own")
        _recount(asker, run, [waiting.pop(_key(row)) for row in mine], mine, at)
        asker.result.witnesses += len(mine)


def _recount(asker: Asker, run: Run, recorded: list[Row], rows: list[Row], at: torch.Tensor) -> None:
    """Draw at the points `at` of `rows`, which share evaluator, norm and ε, and compare."""
    request, first = run.manifest.request, rows[0]
    norm = None if first["norm"] is None else parse_norm(first["norm"])
    samples = [row["sample"] for row in rows]
    draws = request.draws or 1
    stream = draws_stream(request.seed, first["evaluator"], norm, first["eps"], samples, at.device)
    labels = asker.inputs(rows)[1]
    votes = vote(asker.classifier, at, labels, stream, draws, asker.size)
    slack = 1 + draws // 100
    for row, label, trial, correct in zip(
        recorded, labels.tolist(), votes.trial.tolist(), votes.correct.tolist(), strict=True
    ):
        told = counted_draws(row["detail"])
        kind = "clean" if row["kind"] == "clean" else "witness"
        if label != row["label"]:
            asker.found(kind, row, f"recorded label {row['label']}, the data says {label}")
        elif told.get("draws") != draws:
            asker.found(kind, row, f"the row does not count {draws} draws")
        elif abs(told["correct"] - correct) > slack or abs(told["trial"] - trial) > slack:
            was, now = (f"{a:.0f} and {b:.0f}" for a, b in ((told["trial"], told["correct"]), (trial, correct)))
            asker.found(kind, row, f"recorded {was} correct of {draws} draws each, now {now}")


def _key(row: Row) -> tuple[Any, ...]:
    return row["sample"], row["evaluator"], row["norm"], row["eps"]
