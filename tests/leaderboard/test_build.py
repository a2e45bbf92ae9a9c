import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

from oracles.evidence import NETS, fake_run, toy_runs
from robench import folders
from robench.cli import app
from robench.errors import InputError
from robench.metrics import results
from robench.runs import Display, Flag, find_runs
from robench_leaderboard import build, is_site
from robench_leaderboard._text import bdi, web_address

INF = float("inf")
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """A strict reading of a page: tags must nest; collects tags, links, ids and text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.tags, self.links, self.ids, self.attributes, self.texts = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.append((tag, name, value))
            self.links += [value] if name in ("href", "src", "action", "xlink:href") else []
            self.ids += [value] if name == "id" else []
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag, f"</{tag}> does not close what is open"

    def handle_data(self, data):
        if self.stack and self.stack[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def site_of(tmp_path, runs, name="site"):
    for run in runs:
        run.save(tmp_path / "results")
    build(find_runs(tmp_path / "results"), tmp_path / name)
    return {path.name: path.read_text("utf-8") for path in sorted((tmp_path / name).iterdir())}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    return folder, site_of(folder, toy_runs(n=60))


def board(files):
    return next(text for name, text in files.items() if name.endswith("-linf.html"))


def test_every_figure_of_the_results_is_on_the_board(toy):
    folder, files = toy
    page = Page(board(files))
    for name in NETS:
        assert name[1] in page.text
    for result in results(find_runs(folder / "results")):
        low, high = result.joint_interval
        assert f"{100 * result.certified.value:.1f} – {100 * result.empirical.value:.1f} %" in page.text
        assert f"[{100 * low:.1f}, {100 * high:.1f}]" in page.text
        assert f"{100 * result.clean.value:.1f} %" in page.text
        assert result.subject.runs[0].run in page.text
        assert result.subject.fingerprint in page.text
        for counts in result.evaluators:
            assert counts.evaluator in page.text
    assert {"eps-1-16", "eps-1-8", "eps-0.2"} <= set(page.ids)
    assert "measured" in page.text


def test_the_picture_is_the_figures(toy):
    """The widths of a bar's parts add up to the accuracies that stand beside it."""
    folder, files = toy
    drawn = re.findall(
        r'<svg class="bar" role="img" aria-label="([0-9.]+) % certified, ([0-9.]+) % empirical, ([0-9.]+) % clean, '
        r'95 % interval ([0-9.]+) to ([0-9.]+) %".*?</svg>',
        board(files),
        re.S,
    )
    expected = [
        tuple(f"{100 * share.value:.1f}" for share in (r.certified, r.empirical, r.clean))
        for r in results(find_runs(folder / "results"))
    ]
    assert sorted(bar[:3] for bar in drawn) == sorted(expected)
    for svg in re.findall(r'<svg class="bar".*?</svg>', board(files), re.S)[1:]:
        rectangle = r'<rect (?:class="fill-|fill="url\(#)(certified|hatch|broken)[^>]*? width="([0-9.]+)%"'
        parts = dict(re.findall(rectangle, svg))
        empirical, clean = (float(re.search(rf"([0-9.]+) % {word}", svg)[1]) for word in ("empirical", "clean"))
        certified = float(re.search(r"([0-9.]+) % certified", svg)[1])
        widths = [float(parts.get(name, 0)) for name in ("certified", "hatch", "broken")]
        assert widths == pytest.approx([certified, empirical - certified, clean - empirical], abs=0.11)


def test_pages_are_whole_and_need_nothing_from_elsewhere(toy):
    _, files = toy
    pages = {name: Page(text) for name, text in files.items() if name.endswith(".html")}
    assert set(files) == {*pages, "results.json", "robench.json"}
    for name, page in pages.items():
        assert not {"script", "link", "img", "iframe", "object", "embed", "form", "base"} & set(page.tags), name
        assert not [value for _, key, value in page.attributes if key.startswith("on") or key == "style"], name
        assert len(page.ids) == len(set(page.ids)), name
        for link in page.links:
            file, _, anchor = link.partition("#")
            assert not urlsplit(link).scheme and not link.startswith("/"), (name, link)
            assert not file or file in files, (name, link)
            assert not anchor or anchor in pages[file or name].ids, (name, link)


