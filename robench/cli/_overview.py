"""A table of many classifiers for the terminal: a row each, the bracket at one ε per norm, ceilings last."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from robench.text import safe
from robench.threat import NORMS, Epsilon, Norm

if TYPE_CHECKING:
    from robench.metrics import Result

__all__ = ["overview"]

WIDTH = 100
_GAP = "  "
_CEILING = "no classifier is above"


def overview(results: Sequence[Result]) -> list[str]:
    """Return lines of at most `WIDTH` columns: a table for each set of samples, classifiers in the given order."""

    def about(result: Result) -> tuple[str, str, str]:
        subject = result.subject
        return subject.dataset_hash, subject.split, subject.samples_hash

    order = {key: position for position, key in reversed(list(enumerate(map(about, results))))}
    lines: list[str] = []
    for _, group in groupby(sorted(results, key=lambda result: order[about(result)]), key=about):
        lines += [""] if lines else []
        lines += _table(list(group))
    return lines


def _table(results: list[Result]) -> list[str]:
    from rich.cells import cell_len, set_cell_size

    from robench.report import headline, percent

    first = results[0]
    shown = {norm: eps for norm in NORMS if (eps := headline(results, norm)) is not None}
    head = ["", "clean", *(f"{norm} {safe(eps)}" for norm, eps in shown.items())]
    rows = []
    for subject, group in groupby(results, key=lambda result: result.subject):
        mine = list(group)
        at = {norm: _at(mine, norm, eps) for norm, eps in shown.items()}
        rows.append([safe(subject.title), percent(mine[0].clean), *map(_bracket, at.values())])
    if any(result.ceiling for result in results):
        rows.append([_CEILING, "", *(_ceiling(results, norm, eps) for norm, eps in shown.items())])
    widths = [max(cell_len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    widths[0] = max(8, min(widths[0], WIDTH - sum(len(_GAP) + width for width in widths[1:])))

    def line(row: list[str]) -> str:
        name = row[0] if cell_len(row[0]) <= widths[0] else set_cell_size(row[0], widths[0] - 1) + "…"
        cells = [set_cell_size(name, widths[0])]
        cells += [" " * (width - cell_len(cell)) + cell for cell, width in zip(row[1:], widths[1:], strict=True)]
        return set_cell_size(_GAP.join(cells), WIDTH).rstrip()

    about = (
        f"{safe(first.subject.dataset)} {safe(first.subject.split)}, {first.n} samples: certified – empirical accuracy"
    )
    lines = [set_cell_size(about, min(cell_len(about), WIDTH)), "", *map(line, [head, *rows])]
    return lines + [set_cell_size(note, min(cell_len(note), WIDTH)) for note in _notes(results, shown)]


def _at(results: Sequence[Result], norm: Norm, eps: Epsilon) -> Result | None:
    return next((one for one in results if (one.norm, one.eps.value) == (norm, eps.value)), None)


def _bracket(result: Result | None) -> str:
    from robench.report import bracket

    if result is None:
        return "-"
    return bracket(result) + (" ?" if _doubted(result) else "") + ("" if result.rankable else " !")


def _doubted(result: Result) -> bool:
    return result.health is not None and result.health.grade == "flagged"


def _ceiling(results: Sequence[Result], norm: Norm, eps: Epsilon) -> str:
    from robench.report import ceiling

    mine = [one for one in results if (one.norm, one.eps.value) == (norm, eps.value) and one.ceiling]
    return ceiling(mine[0]) if mine else "-"


def _notes(results: Sequence[Result], shown: dict[Norm, Epsilon]) -> list[str]:
    """Ceilings elsewhere that say more, and what a mark means."""
    notes = []
    further = {
        (one.norm, one.eps.value): f"{one.norm} {safe(one.eps)}: {100 * one.ceiling.value:.1f} %"
        for one in results
        if one.ceiling and one.ceiling.value < 1 and one.eps.value != shown[one.norm].value
    }
    if further:
        ordered = sorted(further, key=lambda key: (NORMS.index(key[0]), key[1]))
        notes.append(f"{_CEILING}, at other ε: {', '.join(further[key] for key in ordered)}")
    blocking = sorted({flag.code for one in results if not one.rankable for flag in one.flags})
    if blocking:
        notes.append(f"! not to be ranked ({safe(', '.join(blocking))}): robench report says why")
    if any(_doubted(one) for one in results if one.eps.value == shown[one.norm].value):
        notes.append("? gradients mislead, the empirical accuracy may be too high: robench report says why")
    return notes
