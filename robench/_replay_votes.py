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

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from robench._replay_redraw import FALSE_ALARM, Redraw, key, unlike
from robench.binomial import ABSTAIN, LARGEST, Integers, predict
from robench.errors import DataError
from robench.evidence import decode_points
from robench.runner import draws_stream
from robench.streams import Stream
from robench.threat import parse_norm

if TYPE_CHECKING:
    from robench._replay_asker import Asker, Row
    from robench.runs import Run

__all__ = ["replay_votes", "told_votes"]

_CLEAN: dict[str, Any] = {"evaluator": "clean", "norm": None, "eps": None}


def replay_votes(asker: Asker, run: Run, clean: list[Row], falsified: list[Row], redraw: Redraw) -> None:
    """Vote again at every clean input and every witness, and anew at some of each evaluator."""
    request, evaluators = run.manifest.request, run.manifest.evaluators
    n, alpha = request.draws, request.alpha
    if n is None or n > LARGEST or alpha is None:
        row = {"sample": None, "evaluator": ""}
        asker.found("manifest", row, f"no votes are taken with {n} draws and alpha = {alpha}")
        return
    tests = sum(len(request.eps) if one.per_eps else 1 for one in evaluators if one.kind != "certificate")
    voter = _Voter(asker, run, n, redraw)
    if not voter.same:
        recorded, here = run.manifest.environment.device, asker.classifier.device.type
        why = f"drawn on {recorded or 'an unknown device'}; {here} has other draws, compared as those of one vote"
        asker.result.not_replayed["votes of the run"] = why
    voter.clean(clean, alpha)
    voter.witnesses(falsified, alpha / max(1, tests))


