"""The curves of a board's classifiers, side by side on the same axes."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from robench.bounds import Ceilings
from robench.metrics import Result, Subject, curve
from robench.report import bracket
from robench_leaderboard._boards import Board
from robench_leaderboard._curve_chart import curve_chart
from robench_leaderboard._names import classifier_page
from robench_leaderboard._text import norm_name, plain

__all__ = ["MOST_PANELS", "Panel", "panels_of"]

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
    right = 1.15 * max(section.eps.value for section in board.sections)
    marks = [(section.eps.value, section.eps.text) for section in board.sections]
    results: dict[Subject, list[Result]] = {}
    for row in board.rows:
        results.setdefault(row.result.subject, []).append(row.result)
    panels = []
    for subject in board.subjects[:MOST_PANELS]:
        mine = results[subject]
        said = "; ".join(f"{result.eps.text}: {bracket(result)}" for result in mine[:12])
        panels.append(
            Panel(
                name=subject.title,
                page=classifier_page(subject),
                chart=curve_chart(
                    curve(subject, board.norm),
                    right,
                    marks,
                    clean=float(subject.correct.mean()),
                    certified=any(result.certified is not None for result in mine),
                    empirical=any(result.empirical is not None for result in mine),
                    ceiling=ceilings.curve(subject.dataset_hash, subject.split, subject.samples_hash, board.norm),
                    title=f"ε in {norm_name(board.norm)}",
                    words=f"Accuracy of {plain(subject.title, 80)} against ε. Certified to empirical at ε = {said}.",
                ),
            )
        )
    return panels
