"""Accuracy against ε, drawn: what is certified, what no attack broke, and the ceiling.

A vertical slice of the chart at ε is the bracket's bar there. Certificates hold below the ε they were asked at, so the
lower line is solid. The upper line is what witnesses show: solid where a minimum-norm search looked at every ε, else
dashed with a dot at each ε that an attack really searched.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
from markupsafe import Markup

from robench.metrics import Curve
from robench_leaderboard._charts._draw import Layer, along, draw, layer, spread, text_width, texts

__all__ = ["HEIGHT", "LARGEST", "WIDTH", "Steps", "ceiling_chart", "curve_chart", "value_at"]

WIDTH, HEIGHT = 400, 230
LARGEST = 1e300
"""An axis reaches somewhat beyond the largest ε, and doubles end at 1.8e308: beyond this one nothing is drawn."""
_ROOM = (44, 12, 76, 44)
_FINEST = 800  # steps are drawn one by one up to here, then at half a pixel
_LABEL_GAP = 15.0
_SHARES = (0, 0.25, 0.5, 0.75, 1)
_Y = along(alt.Y, "y", 0, 1)

Steps = Sequence[tuple[float, float]]
"""(ε, value) ascending: a step function that has this value from ε on."""


@dataclass(frozen=True)
class _Line:
    """One line of the chart: where it ends is its label."""

    name: str
    steps: Steps
    color: str
    width: float = 2.0
    dash: tuple[int, ...] = ()


def curve_chart(
    line: Curve,
    right: float,
    marks: Sequence[tuple[float, str]],
    *,
    clean: float,
    certified: bool,
    empirical: bool,
    ceiling: Steps = (),
    title: str,
    words: str,
) -> Markup:
    """Return the chart of one classifier from ε = 0 to `right` (> 0).

    `marks` are the ε of the axis with their texts, `title` names it. `clean` is the clean accuracy, `certified` and
    `empirical` say which sides were asked for, `ceiling` is that of the same samples.
    """
    flat = [(0.0, clean)]
    low = drawn_steps(list(zip(line.eps, line.certified, strict=True)), right) if certified else [(0.0, 0.0)]
    high = drawn_steps(list(zip(line.eps, line.empirical, strict=True)), right) if empirical else flat
    layers = [
        _band("broken", high, flat, right, "url(#dots)", 0.45),
        _band("open", low, high, right, "url(#hatch)", 0.85),
        _band("certified", [(0.0, 0.0)], low, right, "var(--certified)"),
    ]
    lines = [_Line("clean", flat, "var(--muted)", 1.2, (2, 3))]
    if certified:
        lines.append(_Line("certified", low, "var(--certified)"))
    if empirical:
        lines.append(_Line("empirical", high, "var(--ink)", 1.8, () if line.everywhere else (5, 4)))
    if inside := [step for step in ceiling if step[0] <= right]:
        lines.append(_Line("ceiling", drawn_steps(inside, right), "var(--ceiling)", 2.2))
    layers += [_drawn(one, right) for one in lines]
    dots = [
        {"x": eps, "y": value_at(line.eps, line.empirical, eps)} for eps in line.searched if eps <= right and empirical
    ]
    dot = {
        "type": "circle",
        "size": 46,
        "color": "var(--ink)",
        "opacity": 1,
        "stroke": "var(--card)",
        "strokeWidth": 1.5,
    }
    layers.append(layer("searched", dots, dot, x=_x(right), y=_Y))
    return _framed(layers, lines, right, marks, title, words)


def ceiling_chart(
    ceiling: Steps, reached: Steps, right: float, marks: Sequence[tuple[float, str]], *, title: str, words: str
) -> Markup:
    """Return the chart of a ceiling from ε = 0 to `right`, above what is `reached`: certified of some classifier."""
    top = drawn_steps(ceiling, right)
    layers = [_band("impossible", top, [(top[0][0], 1.0)], right, "var(--ceiling)", 0.14)]
    lines = [_Line("ceiling", top, "var(--ceiling)", 2.2)]
    if reached:
        best = drawn_steps(reached, right)
        layers.append(_band("reached", [(0.0, 0.0)], best, right, "var(--certified)"))
        lines.append(_Line("certified", best, "var(--certified)"))
    return _framed([*layers, *(_drawn(line, right) for line in lines)], lines, right, marks, title, words)


def value_at(eps: Sequence[float], values: Sequence[float], at: float) -> float:
    """Return the value of a step function at `at`, which is not below the first step."""
    return values[bisect_right(eps, at) - 1]


def drawn_steps(steps: Steps, right: float) -> list[tuple[float, float]]:
    """Return the steps up to `right` where the value changes; of very many, those that half a pixel can tell apart.

    Every step returned is one of the curve's, and the last value is kept.
    """
    out: list[tuple[float, float]] = []
    inside = [step for step in steps if step[0] <= right]
    finest = 0.5 if len(inside) > _FINEST else 0.0
    for eps, value in inside:
        if out and value == out[-1][1]:
            continue
        if out and (eps - out[-1][0]) * WIDTH < finest * right and len(out) > 1:
            out[-1] = (out[-1][0], value)
            continue
        out.append((eps, value))
    return out


def _band(name: str, below: Steps, above: Steps, right: float, fill: str, opacity: float = 1.0) -> Layer:
    """The area between two step functions."""
    start = max(below[0][0], above[0][0])
    places = sorted({eps for eps, _ in (*below, *above) if eps >= start} | {right})
    values = []
    for place in places:
        low, high = _at(below, place), _at(above, place)
        values.append({"x": place, "y": low, "z": max(low, high)})
    mark = {"type": "area", "interpolate": "step-after", "color": fill, "opacity": opacity}
    return layer(name, values, mark, x=_x(right), y=_Y, y2=alt.Y2("z:Q"))


def _drawn(line: _Line, right: float) -> Layer:
    points = ({"x": x, "y": y} for x, y in [*line.steps, (right, line.steps[-1][1])])
    mark = {"type": "line", "interpolate": "step-after", "color": line.color, "strokeWidth": line.width}
    if line.dash:
        mark["strokeDash"] = list(line.dash)
    return layer(f"line-{line.name}", points, mark, x=_x(right), y=_Y)


def _at(steps: Steps, place: float) -> float:
    return steps[bisect_right(steps, place, key=lambda step: step[0]) - 1][1]


def _framed(
    layers: Sequence[Layer],
    lines: Sequence[_Line],
    right: float,
    marks: Sequence[tuple[float, str]],
    title: str,
    words: str,
) -> Markup:
    """The layers with grid, axes and a label where each line ends."""
    ends = spread([HEIGHT * (1 - line.steps[-1][1]) for line in lines], _LABEL_GAP, 4, HEIGHT - 4)
    labels = [
        {"x": right * (1 + 7 / WIDTH), "y": 1 - y / HEIGHT, "text": line.name, "color": line.color}
        for line, y in zip(lines, ends, strict=True)
    ]
    ticks = shown_marks(marks, right)
    rule = {"type": "rule", "strokeWidth": 1}
    shown = [{"x": eps, "y": 0, "z": -5 / HEIGHT} for eps, _ in marks if eps <= right]
    frame = [
        layer("grid", ({"y": value} for value in _SHARES), {**rule, "color": "var(--line)"}, y=_Y),
        layer("ticks", shown, {**rule, "color": "var(--muted)"}, x=_x(right), y=_Y, y2=alt.Y2("z:Q")),
    ]
    shares = [
        {"x": -7 * right / WIDTH, "y": value, "text": f"{100 * value:g}{' %' if value == 1 else ''}"}
        for value in _SHARES
    ]
    below = [{"x": eps, "y": -16 / HEIGHT, "text": text} for eps, text in ticks]
    below.append({"x": right / 2, "y": -35 / HEIGHT, "text": title})
    place = {"x": _x(right), "y": _Y}
    words_on = [
        texts("ends", labels, "left", bold=True, **place),
        texts("shares", shares, "right", **place),
        texts("below", below, "center", **place),
    ]
    return draw([*frame, *layers, *words_on], width=WIDTH, height=HEIGHT, room=_ROOM, words=words)


def shown_marks(marks: Sequence[tuple[float, str]], right: float) -> list[tuple[float, str]]:
    """Return 0 and the marks whose texts fit beside each other, the first ones first."""
    out = [(0.0, "0")]
    free = text_width("0") / 2
    for eps, text in marks:
        x, half = WIDTH * eps / right, text_width(text) / 2
        if eps <= right and x - half > free + 6 and len(text) <= 12:
            out.append((eps, text))
            free = x + half
    return out


def _x(right: float) -> Any:
    return along(alt.X, "x", 0, right)
