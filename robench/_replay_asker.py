"""What a replay found, and the one that asks: a classifier about rows of one run, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robench._replay_redraw import ROUNDING, key
from robench.classifier import Counted
from robench.distances import distances
from robench.errors import DataError
from robench.evidence import decode_points
from robench.loading import Data, Subject
from robench.regions import Region
from robench.runner import Judge, automatic_batch_size
from robench.runs import Run
from robench.threat import NORMS

__all__ = ["Asker", "Problem", "Replay"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """One thing that did not come out as recorded."""

    kind: str
    sample: int | None
    evaluator: str
    text: str


@dataclass
class Replay:
    """What asking again showed: how many of each kind were asked, and what failed.

    Attributes:
        run: the run.
        clean: clean predictions asked again, by votes where the classifier votes.
        witnesses: witnesses asked again, likewise.
        certificates: deterministic certificates made again.
        rederived: statistical certificates derived again from the counts that they rest on.
        redrawn: rows whose counts were held against fresh draws.
        seed: what those draws, and the choice of the rows, came from; None where nothing was drawn anew.
        not_replayed: what was left out, by evaluator, and why.
        problems: what did not come out as recorded.
    """

    run: str
    clean: int = 0
    witnesses: int = 0
    certificates: int = 0
    rederived: int = 0
    redrawn: int = 0
    seed: int | None = None
    not_replayed: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return the `--json` document."""
        return {
            "schema": 1,
            "run": self.run,
            "clean": self.clean,
            "witnesses": self.witnesses,
            "certificates": self.certificates,
            "rederived": self.rederived,
            "redrawn": self.redrawn,
            "seed": self.seed,
            "not_replayed": self.not_replayed,
            "problems": [vars(problem) for problem in self.problems],
        }


class Asker:
    """Asks one classifier about rows of one run, in batches."""

    def __init__(self, result: Replay, subject: Subject, data: Data, asked: Callable[[], None]) -> None:
        self.result, self.data, self.asked = result, data, asked
        self.size = automatic_batch_size(data.samples)
        self.position = {int(index): row for row, index in enumerate(data.samples.index)}
        self.classifier = Counted(subject.classifier)
        self.judge = Judge(Counted(subject.classifier))

    def known(self, rows: list[Row]) -> list[Row]:
        """Return the rows about samples of the dataset; the others are reported."""
        for row in rows:
            if row["sample"] not in self.position:
                self.found(row["kind"], row, "the dataset has no such sample")
        return [row for row in rows if row["sample"] in self.position]

    def inputs(self, rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the clean inputs and labels of these rows' samples, as the classifier takes them."""
        positions = np.array([self.position[row["sample"]] for row in rows], dtype=np.int64)
        x = torch.from_numpy(np.ascontiguousarray(self.data.samples.x[positions]))
        y = torch.from_numpy(self.data.samples.y[positions])
        return x.to(self.classifier.device, self.classifier.dtype), y.to(self.classifier.device)

    def region(self, rows: list[Row]) -> Region | None:
        """Return the sets of these rows' samples, where the data come with them."""
        regions = self.data.samples.regions
        positions = np.array([self.position[row["sample"]] for row in rows], dtype=np.int64)
        return None if regions is None else regions.batch(positions, self.classifier.device)

    def found(self, kind: str, row: Row, text: str) -> None:
        self.result.problems.append(Problem(kind, row["sample"], row["evaluator"], text))

    def clean(self, rows: list[Row]) -> None:
        """Compare every label, prediction and clean verdict."""
        regions = self.data.samples.regions
        named = regions is None or regions.kind(self.data.samples.y) == "labels"
        for part in self.batches(rows):
            x, y = self.inputs(part)
            correct, error, prediction, _ = (one.tolist() for one in self.judge.clean(x, y, self.region(part)))
            for row, label, good, bad, seen in zip(part, y.tolist(), correct, error, prediction, strict=True):
                now = "error" if bad else "correct" if good else "incorrect"
                if label != row["label"]:
                    self.found("clean", row, f"recorded label {row['label']}, the data says {label}")
                elif now != row["status"]:
                    self.found("clean", row, f"recorded {row['status']}, now {now}")
                elif named and not bad and good != (row["prediction"] == label):
                    self.found("clean", row, f"recorded prediction {row['prediction']}, now {seen}")
            self.result.clean += len(part)
            self.asked()

    def witnesses(self, run: Run, falsified: list[Row]) -> None:
        """Ask about every witness, and measure it again."""
        waiting = {key(row): row for row in falsified}
        for table in run.iter_witnesses():
            for start in range(0, len(table), self.size):
                part = table.slice(start, self.size)
                points = torch.from_numpy(np.ascontiguousarray(decode_points(part)))
                rows = part.drop_columns(["point", "clean"]).to_pylist()
                here = [i for i, row in enumerate(rows) if row["sample"] in self.position]
                for row in rows:
                    if row["sample"] not in self.position:
                        self.found("witness", row, "the dataset has no such sample")
                if here:
                    self._witnesses([rows[i] for i in here], points[here], waiting)
        for row in waiting.values():
            self.found("witness", row, "the evidence says falsified, but no witness is kept")

    def _witnesses(self, rows: list[Row], points: torch.Tensor, waiting: dict[tuple[Any, ...], Row]) -> None:
        x, y = self.inputs(rows)
        if points.shape != x.shape or points.dtype != x.dtype:
            found, taken = f"{points.dtype} {list(points.shape)}", f"{x.dtype} {list(x.shape)}"
            raise DataError(f"run {self.result.run}: witnesses are {found}, the model takes {taken}")
        points = points.to(x.device)
        recorded = [waiting.pop(key(row), None) for row in rows]
        off = self.off(rows, recorded, points, x)
        wrong, margin, _, _ = self.judge.confirm(points, y, self.region(rows))
        for i, row in enumerate(rows):
            text = off[i]
            if recorded[i] is None:
                text = "a witness without a falsified row in the evidence"
            elif text is None and not wrong[i]:
                text = f"the point is classified correctly (margin {float(margin[i]):.6g})"
            if text:
                self.found("witness", row, text)
        self.result.witnesses += len(rows)
        self.asked()

    def off(self, rows: list[Row], recorded: Sequence[Row | None], points: Tensor, x: Tensor) -> list[str | None]:
        """Return for each witness why its point cannot be one: domain, budget, distances, and the row's `upper`."""
        region = self.region(rows)
        low, high = self.data.whole.domain.box(x) if region is None else region.inside(x)
        inside = ((points >= low) & (points <= high)).flatten(1).all(1).tolist()
        apart = {norm: value.tolist() for norm, value in distances(points, x).items()}
        found: list[str | None] = []
        for i, (row, kept) in enumerate(zip(rows, recorded, strict=True)):
            now, text = apart[row["norm"]][i], None
            if not inside[i]:
                text = f"the point lies outside the {'domain' if region is None else 'box'}"
            elif row["eps"] is not None and not now <= row["eps"]:
                text = f"the point is {now!r} away, more than ε = {row['eps']!r}"
            elif kept is not None and not now <= kept["upper"] <= now * (1 + ROUNDING):
                text = f"the point is {now!r} away, the evidence says {kept['upper']!r}"
            elif any(apart[norm][i] > row[norm] for norm in NORMS):
                text = "the recorded distances are smaller than the point's own"
            found.append(text)
        return found

    def batches(self, rows: list[Row]) -> Iterator[list[Row]]:
        for start in range(0, len(rows), self.size):
            yield rows[start : start + self.size]
