"""Accuracy against the number of training samples, drawn: its mean over the seeds, its interval, a dot per training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

import altair as alt
from markupsafe import Markup

from robench_leaderboard._charts._draw import Layer, along, draw, layer, spread, text_width, texts

__all__ = ["ScaleLine", "scaling_chart"]

_WIDTH, _HEIGHT = 460, 260
_ROOM = (44, 12, 96, 44)
_LABEL_GAP = 15.0
_STEP = 0.1


@dataclass(frozen=True)
class ScaleLine:
    """One accuracy by size.

    Attributes:
        name: where it ends is its label.
        color: a CSS variable.
        points: (n, accuracy), ascending.
        band: (n, lower, upper), or nothing.
        dots: (n, accuracy) of single trainings.
        bend: where the line bends, as (lower, upper); None where it does not.
        dash: on and off in pixels; () is solid.
    """

    name: str
    color: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    dots: Sequence[tuple[float, float]] = ()
    bend: tuple[float, float] | None = None
    dash: tuple[int, ...] = ()


def scaling_chart(lines: Sequence[ScaleLine], *, words: str) -> Markup:
    """Return the chart of `lines` over log2 n, from the lowest figure up to 1; `words` is what a reader hears."""
    sizes = sorted({n for line in lines for n, _ in line.points})
    left, right = math.log2(sizes[0]), math.log2(sizes[-1])
    margin = 0.03 * (right - left)
    left, right = left - margin, right + margin
    values = [v for line in lines for _, v in (*line.points, *line.dots)]
    values += [low for line in lines for _, low, _ in line.band]
    low = max(0.0, math.floor((min(values) + 1e-9) / _STEP) * _STEP)
    place: dict[str, Any] = {"x": along(alt.X, "x", left, right), "y": along(alt.Y, "y", low, 1)}
    layers = [*_frame(sizes, left, right, low, place)]
    for letter, line in zip(ascii_lowercase, lines, strict=False):
        layers += _line(letter, line, low, place)
    return draw(
        [*layers, *_words(lines, sizes, left, right, low, place)], width=_WIDTH, height=_HEIGHT, room=_ROOM, words=words
    )


def _frame(sizes: Sequence[float], left: float, right: float, low: float, place: dict[str, Any]) -> Iterator[Layer]:
    rule = {"type": "rule", "strokeWidth": 1}
    yield layer("grid", ({"y": value} for value in _shares(low)), {**rule, "color": "var(--line)"}, y=place["y"])
    down = (1 - low) / _HEIGHT
    ticks = ({"x": math.log2(n), "y": low, "z": low - 5 * down} for n in sizes)
    yield layer("ticks", ticks, {**rule, "color": "var(--muted)"}, **place, y2=alt.Y2("z:Q"))


def _line(letter: str, line: ScaleLine, low: float, place: dict[str, Any]) -> Iterator[Layer]:
    if line.bend is not None:
        first, last = map(math.log2, line.bend)
        strip = [{"x": x, "y": low, "z": 1.0} for x in (first, last)]
        mark = {"type": "area", "color": line.color, "opacity": 0.1}
        yield layer(f"bend-{letter}", strip, mark, **place, y2=alt.Y2("z:Q"))
    band = ({"x": math.log2(n), "y": below, "z": above} for n, below, above in line.band)
    yield layer(
        f"band-{letter}", band, {"type": "area", "color": line.color, "opacity": 0.18}, **place, y2=alt.Y2("z:Q")
    )
    stroke = {"type": "line", "color": line.color, "strokeWidth": 2.0}
    if line.dash:
        stroke["strokeDash"] = list(line.dash)
    yield layer(f"line-{letter}", ({"x": math.log2(n), "y": v} for n, v in line.points), stroke, **place)
    dot = {"type": "circle", "size": 18, "color": line.color, "opacity": 0.75}
    yield layer(f"dots-{letter}", ({"x": math.log2(n), "y": v} for n, v in line.dots), dot, **place)


def _words(
    lines: Sequence[ScaleLine], sizes: Sequence[float], left: float, right: float, low: float, place: dict[str, Any]
) -> Iterator[Layer]:
    across, down = (right - left) / _WIDTH, (1 - low) / _HEIGHT
    ends = spread([_HEIGHT * (1 - line.points[-1][1]) / (1 - low) for line in lines], _LABEL_GAP, 4, _HEIGHT - 4)
    labels = [
        {"x": right + 7 * across, "y": 1 - y * down, "text": line.name, "color": line.color}
        for line, y in zip(lines, ends, strict=True)
    ]
    yield texts("ends", labels, "left", bold=True, **place)
    shares = [
        {"x": left - 7 * across, "y": value, "text": f"{100 * value:.0f}{' %' if value == 1 else ''}"}
        for value in _shares(low)
    ]
    yield texts("shares", shares, "right", **place)
    below = [{"x": math.log2(n), "y": low - 16 * down, "text": f"{n:g}"} for n in _fitting(sizes, left, across)]
    below.append({"x": (left + right) / 2, "y": low - 35 * down, "text": "training samples"})
    yield texts("below", below, "center", **place)


def _shares(low: float) -> list[float]:
    """Where the grid's lines are: 1 and what is below it in steps of a tenth, or a quarter where that is many."""
    step = 0.25 if low < 0.3 else _STEP
    return [value for k in range(20) if (value := round(1 - k * step, 6)) >= low - 1e-9]


def _fitting(sizes: Sequence[float], left: float, across: float) -> Iterator[float]:
    """Yield the sizes whose texts fit beside each other."""
    free = -math.inf
    for n in sizes:
        x, half = (math.log2(n) - left) / across, text_width(f"{n:g}") / 2
        if x - half > free + 6:
            yield n
            free = x + half
