"""Vote again: the tests of votes behind every clean prediction and witness of a smoothed classifier.

A verdict is held against three things. Its own votes: they must carry it at the α recorded, and that α must be within
the run's. The votes of the streams that the run had: they come out equal on a device of the same kind, but for draws
near a tie that another batch or processor rounds otherwise. And, for a random subset, fresh votes: whoever tries seeds
until a test says what he likes has votes that the first two find in order.

What the rounding is allowed: 1 + n/1000 draws of n may have moved, but the votes drawn again must carry the verdict at
half or twice its α. So an edit within the allowance can at most pass off a test at 2α for one at α.

A device of another kind has other draws. Then the two sets of votes are compared as samples of one distribution
(`unlike`), which is what fresh votes are held to as well. A true record is called wrong with probability at most
`FALSE_ALARM` per test that the run made and set of votes that it is compared with.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from robench._replay_redraw import Redraw, key, same_draws, unlike
from robench.binomial import ABSTAIN, FALSE_ALARM, LARGEST
from robench.errors import DataError
from robench.evidence import decode_points
from robench.runner import draws_stream
from robench.streams import Stream
from robench.threat import parse_norm
from robench.votes import Ballot, share, told

if TYPE_CHECKING:
    from robench._replay_asker import Asker, Row
    from robench.runs import Run

__all__ = ["clean_claim", "moved", "of_another_vote", "overspent", "replay_votes", "witness_claim"]

_CLEAN: dict[str, Any] = {"evaluator": "clean", "norm": None, "eps": None}


def replay_votes(asker: Asker, run: Run, clean: list[Row], falsified: list[Row], redraw: Redraw) -> None:
    """Vote again at every clean input and every witness, and anew at some of each evaluator."""
    request, evaluators = run.manifest.request, run.manifest.evaluators
    n, alpha = request.draws, request.alpha
    if n is None or n > LARGEST or alpha is None:
        row = {"sample": None, "evaluator": ""}
        asker.found("manifest", row, f"no votes are taken with {n} draws and alpha = {alpha}")
        return
    voter = _Voter(asker, run, n, redraw)
    if not voter.same:
        recorded, here = run.manifest.environment.device, asker.classifier.device.type
        why = f"drawn on {recorded or 'an unknown device'}; {here} has other draws, compared as those of one vote"
        asker.result.not_replayed["votes of the run"] = why
    voter.clean(clean, alpha)
    voter.witnesses(falsified, share(alpha, evaluators, len(request.eps)))


def overspent(ballot: Ballot, confidence: float | None, allowed: float) -> str | None:
    """Return why a test cannot have had its α: more than `allowed`, or than the row's confidence leaves."""
    if ballot.alpha > allowed:
        return f"its test spends alpha = {ballot.alpha!r}, and {allowed!r} were its share"
    if confidence is None or confidence > 1 - ballot.alpha:
        return f"recorded confidence {confidence!r}, its test gives {1 - ballot.alpha!r}"
    return None


def moved(ballot: Ballot, now: Tensor) -> str | None:
    """Return what the votes of equal streams, `now` [classes + 1], say otherwise; None within what rounding may do."""
    n, alpha = int(ballot.votes.sum()), ballot.alpha
    others = int((ballot.votes - now).abs().sum()) // 2
    if others > 1 + n // 1000:
        return f"{others} of {n} votes were for other classes than now"
    was, near = ballot.winner, [Ballot(one, now).winner for one in (alpha / 2, alpha, min(2 * alpha, 0.999))]
    return None if was in near else f"the votes drawn again say {_said(near[1])}, not {_said(was)}"


def of_another_vote(ballot: Ballot, now: Tensor) -> str | None:
    """Return why votes of other streams, `now` [classes + 1], cannot be of the vote that these are of."""
    c = unlike(ballot.votes.numpy(), now.numpy())
    if c is None:
        return None
    name, was = "none" if c == len(now) - 1 else f"class {c}", f"{ballot.votes[c]} of {ballot.votes.sum()}"
    return f"{was} votes for {name}, {now[c]} of fresh ones (by chance: below {FALSE_ALARM:g})"


def clean_claim(ballot: Ballot, row: Row, label: int) -> str | None:
    """Return what a clean row says that its votes do not."""
    if any(row[name] != value for name, value in _CLEAN.items()):
        return "a clean row has no evaluator, norm or ε of its own"
    status = ballot.status(label)
    prediction, upper = None if status == "error" else ballot.winner, 0.0 if status == "incorrect" else math.inf
    if status != row["status"]:
        return f"recorded {row['status']}, its votes say {status}"
    if prediction != row["prediction"]:
        return f"recorded prediction {row['prediction']}, its votes say {prediction}"
    return None if row["upper"] == upper else f"recorded upper {row['upper']!r} of a sample that is {status}"


def witness_claim(ballot: Ballot, prediction: int | None, label: int) -> str | None:
    """Return what a witness says that the votes of its row do not."""
    if ballot.winner in (ABSTAIN, label):
        return "its votes do not tell that another class than the label wins"
    return None if prediction == ballot.winner else f"recorded prediction {prediction}, its votes say {ballot.winner}"


