"""The site as a folder: whole, self-contained, the same bytes from the same results, replaced in one step."""

import base64
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

import robench_leaderboard
from oracles.bounds import fake_bound
from oracles.evidence import fake_run, toy_runs
from oracles.pages import Page, files_of, pages_of, site_of
from robench import folders
from robench.cli import app
from robench.errors import InputError
from robench.runs import find_runs
from robench_leaderboard import build, is_site

CEILING = {"1/16": 0.99, "1/8": 0.4, "0.2": 0.1}


def ceiling(**more):
    return fake_bound(CEILING, dataset="digits", samples=range(60), **more)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    return folder, site_of(folder, toy_runs(n=60), bounds=[ceiling()])


def test_pages_are_whole_and_need_nothing_from_elsewhere(toy):
    _, files = toy
    pages = pages_of(files)
    for name, page in pages.items():
        assert not {"link", "iframe", "object", "embed", "form", "base"} & set(page.tags), name
        assert page.tags.count("script") == page.tags.count("h1") == page.tags.count("main") == 1, name
        assert not [value for _, key, value in page.attributes if key.startswith("on") or key == "style"], name
        assert len(page.ids) == len(set(page.ids)), name
        for link in page.links:
            file, _, anchor = link.partition("#")
            assert link.startswith("data:image/png;base64,") or not urlsplit(link).scheme, (name, link)
            if not link.startswith("data:"):
                assert not file or file in files, (name, link)
                assert not anchor or anchor in pages[file or name].ids, (name, link)


def test_every_file_can_be_reached_from_the_first_page(toy):
    _, files = toy
    pages = pages_of(files)
    seen, waiting = set(), ["index.html"]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            links = pages[name].links if name in pages else []
            waiting += [link.partition("#")[0] for link in links if not link.startswith(("data:", "#"))]
    assert seen == set(files) - {folders.MARKER}


def test_the_content_security_policy_admits_style_and_script_and_nothing_else(toy):
    _, files = toy
    for text in (data.decode() for name, data in files.items() if name.endswith(".html")):
        style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
        script = re.search(r"<script>(.*?)</script>", text, re.S)[1]
        digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (style, script)]
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
        assert policy == (
            f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
            "img-src data:; base-uri 'none'; form-action 'none'"
        )
        assert set(re.findall(r"url\(([^)]*)\)", style)) == {"#hatch", "#dots"}
        assert "@import" not in style
        for forbidden in ("fetch(", "XMLHttpRequest", "import(", "eval(", "innerHTML", "localStorage", "cookie"):
            assert forbidden not in script


def test_the_same_results_give_the_same_bytes_in_any_order(toy, tmp_path):
    """Of runs, of bounds, of the folders they lie in; in another process with another hash seed."""
    folder, files = toy
    again = build(list(reversed(find_runs(folder / "results"))), tmp_path / "again", [ceiling()]).parent
    assert files_of(again) == files
    places = []
    for number, run in enumerate(find_runs(folder / "results")):
        places.insert(0, str(tmp_path / f"{number}" / "dataset" / "classifier" / "run"))
        shutil.copytree(run.location, places[0])
    code = (
        "import sys\nfrom oracles.bounds import fake_bound\nfrom robench.runs import find_runs\n"
        "from robench_leaderboard import build\n"
        f"bound = fake_bound({CEILING}, dataset='digits', samples=range(60))\n"
        "build(find_runs(sys.argv[2:]), sys.argv[1], [bound])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-c", code, str(tmp_path / "apart"), *places]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    assert files_of(tmp_path / "apart") == files


def test_no_page_tells_when_or_where_it_was_built(toy):
    folder, files = toy
    for name, data in files.items():
        assert str(folder).encode() not in data, name
    for module in Path(robench_leaderboard.__file__).parent.glob("*.py"):
        assert not re.search(r"\b(now|today|time|getuser|gethostname|getcwd|cwd)\(", module.read_text()), module.name


def test_no_results_make_an_honest_page(tmp_path):
    build([], tmp_path / "site")
    assert "No results yet" in Page((tmp_path / "site" / "index.html").read_text("utf-8")).text


def test_boards_are_told_apart_by_data_split_and_norm(tmp_path):
    runs = [
        fake_run(0, net="a", n=1, dataset="one").clean({0: True}),
        fake_run(1, net="a", n=1, dataset="two").clean({0: True}),
        fake_run(2, net="a", n=1, dataset="one", norm="l2").clean({0: True}),
    ]
    files = site_of(tmp_path, runs)
    boards = [name for name in files if re.search(r"-(linf|l2|l1)\.html$", name)]
    assert len(boards) == 3
    home = Page(files["index.html"].decode())
    assert [link for link in home.links if link in boards] == [
        *sorted(name for name in boards if name.startswith("one"))[::-1],
        next(name for name in boards if name.startswith("two")),
    ]


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
    build([], tmp_path / "site")
    assert not (tmp_path / "site" / "old.html").exists()
    assert is_site(tmp_path / "site")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site"]


def test_a_failure_leaves_the_older_site_alone(tmp_path, monkeypatch):
    build([], tmp_path / "site")
    before = (tmp_path / "site" / "index.html").read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        build([], tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_the_command_builds_and_serve_refuses_strangers(tmp_path):
    fake_run(0, n=1).clean({0: True}).save(tmp_path / "results")
    command = ["leaderboard", "build", str(tmp_path / "results"), "--out", str(tmp_path / "site")]
    outcome = CliRunner().invoke(app, command)
    assert outcome.exit_code == 0
    assert outcome.stdout.strip().endswith("index.html")
    assert CliRunner().invoke(app, ["leaderboard", "serve", str(tmp_path / "results")]).exit_code == 2


def test_serve_hands_out_the_pages_until_interrupted(tmp_path):
    page = build([], tmp_path / "site")
    command = [sys.executable, "-c", "from robench.cli import main; main()", "leaderboard", "serve"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, "env": environment}
    with subprocess.Popen([*command, str(tmp_path / "site"), "--port", "0"], **pipes) as server:
        try:
            address = server.stdout.readline().strip()
            with urlopen(address + "index.html", timeout=20) as answer:
                assert answer.read() == page.read_bytes()
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0
