"""The curves of one classifier, and those of a board's classifiers side by side on the same axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from robench.bounds import Ceilings
from robench.metrics import Curve, Result, Subject, curve
from robench.report import bracket
from robench.threat import Epsilon
from robench_leaderboard._boards import Board
from robench_leaderboard._charts import LARGEST, curve_chart
from robench_leaderboard._names import classifier_page
from robench_leaderboard._text import norm_name, plain

__all__ = ["MOST_PANELS", "Panel", "curves_of", "panels_of"]

MOST_PANELS = 24
"""So many classifiers of a board are drawn; every one has its curve on its own page."""


@dataclass(frozen=True)
class Panel:
    """One classifier's curves."""

    name: str
    page: str
    chart: Markup


def panels_of(board: Board, ceilings: Ceilings) -> list[Panel]:
    """Return the panels of a board's first classifiers, in its order, from ε = 0 to beyond the largest one asked."""
    asked = [section.eps for section in board.sections]
    if asked[-1].value > LARGEST or any(subject.regions for subject in board.subjects):  # a region has no axis
        return []
    results: dict[Subject, list[Result]] = {}
    for row in board.rows:
        results.setdefault(row.result.subject, []).append(row.result)
    return [
        Panel(
            name=subject.title,
            page=classifier_page(subject),
            chart=curves_of(curve(subject, board.norm), results[subject], ceilings, asked[-1].value, asked),
        )
        for subject in board.subjects[:MOST_PANELS]
    ]


def curves_of(
    line: Curve, results: Sequence[Result], ceilings: Ceilings, largest: float, marks: Sequence[Epsilon]
) -> Markup:
    """Return the chart of a classifier in one norm from ε = 0 to somewhat beyond `largest` (0 … LARGEST).

    `results` (at least one) are its figures in that norm, `marks` the ε of the axis.
    """
    subject, norm = results[0].subject, norm_name(line.norm)
    clean = float(subject.correct.mean())
    said = "; ".join(f"{result.eps.text}: {bracket(result)}" for result in results[:12])
    return curve_chart(
        line,
        1.15 * largest,
        [(eps.value, eps.text) for eps in marks],
        clean=clean,
        certified=any(result.certified is not None for result in results),
        empirical=any(result.empirical is not None for result in results),
        ceiling=ceilings.curve(subject.dataset_hash, subject.split, subject.samples_hash, line.norm),
        title=f"size ε of the perturbation in {norm}",
        words=f"Accuracy of {plain(subject.title, 80)} against ε in {norm}, from {100 * clean:.1f} % clean. "
        f"Certified to empirical at ε = {said}.",
    )
