"""Draw again: the counts of a classifier that draws at inference, from the streams that its run had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from robench._replay_redraw import key
from robench.errors import DataError
from robench.evidence import decode_points
from robench.metrics import counted_draws
from robench.runner import draws_stream, vote
from robench.threat import parse_norm

if TYPE_CHECKING:
    from robench._replay_asker import Asker, Row
    from robench.runs import Run

__all__ = ["replay_draws"]


def replay_draws(asker: Asker, run: Run, evidence: pa.Table) -> None:
    """Draw again at every clean input and every point kept, and compare the counts with those of the rows.

    Equal streams give equal draws; a few may fall on the other side of a tie where another device rounds otherwise.
    """
    counted = asker.known(evidence.filter(pc.equal(evidence["status"].cast(pa.string()), "open")).to_pylist())
    clean = [row for row in counted if row["kind"] == "clean"]
    waiting = {key(row): row for row in counted if row["kind"] != "clean"}
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
    told: dict[Any, Row] = {}
    for i, row in enumerate(rows):
        if row["sample"] not in asker.position:
            asker.found("witness", row, "the dataset has no such sample")
        elif key(row) not in waiting:
            asker.found("witness", row, "a point without a row that counts draws there")
        else:
            told[key(row)] = waiting.pop(key(row))
            places.setdefault(key(row)[1:], []).append(i)
    for chosen in places.values():  # draws at different points of a sample are from different streams
        mine = [rows[i] for i in chosen]
        x, _ = asker.inputs(mine)
        at = points[chosen]
        if at.shape != x.shape or at.dtype != x.dtype:
            found, taken = f"{at.dtype} {list(at.shape)}", f"{x.dtype} {list(x.shape)}"
            raise DataError(f"run {run.manifest.run}: points are {found}, the model takes {taken}")
        at = at.to(x.device)
        for row, text in zip(mine, asker.off(mine, [None] * len(mine), at, x), strict=True):
            if text:
                asker.found("witness", row, text)
        _recount(asker, run, [told[key(row)] for row in mine], mine, at)
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
