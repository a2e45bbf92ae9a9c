"""Names and metadata of strangers appear as text, isolated and cut, and nothing else."""

import csv
import io
import json
import re

import pyarrow.parquet as pq
import pytest

from oracles.bounds import fake_bound
from oracles.evidence import NETS, fake_run, toy_runs
from oracles.pages import board_of, pages_of, site_of
from robench.runs import Display, Flag
from robench_leaderboard._text import bdi, plain, web_address

INF = float("inf")
HOSTILE = (
    "<script>alert(1)</script>",
    "</style><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "javascript:alert(4)",
    "{{ 7 * 7 }}{% raw %}",
    "]]><svg onload=alert(5)>",
    "a&lt;b&amp;",
    "=HYPERLINK(1)",
)


def named(number, text, dataset="toy"):
    run = fake_run(number, net=text, n=2, dataset=dataset, display={"name": text[:500]})
    return run.clean({0: True, 1: True}).add("pgd", "attack", "linf", 0.1, {0: ("open", 0, INF), 1: ("open", 0, INF)})


def dressed(number, text):
    """A run that says `text` wherever a run can say something."""
    run = named(number, text)
    display = Display(name=text, paper=text, training_data=text, licence=text, more={"recipe": text})
    told = {"display": display, "source": text, "command": text, "flags": (Flag(code="x", text=text),)}
    run.manifest = run.manifest.replace(**told)
    return run


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    runs = [dressed(number, text) for number, text in enumerate(HOSTILE)]
    return site_of(tmp_path_factory.mktemp("strange"), runs)


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    return site_of(tmp_path_factory.mktemp("harmless"), [dressed(number, f"plain{number}") for number in range(8)])


def test_hostile_texts_stand_on_the_pages_as_text(strange, harmless):
    pages, usual = pages_of(strange), pages_of(harmless)
    board = next(page for name, page in pages.items() if name.endswith("-linf.html"))
    for text in HOSTILE:
        assert text in board.text
        own = [page for page in pages.values() if f"{text}" in page.texts]
        assert len(own) >= 3, text  # home, board, its own page
    tags = {tag for page in usual.values() for tag in page.tags}
    attributes = {(tag, key) for page in usual.values() for tag, key, _ in page.attributes}
    for name, page in pages.items():
        # No tag, no attribute and no link that harmless names would not have brought.
        assert set(page.tags) <= tags, name
        assert {(tag, key) for tag, key, _ in page.attributes} <= attributes, name
        assert page.tags.count("script") == 1
        assert not [link for link in page.links if not re.fullmatch(r"[a-z0-9.#_-]+", link)], name
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in strange)


def test_a_spreadsheet_gets_no_formula_and_programs_the_exact_name(strange, tmp_path):
    lines = strange["results.csv"].decode().splitlines()
    assert not [line for line in lines if re.search(r'(^|,)"?[=+@-](?![0-9])', line)]
    assert any("'=HYPERLINK(1)" in line for line in lines)
    (tmp_path / "results.parquet").write_bytes(strange["results.parquet"])
    names = pq.read_table(tmp_path / "results.parquet")["name"].to_pylist()
    assert sorted(names) == sorted(HOSTILE)
    assert {entry["classifier"] for entry in json.loads(strange["results.json"])["results"]} == set(HOSTILE)


def test_bidi_controls_and_long_names_stay_in_their_place(tmp_path):
    """Manifests refuse control characters; whoever writes around that still cannot turn the line."""
    evil = "abc\u202egnp.exe\u2066\x1b[31m\x00"
    assert str(bdi(evil)) == "<bdi>abc�gnp.exe��[31m�</bdi>"
    assert plain(evil) == "abc�gnp.exe��[31m�"
    files = site_of(tmp_path, [named(0, "x" * 10_000)])
    for name, page in pages_of(files).items():
        assert max(len(text) for text in page.texts) <= 4001, name
        assert max((len(value or "") for _, key, value in page.attributes if key != "content"), default=0) < 4000, name
    assert "x" * 79 + "…" in board_of(files)


def test_every_strange_text_is_isolated(tmp_path):
    html = board_of(site_of(tmp_path, toy_runs(n=4)))
    for name in NETS:
        places = [found.start() for found in re.finditer(re.escape(name[1]), html)]
        assert len(places) >= 2
        for place in places:
            inside = html[place - 5 : place] == "<bdi>" and html[place + len(name[1]) :].startswith("</bdi>")
            assert inside or "aria-label" in html[place - 60 : place]


