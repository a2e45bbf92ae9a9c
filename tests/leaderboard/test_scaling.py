"""The page about a scaling curve: the law that the runs were made by, drawn, listed and said."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from oracles.pages import Page, files_of, pages_of
from oracles.scaling import put, scale_of, scaled_runs
from robench.metrics import results
from robench.report_scaling import scale_document, scale_lines
from robench.runs import Component, find_runs
from robench.scaling import Published, curves_of, find_scales, published_for
from robench.threat import Epsilon
from robench_leaderboard import build
from robench_leaderboard._charts import ScaleLine, scaling_chart
from robench_leaderboard._scaling import _charts, scale_views

SIZES, SEEDS = (50, 100, 200, 400, 800, 1600, 3200), (0, 1, 2)


def law(n: int, seed: int) -> float:
    """Ten points per doubling up to 400 samples, then one."""
    return 0.4 + 0.1 * min(3.0, math.log2(n / 50)) + 0.01 * max(0.0, math.log2(n / 400)) + 0.01 * seed


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("scaling")
    runs = scaled_runs(SIZES, SEEDS, law)
    for run in runs:
        run.save(folder / "results")
    put(scale_of(runs, SIZES, SEEDS), folder / "results")
    build(find_runs(folder / "results"), folder / "site", (), find_scales(folder / "results"))
    return folder, files_of(folder / "site")


def page_of(files: dict[str, bytes]) -> tuple[str, str, Page]:
    (name,) = [name for name in files if name.startswith("scaling-")]
    return name, files[name].decode(), pages_of(files)[name]


def test_the_page_tells_the_law_that_the_runs_follow(site: tuple[Path, dict[str, bytes]]) -> None:
    _, text, page = page_of(site[1])
    said = re.search(
        r"saturates at about ([0-9,]+) samples .*?gains \+([0-9.]+) points .*? and \+([0-9.]+) points", page.text
    )
    assert said is not None, page.text
    bend, before, after = float(said[1].replace(",", "")), float(said[2]), float(said[3])
    assert bend == pytest.approx(400, rel=0.08)
    assert before == pytest.approx(10, abs=0.3)
    assert after == pytest.approx(1, abs=0.3)
    assert "d* = 20.0 [20.0, 20.0]" in page.text
    for n in SIZES:
        assert f"{100 * (law(n, 1)):.2f} %" in page.text
    assert text.count('<svg class="chart"') == 1
    assert "robench scale aol:width=64 -d toy --sizes 50:800:x2" in page.text


def test_targets_are_told_and_a_bend_is_explained_where_there_is_one(
    site: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    assert "Shaded from top to bottom" in page_of(site[1])[2].text
    assert "An accuracy of" not in page_of(site[1])[2].text
    runs = scaled_runs(SIZES[:4], SEEDS, law)  # ten points per doubling, from 40 % with 50 samples
    for run in runs:
        run.save(tmp_path / "results")
    put(scale_of(runs, SIZES[:4], SEEDS, targets=(0.8,)), tmp_path / "results")
    build(find_runs(tmp_path / "results"), tmp_path / "site", (), find_scales(tmp_path / "results"))
    text = page_of(files_of(tmp_path / "site"))[2].text
    assert "Shaded from top to bottom" not in text
    found = re.search(r"An accuracy of 0\.8 takes n = ([0-9,]+) \[", text)
    assert found is not None
    assert float(found[1].replace(",", "")) == pytest.approx(50 * 2 ** ((0.8 - 0.41) / 0.1), rel=0.03)


def test_it_is_linked_and_whole(site: tuple[Path, dict[str, bytes]]) -> None:
    name, _, page = page_of(site[1])
    pages = pages_of(site[1])
    linking = [other for other, one in pages.items() if name in one.links]
    assert "index.html" in linking
    assert len(linking) == 2  # and the dataset's
    for link in page.links:
        file, _, anchor = link.partition("#")
        assert not file or file in site[1]
        assert not anchor or anchor in pages[file or name].ids


def test_the_same_results_give_the_same_bytes(site: tuple[Path, dict[str, bytes]]) -> None:
    folder, files = site
    results_folder = folder / "results"
    build(list(reversed(find_runs(results_folder))), folder / "again", (), find_scales(results_folder))
    assert files_of(folder / "again") == files


def test_the_view_has_the_figures_of_the_curves(site: tuple[Path, dict[str, bytes]]) -> None:
    found = results(find_runs(site[0] / "results"))
    scales = find_scales(site[0] / "results")
    (view,) = scale_views(scales, found)
    (curves,) = curves_of(scales, found)
    assert [table.name for table in view.tables] == ["clean", "certified l2 0.5"]
    assert [table.curve.title for table in view.tables] == [curve.title for curve in curves.curves]
    assert view.seeds == 3
    assert len(view.charts) == 1


def test_a_strangers_record_cannot_leave_its_place(tmp_path: Path) -> None:
    runs = scaled_runs(SIZES[:3], SEEDS[:1], law)
    for run in runs:
        run.save(tmp_path / "results")
    evil = "</code><script>alert(1)</script>\u202e"
    scale = scale_of(
        runs,
        SIZES[:3],
        SEEDS[:1],
        recipe=Component(canonical=evil[:-1], full=evil[:-1]),
        train=evil[:-1],
        command=evil[:-1],
    )
    put(scale, tmp_path / "results")
    build(find_runs(tmp_path / "results"), tmp_path / "site", (), find_scales(tmp_path / "results"))
    name, text, _ = page_of(files_of(tmp_path / "site"))
    assert "<script>alert" not in text
    assert re.fullmatch(r"scaling-[a-z0-9-]+\.html", name)


def test_a_curve_without_runs_makes_no_page(tmp_path: Path) -> None:
    runs = scaled_runs(SIZES[:3], SEEDS[:1], law)
    runs[0].save(tmp_path / "results")
    put(scale_of(runs, SIZES[:3], SEEDS[:1]), tmp_path / "results")
    build(find_runs(tmp_path / "results"), tmp_path / "site", (), find_scales(tmp_path / "results"))
    assert not [name for name in files_of(tmp_path / "site") if name.startswith("scaling-")]


def test_a_record_without_distances_has_a_page(tmp_path: Path) -> None:
    runs = scaled_runs(SIZES, SEEDS, law)
    for run in runs:
        run.save(tmp_path / "results")
    put(scale_of(runs, SIZES, SEEDS, distances=()), tmp_path / "results")
    build(find_runs(tmp_path / "results"), tmp_path / "site", (), find_scales(tmp_path / "results"))
    _, _, page = page_of(files_of(tmp_path / "site"))
    assert "saturates at about" in page.text
    assert "d* =" not in page.text
    (curves,) = curves_of(find_scales(tmp_path / "results"), results(find_runs(tmp_path / "results")))
    assert not any("nearest" in line for line in scale_lines(curves))
    assert scale_document(curves)["nearest"]["median"] == []


def test_the_chart_holds_a_mark_for_each_figure() -> None:
    line = ScaleLine(
        "certified",
        "var(--certified)",
        [(50, 0.5), (100, 0.6), (400, 0.7)],
        [(50, 0.4, 0.6), (100, 0.5, 0.7), (400, 0.6, 0.8)],
        [(50, 0.49), (50, 0.51)],
        (90.0, 110.0),
    )
    text = str(scaling_chart([line], words="w"))
    assert text.count("<text") >= 3 + 3
    for word in ("certified", "training samples", ">50<", ">100<", ">400<", ">100 %<", ">40<"):
        assert word in text
    assert 'class="dots-a"' in text
    assert 'class="bend-a"' in text


def test_what_papers_state_is_found_for_their_own_setting() -> None:
    (one,) = published_for("mnist", "certified", "l2", Epsilon.parse("36/255"))
    assert isinstance(one, Published)
    # 234 samples for 90 %, seven points per doubling below (Prach & Lampert 2025, section 9.3).
    assert one.points[-1] == (pytest.approx(234.375), 0.90)
    for (n, value), (m, higher) in zip(one.points, one.points[1:], strict=False):
        assert m == pytest.approx(2 * n)
        assert higher - value == pytest.approx(0.07)
    assert not published_for("mnist", "certified", "l2", Epsilon.parse("0.5"))
    assert not published_for("digits", "certified", "l2", Epsilon.parse("36/255"))
    assert not published_for("mnist", "clean", None, None)


def test_two_norms_make_two_charts() -> None:
    """Figures come by quantity first: those of a norm do not stand together."""
    runs = scaled_runs(SIZES, SEEDS, law)
    (curves,) = curves_of([scale_of(runs, SIZES, SEEDS)], results(runs))
    (certified,) = (curve for curve in curves.curves if curve.quantity == "certified")
    figures = [
        replace(certified, quantity=quantity, norm=norm)
        for quantity in ("certified", "empirical")
        for norm in ("l2", "linf")
    ]
    assert len(list(_charts(figures, ()))) == 2
