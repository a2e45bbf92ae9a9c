"""What the page about a scaling curve shows: accuracies by size drawn and listed, and what their law says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from robench.metrics import Interval, Result
from robench.report_scaling import needed_line
from robench.scaling import Bend, Curve, Published, Scale, ScaleCurves, curves_of, published_for
from robench_leaderboard._charts import ScaleLine, scaling_chart
from robench_leaderboard._names import dataset_page, scaling_page
from robench_leaderboard._text import norm_name, plain

__all__ = ["ScaleTable", "ScaleView", "scale_views"]

_COLORS = {"clean": "var(--muted)", "certified": "var(--certified)", "empirical": "var(--ink)"}
_DASHES: tuple[tuple[int, ...], ...] = ((), (6, 3), (2, 3), (8, 3, 2, 3))


@dataclass(frozen=True)
class ScaleTable:
    """One accuracy: a row per size (n, accuracy, interval, gain per doubling, interval), and the law in sentences."""

    curve: Curve
    name: str
    rows: tuple[tuple[str, str, str, str, str], ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class ScaleView:
    """One curve. `charts` are drawings with their titles, a norm each; `nearest` is about nearest training samples."""

    page: str
    title: str
    scale: Scale
    seeds: int
    dataset_page: str
    charts: tuple[tuple[str, Markup], ...]
    tables: tuple[ScaleTable, ...]
    nearest: str
    published: tuple[Published, ...]

    @property
    def bends(self) -> bool:
        """Whether a bend is drawn."""
        return any(_bend(table.curve) is not None for table in self.tables)


def scale_views(scales: Sequence[Scale], results: Sequence[Result]) -> list[ScaleView]:
    """Return a view per curve that has figures, the newest first."""
    found = [one for one in curves_of(scales, results) if one.curves]
    return sorted(map(_view, found), key=lambda view: view.scale.manifest.run, reverse=True)


def _view(found: ScaleCurves) -> ScaleView:
    about = found.scale.manifest
    dataset = about.dataset
    published = [
        one
        for curve in found.curves
        if not curve.function
        for one in published_for(dataset.canonical, curve.quantity, curve.norm, curve.eps)
    ]
    return ScaleView(
        page=scaling_page(about.recipe.canonical, about.run),
        title=f"{plain(about.recipe.canonical, 80)} on {plain(about.train, 60)}",
        scale=found.scale,
        seeds=max(curve.values.shape[1] for curve in found.curves),
        dataset_page=dataset_page(dataset.canonical, dataset.hash, dataset.split),
        charts=tuple(_charts(found.curves, published)),
        tables=tuple(_table(curve, about.targets) for curve in found.curves),
        nearest=_nearest(found),
        published=tuple(published),
    )


def _charts(curves: Sequence[Curve], published: Sequence[Published]) -> Iterable[tuple[str, Markup]]:
    """Yield a chart for each function and norm: clean accuracy, and the others at their first four ε."""
    robust = sorted((curve for curve in curves if curve.norm), key=lambda curve: (curve.function, str(curve.norm)))
    clean = {curve.function: curve for curve in curves if curve.norm is None}
    for (function, norm), group in groupby(robust, key=lambda curve: (curve.function, curve.norm)):
        assert norm is not None
        mine = list(group)
        budgets = sorted({curve.eps for curve in mine if curve.eps is not None}, key=lambda eps: eps.value)[:4]
        lines = [_line(clean[function], "clean", ())] if function in clean else []
        for curve in mine:
            if curve.eps in budgets:
                lines.append(_line(curve, _name(curve, many=len(budgets) > 1), _DASHES[budgets.index(curve.eps)]))
        lines += [
            ScaleLine(f"paper {one.eps}", "var(--ceiling)", one.points, dash=(4, 3))
            for one in published
            if one.norm == norm and not function
        ]
        yield (
            f"{norm_name(norm)}{f', of | {plain(function, 60)}' if function else ''}",
            scaling_chart(lines, words=_words(mine)),
        )
    if not robust:
        for function, curve in clean.items():
            yield plain(function, 60) or "clean", scaling_chart([_line(curve, "clean", ())], words=_words([curve]))


def _name(curve: Curve, many: bool) -> str:
    return f"{curve.quantity} {plain(curve.eps, 8)}" if many else curve.quantity


def _line(curve: Curve, name: str, dash: tuple[int, ...]) -> ScaleLine:
    levels = curve.law.levels
    return ScaleLine(
        name,
        _COLORS[curve.quantity],
        [(level.n, level.mean) for level in levels],
        [(level.n, *level.interval) for level in levels],
        [(n, float(value)) for n, row in zip(curve.sizes, curve.values, strict=True) for value in row],
        _bend(curve),
        dash,
    )


def _bend(curve: Curve) -> tuple[float, float] | None:
    """Where a curve's bend is drawn, in samples: those of clean accuracy are told in words alone."""
    bend = curve.law.bend
    return None if bend is None or curve.quantity == "clean" else (bend.interval[0], bend.interval[1])