@pytest.mark.parametrize(
    ("text", "linked"),
    [
        ("https://arxiv.org/abs/1902.02918", True),
        ("http://example.org/a?b=c#d", True),
        ("javascript:alert(1)", False),
        ("JAVASCRIPT:alert(1)", False),
        ("data:text/html,x", False),
        ("//example.org/x", False),
        ("https://user:pw@example.org/", False),
        ("https://exa mple.org/", False),
        ('https://example.org/"onclick="x', False),
        ("https://example.org/\u202e", False),
        ("https://ex\u00e4mple.org/", False),
        ("https://", False),
        ("https://[", False),
        ("Smith et al. 2020", False),
        ("https://example.org/" + "x" * 500, False),
    ],
)
def test_only_plain_web_addresses_are_linked(text, linked):
    assert (web_address(text) is not None) == linked


def test_a_paper_is_linked_without_telling_it_where_from(tmp_path):
    run = named(0, "plain")
    run.manifest = run.manifest.replace(display=Display(paper="https://arxiv.org/abs/1902.02918"))
    pages = pages_of(site_of(tmp_path, [run])).values()
    own = next(page for page in pages if "https://arxiv.org/abs/1902.02918" in page.links)
    assert ("a", "rel", "noopener noreferrer nofollow") in own.attributes
    assert ("meta", "content", "no-referrer") in own.attributes


def test_a_hostile_dataset_makes_safe_page_names(tmp_path):
    files = site_of(tmp_path, [named(0, "n", dataset="../../etc/<b>")])
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in files)
    assert "../../etc/<b>" in next(page.text for name, page in pages_of(files).items() if name.endswith("-linf.html"))


def radii_alone(number, norm="l2", kind="certificate"):
    """A run that asked for a norm and for no ε."""
    run = fake_run(number, norm=norm, eps=()).clean(dict.fromkeys(range(4), True))
    if kind == "certificate":
        return run.add("radii", kind, norm, None, dict.fromkeys(range(4), ("certified", 0.3, INF)))
    return run.add("nearest", kind, norm, None, dict.fromkeys(range(4), ("falsified", 0.0, 0.3)))


@pytest.mark.parametrize("kind", ["certificate", "attack"])
def test_radii_alone_make_pages_without_a_board_and_no_link_to_one(tmp_path, kind):
    files = site_of(tmp_path, [radii_alone(0, kind=kind), named(1, "another")])
    pages = pages_of(files)
    assert not [name for name in files if re.search(r"-l2\.(html|csv|json|parquet)$", name)]
    own = next(page for name, page in pages.items() if name.startswith("net-"))
    assert "No ε was asked for in this norm" in own.text
    for name, page in pages.items():
        targets = {link.partition("#")[0] for link in page.links if not link.startswith("data:")}
        assert targets <= {"", *files}, name


@pytest.mark.parametrize("eps", ["1.7e308", "1e301", "1e300", "5e-324"])
def test_an_axis_that_doubles_cannot_hold_is_not_drawn(tmp_path, eps):
    value = float(eps)
    run = fake_run(0, eps=(eps,), n=2).clean({0: True, 1: True})
    run.add("pgd", "attack", "linf", value, {0: ("open", 0, INF), 1: ("open", 0, INF)})
    run.add("ibp", "certificate", "linf", value, {0: ("certified", value, INF), 1: ("open", 0, INF)})
    pages = pages_of(site_of(tmp_path, [run], bounds=[fake_bound({eps: 0.5}, samples=range(2))]))
    assert len(pages) == 6
    assert all(eps in page.text for name, page in pages.items() if name.startswith(("net-", "toy-")))


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("=1+1", "'=1+1"),
        (" =1+1", "' =1+1"),
        ("＝1+1", "'＝1+1"),
        ("＠SUM(1)", "'＠SUM(1)"),
        ("1=1", "1=1"),
        ('"=1', '"=1'),
        ("a,b", "a,b"),
    ],
)
def test_a_cell_that_begins_like_a_formula_is_marked(tmp_path, name, cell):
    files = site_of(tmp_path, [named(0, name)])
    (row,) = csv.DictReader(io.StringIO(files["results.csv"].decode()))
    assert row["classifier"] == row["name"] == cell
