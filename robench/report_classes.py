"""Accuracies of each class in the terminal, and the gap between a minority and the other classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from robench.errors import InputError
from robench.metrics import SIDES, ClassBracket, Classes, Result, SeedGap, gaps, per_class, seed_gaps
from robench.report import bracket, interval, percent
from robench.text import safe

__all__ = ["MOST_CLASSES", "class_lines", "gap_lines", "per_class_lines", "with_classes"]

MOST_CLASSES = 20
"""Up to so many classes all are shown; of more, the worst."""
_SHOWN = 10


def per_class_lines(results: Sequence[Result], minority: Sequence[str] = ()) -> list[str]:
    """Return `class_lines` of every result, then `gap_lines`.

    Raises InputError where no result has samples of two classes, or none of the minority.
    """
    found = [classes for result in results if (classes := per_class(result)) is not None]
    if not found:
        raise InputError("no results about samples of two classes or more: nothing can be told by class")
    over = seed_gaps(found, minority) if minority else []
    blocks = [*(class_lines(classes, minority) for classes in found), gap_lines(over, minority)]
    return [line for block in blocks if block for line in (*block, "")][:-1]


def with_classes(
    document: Mapping[str, Any], results: Sequence[Result], minority: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the document of `results` with `per_class` in each entry (None where there is one class) and `gaps`.

    Raises InputError where none has samples of the minority.
    """
    found = [per_class(result) for result in results]
    entries = [dict(entry) for entry in document["results"]]
    for entry, classes in zip(entries, found, strict=False):  # classifiers that draw come last
        entry["per_class"] = classes.document() if classes else None
    known = [classes for classes in found if classes is not None]
    over = [one.document() for one in seed_gaps(known, minority)] if minority else []
    return {**document, "results": entries, "gaps": over}


def class_lines(found: Classes, minority: Sequence[str] = ()) -> list[str]:
    """Return plain lines: what it is about, a line per class, the worst one on each side, the gap of `minority`."""
    result = found.result
    subject, every = result.subject, found.brackets
    shown = every if len(every) <= MOST_CLASSES else sorted(every, key=lambda one: one.order)[:_SHOWN]
    names = [safe(one.name)[:30] for one in shown]
    width = max(5, *map(len, names))
    where = f"{result.norm} {safe(result.eps)}"
    lines = [
        f"{safe(subject.title)}  on {safe(subject.dataset)} {safe(subject.split)}, {result.n} samples, {where}",
        f"  {'class':<{width}}  {'n':>6}  {'clean':>7}  {'95 %':<14}  {'robust':>15}  95 %",
    ]
    lines += [f"  {name:<{width}}  {_line(one)}" for name, one in zip(names, shown, strict=True)]
    if len(shown) < len(every):
        lines.append(f"  the worst {len(shown)} of {len(every)} classes; --json holds all")
    if found.absent:
        lines.append(f"  without a sample here: {_names(found.absent)}")
    for side in SIDES:
        worst = found.worst(side)
        if worst:
            below = f"{_points(worst.below_best)} below the best, {_points(worst.below_mean)} below the mean"
            ends = f"{percent(worst.share):>7} {interval(worst.interval):<14}"
            lines.append(f"  worst {side:<9}  {ends} class {safe(worst.of.name)[:30]}, {below}")
    for side, gap in (gaps(found, minority) or {}).items() if minority else ():
        lines.append(
            f"  gap   {side:<9}  {_points(gap.value, signed=True):>7} {_ends(gap.interval):<14} "
            f"{percent(gap.majority)} of the others, {percent(gap.minority)} of {_names(minority)}"
        )
    return lines


def gap_lines(found: Sequence[SeedGap], minority: Sequence[str]) -> list[str]:
    """Return a line per name and side of several classifiers, and a line per two names that can be compared."""
    many = [(one, one.interval) for one in found if one.interval is not None]
    if not many:
        return []
    lines = [f"gap of {_names(minority)}: accuracy of the other classes minus its own, in points; 95 % over trainings"]
    titles = [safe(one.title)[:40] for one, _ in many]
    width, wide = max(map(len, titles)), max(len(_accuracy(one)) for one, _ in many)
    for title, (one, ends) in zip(titles, many, strict=True):
        shown = f"{_points(one.mean, signed=True):>7} {_ends(ends):<14}"
        lines.append(f"  {title:<{width}}  {_accuracy(one):<{wide}}  {shown}  {len(one.values)} classifiers")
    for (a, _), (b, _) in combinations(many, 2):
        if apart := b.less(a):
            names = f"{safe(b.title)[:40]} − {safe(a.title)[:40]}"
            lines.append(f"  {names}  {_accuracy(a)}  {_points(b.mean - a.mean, signed=True)} {_ends(apart)}")
    return lines


def _accuracy(one: SeedGap) -> str:
    return one.side if one.eps is None else f"{one.side} {one.norm} {safe(one.eps)}"


def _line(one: ClassBracket) -> str:
    return (
        f"{one.n:>6}  {percent(one.clean):>7}  {interval(one.clean.interval):<14}  {bracket(one):>15}  "
        f"{interval(one.joint_interval)}"
    )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(safe(name)[:30] for name in names[:10]) + more


def _points(value: float, *, signed: bool = False) -> str:
    return f"{100 * value:{'+' if signed else ''}.1f}"


def _ends(ends: tuple[float, float]) -> str:
    return f"[{_points(ends[0], signed=True)}, {_points(ends[1], signed=True)}]"
