"""What a board says: figures, bars, ceilings, ranks, flags; and that it bears whatever results there are."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from oracles.bounds import fake_bound
from oracles.evidence import NETS, fake_run, sha, toy_runs
from oracles.pages import Page, board_of, pages_of, site_of
from robench.metrics import BLOCKING, clopper_pearson, result_at, results, subjects
from robench.runs import find_runs
from robench_leaderboard._bars import EXAMPLE_SAMPLES, worked_example
from robench_leaderboard._boards import boards_of
from robench_leaderboard._environment import environment

INF = float("inf")
CEILING = {"1/16": 0.99, "1/8": 0.4, "0.2": 0.1}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    bound = fake_bound(CEILING, dataset="digits", samples=range(60))
    return folder, site_of(folder, toy_runs(n=60), bounds=[bound])


def rows_of(html, eps):
    """The cells of a section's rows: label -> text, by the classifier's name."""
    section = re.search(rf'<section id="eps-{eps}".*?</section>', html, re.S)[0]
    found = {}
    for row in re.findall(r"<tr(?: data-rankable)?>\n<td.*?</tr>", section, re.S):
        name = re.search(r'class="name"[^>]*><bdi>([^<]*)</bdi>', row)[1]
        cells = re.findall(r'<td[^>]*data-label="([^"]*)"[^>]*>(.*?)</td>', row, re.S)
        found[name] = {label: Page(cell).text for label, cell in cells}
    return found


def test_every_figure_of_the_results_is_on_the_board(toy):
    folder, files = toy
    html = board_of(files)
    found = results(find_runs(folder / "results"))
    assert len(found) == 12
    for result in found:
        row = rows_of(html, result.eps.text.replace("/", "-"))[result.subject.title]
        for label, share in (("certified", result.certified), ("empirical", result.empirical), ("clean", result.clean)):
            low, high = (100 * end for end in share.interval)
            assert row[label] == f"{100 * share.value:.1f} % [{low:.1f}, {high:.1f}]"
        assert row["open"] == f"{100 * (result.empirical.value - result.certified.value):.1f} %"
        low, high = (100 * end for end in result.joint_interval)
        assert f"{low:.1f} – {high:.1f}" in Page(html).text
        assert row["passes a sample"].endswith(" s")


def test_every_figure_of_the_json_is_on_some_page(toy):
    _, files = toy
    text = " ".join(page.text for page in pages_of(files).values())
    for entry in json.loads(files["results.json"])["results"]:
        for key in ("clean_accuracy", "certified_accuracy", "empirical_accuracy", "ceiling"):
            assert f"{100 * entry[key]:.1f} %" in text
        for low, high in (ends for key, ends in entry["intervals"].items() if key not in ("level", "method")):
            assert f"[{100 * low:.1f}, {100 * high:.1f}]" in text
        for flag in entry["flags"]:
            assert flag["code"] in text
            assert flag["text"] in text
        for key in ("classifier", "fingerprint", "dataset", "eps"):
            assert entry[key] in text
        for counts in entry["evaluators"]:
            assert counts["evaluator"] in text
            for key in ("n", "certified", "falsified", "open", "abstain", "timeout", "error", "forwards", "backwards"):
                assert re.search(rf"(?<![\d,]){counts[key]:,}(?![\d,])", text), key


def test_the_picture_is_the_figures(toy):
    """The widths of a bar's parts add up to the accuracies that stand beside it; marks stand where they say."""
    folder, files = toy
    bars = re.findall(
        r'<td class="c-bar"><svg class="bar" role="img" aria-label="([^"]*)"(.*?)</td>', board_of(files), re.S
    )
    assert len(bars) == 12
    shown = []
    for words, svg in bars:
        number = {name: float(value) for value, name in re.findall(r"([0-9.]+) % (certified|empirical|clean)", words)}
        low, high = map(float, re.search(r"95 % interval ([0-9.]+) to ([0-9.]+) %", words).groups())
        limit = float(re.search(r"ceiling ([0-9.]+) %", words)[1])
        shown.append((number["certified"], number["empirical"], number["clean"], limit))
        parts = dict(re.findall(r'<rect class="fill-(certified|open|broken)"[^>]* width="([0-9.]+)%"', svg))
        expected = {
            "certified": number["certified"],
            "open": number["empirical"] - number["certified"],
            "broken": number["clean"] - number["empirical"],
        }
        for part, width in expected.items():
            assert float(parts.get(part, 0)) == pytest.approx(width, abs=0.11)
        marks = {"tick": [number["clean"]], "ceiling": [limit], "range": [low, low, high]}
        for name, places in marks.items():
            drawn = [float(x) for x in re.findall(rf'<line class="{name}" x1="([0-9.]+)%"', svg)]
            assert drawn == pytest.approx(places, abs=0.06), name
    expected = [
        tuple(
            float(f"{100 * value:.1f}")
            for value in (r.certified.value, r.empirical.value, r.clean.value, CEILING[r.eps.text])
        )
        for r in results(find_runs(folder / "results"))
    ]
    assert sorted(shown) == sorted(expected)


