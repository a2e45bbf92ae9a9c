"""The health of attacks on the pages: a mark beside the number, its words, the table behind it, and the catalogue."""

import csv
import io
import json
import re

import pytest

from oracles.evidence import fake_run, info, probed_run
from oracles.pages import board_of, pages_of, site_of
from robench.health import CATALOGUE
from robench_leaderboard._health import rules

INF = float("inf")
ONE = next(one for one in CATALOGUE.values() if one.origin == "probe" and one.decides and one.share < 0.5)
MASKED = {ONE.code: 0.5, "blackbox-stronger": 0.4}
EVIL = "<script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    unprobed = fake_run(2, net="plain", n=60, eps=("1/16",), dataset="digits", evaluators=(("pgd", "attack"),))
    unprobed.clean(dict.fromkeys(range(60), True))
    unprobed.add("pgd", "attack", "linf", 1 / 16, dict.fromkeys(range(60), ("open", 0, INF)))
    proven = fake_run(3, net="proven", n=60, eps=("1/16",), dataset="digits", evaluators=(("ibp", "certificate"),))
    proven.clean(dict.fromkeys(range(60), True))
    proven.add("ibp", "certificate", "linf", 1 / 16, dict.fromkeys(range(60), ("certified", 1 / 16, INF)))
    hostile = fake_run(
        4, net="hostile", n=60, eps=("1/16",), dataset="digits", evaluators=(info("probe", access="gradients"),)
    )
    hostile.clean(dict.fromkeys(range(60), True))
    far = 1e9 if ONE.direction == "above" else -1e9
    told = {
        "health": {EVIL: 1, **dict.fromkeys(CATALOGUE, EVIL), ONE.code: far, **{f"code-{i}": i for i in range(500)}}
    }
    hostile.add("probe", "attack", "linf", 1 / 16, dict.fromkeys(range(60), ("open", 0, INF)), detail=[told] * 60)
    runs = [probed_run(0, "honest"), probed_run(1, "masked", bad=MASKED), unprobed, proven, hostile]
    return site_of(tmp_path_factory.mktemp("health"), runs)


def page(site, name):
    (found,) = [data for key, data in site.items() if re.fullmatch(rf"{name}-[0-9a-f]{{16}}\.html", key)]
    return pages_of({"page.html": found})["page.html"]


def test_the_mark_stands_beside_the_flagged_number_alone(site):
    board = board_of(site)
    sections = dict(re.findall(r'<section id="(eps-[^"]+)" class="board"(.*?)</section>', board, re.S))
    assert set(sections) == {"eps-1-16", "eps-1-8"}
    for section, empirical, name in (("eps-1-8", "60.0 %", "masked"), ("eps-1-16", "100.0 %", "hostile")):
        (row,) = [row for row in sections[section].split("<tr") if "may be too high: </span>" in row]
        assert f"<bdi>{name}</bdi>" in row
        marked = re.findall(r'class="hidden">([^<]*)</span></span><span class="big">([^<]*)', row)
        assert marked == [("health flagged, may be too high: ", empirical)]
        assert f"{empirical} empirical (may be too high)" in row, "the picture's words"


def test_a_classifier_page_tells_grade_reasons_and_every_figure(site):
    masked = page(site, "masked").text
    assert "clean at ε = 1/16 (60 of 60 unbroken samples probed), flagged at ε = 1/8 (36 of 36 unbroken" in masked
    assert f"{ONE.text}, on 50 % of 60 samples; {CATALOGUE['blackbox-stronger'].text}, on 40 % of 60" in masked
    for one in CATALOGUE.values():
        if one.origin == "probe":
            assert one.measures in masked
            assert one.source in masked
    assert "Not probed" in page(site, "plain").text
    assert "Health of the attacks" not in page(site, "proven").text
    honest = page(site, "honest").text
    assert "clean at ε = 1/8" in honest
    assert "raised: " not in honest


def test_the_method_page_holds_the_whole_catalogue(site):
    methods = pages_of(site)["methods.html"]
    for rule in rules():
        assert f"health-{rule.indicator.code}" in methods.ids
        assert rule.indicator.measures in methods.text
        assert rule.indicator.source in methods.text
    assert "health" in methods.ids


def test_limits_in_words():
    words = {rule.indicator.code: (rule.threshold, rule.limit) for rule in rules()}
    for code, one in CATALOGUE.items():
        threshold, limit = words[code]
        assert threshold == f"{one.direction} {one.threshold:g}"
        assert ("any" in limit) == (one.share == 0)
        assert (f"{one.count} at least" in limit) == (one.count > 1)


def test_grades_are_among_the_downloads(site):
    rows = csv.DictReader(io.StringIO(site["results.csv"].decode()))
    found = {(row["name"], row["eps"]): row["health"] for row in rows}
    assert found == {
        ("honest", "1/16"): "clean", ("honest", "1/8"): "clean", ("masked", "1/16"): "clean",
        ("masked", "1/8"): "flagged", ("plain", "1/16"): "unprobed", ("proven", "1/16"): "",
        ("hostile", "1/16"): "flagged",
    }  # fmt: skip
    documents = {(one["classifier"], one["eps"]): one["health"] for one in json.loads(site["results.json"])["results"]}
    assert documents["proven", "1/16"] is None
    assert documents["masked", "1/8"]["indicators"]["blackbox-stronger"]["beyond"] == 24
    assert len(documents["masked", "1/8"]["reasons"]) == 2


def test_nothing_of_a_stranger_s_detail_reaches_a_page(site):
    pages = {name: data.decode() for name, data in site.items() if name.endswith((".html", ".csv", ".json"))}
    assert not any("owned" in text or "code-1" in text for text in pages.values())
