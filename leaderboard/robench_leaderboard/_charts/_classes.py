"""A bar per class: certified, open, broken, and the clean accuracy; and the distances between classes as a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
from markupsafe import Markup

from robench_leaderboard._charts._draw import FONT, Layer, along, draw, layer, shortened, text_width, texts

__all__ = ["MOST_CLASSES", "ClassBar", "class_chart", "separation_chart"]

MOST_CLASSES = 40
_WIDTH, _ROW, _BAR = 300, 24, 15
_SIDE, _SMALLEST, _LARGEST = 420, 9, 56
_ROOM_FOR_FIGURES = 34  # pixels of a cell
_X = along(alt.X, "x", 0, 1)


@dataclass(frozen=True)
class ClassBar:
    """Shares of one class's samples; a side that was not asked for is None. `note` stands beside the bar."""

    name: str
    clean: float
    certified: float | None
    empirical: float | None
    note: str = ""


def class_chart(bars: Sequence[ClassBar], *, words: str) -> Markup:
    """Return the bars, top to bottom in the order given."""
    height = _ROW * len(bars)
    names = [shortened(bar.name, 16) for bar in bars]
    left = int(max((text_width(name) for name in names), default=0)) + 16
    y, half = along(alt.Y, "row", 0, len(bars), reverse=True), _BAR / _ROW / 2

    def part(name: str, ends: Sequence[tuple[float, float]], fill: str) -> Layer:
        values = [
            {"row": row + 0.5 - half, "bottom": row + 0.5 + half, "x": start, "end": end}
            for row, (start, end) in enumerate(ends)
            if end > start
        ]
        return layer(
            name,
            values,
            {"type": "rect", "color": fill, "strokeWidth": 0},
            x=_X,
            x2=alt.X2("end:Q"),
            y=y,
            y2=alt.Y2("bottom:Q"),
        )

    proven = [bar.certified or 0.0 for bar in bars]
    possible = [bar.clean if bar.empirical is None else bar.empirical for bar in bars]
    clean = [bar.clean for bar in bars]
    tick = {"type": "rule", "color": "var(--ink)", "strokeWidth": 2}
    ticks = [{"row": row + 0.1, "bottom": row + 0.9, "x": value} for row, value in enumerate(clean)]
    scale = [{"x": v, "row": -0.5, "text": f"{100 * v:g}{' %' if v == 1 else ''}"} for v in (0, 0.25, 0.5, 0.75, 1)]
    notes = [{"x": 1 + 8 / _WIDTH, "row": row + 0.5, "text": bar.note} for row, bar in enumerate(bars)]
    labels = [{"x": -8 / _WIDTH, "row": row + 0.5, "text": name} for row, name in enumerate(names)]
    layers = [
        part("track", [(0.0, 1.0)] * len(bars), "var(--track)"),
        part("certified", [(0.0, value) for value in proven], "var(--certified)"),
        part("open", list(zip(proven, possible, strict=True)), "url(#hatch)"),
        part("broken", list(zip(possible, clean, strict=True)), "url(#dots)"),
        layer("clean", ticks, tick, x=_X, y=y, y2=alt.Y2("bottom:Q")),
        texts("names", labels, "right", x=_X, y=y),
        texts("notes", notes, "left", x=_X, y=y),
        texts("scale", scale, "center", x=_X, y=y),
    ]
    return draw(layers, width=_WIDTH, height=height, room=(left, 26, 108, 6), words=words)


def separation_chart(names: Sequence[str], distance: Sequence[Sequence[float | None]], *, words: str) -> Markup:
    """Return the heat map of the distances between classes, [K, K]: the closer, the stronger the colour."""
    count = len(names)
    cell = min(_LARGEST, max(_SMALLEST, _SIDE // count))
    side = cell * count
    shown = [shortened(name, 12) for name in names]
    room = int(max(text_width(name) for name in shown)) + 14
    upright = max(map(len, shown)) * 0.6 * FONT < cell
    x, y = along(alt.X, "column", 0, count), along(alt.Y, "row", 0, count, reverse=True)
    known = [(i, j, value) for i, line in enumerate(distance) for j, value in enumerate(line) if value is not None]
    low, high = min((one[2] for one in known), default=0.0), max((one[2] for one in known), default=0.0)
    tiles = [
        {"row": i, "bottom": i + 1, "column": j, "end": j + 1, "near": _nearness(value, low, high)}
        for i, j, value in known
    ]
    tile = {"type": "rect", "color": "var(--broken)", "stroke": "var(--card)", "strokeWidth": 1}
    strength = alt.FillOpacity("near:Q", scale=None, legend=None)
    across = [{"column": at + 0.5, "row": -8 / cell, "text": name} for at, name in enumerate(shown)]
    down = [{"column": -8 / cell, "row": at + 0.5, "text": name} for at, name in enumerate(shown)]
    layers = [
        layer("tiles", tiles, tile, x=x, x2=alt.X2("end:Q"), y=y, y2=alt.Y2("bottom:Q"), fillOpacity=strength),
        texts("down", down, "right", x=x, y=y),
        texts("across", across, "center" if upright else "left", turned=not upright, x=x, y=y),
    ]
    if cell >= _ROOM_FOR_FIGURES:
        figures = [
            {"column": j + 0.5, "row": i + 0.5, "text": _figure(value), "color": "var(--ink)"} for i, j, value in known
        ]
        layers.append(texts("figures", figures, "center", x=x, y=y))
    return draw(layers, width=side, height=side, room=(room, 26 if upright else room, 8, 6), words=words)


def _figure(distance: float) -> str:
    """A distance in a cell's width."""
    return f"{distance:.2f}" if 0.1 <= distance < 10 else f"{distance:.2g}" if distance < 1000 else f"{distance:.0e}"


def _nearness(value: float, low: float, high: float) -> float:
    """How strong a cell's colour is: text on it stays readable in both schemes."""
    return round(0.06 + 0.5 * ((high - value) / (high - low) if high > low else 1.0), 3)
