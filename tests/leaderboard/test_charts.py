"""Charts: what they draw is the curve itself; no stranger, style attribute, id or font gets into them."""

import itertools
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robench.metrics import Curve
from robench_leaderboard._charts import _draw
from robench_leaderboard._charts._classes import ClassBar, class_chart, separation_chart
from robench_leaderboard._charts._curves import HEIGHT, WIDTH, ceiling_chart, curve_chart, drawn_steps, value_at
from robench_leaderboard._charts._draw import shortened, spread

LINE = Curve(
    norm="linf",
    eps=(0.0, 0.03, 0.07, 0.1),
    certified=(0.9, 0.6, 0.2, 0.0),
    empirical=(0.95, 0.95, 0.7, 0.5),
    searched=(0.05, 0.1),
    everywhere=False,
)
MARKS = [(0.05, "1/20"), (0.1, "1/10")]


def chart(line=LINE, right=0.12, marks=MARKS, **changes):
    given = {"clean": 0.95, "certified": True, "empirical": True, "title": "ε in ℓ∞", "words": "Words."}
    return str(curve_chart(line, right, marks, **{**given, **changes}))


def part(svg, name):
    """The first element in the group of a layer."""
    return next(group for group in ElementTree.fromstring(svg).iter("g") if group.get("class") == name)[0]


def corners(svg, name):
    """The points of a path, in the units of the data: (ε, value)."""
    numbers = [
        tuple(map(float, point)) for point in re.findall(r"[ML](-?[0-9.]+),(-?[0-9.]+)", part(svg, name).get("d"))
    ]
    return [(x / WIDTH, 1 - y / HEIGHT) for x, y in numbers]


def stairs(steps, right):
    """Corners of a step function, from its definition."""
    out = [(steps[0][0] / right, steps[0][1])]
    for (_, before), (eps, value) in itertools.pairwise(steps):
        out += [(eps / right, before), (eps / right, value)]
    return [*out, (1.0, steps[-1][1])]


@pytest.mark.parametrize("side", ["certified", "empirical"])
def test_a_line_is_the_curve(side):
    drawn = corners(chart(), f"line-{side}")
    steps = list(zip(LINE.eps, getattr(LINE, side), strict=True))
    changes = [step for i, step in enumerate(steps) if i == 0 or step[1] != steps[i - 1][1]]
    assert np.allclose(drawn, stairs(changes, 0.12), atol=0.01 / HEIGHT + 1e-9)


def test_the_bands_lie_between_the_lines():
    """Their areas add up to the areas between certified, empirical and clean."""

    def area(points):
        x, y = np.array(points).T
        return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2

    svg, grid = chart(), np.linspace(0, 0.12, 120_001)[:-1]
    low = np.mean([value_at(LINE.eps, LINE.certified, eps) for eps in grid[::10]])
    high = np.mean([value_at(LINE.eps, LINE.empirical, eps) for eps in grid[::10]])
    for name, expected in (("certified", low), ("open", high - low), ("broken", 0.95 - high)):
        assert area(corners(svg, name)) == pytest.approx(expected, abs=1e-3), name


def test_dots_mark_where_an_attack_searched():
    dots = next(g for g in ElementTree.fromstring(chart()).iter("g") if g.get("class") == "searched")
    places = [tuple(map(float, re.findall(r"-?[0-9.]+", dot.get("transform")))) for dot in dots]
    expected = [(WIDTH * eps / 0.12, HEIGHT * (1 - value)) for eps, value in ((0.05, 0.95), (0.1, 0.5))]
    assert np.allclose(places, expected, atol=0.01)


def test_solid_and_dashed():
    everywhere = Curve("linf", LINE.eps, LINE.certified, LINE.empirical, (), True)
    assert part(chart(), "line-empirical").get("stroke-dasharray")
    assert not part(chart(everywhere), "line-empirical").get("stroke-dasharray")
    for svg in (chart(), chart(everywhere)):
        assert not part(svg, "line-certified").get("stroke-dasharray")


def test_a_side_that_was_not_asked_for_is_not_drawn():
    unattacked = chart(empirical=False)
    assert "line-empirical" not in unattacked and "searched" not in unattacked
    assert max(y for _, y in corners(unattacked, "open")) == pytest.approx(0.95)  # open up to the clean accuracy
    assert 'class="broken"><path' not in unattacked or corners(unattacked, "broken")[0][1] == pytest.approx(0.95)
    uncertified = chart(certified=False)
    assert "line-certified" not in uncertified
    assert min(y for _, y in corners(uncertified, "open")) == pytest.approx(0.0)