def test_the_content_security_policy_admits_the_style_and_nothing_else(toy):
    import base64

    _, files = toy
    for text in (text for name, text in files.items() if name.endswith(".html")):
        style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
        assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        assert "url(" not in style and "@import" not in style


def test_the_same_results_give_the_same_bytes(toy, tmp_path):
    folder, files = toy
    build(list(reversed(find_runs(folder / "results"))), tmp_path / "again")
    assert {path.name: path.read_text("utf-8") for path in (tmp_path / "again").iterdir()} == files


def test_all_figures_are_there_as_json(toy):
    from robench.metrics import summarise

    folder, files = toy
    assert json.loads(files["results.json"]) == json.loads(json.dumps(summarise(find_runs(folder / "results"))))


HOSTILE = (
    "<script>alert(1)</script>",
    "</style><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "javascript:alert(4)",
    "{{ 7 * 7 }}{% raw %}",
    "]]><svg onload=alert(5)>",
    "a&lt;b&amp;",
)


def hostile_run(number, text):
    run = fake_run(number, net=text, n=2, display={"name": text[:500]})
    return run.clean({0: True, 1: True}).add("pgd", "attack", "linf", 0.1, {0: ("open", 0, INF), 1: ("open", 0, INF)})


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_appear_as_text(tmp_path, text):
    run = hostile_run(0, text)
    display = Display(name=text, paper=text, training_data=text, licence=text)
    run.manifest = run.manifest.replace(display=display, source=text, flags=(Flag(code="x", text=text),))
    files = site_of(tmp_path, [run])
    clean = site_of(tmp_path / "plain", [hostile_run(0, "plain")])
    plain = {name: Page(html) for name, html in clean.items() if name.endswith(".html")}
    for name, html in files.items():
        if name.endswith(".html"):
            page = Page(html)
            assert text in " ".join(page.texts), name
            # No tag, no attribute and no link that a harmless name would not have brought.
            assert set(page.tags) <= set(plain[name].tags) | {"small", "ul", "li", "strong"}
            assert {key for _, key, _ in page.attributes} <= {key for _, key, _ in plain[name].attributes}
            assert not [link for link in page.links if not re.fullmatch(r"[a-z0-9.#_-]+", link)]


def test_bidi_controls_and_long_names_stay_in_their_place(tmp_path):
    """Manifests refuse control characters; whoever writes around that still cannot turn the line."""
    evil = "abc\u202egnp.exe\u2066\x1b[31m\x00"
    assert str(bdi(evil)) == "<bdi>abc�gnp.exe��[31m�</bdi>"
    long = "x" * 10_000
    run = hostile_run(0, long)
    files = site_of(tmp_path, [run])
    page = Page(board(files))
    assert max(len(text) for text in page.texts) <= 4001
    assert "x" * 79 + "…" in page.text


def test_every_strange_text_is_isolated(toy):
    _, files = toy
    inside = re.compile(r"<bdi>[^<]*</bdi>")
    for name in NETS:
        for found in re.finditer(re.escape(name[1]), board(files)):
            around = board(files)[max(0, found.start() - 5) : found.end() + 6]
            assert inside.fullmatch(around) or "aria-label" in board(files)[found.start() - 60 : found.start()], around


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
def test_only_plain_web_addresses_are_linked(tmp_path, text, linked):
    assert (web_address(text) is not None) == linked
    run = hostile_run(0, "plain")
    if text.isprintable():
        run.manifest = run.manifest.replace(display=Display(paper=text[:500]))
        page = Page(board(site_of(tmp_path, [run])))
        assert (text in page.links) == linked