def test_the_ceiling_is_named_and_a_row_above_it_stands_out(toy):
    _, files = toy
    html = board_of(files)
    text = Page(html).text
    for value in CEILING.values():
        assert f"No classifier can exceed {100 * value:.1f} % on these samples ( oracle )." in text
    above = re.findall(r'<li class="finding"><details><summary><bdi>([^<]*)</bdi>', html)
    assert set(above) == {"above-ceiling"}
    assert "at least" in text
    assert "ceiling" not in rows_of(html, "1-8")["Linear classifier"]  # the same for all rows: told once


def test_a_ceiling_stands_only_at_rows_of_its_own_samples(tmp_path):
    runs = [fake_run(0, net="four", n=4), fake_run(1, net="three", n=3)]
    for run, n in zip(runs, (4, 3), strict=True):
        run.clean(dict.fromkeys(range(n), True))
        run.add("pgd", "attack", "linf", 0.1, dict.fromkeys(range(n), ("open", 0, INF)))
    files = site_of(tmp_path, runs, bounds=[fake_bound({"0.1": 0.5}, samples=range(3))])
    rows = rows_of(board_of(files), "0.1")
    assert rows["three"]["ceiling"] == "50.0 %"
    assert rows["four"]["ceiling"] == "–"
    assert (rows["four"]["samples"], rows["three"]["samples"]) == ("4", "3")
    assert "No classifier can exceed 50.0 % on these 3 samples" in Page(board_of(files)).text


def test_a_ceiling_of_everything_is_told_and_not_drawn(tmp_path):
    run = fake_run(0, n=1).clean({0: True})
    files = site_of(tmp_path, [run], bounds=[fake_bound({"0.1": 1.0}, samples=range(1))])
    html = board_of(files)
    assert "The ceiling is 100 % on these samples" in Page(html).text
    assert 'class="ceiling"' not in html
    assert "No classifier can exceed" not in html
    assert 'class="ceiling"' not in files["index.html"].decode().split('id="boards"')[1]


def test_rows_of_one_name_and_spec_are_told_apart_by_their_function(tmp_path):
    runs = [fake_run(i, net="same", classifier="same", fingerprint=sha(f"{i}"), n=1).clean({0: True}) for i in (0, 1)]
    html = board_of(site_of(tmp_path, [*runs, fake_run(2, net="other", n=1).clean({0: True})]))
    for i in (0, 1):
        assert f"<small>{sha(f'{i}')[:8]}</small>" in html
    assert sha("other")[:8] not in html


def test_sides_flags_and_trust_are_told(tmp_path):
    only = fake_run(0, net="attacked", n=3, evaluators=(("pgd", "attack"),)).clean({0: True, 1: True, 2: False})
    only.add("pgd", "attack", "linf", 0.1, {0: ("error", 0, INF), 1: ("open", 0, INF)})
    imported = {"fingerprint": "import:" + "a" * 64, "origin": "imported", "trust": "self-reported"}
    proven = fake_run(1, net="proven", n=3, evaluators=(("c", "certificate"),), source="a table", **imported)
    proven.clean({0: True, 1: True, 2: False})
    proven.add("c", "certificate", "linf", None, {0: ("certified", 0.2, INF), 1: ("open", 0, INF)}, confidence=0.999)
    html = board_of(site_of(tmp_path, [only, proven]))
    rows = rows_of(html, "0.1")
    assert rows["attacked"]["certified"] == rows["proven"]["empirical"] == "not asked"
    assert rows["attacked"]["empirical"].startswith("66.7 %")
    assert rows["proven"]["certified"].startswith("33.3 %")
    assert rows["attacked"]["rank"] == rows["proven"]["rank"] == ""
    page = Page(html)
    for words in ("one-sided", "errors", "probabilistic", "self-reported", "2 classifiers on 3 samples."):
        assert words in page.text
    assert ("li", "class", "blocking") in page.attributes  # the row with errors
    assert "ranked by" not in page.text
    assert "ceiling" not in page.text


