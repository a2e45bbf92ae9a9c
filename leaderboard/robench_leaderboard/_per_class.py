"""Accuracies of each class: a class's samples, certified and unbroken; the worst class bounds what all can rely on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from robench.metrics import Result, Share
from robench.report import safe
from robench_leaderboard._charts import ClassBar, class_chart

if TYPE_CHECKING:
    from robench.metrics import Subject

__all__ = ["MOST_ROWS", "ClassRow", "ClassTable", "Worst", "class_names", "class_table", "labels_of"]

MOST_ROWS = 40


@dataclass(frozen=True)
class ClassRow:
    """One class: its samples, and (certified, empirical) at each ε; a side that was not asked for is None."""

    label: int
    name: str
    n: int
    clean: Share
    at: tuple[tuple[Share | None, Share | None], ...]
    worst: tuple[bool, ...]


@dataclass(frozen=True)
class Worst:
    """The lowest certified and the lowest empirical accuracy of a class: the worst class's true one lies between.

    `certified` and `empirical` are (accuracy, class), None where that side was not asked for.
    """

    certified: tuple[float, str] | None
    empirical: tuple[float, str] | None


@dataclass(frozen=True)
class ClassTable:
    """The classes with samples, in label order (of very many, the worst at the ε of the chart)."""

    rows: tuple[ClassRow, ...]
    hidden: int
    absent: tuple[str, ...]
    worst: tuple[Worst, ...]
    chart: Markup
    chart_at: int


def labels_of(subject: Subject) -> npt.NDArray[np.int64]:
    """Return the label of each of `subject.samples`."""
    first = subject.rows.drop_duplicates("sample").sort_values("sample")
    return first["label"].to_numpy(dtype=np.int64)


def class_names(subject: Subject) -> tuple[str, ...]:
    """Return the names of the classes, as the newest run that knows them gives them."""
    return next((manifest.dataset.classes for manifest in reversed(subject.runs) if manifest.dataset.classes), ())


def class_table(subject: Subject, results: Sequence[Result], chart_at: int, place: str) -> ClassTable | None:
    """Return the table at the ε of `results` (all of one norm), None where there are fewer than two classes.

    `chart_at` is the result that the chart shows; `place` says in words what it is about.
    """
    labels, names = labels_of(subject), class_names(subject)
    present = np.unique(labels).tolist()
    if len(present) < 2 or not results:
        return None
    radii = subject.radii(results[0].norm)
    robust = [
        (
            radii.certified(result.eps.value) if result.certified is not None else None,
            radii.empirical(result.eps.value) if result.empirical is not None else None,
        )
        for result in results
    ]
    all_rows = [
        ClassRow(
            label=label,
            name=names[label] if 0 <= label < len(names) else str(label),
            n=int((labels == label).sum()),
            clean=_share(subject.correct, labels == label),
            at=tuple(
                (
                    None if low is None else _share(low, labels == label),
                    None if high is None else _share(high, labels == label),
                )
                for low, high in robust
            ),
            worst=(),
        )
        for label in present
    ]
    worst = tuple(_worst(all_rows, i) for i in range(len(results)))
    rows = tuple(_marked(row, worst) for row in all_rows)
    shown = sorted(sorted(rows, key=lambda row: _order(row, chart_at))[:MOST_ROWS], key=lambda row: row.label)
    absent = tuple(name for label, name in enumerate(names) if label not in set(present))
    return ClassTable(
        rows=tuple(shown),
        hidden=len(rows) - len(shown),
        absent=absent,
        worst=worst,
        chart=_chart(shown, chart_at, worst[chart_at], place),
        chart_at=chart_at,
    )


def _share(hits: npt.NDArray[np.bool_], here: npt.NDArray[np.bool_]) -> Share:
    return Share(int((hits & here).sum()), int(here.sum()))


def _worst(rows: Sequence[ClassRow], i: int) -> Worst:
    def lowest(side: int) -> tuple[float, str] | None:
        known = [(share.value or 0.0, row.name) for row in rows if (share := row.at[i][side]) is not None]
        return min(known, key=lambda one: one[0]) if known else None

    return Worst(lowest(0), lowest(1))


def _marked(row: ClassRow, worst: Sequence[Worst]) -> ClassRow:
    """The row with a mark at each ε where its empirical (else its certified) accuracy is the lowest."""

    def mark(pair: tuple[Share | None, Share | None], lowest: Worst) -> bool:
        side, bound = (pair[1], lowest.empirical) if lowest.empirical is not None else (pair[0], lowest.certified)
        return side is not None and bound is not None and (side.value or 0.0) == bound[0]

    return ClassRow(
        row.label, row.name, row.n, row.clean, row.at,
        tuple(mark(pair, lowest) for pair, lowest in zip(row.at, worst, strict=True)),
    )  # fmt: skip


def _order(row: ClassRow, i: int) -> tuple[float, float, float, int]:
    """Worst first."""
    low, high = row.at[i]
    return (
        1.0 if high is None else high.value or 0.0,
        0.0 if low is None else low.value or 0.0,
        row.clean.value or 0.0,
        row.label,
    )


def _chart(rows: Sequence[ClassRow], i: int, worst: Worst, place: str) -> Markup:
    bars = [
        ClassBar(
            name=row.name,
            clean=row.clean.value or 0.0,
            certified=None if (low := row.at[i][0]) is None else low.value or 0.0,
            empirical=None if (high := row.at[i][1]) is None else high.value or 0.0,
            note=f"n = {row.n:,}{', worst' if row.worst[i] else ''}",
        )
        for row in rows
    ]
    said = [
        f"{side} {100 * found[0]:.1f} % in class {safe(found[1])[:40]}"
        for side, found in (("certified", worst.certified), ("empirical", worst.empirical))
        if found is not None
    ]
    return class_chart(bars, words=f"Accuracy of {len(rows)} classes {place}. Lowest: {', '.join(said)}.")
