import sys
import textwrap
import warnings
from pathlib import Path

import pytest

from robench.errors import InputError, PluginError, SpecError
from robench.kinds import find_kind
from robench.registry import KINDS, Plugins, PluginWarning, Source, find_sources

EXAMPLE = {
    "datasets": "halves",
    "transforms": "every",
    "models": "halves",
    "wrappers": "scaled",
    "noises": "laplace",
    "attacks": "descent",
    "attack_modifiers": "again",
    "certifiers": "hyperplane",
    "recipes": "logistic",
    "importers": "csv-radii",
}
BAD = {
    "robench-bad-import": ("broken", "ModuleNotFoundError: No module named 'robench_a_module_that_does_not_exist'"),
    "robench-bad-exit": ("broken", "SystemExit: I end the process"),
    "robench-bad-hook": ("broken", "unknown hook 'robench_register_atacks'; did you mean 'robench_register_attacks'?"),
    "robench-bad-arguments": (
        "broken",
        "hook 'robench_register_attacks' has no argument registry: it is given register",
    ),
    "robench-bad-api": ("incompatible", "written for API 2, this robench has 1"),
    "robench-bad-no-api": ("incompatible", "write robench_api = 1"),
}


def attack(register: str, **lines: str) -> str:
    """The code of a plugin module that registers attacks by `register`."""
    return textwrap.dedent(
        """
        from dataclasses import dataclass
        from robench import Attack, Proposal, hookimpl, param
        robench_api = 1

        @hookimpl
        def robench_register_attacks(register):
            {register}

        @dataclass(frozen=True)
        class Idle(Attack):
            steps: int = param(1, "steps")
            def perturb(self, classifier, x, y, threat, stream):
                return Proposal(x)
        """
    ).format(register=register)


def states(plugins: Plugins) -> dict[str, tuple[str, str]]:
    return {row.distribution: (row.state, row.why) for row in plugins.rows if row.distribution != "robench"}


# -------------------------------------------------------------------- surviving


def test_plugin_loading_survives_every_broken_plugin(site):
    before = {kind: [entry.name for entry in site.load().entries(kind)] for kind in KINDS}
    for name in (*BAD, "robench-example"):
        site.add(name)
    plugins = site.load()
    found = states(plugins)
    assert {name: state for name, (state, _) in found.items()} == {
        **{name: state for name, (state, _) in BAD.items()},
        "robench-example": "ok",
    }
    for name, (_, why) in BAD.items():
        assert why in found[name][1]
        assert found[name][1].isprintable()
    for kind, name in EXAMPLE.items():
        expected = {*before[kind], name}
        assert {entry.name for entry in plugins.entries(kind)} == expected
    # Half of it was right, and is left out with the rest.
    with pytest.raises(SpecError, match="no model is called 'bad-arguments'"):
        plugins.resolve("models", "bad-arguments")


def test_an_interrupt_while_plugins_load_is_not_swallowed(site):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Plugins.load([Source("m", interrupt, "d", "1")])


