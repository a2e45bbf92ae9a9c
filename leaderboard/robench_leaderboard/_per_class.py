"""Accuracies of each class on a classifier's page: a row per class, the lowest of each ε marked, and a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from robench.metrics import ClassBracket, Result, Share, Worst, per_class
from robench.report import safe
from robench_leaderboard._charts import ClassBar, class_chart

__all__ = ["MOST_ROWS", "ClassRow", "ClassTable", "Lowest", "class_table"]

MOST_ROWS = 40


@dataclass(frozen=True)
class Lowest:
    """The worst class on either side of the bracket: its true accuracy lies between. None: that side was not asked."""

    certified: Worst | None
    empirical: Worst | None

    @property
    def decisive(self) -> Worst | None:
        """The lowest empirical accuracy, else the lowest certified one."""
        return self.empirical or self.certified


@dataclass(frozen=True)
class ClassRow:
    """One class: its brackets at each ε, and whether it is the lowest there."""

    at: tuple[ClassBracket, ...]
    worst: tuple[bool, ...]

    @property
    def label(self) -> int:
        """The class's number."""
        return self.at[0].label

    @property
    def name(self) -> str:
        """The class's name."""
        return self.at[0].name

    @property
    def n(self) -> int:
        """Its samples."""
        return self.at[0].n

    @property
    def clean(self) -> Share:
        """Its clean accuracy."""
        return self.at[0].clean


@dataclass(frozen=True)
class ClassTable:
    """The classes with samples, in label order (of very many, the worst at the ε of the chart)."""

    rows: tuple[ClassRow, ...]
    hidden: int
    absent: tuple[str, ...]
    worst: tuple[Lowest, ...]
    chart: Markup
    chart_at: int


def class_table(results: Sequence[Result], chart_at: int, place: str) -> ClassTable | None:
    """Return the table at the ε of `results` (of one subject and norm), None where there are fewer than two classes.

    `chart_at` is the result that the chart shows; `place` says in words what it is about.
    """
    found = [classes for result in results if (classes := per_class(result)) is not None]
    if not found:
        return None
    worst = tuple(Lowest(classes.worst("certified"), classes.worst("empirical")) for classes in found)
    rows = [
        ClassRow(at, tuple(_is_lowest(one, lowest) for one, lowest in zip(at, worst, strict=True)))
        for at in zip(*(classes.brackets for classes in found), strict=True)
    ]
    shown = sorted(sorted(rows, key=lambda row: row.at[chart_at].order)[:MOST_ROWS], key=lambda row: row.label)
    return ClassTable(
        rows=tuple(shown),
        hidden=len(rows) - len(shown),
        absent=found[0].absent,
        worst=worst,
        chart=_chart(shown, chart_at, worst[chart_at], place),
        chart_at=chart_at,
    )


def _is_lowest(one: ClassBracket, lowest: Lowest) -> bool:
    side = one.empirical if lowest.empirical else one.certified
    return side is not None and lowest.decisive is not None and side.value == lowest.decisive.share.value


def _chart(rows: Sequence[ClassRow], i: int, lowest: Lowest, place: str) -> Markup:
    bars = [
        ClassBar(
            name=row.name,
            clean=row.clean.value or 0.0,
            certified=None if (low := row.at[i].certified) is None else low.value or 0.0,
            empirical=None if (high := row.at[i].empirical) is None else high.value or 0.0,
            note=f"n = {row.n:,}{', worst' if row.worst[i] else ''}",
        )
        for row in rows
    ]
    said = [
        f"{side} {100 * (worst.share.value or 0.0):.1f} % in class {safe(worst.of.name)[:40]}"
        for side, worst in (("certified", lowest.certified), ("empirical", lowest.empirical))
        if worst is not None
    ]
    return class_chart(bars, words=f"Accuracy of {len(rows)} classes {place}. Lowest: {', '.join(said)}.")
