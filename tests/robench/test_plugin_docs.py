"""The hook reference and the tutorial for plugin authors say what is true."""

import inspect
import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robench import hookspecs
from robench.cli import app
from robench.registry import KINDS, Plugins

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)

SPECS = {
    name: f"{name}({', '.join(inspect.signature(spec).parameters)})"
    for name, spec in vars(hookspecs).items()
    if name.startswith("robench_")
}


def sections() -> dict[str, str]:
    """The text under each heading of the hook reference."""
    _, *parts = re.split(r"^## ", (DOCS / "hooks.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


# --------------------------------------------------------------------- reference


def test_every_hook_and_its_exact_arguments_are_documented_in_order():
    assert list(sections()) == list(SPECS.values())


def test_every_kind_has_its_hook():
    assert {kind.hook for kind in KINDS.values()} <= set(SPECS)


def test_register_is_documented_with_its_exact_arguments():
    signature = inspect.signature(hookspecs.Register.__call__)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in list(signature.parameters.values())[1:]]
    shown = str(inspect.Signature(plain)).replace("'", '"')
    assert f"    register{shown}\n" in (DOCS / "hooks.md").read_text(encoding="utf-8")


def test_every_hook_says_when_it_runs():
    for name in SPECS:
        assert inspect.getdoc(getattr(hookspecs, name)), name


@pytest.mark.parametrize("hook", SPECS)
def test_the_example_of_each_hook_loads_as_a_plugin(site, hook):
    text = sections()[SPECS[hook]]
    (example,) = BLOCK.finditer(text)
    assert len(example["text"].splitlines()) <= 10
    assert len(text[: example.start()].strip().split("\n\n")) == 1, "one paragraph"
    site.write("robench-t-docs", example["text"])
    plugins = Plugins.load(source for source in site.sources() if source.distribution == "robench-t-docs")
    (row,) = plugins.rows
    assert (row.state, row.why) == ("ok", "")
    assert row.entries == (1 if hook.startswith("robench_register") else 0)


def test_what_the_examples_register_is_the_example_distribution(site):
    site.add("robench-example")
    example = site.load()
    registered = {}
    for text in sections().values():
        for target in re.findall(r'register\("([\w-]+)", "([\w.:]+)"', text):
            registered[target[1]] = target[0]
    known = {e.target: e.short for kind in KINDS for e in example.entries(kind) if e.distribution == "robench-example"}
    assert registered == known


def test_run_hooks_are_called_with_what_is_documented(site, capsys):
    code = "\n\n".join(
        BLOCK.search(text)["text"] for head, text in sections().items() if head.startswith("robench_run")
    )
    site.write("robench-t-docs", code)
    hooks = site.load().run_hooks
    hooks.started("r1", {"evaluators": ["clean", "pgd"]})
    hooks.finished("r1", {"samples": 3, "errors": 0})
    assert capsys.readouterr().err == "r1 begins: clean, pgd\nr1 is done, 0 errors\n"


# ---------------------------------------------------------------------- tutorial


@pytest.fixture
def tutorial(site, tmp_path, monkeypatch):
    """The tutorial's files written to disk and installed; returns its other blocks."""
    blocks = list(BLOCK.finditer((DOCS / "plugins.md").read_text(encoding="utf-8")))
    for block in blocks:
        if block["title"]:
            file = tmp_path / block["title"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block["text"], encoding="utf-8")
    with (tmp_path / "pyproject.toml").open("rb") as stream:
        project = tomllib.load(stream)["project"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    site.describe(project["name"], project["version"], project["entry-points"]["robench"])
    site.load()
    return blocks


def test_the_commands_of_the_tutorial_print_what_it_shows(tutorial):
    ran = 0
    for block in tutorial:
        if block["language"] != "console":
            continue
        output = ""
        for line in block["text"].splitlines():
            if line.startswith("$ robench "):
                words = re.findall(r"'[^']*'|\S+", line.removeprefix("$ robench "))
                result = CliRunner().invoke(app, [word.strip("'") for word in words])
                output = result.output
                assert result.exit_code == (2 if "\nrobench: " in block["text"] else 0), output
                ran += 1
            else:
                assert line in output.splitlines()
    assert ran == 6


def test_the_test_of_the_tutorial_passes(tutorial, tmp_path):
    space: dict[str, object] = {}
    exec((tmp_path / "tests" / "test_conformance.py").read_text(encoding="utf-8"), space)
    space["test_each_class_conforms"]()


def test_the_table_of_parameters_is_what_specs_take(tutorial):
    from dataclasses import dataclass
    from typing import Literal

    from robench import Epsilon, param
    from robench.params import build
    from robench.spec import parse

    @dataclass(frozen=True)
    class Table:
        flag: bool = param(False, "")
        count: int = param(1, "")
        size: float = param(1.0, "")
        word: str = param("", "")
        loss: Literal["ce", "dlr"] = param("ce", "")
        eps: Epsilon | None = param(None, "")
        many: tuple[int, ...] = param((), "")

    text = 'x:flag=true,count=50,size=1e-3,word="a text, in quotes",loss=dlr,eps=8/255,many=1+2+3'
    value = build(Table, parse(text).specs[0], "x").value
    assert value == Table(
        flag=True,
        count=50,
        size=1e-3,
        word="a text, in quotes",
        loss="dlr",
        eps=Epsilon.parse("8/255"),
        many=(1, 2, 3),
    )