@pytest.mark.parametrize(
    ("register", "why"),
    [
        ('register("a b", "m:C")', "cannot be a plugin's name"),
        ('register(3, "m:C")', "cannot be a plugin's name"),
        ('register("a", "m.C")', "must read 'module:Class'"),
        ('register("a", object)', "must read 'module:Class'"),
        ('register("a", "m:C", default="yes")', "default a bool"),
        ('register("a", "m:C", cost="huge")', "cost one of"),
        ('register("a", "m:C"); register("a", "m:D")', "registered twice"),
        ('register("a", "m:C", sumary="x")', "sumary"),
        ("raise RuntimeError('one\\ntwo')", "RuntimeError: one two"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_register_hook_that_fails_leaves_its_plugin_out_with_the_reason(site, register, why):
    site.write("robench-t-bad", attack(register))
    state, seen = states(site.load())["robench-t-bad"]
    assert state == "broken"
    assert why in seen
    assert seen.isprintable()


@pytest.mark.parametrize("number", ["0", "'1'", "1.0", "True", "None"])
def test_only_the_integer_one_is_this_api(site, number):
    site.write("robench-t-api", f"robench_api = {number}")
    assert states(site.load())["robench-t-api"][0] == "incompatible"


def test_register_is_frozen_after_its_hook(site):
    site.write("robench-t-late", attack("global kept; kept = register"))
    plugins = site.load()
    with pytest.raises(RuntimeError, match="frozen"):
        sys.modules["robench_t_late"].kept("late", "m:C")
    with pytest.raises(TypeError):
        plugins._names["attacks"]["late"] = None


def test_a_hook_wrapper_cannot_register(site):
    code = attack("yield").replace("@hookimpl\n", "@hookimpl(wrapper=True)\n")
    site.write("robench-t-wrapper", code)
    assert "hook wrapper" in states(site.load())["robench-t-wrapper"][1]


def test_further_modules_are_loaded_and_reported_on_their_own(site):
    site.write("robench-t-main", "robench_api = 1\nrobench_modules = ('robench_x_good', 'robench_x_missing')\n")
    code = attack('register("x", "robench_x_good:Idle")').replace("robench_api = 1\n", "")
    (site.folder / "robench_x_good.py").write_text(code)
    plugins = site.load()
    rows = {row.module: row for row in plugins.rows if row.distribution == "robench-t-main"}
    assert {module: row.state for module, row in rows.items()} == {
        "robench_t_main": "ok",
        "robench_x_good": "ok",
        "robench_x_missing": "broken",
    }
    assert plugins.resolve("attacks", "x").parts[0].distribution == "robench-t-main"


def test_modules_that_list_each_other_are_loaded_once(site):
    site.write("robench-t-loop", "robench_api = 1\nrobench_modules = ('robench_x_loop',)\n")
    (site.folder / "robench_x_loop.py").write_text("robench_modules = ('robench_t_loop', 'robench_x_loop')\n")
    modules = [row.module for row in site.load().rows if row.distribution == "robench-t-loop"]
    assert modules == ["robench_t_loop", "robench_x_loop"]


def test_a_distribution_cannot_register_a_name_twice_from_two_modules(site):
    site.write("robench-t-main", "robench_api = 1\nrobench_modules = ('robench_x_one', 'robench_x_two')\n")
    for module in ("one", "two"):
        code = attack(f'register("x", "robench_x_{module}:Idle")')
        (site.folder / f"robench_x_{module}.py").write_text(code)
    plugins = site.load()
    rows = {row.module: row for row in plugins.rows}
    assert rows["robench_x_two"].why == "'x' of kind attacks is registered by robench_x_one too"
    assert plugins.find("attacks", "x").target == "robench_x_one:Idle"
    assert plugins.find("attacks", "robench-t-main/x").target == "robench_x_one:Idle"


def test_an_error_that_cannot_be_printed_and_one_that_steers_the_terminal(site):
    site.write("robench-t-mute", "class E(Exception):\n    def __str__(self): raise ValueError\nraise E\n")
    site.write("robench-t-loud", "raise RuntimeError('\\x1b[2Jgone\\u202e')")
    found = states(site.load())
    assert found["robench-t-mute"] == ("broken", "E")
    assert found["robench-t-loud"] == ("broken", "RuntimeError: �[2Jgone�")


def test_what_a_plugin_prints_when_it_is_imported_does_not_reach_stdout(site, capsys):
    site.write("robench-t-chatty", "print('hello')\n" + attack('register("x", "robench_x_chatty:Idle"); print("hi")'))
    (site.folder / "robench_x_chatty.py").write_text("print('lazy')\n" + attack("pass"))
    site.load().resolve("attacks", "x")
    out, err = capsys.readouterr()
    assert (out, err.split()) == ("", ["hello", "hi", "lazy"])


def test_further_modules_must_be_a_tuple_of_names(site):
    site.write("robench-t-list", "robench_api = 1\nrobench_modules = 'robench_x'\n")
    assert "tuple of module names" in states(site.load())["robench-t-list"][1]


def test_metadata_that_cannot_be_read_is_reported_or_passed_over(site):
    info = site.describe("robench-t-garbled", "1.0", {"a": "m"})
    (info / "entry_points.txt").write_text("[robench]\na = ][\nno equals sign\n")
    info = site.describe("robench-t-binary", "1.0", {"a": "m"})
    (info / "entry_points.txt").write_bytes(b"[robench]\n\xff\xfe = m\n")
    plugins = site.load()
    assert states(plugins)["robench-t-garbled"][0] == "broken"
    assert "robench-t-binary" not in {row.distribution for row in plugins.rows if row.state == "ok"}


def test_the_first_distribution_of_a_name_on_the_path_counts(site, tmp_path, monkeypatch):
    from sites import Site

    site.write("robench-t-twice", attack('register("old", "robench_t_twice:Idle")'))
    newer = Site(tmp_path / "newer", monkeypatch)
    newer.write("robench-t-twice", attack('register("new", "robench_t_twice:Idle")'), version="2.0")
    plugins = site.load()
    assert [(row.version, row.entries) for row in plugins.rows if row.distribution == "robench-t-twice"] == [("2.0", 1)]
    assert plugins.find("attacks", "new").version == "2.0"


def test_the_built_in_plugins_load_first_installed_or_not():
    sources = find_sources()
    assert [source.distribution for source in sources[:1]] == ["robench"]
    assert [source.module for source in sources if source.distribution == "robench"] == ["robench_plugins"]


def test_the_source_tree_is_put_on_the_path_where_nothing_is_installed(monkeypatch):
    from robench.registry import _sources

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(_sources.importlib.util, "find_spec", lambda name: None)
    before = len(sys.path)
    source = _sources._source_tree()
    assert source.load().robench_api == 1
    folder = Path(_sources.__file__).parents[2] / "plugins"
    assert sys.path[before:] == ([str(folder)] if folder.is_dir() else [])
    assert (source.distribution, source.module) == ("robench", "robench_plugins")


# -------------------------------------------------------------------- same names


def test_the_built_in_wins_and_two_third_parties_disable_each_other(site):
    code = attack('register("pgd", "robench_t_builtin:Idle")')
    built_in = Source("robench_t_builtin", lambda: __import__("robench_t_builtin"), "robench", "0")
    site.write("robench-t-builtin", code)
    site.add("robench-twin-one")
    site.add("robench-twin-two")
    sources = [s for s in site.sources() if s.distribution.startswith("robench-twin")]
    plugins = Plugins.load([*sources, built_in])
    names = {entry.name: entry for entry in plugins.entries("attacks")}
    assert sorted(names) == [
        "pgd",
        "robench-twin-one/pgd",
        "robench-twin-one/twin",
        "robench-twin-two/pgd",
        "robench-twin-two/twin",
    ]
    assert plugins.find("attacks", "pgd").distribution == "robench"
    assert plugins.find("attacks", "robench/pgd") is plugins.find("attacks", "pgd")
    hidden = names["robench-twin-two/twin"]
    assert (hidden.hidden_by, hidden.default, hidden.cost) == ("robench-twin-one", False, "")
    with pytest.raises(SpecError, match="write robench-twin-one/twin or robench-twin-two/twin"):
        plugins.resolve("attacks", "twin")
    resolved = plugins.resolve("attacks", "Robench_Twin.One/twin")
    assert resolved.canonical == "robench-twin-one/twin"
    assert plugins.resolve("attacks", resolved.canonical).parts[0].entry is resolved.parts[0].entry


def test_a_short_name_is_canonical_where_it_is_unique(site):
    site.add("robench-example")
    assert site.load().resolve("attacks", "robench-example/descent:steps=5").canonical == "descent:steps=5"


def test_one_name_may_serve_two_kinds(site):
    site.add("robench-example")
    plugins = site.load()
    assert plugins.find("models", "halves").kind == "models"
    assert plugins.find("datasets", "halves").kind == "datasets"


# --------------------------------------------------------------------- resolving


@pytest.fixture
def example(site):
    site.add("robench-example")
    return site.load()


def test_a_chain_resolves_to_its_parts(example):
    resolved = example.resolve("attacks", "descent:steps=5,starts=2 | again:times=3")
    assert [part.kind for part in resolved.parts] == ["attacks", "attack_modifiers"]
    assert resolved.canonical == "descent:steps=5 | again:times=3"
    assert resolved.full == "descent:starts=2,steps=5 | again:times=3"
    first = resolved.parts[0]
    assert (first.name, first.distribution, first.version) == ("descent", "robench-example", "1.0")
    assert (first.value.steps, first.value.starts) == (5, 2)
    assert example.resolve("attacks", resolved.full).value == resolved.value


def test_the_value_of_a_chain_is_the_base_with_all_applied(example):
    data = example.resolve("datasets", "halves:n=10 | every:k=3 | every:k=2").value
    assert data.load("test").index.tolist() == [0, 6]
    modified = example.resolve("attacks", "descent | again:times=4").value
    assert (modified.times, modified.attack.steps) == (4, 20)


def test_a_chained_model_wraps_what_it_loads(example):
    import torch

    model = example.resolve("models", "halves:d=2 | scaled:factor=2 | scaled:factor=4").value
    assert model == example.resolve("models", "halves:d=2 | scaled | scaled:factor=4").value
    classifier = model.load(torch.device("cpu"), torch.float64)
    x = torch.tensor([[0.5, 0.75]], dtype=torch.float64)
    assert classifier.logits(x).tolist() == [[-2.0, 2.0]]  # 8 times (-s, s), s = 1.25 - 1


def test_what_cannot_be_chained_is_refused(example):
    with pytest.raises(SpecError, match="nothing can be chained to a certifier"):
        example.resolve("certifiers", "hyperplane | again")
    with pytest.raises(SpecError, match="no attack modifier is called 'every': that is a transform"):
        example.resolve("attacks", "descent | every")


def test_an_attack_modifier_is_applied_once(example):
    with pytest.raises(SpecError, match=r"'descent \| again:times=3 \| again:times=4': again stands there twice"):
        _ = example.resolve("attacks", "descent | again:times=3 | again:times=4").value


def test_unknown_names_get_the_nearest_or_the_right_kind(example):
    with pytest.raises(SpecError, match="no attack is called 'decent'; did you mean 'descent'"):
        example.resolve("attacks", "decent")
    with pytest.raises(SpecError, match="no attack is called 'hyperplane': that is a certifier"):
        example.resolve("attacks", "hyperplane")
    with pytest.raises(SpecError, match=r"that is an attack modifier: write 'ATTACK \| again'"):
        example.resolve("attacks", "again")
    with pytest.raises(SpecError, match="no attack is called 'nobody/descent'"):
        example.resolve("attacks", "nobody/descent")


def test_nothing_of_a_plugin_is_imported_before_its_first_use(site):
    site.add("robench-example")
    plugins = site.load()
    assert "robench_example" in sys.modules
    assert "robench_example.attack" not in sys.modules
    plugins.resolve("attacks", "descent")
    assert "robench_example.attack" in sys.modules
    assert "robench_example.model" not in sys.modules


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("bad-raises", "failed on 'bad-raises': RuntimeError: no licence found"),
        ("bad-exits", "failed on 'bad-exits': SystemExit: 0"),
        ("bad-thawed", "must be a frozen dataclass"),
        ("bad-plain", "must be a dataclass"),
        ("bad-untyped", "parameter 'options' is annotated"),
        ("bad-empty", "Empty is not an attack: it has no perturb or stages"),
        ("bad-class", "cannot load robench_bad_factory.factories:NotThere: AttributeError"),
        ("bad-module", "cannot load robench_bad_factory.broken:Attack: OSError: libnothing.so"),
    ],
)
def test_a_factory_that_fails_names_plugin_and_distribution_at_its_first_use(site, name, why):
    site.add("robench-bad-factory")
    plugins = site.load()
    assert states(plugins)["robench-bad-factory"] == ("ok", "")
    with pytest.raises(PluginError) as caught:
        plugins.resolve("attacks", name)
    assert str(caught.value).startswith(f"attack '{name}' of robench-bad-factory 1.0: ")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_error_of_a_factory_is_the_users(site):
    site.add("robench-bad-factory")
    with pytest.raises(SpecError, match=r"^bad-refuses: steps=3 is odd: give an even number"):
        site.load().resolve("attacks", "bad-refuses")
    assert site.load().resolve("attacks", "bad-refuses:steps=4").canonical == "bad-refuses:steps=4"


def test_a_nested_spec_is_resolved_and_published_canonically(site):
    site.add("robench-example")
    code = attack('register("outer", "robench_t_outer:Outer")') + textwrap.dedent(
        """
        from robench import Attack, Model

        @dataclass(frozen=True)
        class Outer(Idle):
            source: Model | None = param(None, "a model")
            first: Attack | None = param(None, "an attack")
        """
    )
    site.write("robench-t-outer", code)
    plugins = site.load()
    resolved = plugins.resolve("attacks", "outer:first=(robench-example/descent:starts=2,steps=3 | again)")
    assert resolved.canonical == "outer:first=(descent:steps=3 | again)"
    assert resolved.full == "outer:first=(descent:starts=2,steps=3 | again:times=2),source=none,steps=1"
    assert plugins.resolve("attacks", resolved.canonical).value == resolved.value
    assert resolved.value.first.attack.steps == 3
    with pytest.raises(SpecError, match="outer: parameter 'source': no model is called 'onx'"):
        plugins.resolve("attacks", "outer:source=(onx)")
    with pytest.raises(SpecError, match="parameter 'first': descent: no parameter 'stps'"):
        plugins.resolve("attacks", "outer:first=(descent:stps=3)")


WRAPPERS = """
from dataclasses import dataclass
from robench import Model, Wrapper, hookimpl, wrapped_fingerprint
from robench_t_base import Base
robench_api = 1

@hookimpl
def robench_register_models(register):
    register("base", "robench_t_wrappers:Source")

@hookimpl
def robench_register_wrappers(register):
    for name in ("Same", "Other", "Noisy"):
        register(name.lower(), f"robench_t_wrappers:{name}")

@dataclass(frozen=True)
class Source(Model):
    def load(self, device, dtype):
        return Base("0" * 64, dtype)

@dataclass(frozen=True)
class Same(Wrapper):
    def wrap(self, classifier):
        return Base(classifier.fingerprint, classifier.dtype)

@dataclass(frozen=True)
class Other(Wrapper):
    def wrap(self, classifier):
        return Base(wrapped_fingerprint(classifier, "other"), classifier.dtype)

@dataclass(frozen=True)
class Noisy(Wrapper):
    def wrap(self, classifier):
        noisy = Base(wrapped_fingerprint(classifier, "noisy"), classifier.dtype)
        noisy.sample, noisy.logits = noisy.logits, None
        del noisy.logits
        return noisy
"""
BASE = """
class Base:
    input_shape, classes, device, graph = (2,), 2, "cpu", None
    def __init__(self, fingerprint, dtype):
        self.fingerprint, self.dtype = fingerprint, dtype
        self.logits = lambda x: x
"""


@pytest.mark.parametrize("nested", [False, True], ids=["chain", "parameter"])
def test_wrapped_models_are_checked_wherever_they_are_loaded(site, nested):
    (site.folder / "robench_t_base.py").write_text(BASE)
    site.write("robench-t-wrappers", WRAPPERS)
    outer = attack('register("outer", "robench_t_outer:Outer")') + textwrap.dedent(
        """
        from robench import Model

        @dataclass(frozen=True)
        class Outer(Idle):
            source: Model | None = param(None, "a model")
        """
    )
    site.write("robench-t-outer", outer)
    plugins = site.load()

    def load(spec):
        if nested:
            model = plugins.resolve("attacks", f"outer:source=({spec})").value.source
        else:
            model = plugins.resolve("models", spec).value
        return model.load("cpu", "float64")

    assert load("base").fingerprint == "0" * 64
    one, two = load("base | other"), load("base | other | other")
    assert len({"0" * 64, one.fingerprint, two.fingerprint}) == 3
    assert two.dtype == "float64"
    assert hasattr(load("base | other | noisy"), "sample")
    for spec in ("base | same", "base | other | same", "base | same | other"):
        with pytest.raises(PluginError, match=r"^same: gives the base's own fingerprint"):
            load(spec)
    with pytest.raises(InputError, match=r"^base \| other \| noisy draws at inference"):
        load("base | other | noisy | other")


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_a_kind_is_found_by_plural_and_noun(kind):
    for text in (kind.name, kind.noun, kind.module, kind.name.replace("_", "-"), kind.noun.replace(" ", "-")):
        assert find_kind(text) is kind
    with pytest.raises(SpecError, match=f"did you mean '{kind.module}'"):
        find_kind(f"{kind.noun[:-1]}{kind.noun[-1] * 3}")


# --------------------------------------------------------------------- run hooks


HOOKS = """
from robench import hookimpl
robench_api = 1
seen = []

@hookimpl
def robench_run_started(run_id, request):
    request["changed"] = True
    seen.append(("started", run_id, request["norm"]))

@hookimpl
def robench_evidence_written(rows):
    seen.append(("written", rows))
    if rows == 2:
        raise SystemExit("enough")

@hookimpl
def robench_run_finished(run_id, summary):
    seen.append(("finished", run_id, summary))
"""


def test_run_hooks_are_called_softly(site):
    module = site.write("robench-t-hooks", HOOKS)
    plugins = site.load()
    hooks, request = plugins.run_hooks, {"norm": "l2"}
    hooks.started("r1", request)
    assert request == {"norm": "l2"}  # a hook gets a copy
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hooks.written("r1", 1)
    with pytest.warns(PluginWarning, match=r"robench_evidence_written of robench-t-hooks/.*SystemExit: enough;"):
        hooks.written("r1", 2)
    hooks.written("r1", 3)  # not called again
    hooks.finished("r1", {"n": 1})  # its other hooks go on
    assert sys.modules[module].seen == [
        ("started", "r1", "l2"),
        ("written", 1),
        ("written", 2),
        ("finished", "r1", {"n": 1}),
    ]


def test_an_interrupt_in_a_run_hook_is_not_swallowed(site):
    code = "from robench import hookimpl\nrobench_api = 1\n"
    code += "@hookimpl\ndef robench_run_started():\n    raise KeyboardInterrupt\n"
    site.write("robench-t-interrupt", code)
    with pytest.raises(KeyboardInterrupt):
        site.load().run_hooks.started("r1", {})