def test_the_ceiling_starts_where_it_was_computed():
    steps = ((0.02, 1.0), (0.05, 0.9), (0.08, 0.8), (0.2, 0.1))  # the last one is beyond the chart
    assert np.allclose(corners(chart(ceiling=steps), "line-ceiling"), stairs(steps[:3], 0.12), atol=1e-4)
    alone = str(ceiling_chart(steps, [(0.0, 0.9), (0.05, 0.3)], 0.23, [], title="ε", words="w"))
    assert np.allclose(corners(alone, "line-ceiling"), stairs(steps, 0.23), atol=1e-4)
    assert "line-ceiling" not in chart()
    assert "line-ceiling" not in chart(ceiling=((0.2, 0.5),))


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=3000),
    st.floats(0.1, 2),
)
def test_very_many_steps_are_thinned_to_half_a_pixel(points, right):
    eps = np.unique([0.0, *(p[0] for p in points)])
    values = np.sort(np.resize([p[1] for p in points], len(eps)))[::-1]
    steps = list(zip(eps.tolist(), values.tolist(), strict=True))
    drawn = drawn_steps(steps, right)
    inside = [step for step in steps if step[0] <= right]
    assert drawn[0][0] == 0.0
    assert drawn[-1][1] == inside[-1][1]
    if len(inside) <= 800:  # nothing but repeated values is left out
        for at in (eps for eps, _ in inside):
            assert value_at(*map(list, zip(*drawn, strict=True)), at) == value_at(
                *map(list, zip(*steps, strict=True)), at
            )
    assert len(drawn) <= max(800, 2 * WIDTH + 2)


def test_thousands_of_steps_stay_within_half_a_pixel():
    eps = np.linspace(0, 1, 20_001)
    values = 1 - eps**2
    drawn = drawn_steps(list(zip(eps.tolist(), values.tolist(), strict=True)), 1.0)
    assert len(drawn) < 900
    xs, ys = map(list, zip(*drawn, strict=True))
    for at in np.linspace(0, 1, 997):
        shifted = [value_at(eps, values, min(1, max(0, at + d / WIDTH))) for d in (-0.51, 0.51)]
        assert shifted[1] - 1e-9 <= value_at(xs, ys, at) <= shifted[0] + 1e-9


HOSTILE = (
    "</text><script>alert(1)</script>",
    '" onload="alert(2)',
    "' & < > \u202egnp.exe \u2066 \x00 \x1b[31m",
    "x" * 10_000,
    '{{ datum.x }} "+alert(3)+"',
    "a.b[0]\\",
    "2026-01-01",
)


def charts_about(text):
    distance = [[None, 1.0], [1.0, None]]
    yield str(class_chart([ClassBar(text, 0.9, 0.2, 0.5), ClassBar("b", 0.9, 0.2, 0.5)], words=text))
    yield str(separation_chart([text, "b"], distance, words=text))
    yield chart(words=text)


@pytest.mark.parametrize("text", HOSTILE)
def test_strangers_text_stays_text(text):
    plain = list(charts_about("harmless"))
    for svg, other in zip(charts_about(shortened(text, 300)), plain, strict=True):
        tree, harmless = ElementTree.fromstring(svg), ElementTree.fromstring(other)
        assert [node.tag for node in tree.iter()] == [node.tag for node in harmless.iter()]
        assert {name for node in tree.iter() for name in node.attrib} == {
            name for node in harmless.iter() for name in node.attrib
        }
        texts = [node.text or "" for node in tree.iter("text")]
        assert max(map(len, texts)) <= 40
        assert all(character.isprintable() for one in texts for character in one)
    shown = shortened(text, 16)
    assert any(node.text == shown for node in ElementTree.fromstring(next(charts_about(text))).iter("text"))


def test_what_the_page_must_not_hold_is_not_there():
    for svg in [*charts_about("a"), chart(ceiling=((0.02, 0.9),))]:
        tree = ElementTree.fromstring(svg)
        assert tree.get("role") == "img" and tree.get("aria-label")
        assert tree[0].get("aria-hidden") == "true"
        assert tree.get("viewBox") == f"0 0 {tree.get('width')} {tree.get('height')}"
        for node in tree[0].iter():
            assert not {"style", "id", "role", "aria-label", "font-family", "href"} & set(node.attrib)
            assert node.tag in ("g", "path", "line", "rect", "circle", "text")
        colors = {node.get(name) for node in tree.iter() for name in ("fill", "stroke")} - {None, "none"}
        assert all(re.fullmatch(r"var\(--[a-z-]+\)|url\(#(hatch|dots)\)", color) for color in colors), colors
        assert "xmlns" not in svg and "white" not in svg


def test_colours_are_those_of_the_page():
    from importlib import resources

    style = resources.files("robench_leaderboard").joinpath("templates/style.css").read_text()
    for svg in [*charts_about("a"), chart(ceiling=((0.02, 0.9),))]:
        for name in set(re.findall(r"var\((--[a-z-]+)\)", svg)):
            assert len(re.findall(rf"^\s*{name}:", style, re.M)) >= 2, name  # in light and in dark


