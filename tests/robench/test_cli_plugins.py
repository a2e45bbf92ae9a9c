import json
import tomllib

import pytest
from typer.testing import CliRunner, Result

from robench.cli import app
from robench.params import describe, example
from robench.registry import KINDS, load_plugins


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plugins", *arguments])


def refused(*arguments: str) -> str:
    """The one line with which a command refuses."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line.removeprefix("robench: ")


# -------------------------------------------------------------------------- list


def test_the_list_shows_every_plugin_with_its_kind_and_summary():
    result = run()
    assert result.exit_code == 0
    for kind in KINDS:
        for entry in load_plugins().entries(kind):
            assert f"  {entry.name} " in result.stdout
            assert entry.summary in result.stdout


def test_the_list_marks_defaults_and_small_costs():
    lines = run().stdout.splitlines()
    defaults = [entry.name for entry in load_plugins().entries("attacks") if entry.default]
    assert defaults
    assert all(any(line.split()[:2] == [name, "[default]"] for line in lines) for name in defaults)
    assert "  portfolio, then smoothadv, then apgd, then square, then hopskipjump" in lines
    assert any("[small]" in line for line in lines[lines.index("certifiers") :])


def test_third_parties_are_named_and_broken_plugins_listed_with_the_cause(site):
    for name in ("robench-example", "robench-bad-exit", "robench-bad-api", "robench-twin-one"):
        site.add(name)
    site.load()
    out = run().stdout
    assert "signed gradient descent on the margin — robench-example 1.0" in out
    assert "robench-bad-exit 1.0 (robench_bad_exit) is broken: SystemExit: I end the process" in out
    assert "robench-bad-api 1.0 (robench_bad_api) is incompatible: it is written for API 2" in out
    assert "robench-twin-one/pgd" in out
    assert "(the short name is also robench's)" in out


def test_the_list_as_json(site):
    site.add("robench-example")
    site.add("robench-bad-import")
    site.load()
    document = json.loads(run("--json").stdout)
    assert document["schema"] == 1
    found = {(one["kind"], one["name"]): one for one in document["plugins"]}
    assert found["attacks", "descent"]["distribution"] == "robench-example"
    modules = {one["module"]: one for one in document["modules"]}
    assert modules["robench_bad_import"]["state"] == "broken"
    assert modules["robench_example"] == {
        "module": "robench_example",
        "distribution": "robench-example",
        "version": "1.0",
        "state": "ok",
        "why": "",
        "entries": 11,
    }


# -------------------------------------------------------------------------- show


def test_show_prints_parameters_documentation_source_and_an_example(site):
    site.add("robench-example")
    site.load()
    out = run("show", "descent").stdout
    assert out.startswith("descent, attack of robench-example 1.0\n  robench_example.attack:Descent\n")
    assert "Steps along the sign of the margin's gradient" in out
    assert "  steps      integer ≥ 1  20       gradient steps from each start\n" in out
    assert "robench eval -a 'descent:steps=40' …" in out


def test_show_finds_every_kind_that_has_the_name(site):
    site.add("robench-example")
    site.load()
    both = json.loads(run("show", "halves", "--json").stdout)["plugins"]
    assert [one["kind"] for one in both] == ["datasets", "models"]
    for kind in ("models", "model"):
        (one,) = json.loads(run("show", "halves", "--kind", kind, "--json").stdout)["plugins"]
        assert one["parameters"] == [
            {"name": "d", "type": "integer ≥ 1", "default": "4", "positional": False, "doc": "numbers in each input"}
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_built_in_plugin_can_be_shown_and_is_documented(kind):
    for entry in load_plugins().entries(kind):
        (one,) = json.loads(run("show", entry.name, "--kind", kind, "--json").stdout)["plugins"]
        assert one["summary"], entry.name
        assert one["doc"], f"{entry.name} has no docstring"
        for parameter in one["parameters"]:
            assert parameter["doc"], f"{entry.name}: {parameter['name']} is not documented"


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_a_built_in_plugin_gives_something_that_is_no_default(kind):
    for entry in load_plugins().entries(kind):
        factory = load_plugins().factory(entry)
        spec = example(factory, entry.name)
        defaults = {f"{one.name}={one.default}" for one in describe(factory)} | {
            one.default for one in describe(factory)
        }
        assert spec.partition(":")[2] not in defaults, spec
        required = [one for one in describe(factory) if one.default is None]
        if spec != entry.name and not required:
            assert load_plugins().resolve(kind, spec).canonical == spec


def test_examples_of_recipes_and_attacks_are_what_people_change():
    found = {
        name: json.loads(run("show", name, "--json").stdout)["plugins"][0]["example"] for name in ("pgd-at", "pgd")
    }
    assert found["pgd-at"].startswith("robench train 'pgd-at:eps=8/255'")
    assert "'pgd:steps=" in found["pgd"]


def test_parameters_that_a_recipe_would_refuse_are_not_shown():
    names = {one["name"] for one in json.loads(run("show", "cayley", "--json").stdout)["plugins"][0]["parameters"]}
    assert not {"channels", "convolutions", "blocks"} & names
    assert refused("check", "cayley:arch=convnet").startswith("cayley: parameter 'arch'")


def test_show_refuses_what_is_not_there(site):
    site.add("robench-bad-import")
    site.add("robench-bad-factory")
    site.load()
    assert refused("show", "pgdd").startswith("no plugin is called 'pgdd'; did you mean 'pgd'?")
    assert "no attack is called 'ibp'" in refused("show", "ibp", "--kind", "attack")
    assert "no kind of plugin is called 'atack'; did you mean 'attack'?" in refused("show", "pgd", "--kind", "atack")
    assert "No module named 'robench_a_module" in refused("show", "robench-bad-import")
    assert "cannot load robench_bad_factory.broken:Attack: OSError" in refused("show", "bad-module")


# ------------------------------------------------------------------------- check


def test_check_runs_the_conformance_kit(site):
    site.add("robench-example")
    site.load()
    result = run("check", "every:k=3")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("every:k=3 of kind transforms, robench-example 1.0\n  passed: ")
    assert result.stdout.endswith("conforms\n")


def test_check_exits_with_one_where_it_finds_something(site):
    site.add("robench-liars")
    site.load()
    result = run("check", "liar-success", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["failed"] > 0
    (only,) = document["checks"]
    assert (only["kind"], only["spec"]) == ("attacks", "liar-success")
    assert {one["outcome"] for one in only["findings"]} == {"passed", "failed", "skipped"}


def test_check_refuses_a_plugin_that_was_left_out_with_the_cause(site):
    site.add("robench-bad-hook")
    site.load()
    assert "unknown hook 'robench_register_atacks'" in refused("check", "robench-bad-hook")


# --------------------------------------------------------------------------- new


@pytest.mark.parametrize("kind", KINDS)
def test_new_writes_a_distribution_that_conforms(site, tmp_path, monkeypatch, kind):
    noun = KINDS[kind].noun.replace(" ", "-")
    folder = tmp_path / "fresh"
    result = run("new", "t-fresh", "--kind", noun, "--out", str(folder))
    assert result.exit_code == 0, result.output
    with (folder / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    assert project["name"] == "robench-t-fresh"
    assert project["entry-points"]["robench"] == {"t-fresh": "robench_t_fresh"}
    monkeypatch.syspath_prepend(str(folder / "src"))
    site.describe(project["name"], project["version"], project["entry-points"]["robench"])
    plugins = site.load()
    assert plugins.find(kind, "t-fresh").distribution == "robench-t-fresh"
    test = (folder / "tests" / "test_conformance.py").read_text(encoding="utf-8")
    space: dict[str, object] = {}
    exec(compile(test, "test_conformance.py", "exec"), space)
    tests = [value for name, value in space.items() if name.startswith("test_")]
    assert len(tests) == 2
    for one in tests:
        one(*[tmp_path] * one.__code__.co_argcount)


def test_new_without_out_writes_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("new", "my-attack").exit_code == 0
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "robench-my-attack/README.md",
        "robench-my-attack/pyproject.toml",
        "robench-my-attack/src/robench_my_attack/__init__.py",
        "robench-my-attack/src/robench_my_attack/attack.py",
        "robench-my-attack/tests/test_conformance.py",
    ]
    assert "class MyAttack(Attack):" in (tmp_path / "robench-my-attack/src/robench_my_attack/attack.py").read_text()


def test_new_keeps_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "is there already and is not empty" in refused("new", "x", "--out", str(tmp_path))
    assert "is there already and is not empty" in refused("new", "x", "--out", str(tmp_path / "notes.txt"))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert run("new", "x", "--out", str(tmp_path / "empty" / "new")).exit_code == 0


@pytest.mark.parametrize(
    "name", ["My", "a_b", "-a", "a-", "a--b", "1a", "../x", "", "robench-", "plugins", "a" * 61, "é"]
)
def test_new_refuses_names_that_no_package_can_have(tmp_path, name):
    assert "plugin" in refused("new", "--out", str(tmp_path / "x"), "--", name)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("name", "class_name"), [("attack", "AttackAttack"), ("none", "NoneAttack"), ("tensor", "TensorAttack")]
)
def test_new_avoids_names_that_the_module_imports(tmp_path, name, class_name):
    assert run("new", name, "--out", str(tmp_path / "x")).exit_code == 0
    assert f"class {class_name}(Attack):" in (tmp_path / f"x/src/robench_{name}/attack.py").read_text()


def test_new_refuses_an_unknown_kind(tmp_path):
    assert "no kind of plugin is called 'atack'; did you mean 'attack'?" in refused("new", "x", "--kind", "atack")
