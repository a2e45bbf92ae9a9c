"""Charts as SVG without a browser: a Vega-Lite spec drawn by vl-convert, coloured by the page's own palette.

Colours are CSS variables (`var(--certified)`), which Vega hands through, so that one drawing serves light, dark and
print. What the page's content security policy or a screen reader would stumble over is taken out: style attributes,
ids, and roles and labels of single marks; a reader hears one sentence. Sizes are fixed, text is never measured: the
same spec gives the same bytes whatever fonts are installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree

import altair as alt
from altair.utils.schemapi import debug_mode
from markupsafe import Markup

from robench.report import safe

__all__ = ["FONT", "Box", "Layer", "along", "draw", "layer", "shortened", "spread", "text_width", "texts"]

FONT = 12
Box = tuple[int, int, int, int]
"""Room around a plot for labels, in pixels: left, top, right, bottom."""

# Altair holds every part of a spec against a JSON schema, which takes longer than drawing; the specs here are fixed.
_unchecked = debug_mode(False)
_CACHE = 1024
_LONGEST = 1200  # characters of what a screen reader says
_KEPT = {
    *("d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "transform", "points"),
    *("fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap"),
    *("stroke-linejoin", "opacity", "text-anchor", "font-size", "font-weight"),
}
_TAGS = {"g", "path", "line", "rect", "circle", "text", "tspan"}
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_NAME = re.compile(r"\b([a-z][a-z_]*)_marks")
_STEP = re.compile(r"[ML](-?[0-9.]+),(-?[0-9.]+)")
_STRAIGHT = re.compile(r"(M-?[0-9.]+,-?[0-9.]+)(L-?[0-9.]+,-?[0-9.]+)+Z?")


@dataclass(frozen=True)
class Layer:
    """A mark for each of `values`, which the chart knows by its name: Altair copies what it holds at every step."""

    chart: alt.Chart
    values: Sequence[Mapping[str, Any]]


@_unchecked
def draw(layers: Sequence[Layer], *, width: int, height: int, room: Box, words: str) -> Markup:
    """Return the layers as an inline `<svg>` that scales with its place; `words` is what a screen reader says.

    `width` x `height` is the plot, `room` what is around it, in pixels. A layer's name is its group's class. Text of
    strangers must come through `shortened`.
    """
    left, top, right, bottom = room
    drawn = [one for one in layers if one.values]
    chart = alt.LayerChart(
        layer=[one.chart for one in drawn],
        width=width,
        height=height,
        padding={"left": left, "top": top, "right": right, "bottom": bottom},
        autosize=alt.AutoSizeParams(type="none"),
        background="transparent",
        config=alt.Config(font="inherit", view=alt.ViewConfig(stroke=None, fill=None)),
    )
    spec = chart.to_dict(validate=False)
    spec["datasets"] = {one.chart.name: one.values for one in drawn}
    across, down = left + width + right, top + height + bottom
    head = Markup(
        '<svg class="chart" width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="img" aria-label="{2}">'
        '<g aria-hidden="true" fill="none">'
    ).format(across, down, shortened(words, _LONGEST))
    return head + Markup(_drawn(json.dumps(spec, sort_keys=True))) + Markup("</g></svg>")


@_unchecked
def layer(name: str, values: Iterable[Mapping[str, Any]], mark: Mapping[str, Any], **encoding: Any) -> Layer:
    """Return a layer: a mark per row of `values` (or one path through them), placed by `encoding` (Altair channels).

    Names differ within a chart.
    """
    chart = alt.Chart(alt.NamedData(name), name=name, mark=alt.MarkDef(**mark)).encode(**encoding)
    return Layer(chart, list(values))


@_unchecked
def texts(
    name: str,
    values: Iterable[Mapping[str, Any]],
    align: str,
    *,
    bold: bool = False,
    turned: bool = False,
    **encoding: Any,
) -> Layer:
    """Return a layer of words: the column `text`, in the column `color` (a CSS variable)."""
    weight = 600 if bold else 400
    mark = {"type": "text", "align": align, "baseline": "middle", "fontSize": FONT, "fontWeight": weight}
    values = [{"color": "var(--muted)", **value} for value in values]
    color = alt.Color("color:N", scale=None, legend=None)
    return layer(
        name, values, {**mark, "angle": 270 if turned else 0}, text=alt.Text("text:N"), color=color, **encoding
    )


@_unchecked
def along(channel: Callable[..., Any], field: str, low: float, high: float, *, reverse: bool = False) -> Any:
    """Return the place of a mark by the column `field`, [low, high] from side to side; nothing is drawn for it."""
    return channel(
        f"{field}:Q", axis=None, scale=alt.Scale(domain=[low, high], nice=False, zero=False, reverse=reverse)
    )


def shortened(text: object, longest: int = 18) -> str:
    """Return a stranger's text for a chart: one line without control and bidi characters, cut to `longest`."""
    plain = safe(text)
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