def test_sides_flags_and_trust_are_told(tmp_path):
    only = fake_run(0, net="attacked", n=3, evaluators=(("pgd", "attack"),)).clean({0: True, 1: True, 2: False})
    only.add("pgd", "attack", "linf", 0.1, {0: ("error", 0, INF), 1: ("open", 0, INF)})
    imported = {"fingerprint": "import:" + "a" * 64, "origin": "imported", "trust": "self-reported"}
    proven = fake_run(1, net="proven", n=3, evaluators=(("c", "certificate"),), source="a table", **imported)
    proven.clean({0: True, 1: True, 2: False})
    proven.add("c", "certificate", "linf", None, {0: ("certified", 0.2, INF), 1: ("open", 0, INF)}, confidence=0.999)
    page = Page(board(site_of(tmp_path, [only, proven])))
    for words in ("≤ 66.7 %", "≥ 33.3 %", "one-sided", "errors", "probabilistic", "self-reported", "a table"):
        assert words in page.text
    assert ("li", "class", "blocking") in page.attributes  # the row with errors


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
    html = board(site_of(tmp_path, [*runs, imported]))
    cells = re.findall(r'<td class="rank"[^>]*>([^<]*)</td>.*?<bdi>(\w+)</bdi>', html, re.S)
    assert {name: rank for rank, name in cells} == {"net0": "1–2", "net1": "1–2", "net2": "3", "imported": ""}


def test_boards_are_told_apart_by_data_split_and_norm(tmp_path):
    runs = [
        fake_run(0, net="a", n=1, dataset="one").clean({0: True}),
        fake_run(1, net="a", n=1, dataset="two").clean({0: True}),
        fake_run(2, net="a", n=1, dataset="one", norm="l2").clean({0: True}),
    ]
    files = site_of(tmp_path, runs)
    pages = [name for name in files if name.endswith(".html") and name != "index.html"]
    assert len(pages) == 3
    assert sorted(Page(files["index.html"]).links) == sorted(["#main", "index.html", "results.json", *pages])


def test_no_results_make_an_honest_page(tmp_path):
    build([], tmp_path / "site")
    assert "No results yet" in Page((tmp_path / "site" / "index.html").read_text("utf-8")).text


def test_a_folder_that_is_not_ours_is_refused(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="not a robench site"):
        build([], tmp_path / "site")
    assert (tmp_path / "site" / "thesis.tex").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        build([], tmp_path / "file")
    fake_run(0, n=1).clean({0: True}).save(tmp_path / "results")
    with pytest.raises(InputError, match="not a robench site"):
        build([], tmp_path / "results")


@pytest.mark.parametrize("exchange", [True, False])
def test_an_older_site_is_replaced_in_one_step(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(folders.ctypes, "CDLL", lambda *_, **__: object())
    (tmp_path / "site").mkdir()
    build([], tmp_path / "site")
    (tmp_path / "site" / "old.html").write_text("of an older version")
    files = site_of(tmp_path, [fake_run(0, n=1).clean({0: True})])
    assert "old.html" not in files
    assert is_site(tmp_path / "site")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "site"]


def test_a_failure_leaves_the_older_site_alone(tmp_path, monkeypatch):
    build([], tmp_path / "site")
    before = (tmp_path / "site" / "index.html").read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        build([], tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_the_command_builds_and_serve_refuses_strangers(toy, tmp_path):
    folder, _ = toy
    command = ["leaderboard", "build", str(folder / "results"), "--out", str(tmp_path / "site")]
    outcome = CliRunner().invoke(app, command)
    assert outcome.exit_code == 0
    assert outcome.stdout.strip().endswith("index.html")
    assert CliRunner().invoke(app, ["leaderboard", "serve", str(folder / "results")]).exit_code == 2


def test_a_hostile_dataset_makes_a_safe_page_name(tmp_path):
    run = fake_run(0, net="n", dataset="../../etc/<b>", n=1).clean({0: True})
    files = site_of(tmp_path, [run])
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in files)


def test_serve_hands_out_the_pages_until_interrupted(toy):
    folder, files = toy
    command = [sys.executable, "-c", "from robench.cli import main; main()", "leaderboard", "serve"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "env": environment}
    with subprocess.Popen([*command, str(folder / "site"), "--port", "0"], **pipes) as server:
        try:
            address = server.stdout.readline().strip()
            with urlopen(address + "index.html", timeout=20) as answer:
                assert answer.read().decode() == files["index.html"]
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0