def test_ranks_are_ranges_and_imported_rows_rank_among_themselves(tmp_path):
    runs = []
    for number, share in enumerate((1.0, 0.98, 0.2)):
        run = fake_run(number, net=f"net{number}", n=100, evaluators=(("ibp", "certificate"),))
        run.clean(dict.fromkeys(range(100), True))
        rows = {i: ("certified", 0.1, INF) if i < 100 * share else ("open", 0, INF) for i in range(100)}
        runs.append(run.add("ibp", "certificate", "linf", 0.1, rows))
    imported = fake_run(
        9, net="imported", n=100, evaluators=(("ibp", "certificate"),),
        fingerprint="import:" + "a" * 64, origin="imported", trust="imported",
    )  # fmt: skip
    imported.clean(dict.fromkeys(range(100), True))
    imported.add("ibp", "certificate", "linf", 0.1, dict.fromkeys(range(100), ("certified", 0.1, INF)))
    html = board_of(site_of(tmp_path, [*runs, imported]))
    ranks = {name: row["rank"] for name, row in rows_of(html, "0.1").items()}
    assert ranks == {"net0": "1–2", "net1": "1–2", "net2": "3", "imported": ""}
    assert "ranked by certified accuracy" in Page(html).text


def test_budgets_that_look_alike_have_places_of_their_own(tmp_path):
    run = fake_run(0, n=1, eps=(".5", "5", "5e-2", "5e+2")).clean({0: True})
    page = Page(board_of(site_of(tmp_path, [run])))
    assert {"eps-.5", "eps-5", "eps-5e-2", "eps-5e2"} <= set(page.ids)


def test_two_hundred_classifiers_and_names_of_any_length_fit_on_a_board():
    run = fake_run(0, n=2, display={"name": "long name " * 49}, evaluators=(("pgd", "attack"),))
    run.clean({0: True, 1: False})
    run.add("pgd", "attack", "linf", 0.1, {0: ("open", 0, INF)})
    subject = subjects([run])[0]
    eps = subject.requested["linf"][0]
    result = result_at(subject, "linf", eps)
    figures = {}
    for number in range(200):
        other = replace(subject, classifier=f"net-{number:03d}", fingerprint=sha(f"{number}"))
        figures[other, "linf", eps.value] = replace(result, subject=other)
    board = boards_of([subject for subject, _, _ in figures], figures)[0]
    html = environment().get_template("board.html").render(board=board, siblings=[board], panels=[])
    assert html.count("<tr data-rankable>") == 200
    assert html.count(">1–200</td>") == 200
    assert len(html) < 1_000_000


def test_every_blocking_flag_looks_like_one(toy):
    _, files = toy
    method = files["methods.html"].decode()
    for code in BLOCKING:
        assert re.search(rf'id="flag-{code}".*?<td>none</td></tr>', method)


def test_the_worked_example_is_a_possible_bracket():
    bar = worked_example()
    assert (bar.proven, bar.possible, bar.open, bar.broken) == (42, 64, 22, 26)
    assert bar.low == 100 * clopper_pearson(420, EXAMPLE_SAMPLES).lower < bar.proven
    assert bar.possible < bar.high == 100 * clopper_pearson(640, EXAMPLE_SAMPLES).upper < bar.ceiling < bar.clean


def test_the_order_is_by_what_is_proven(toy):
    names = list(rows_of(board_of(toy[1]), "1-8"))
    assert names[0] == NETS[2][1]


def test_where_certificates_were_trusted_no_cost_is_claimed(tmp_path):
    run = fake_run(n=4)
    run.manifest = run.manifest.replace(request=run.manifest.request.model_copy(update={"audit": 0.05}))
    run.clean(dict.fromkeys(range(4), True))
    run.add("ibp", "certificate", "linf", 0.1, dict.fromkeys(range(3), ("certified", 0.1, INF)) | {3: ("open", 0, INF)})
    run.add("pgd", "attack", "linf", 0.1, {0: ("open", 0, INF), 3: ("open", 0, INF)})
    files = site_of(tmp_path, [run])
    (row,) = rows_of(board_of(files), "0.1").values()
    assert row["passes a sample"] == "no cost claimed"
    assert (row["certified"][:6], row["empirical"][:7]) == ("75.0 %", "100.0 %")
    (result,) = json.loads(files["results.json"])["results"]
    assert result["audit"] == {"skipped": 2, "audited": 1, "broken": [], "certifiers": []}
    codes = {flag["code"] for flag in result["flags"]}
    assert "trusted" in codes and not codes & BLOCKING
    table = next(files[name].decode() for name in files if name.endswith("-linf.csv"))
    (line,) = csv.DictReader(io.StringIO(table))
    assert (line["forwards"], line["backwards"], line["seconds"]) == ("", "", "")