def text_width(text: str, size: float = FONT) -> float:
    """Return a generous estimate of a text's width in pixels, whatever the font."""
    return 0.6 * size * len(text)


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move `places` (any order) as little as needed so that they are `gap` apart and within [low, high]."""
    order = sorted(range(len(places)), key=lambda i: (places[i], i))
    out = [0.0] * len(places)
    floor = low
    for i in order:
        floor = out[i] = max(floor, places[i])
        floor += gap
    roof = high
    for i in reversed(order):
        roof = out[i] = min(roof, out[i])
        roof -= gap
    return out


@lru_cache(maxsize=_CACHE)
def _drawn(spec: str) -> str:
    """The drawing's content. Cached: a chart that stands on several pages is drawn once."""
    import vl_convert

    version = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
    svg = vl_convert.vegalite_to_svg(spec, vl_version=version, allowed_base_urls=[])
    root = ElementTree.fromstring(svg)  # made here, with every text in it escaped
    return "".join(ElementTree.tostring(part, encoding="unicode") for part in _clean(root))


def _clean(node: ElementTree.Element) -> list[ElementTree.Element]:
    """The children of `node` that draw something, with the attributes that say how."""
    out: list[ElementTree.Element] = []
    for child in node:
        tag = child.tag.rpartition("}")[2]
        if tag not in _TAGS or child.get("display") == "none" or child.get("opacity") == "0":
            continue
        if child.get("class") in ("background", "foreground") and child.get("fill") is None:
            continue
        attributes = {
            name: _rounded(value) for name, value in child.attrib.items() if name in _KEPT and value != "none"
        }
        if attributes.get("opacity") == "1":
            del attributes["opacity"]
        if attributes.get("transform") == "translate(0,0)":
            del attributes["transform"]
        if "d" in attributes:
            attributes["d"] = _straightened(attributes["d"])
        named = _NAME.search(child.get("class", ""))
        if named:
            attributes["class"] = named[1].replace("_", "-")
        inside = _clean(child)
        if tag == "g" and not attributes:
            out += inside
            continue
        if tag == "g" and not inside:
            continue
        kept = ElementTree.Element(tag, dict(sorted(attributes.items())))
        kept.text = child.text if tag in ("text", "tspan") else None
        kept.extend(inside)
        out.append(kept)
    return out


def _rounded(value: str) -> str:
    """Coordinates to a hundredth of a pixel."""

    def short(match: re.Match[str]) -> str:
        text = f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
        return "0" if text == "-0" else text

    return value if value.startswith("var(") else _NUMBER.sub(short, value)


def _straightened(path: str) -> str:
    """A path of steps without the points that lie on the way between their neighbours."""
    if not _STRAIGHT.fullmatch(path):
        return path
    kept: list[tuple[str, str]] = []
    for point in _STEP.findall(path):
        while len(kept) > 1 and any(kept[-2][i] == kept[-1][i] == point[i] for i in (0, 1)):
            kept.pop()
        if not kept or point != kept[-1]:
            kept.append(point)
    return "M" + "L".join(",".join(point) for point in kept) + ("Z" if path.endswith("Z") else "")