def _words(curves: Sequence[Curve]) -> str:
    said = []
    for curve in curves:
        first, last = curve.law.levels[0], curve.law.levels[-1]
        said.append(
            f"{plain(curve.title, 60)}: {100 * first.mean:.1f} % with {first.n} training samples, "
            f"{100 * last.mean:.1f} % with {last.n}"
        )
    return "Accuracy against the number of training samples. " + "; ".join(said) + "."


def _table(curve: Curve, targets: Sequence[float]) -> ScaleTable:
    law = curve.law
    rows = []
    for level, gain in zip(law.levels, [None, *law.gains], strict=True):
        each = ("", "") if gain is None else (_points(gain.per_doubling), _ends(gain.interval))
        rows.append((f"{level.n:,}", f"{100 * level.mean:.2f} %", _percents(level.interval), *each))
    return ScaleTable(curve, plain(curve.title, 100), tuple(rows), tuple(_sentences(curve, targets)))


def _sentences(curve: Curve, targets: Sequence[float]) -> Iterable[str]:
    law = curve.law
    if law.bend is None:
        overall = law.overall
        yield f"A doubling of the training set gains {_points(overall.per_doubling)} points{_within(overall.interval)}."
    else:
        yield _bent(law.bend, law.saturates)
    if curve.missing:
        yield f"{curve.missing} trainings gave no figure; seeds with one are left out."
    for target in targets:
        yield f"An accuracy of {needed_line(law.needed(target))}."


def _bent(bend: Bend, saturates: bool) -> str:
    before, after = bend.before, bend.after
    return (
        f"It {'saturates' if saturates else 'bends'} at about {_samples(bend.n)} samples "
        f"[{_samples(bend.interval[0])}, {_samples(bend.interval[1])}]: a doubling gains "
        f"{_points(before.value)} points{_within(before.interval)} before and {_points(after.value)} points"
        f"{_within(after.interval)} after. Scatter around one line would look as bent in {100 * bend.p:.1f} % of cases."
    )


def _nearest(found: ScaleCurves) -> str:
    near = found.nearness
    if near is None:
        return ""
    low, high = near.interval
    upper = "∞" if math.isinf(high) else f"{high:.1f}"
    return (
        "The median l2 distance of a test sample to the nearest training sample falls like n to the power −1/d*, with "
        f"d* = {near.dimension:.1f} [{low:.1f}, {upper}]."
    )


def _samples(n: float) -> str:
    return f"{n:,.0f}"


def _points(value: float) -> str:
    return f"{100 * value:+.2f}"


def _percents(interval: Interval) -> str:
    return f"[{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]"


def _ends(interval: Interval | None) -> str:
    return "" if interval is None else f"[{_points(interval[0])}, {_points(interval[1])}]"


def _within(interval: Interval | None) -> str:
    return "" if interval is None else f" {_ends(interval)}"