def told_votes(detail: str | None, n: int, classes: int) -> tuple[float, Integers]:
    """Return the α and the votes, int64 [classes + 1], that a row's detail tells.

    Raises ValueError (one line) for anything but `n` votes of a test at some α.
    """
    try:
        told = json.loads(detail or "null")
        alpha, votes = told["alpha"], told["votes"]
        cells = list(votes.items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("the row tells no votes") from None
    if type(alpha) is not float or not 0 < alpha < 1:
        raise ValueError("the row's test has no alpha between 0 and 1")
    counts = np.zeros(classes + 1, dtype=np.int64)
    places = {**{str(c): c for c in range(classes)}, "none": classes}
    for name, count in cells:
        if name not in places or type(count) is not int or not 0 <= count <= n:
            raise ValueError(f"the row's votes are not counts, up to {n}, of {classes} classes")
        counts[places[name]] = count
    if counts.sum() != n:
        raise ValueError(f"the row tells {counts.sum()} votes, and {n} were taken")
    return alpha, counts


def _class(votes: Integers, alpha: float) -> int:
    """Return the class that wins these votes [classes + 1], or ABSTAIN; the last one is nobody's."""
    found = int(predict(votes, alpha))
    return ABSTAIN if found == len(votes) - 1 else found


class _Voter:
    """Holds the tests of one run against votes of its own streams, and of fresh ones."""

    def __init__(self, asker: Asker, run: Run, n: int, redraw: Redraw) -> None:
        self.asker, self.run, self.n, self.redraw = asker, run, n, redraw
        kind = run.manifest.environment.device.partition(" ")[0].partition(":")[0]
        self.same = kind == asker.classifier.device.type

    def clean(self, rows: list[Row], alpha: float) -> None:
        """Vote again at the clean inputs; each test may spend `alpha`."""
        anew = {key(row) for row in self.redraw.chosen(rows)}
        for part in self.asker.batches(rows):
            x, y = self.asker.inputs(part)
            for row, label, text in zip(part, y.tolist(), self._against(_CLEAN, part, x, alpha, anew), strict=True):
                if label != row["label"]:
                    text = f"recorded label {row['label']}, the data says {label}"
                if text := text or self._status(row, label):
                    self.asker.found("clean", row, text)
            self.asker.result.clean += len(part)
            self.asker.asked()

    def _status(self, row: Row, label: int) -> str | None:
        """Return what a clean row says that its votes do not."""
        if any(row[name] != value for name, value in _CLEAN.items()):
            return "a clean row has no evaluator, norm or ε of its own"
        alpha, votes = told_votes(row["detail"], self.n, self.asker.classifier.classes)
        error, found = votes[-1] == self.n, _class(votes, alpha)
        status = "error" if error else "abstain" if found < 0 else "correct" if found == label else "incorrect"
        prediction, upper = None if error else found, 0.0 if status == "incorrect" else np.inf
        if status != row["status"]:
            return f"recorded {row['status']}, its votes say {status}"
        if prediction != row["prediction"]:
            return f"recorded prediction {row['prediction']}, its votes say {prediction}"
        return None if row["upper"] == upper else f"recorded upper {row['upper']!r} of a sample that is {status}"

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
            mine, told = [rows[i] for i in chosen], [recorded[i] for i in chosen]
            x, y = self.asker.inputs(mine)
            at = points[chosen]
            if at.shape != x.shape or at.dtype != x.dtype:
                found, taken = f"{at.dtype} {list(at.shape)}", f"{x.dtype} {list(x.shape)}"
                raise DataError(f"run {self.run.manifest.run}: witnesses are {found}, the model takes {taken}")
            at = at.to(x.device)
            off = self.asker.off(mine, told, at, x)
            wrong = self._against(mine[0], told, at, alpha, anew)
            for row, kept, label, place, text in zip(mine, told, y.tolist(), off, wrong, strict=True):
                if text := place or text or self._verdict(row, kept, label):
                    self.asker.found("witness", row, text)
            self.asker.result.witnesses += len(mine)

    def _verdict(self, witness: Row, row: Row, label: int) -> str | None:
        """Return what a witness says that the votes of its row do not."""
        alpha, votes = told_votes(row["detail"], self.n, self.asker.classifier.classes)
        found = _class(votes, alpha)
        if found in (ABSTAIN, label):
            return "its votes do not tell that another class than the label wins"
        if witness["prediction"] != found:
            return f"recorded prediction {witness['prediction']}, its votes say {found}"
        return None

    def _against(self, like: Row, rows: list[Row], at: Tensor, allowed: float, anew: set[Any]) -> list[str | None]:
        """Return why the tests of `rows`, at the points `at`, cannot be right; None where nothing is found.

        All have the evaluator, norm and ε of `like`. What has None has votes (`told_votes`).
        """
        samples = [row["sample"] for row in rows]
        norm = None if like["norm"] is None else parse_norm(like["norm"])
        seed = self.run.manifest.request.seed
        stream = draws_stream(seed, like["evaluator"], norm, like["eps"], samples, at.device)
        votes = self._votes(at, stream)
        text = [self._test(row, now, allowed) for row, now in zip(rows, votes, strict=True)]
        some = [i for i, row in enumerate(rows) if key(row) in anew]
        if some:
            fresh = self._votes(at[some], self.redraw.stream(like, [samples[i] for i in some], at.device))
            for i, now in zip(some, fresh, strict=True):
                text[i] = text[i] or self._unlike(rows[i], now)
            self.asker.result.redrawn += len(some)
        return text

    def _votes(self, at: Tensor, stream: Stream) -> Integers:
        """Return the votes [B, classes + 1] of n draws at each of the points."""
        counts = self.asker.classifier.draws(at, stream).count(range(len(at)), [self.n] * len(at))
        found: Integers = counts.cpu().numpy()
        return found

    def _test(self, row: Row, now: Integers, allowed: float) -> str | None:
        """Return why the test of a row cannot be right: its votes, its α, or what the votes drawn again say."""
        try:
            alpha, votes = told_votes(row["detail"], self.n, self.asker.classifier.classes)
        except ValueError as error:
            return str(error)
        if alpha > allowed:
            return f"its test spends alpha = {alpha!r}, and {allowed!r} were its share"
        if row["confidence"] is None or row["confidence"] > 1 - alpha:
            return f"recorded confidence {row['confidence']!r}, its test gives {1 - alpha!r}"
        if not self.same:
            return self._unlike(row, now)
        moved = int(np.abs(votes - now).sum()) // 2
        if moved > 1 + self.n // 1000:
            return f"{moved} of {self.n} votes were for other classes than now"
        was, near = _class(votes, alpha), [_class(now, level) for level in (alpha / 2, alpha, min(2 * alpha, 0.999))]
        if was not in near:
            return f"the votes drawn again say {_said(near[1])}, not {_said(was)}"
        return None

    def _unlike(self, row: Row, now: Integers) -> str | None:
        """Return why other draws cannot be of the vote that the row's are of."""
        _, votes = told_votes(row["detail"], self.n, self.asker.classifier.classes)
        c = unlike(votes, now)
        if c is None:
            return None
        name = "none" if c == len(votes) - 1 else f"class {c}"
        return f"{votes[c]} of {self.n} votes for {name}, {now[c]} of fresh ones (by chance: below {FALSE_ALARM:g})"


def _said(found: int) -> str:
    return "nothing" if found == ABSTAIN else f"class {found}"