def test_the_same_spec_gives_the_same_bytes_and_is_drawn_once():
    _draw._drawn.cache_clear()
    first = chart()
    assert chart() == first
    assert _draw._drawn.cache_info().misses == 1
    code = (
        "import sys; sys.path.insert(0, 'tests/leaderboard'); import test_charts as t, hashlib;"
        "print(hashlib.sha256((t.chart() + ''.join(t.charts_about('a'))).encode()).hexdigest())"
    )
    command = [sys.executable, "-c", code]
    import hashlib
    import os
    from pathlib import Path

    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
    again = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root, env=environment)
    assert again.stdout.strip() == hashlib.sha256((first + "".join(charts_about("a"))).encode()).hexdigest()


@given(st.lists(st.floats(0, 200), min_size=1, max_size=6))
def test_labels_are_spread_apart(places):
    out = spread(places, 15, 4, 226)
    gaps = np.diff(sorted(out))
    assert (gaps >= 15 - 1e-9).all()
    assert min(out) >= 4 - 1e-9 and max(out) <= 226 + 1e-9
    assert [out[i] <= out[j] + 1e-9 for i, a in enumerate(places) for j, b in enumerate(places) if a < b] == [
        True for a in places for b in places if a < b
    ]


def test_labels_that_fit_stay():
    assert spread([10, 50, 100], 15, 4, 226) == [10, 50, 100]


def test_class_bars_are_the_shares():
    bars = [ClassBar("a", 0.9, 0.2, 0.5), ClassBar("b", 1.0, None, 0.25), ClassBar("c", 0.8, 0.4, None)]
    tree = ElementTree.fromstring(str(class_chart(bars, words="w")))

    def spans(name):
        group = next((g for g in tree.iter("g") if g.get("class") == name), [])
        edges = [re.findall(r"-?[0-9.]+", node.get("d")) for node in group]
        return [(float(e[0]) / 300, (float(e[0]) + float(e[2])) / 300) for e in edges]

    assert np.allclose(spans("certified"), [(0, 0.2), (0, 0.4)], atol=1e-4)
    assert np.allclose(spans("open"), [(0.2, 0.5), (0, 0.25), (0.4, 0.8)], atol=1e-4)
    assert np.allclose(spans("broken"), [(0.5, 0.9), (0.25, 1.0)], atol=1e-4)


def test_closer_classes_have_a_stronger_colour():
    distance = [[None, 1.0, 3.0], [1.0, None, 2.0], [3.0, 2.0, None]]
    tree = ElementTree.fromstring(str(separation_chart(["a", "b", "c"], distance, words="w")))
    tiles = next(g for g in tree.iter("g") if g.get("class") == "tiles")
    strength = [float(tile.get("fill-opacity")) for tile in tiles]
    assert len(strength) == 6  # not the diagonal
    by_distance = sorted(zip([1.0, 3.0, 1.0, 2.0, 3.0, 2.0], strength, strict=True))
    assert [s for _, s in by_distance] == sorted(strength, reverse=True)
    figures = [node.text for g in tree.iter("g") if g.get("class") == "figures" for node in g]
    assert figures == ["1.00", "3.00", "1.00", "2.00", "3.00", "2.00"]


@pytest.mark.browser
def test_one_drawing_serves_both_schemes_under_the_content_security_policy(tmp_path):
    from importlib import resources

    from playwright.sync_api import sync_playwright

    style = resources.files("robench_leaderboard").joinpath("templates/style.css").read_text()
    page = tmp_path / "chart.html"
    page.write_text(
        "<!doctype html><meta charset=utf-8><meta http-equiv=Content-Security-Policy content=\"default-src 'none';"
        f" style-src 'sha256-{digest(style)}'\"><style>{style}</style>{chart()}",
        encoding="utf-8",
    )
    seen = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            tab = browser.new_context(color_scheme=scheme).new_page()
            messages = []
            tab.on("console", lambda message, messages=messages: messages.append(message.text))
            tab.goto(page.as_uri())
            script = "() => getComputedStyle(document.querySelector('.line-certified path')).stroke"
            variable = "() => getComputedStyle(document.documentElement).getPropertyValue('--certified').trim()"
            red, green, blue = (int(tab.evaluate(variable)[i : i + 2], 16) for i in (1, 3, 5))
            assert tab.evaluate(script) == f"rgb({red}, {green}, {blue})"
            font = "s => getComputedStyle(document.querySelector(s)).fontFamily"
            assert tab.evaluate(font, "svg.chart text") == tab.evaluate(font, "body")
            assert messages == []
            seen.append((red, green, blue))
        browser.close()
    assert seen[0] != seen[1]


def digest(style):
    import base64
    import hashlib

    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