class _Voter:
    """Holds the tests of one run against votes of its own streams, and of fresh ones."""

    def __init__(self, asker: Asker, run: Run, n: int, redraw: Redraw) -> None:
        self.asker, self.run, self.n, self.redraw = asker, run, n, redraw
        self.same = same_draws(run.manifest, asker.classifier.device)

    def clean(self, rows: list[Row], alpha: float) -> None:
        """Vote again at the clean inputs; each test may spend `alpha`."""
        anew = {key(row) for row in self.redraw.chosen(rows)}
        for part in self.asker.batches(rows):
            x, y = self.asker.inputs(part)
            ballots = self._against(_CLEAN, part, x, alpha, anew)
            for row, label, ballot in zip(part, y.tolist(), ballots, strict=True):
                text = ballot if isinstance(ballot, str) else clean_claim(ballot, row, label)
                if label != row["label"]:
                    text = f"recorded label {row['label']}, the data says {label}"
                if text:
                    self.asker.found("clean", row, text)
            self.asker.result.clean += len(part)
            self.asker.asked()

    def witnesses(self, rows: list[Row], alpha: float) -> None:
        """Vote again at every witness; each test may spend `alpha`."""
        waiting = {key(row): row for row in rows}
        anew: set[Any] = set()
        for evaluator in {row["evaluator"] for row in rows}:
            mine = [row for row in rows if row["evaluator"] == evaluator]
            anew |= {key(row) for row in self.redraw.chosen(mine)}
        for table in self.run.iter_witnesses():
            for start in range(0, len(table), self.asker.size):
                self._points(table.slice(start, self.asker.size), waiting, alpha, anew)
                self.asker.asked()
        for row in waiting.values():
            self.asker.found("witness", row, "the evidence says falsified, but no witness is kept")

    def _points(self, table: pa.Table, waiting: dict[Any, Row], alpha: float, anew: set[Any]) -> None:
        rows: list[Row] = table.drop_columns(["point", "clean"]).to_pylist()
        points = torch.from_numpy(np.ascontiguousarray(decode_points(table)))
        places: dict[Any, list[int]] = {}
        recorded: dict[int, Row] = {}
        for i, row in enumerate(rows):
            if row["sample"] not in self.asker.position:
                self.asker.found("witness", row, "the dataset has no such sample")
            elif key(row) not in waiting:
                self.asker.found("witness", row, "a witness without a falsified row in the evidence")
            else:
                recorded[i] = waiting.pop(key(row))
                places.setdefault(key(row)[1:], []).append(i)
        for chosen in places.values():  # votes at different points of a sample are from different streams
            mine, kept = [rows[i] for i in chosen], [recorded[i] for i in chosen]
            x, y = self.asker.inputs(mine)
            at = points[chosen]
            if at.shape != x.shape or at.dtype != x.dtype:
                found, taken = f"{at.dtype} {list(at.shape)}", f"{x.dtype} {list(x.shape)}"
                raise DataError(f"run {self.run.manifest.run}: witnesses are {found}, the model takes {taken}")
            at = at.to(x.device)
            off = self.asker.off(mine, kept, at, x)
            ballots = self._against(mine[0], kept, at, alpha, anew)
            for row, label, place, ballot in zip(mine, y.tolist(), off, ballots, strict=True):
                text = ballot if isinstance(ballot, str) else witness_claim(ballot, row["prediction"], label)
                if text := place or text:
                    self.asker.found("witness", row, text)
            self.asker.result.witnesses += len(mine)

    def _against(self, like: Row, rows: list[Row], at: Tensor, allowed: float, anew: set[Any]) -> list[Ballot | str]:
        """Return the tests of `rows`, at the points `at`, or why they cannot be right.

        All have the evaluator, norm and ε of `like`; those in `anew` are held against fresh votes as well.
        """
        samples = [row["sample"] for row in rows]
        norm = None if like["norm"] is None else parse_norm(like["norm"])
        seed = self.run.manifest.request.seed
        stream = draws_stream(seed, like["evaluator"], norm, like["eps"], samples, at.device)
        found = [self._held(row, now, allowed) for row, now in zip(rows, self._votes(at, stream), strict=True)]
        some = [i for i, row in enumerate(rows) if key(row) in anew]
        if some:
            fresh = self._votes(at[some], self.redraw.stream(like, [samples[i] for i in some], at.device))
            for i, now in zip(some, fresh, strict=True):
                ballot = found[i]
                found[i] = ballot if isinstance(ballot, str) else of_another_vote(ballot, now) or ballot
            self.asker.result.redrawn += len(some)
        return found

    def _held(self, row: Row, now: Tensor, allowed: float) -> Ballot | str:
        """Return the test that a row tells, or what its α or the votes of the run's streams say against it."""
        try:
            ballot = told(row["detail"], self.n, self.asker.classifier.classes)
        except ValueError as error:
            return str(error)
        against = moved if self.same else of_another_vote
        return overspent(ballot, row["confidence"], allowed) or against(ballot, now) or ballot

    def _votes(self, at: Tensor, stream: Stream) -> Tensor:
        """Return the votes [B, classes + 1] of n draws at each of the points."""
        return self.asker.classifier.draws(at, stream).count(range(len(at)), [self.n] * len(at)).cpu()


def _said(found: int) -> str:
    return "nothing" if found == ABSTAIN else f"class {found}"
