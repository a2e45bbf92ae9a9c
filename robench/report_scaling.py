"""Scaling curves in the terminal, and as the document of `robench scale --json`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from robench.metrics import LEVEL, Interval
from robench.scaling import Bend, Curve, Law, Needed, ScaleCurves, Slope
from robench.text import safe

__all__ = ["needed_line", "scale_document", "scale_lines"]


def scale_lines(found: ScaleCurves) -> list[str]:
    """Return a curve as plain lines: a block per accuracy, a line per size, then what its law says and targets take."""
    about = found.scale.manifest
    compute = "equally many steps" if about.compute == "steps" else "equally many epochs"
    lines = [f"{safe(about.recipe.canonical)} on subsets of {safe(about.train)}, {compute} at every size"]
    for curve in found.curves:
        seeds = curve.values.shape[1]
        lines += ["", f"{safe(curve.title)}  on {curve.samples} samples, {_count(seeds, 'seed')}"]
        if curve.missing:
            lines.append(f"  {_count(curve.missing, 'training')} without a figure: seeds with one are left out")
        lines.append(f"  {'n':>9}  {'accuracy':>8}  {'95 %':<15}  gain per doubling")
        gains = [None, *curve.law.gains]
        for level, gain in zip(curve.law.levels, gains, strict=True):
            said = "" if gain is None else f"{gain.per_doubling:+.4f}{_ends(gain.interval, '+.4f')}"
            lines.append(
                f"  {level.n:>9}  {level.mean:>8.4f}  {_ends(level.interval, '.4f').strip():<15}  {said}".rstrip()
            )
        lines += [f"  {line}" for line in _law_lines(curve.law)]
        lines += [f"  {needed_line(curve.law.needed(target))}" for target in about.targets]
    near = found.nearness
    if near is not None:
        lines += [
            "",
            f"nearest training sample: the median distance falls like n^(-1/d*) with d* = {near.dimension:.1f}"
            f"{_ends(near.interval, '.1f')}",
        ]
    return lines


def _law_lines(law: Law) -> list[str]:
    if law.bend is None:
        overall = law.overall
        return [f"one line: {overall.per_doubling:+.4f}{_ends(overall.interval, '+.4f')} per doubling"]
    bend = law.bend
    said = "saturates" if law.saturates else "bends"
    return [
        f"{said} at n = {bend.n:.0f}{_ends(bend.interval, '.0f')}: {_slope(bend.before)} per doubling before, "
        f"{_slope(bend.after)} after (p = {bend.p:.3f})"
    ]


def _slope(slope: Slope) -> str:
    return f"{slope.value:+.4f}{_ends(slope.interval, '+.4f')}"


def needed_line(needed: Needed) -> str:
    """Return what a target would take: `0.9 takes n = 2,830 [1,900, 4,420]; beyond …`."""
    n = f"n = {_samples(needed.n)}" if math.isfinite(needed.n) else "no n"
    ends = ", ".join(map(_samples, needed.interval))
    return f"{needed.target:g} takes {n} [{ends}]" + (f"; {needed.warning}" if needed.warning else "")


def _samples(n: float) -> str:
    """Three digits tell all there is to know: 2,830, and powers of ten from a billion on."""
    if not math.isfinite(n):
        return "∞"
    rounded = float(f"{n:.3g}")
    return f"{rounded:.3g}" if rounded >= 1e9 or rounded < 1000 else f"{rounded:,.0f}"


def _ends(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f" [{interval[0]:{form}}, {interval[1]:{form}}]"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def scale_document(found: ScaleCurves) -> dict[str, Any]:
    """Return the entry of `robench scale --json`."""
    about, near = found.scale.manifest, found.nearness
    sizes, medians = found.medians
    return {
        "run": about.run,
        "recipe": about.recipe.canonical,
        "train": about.train,
        "dataset": about.dataset.canonical,
        "compute": about.compute,
        "level": LEVEL,
        "members": [member.model_dump(mode="json") for member in about.members],
        "curves": [_curve_document(curve, about.targets) for curve in found.curves],
        "nearest": {
            "n": list(sizes),
            "median": medians.mean(1).tolist() if medians.size else [],
            "dimension": _finite(near.dimension) if near else None,
            "interval": _interval(near.interval) if near else None,
        },
    }


def _curve_document(curve: Curve, targets: Sequence[float]) -> dict[str, Any]:
    law = curve.law
    return {
        "function": curve.function,
        "quantity": curve.quantity,
        "norm": curve.norm,
        "eps": None if curve.eps is None else curve.eps.text,
        "samples": curve.samples,
        "missing": curve.missing,
        "levels": [
            {"n": one.n, "seeds": one.seeds, "mean": one.mean, "interval": list(one.interval), "values": row.tolist()}
            for one, row in zip(law.levels, curve.values, strict=True)
        ],
        "gains": [
            {"n": [one.first, one.last], "per_doubling": one.per_doubling, "interval": _interval(one.interval)}
            for one in law.gains
        ],
        "overall": {"per_doubling": law.overall.per_doubling, "interval": _interval(law.overall.interval)},
        "bend": None if law.bend is None else _bend_document(law.bend),
        "saturates": law.saturates,
        "targets": [_needed_document(law.needed(target)) for target in targets],
    }


def _bend_document(bend: Bend) -> dict[str, Any]:
    sides = {"before": bend.before, "after": bend.after}
    return {
        "n": bend.n,
        "interval": list(bend.interval),
        **{name: {"per_doubling": one.value, "interval": _interval(one.interval)} for name, one in sides.items()},
        "p": bend.p,
    }


def _needed_document(needed: Needed) -> dict[str, Any]:
    return {
        "target": needed.target,
        "n": _finite(needed.n),
        "interval": _interval(needed.interval),
        "beyond": _finite(needed.beyond),
        "warning": needed.warning,
    }


def _interval(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [_finite(end) for end in interval]


def _finite(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if math.isfinite(value) else None
