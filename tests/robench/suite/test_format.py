"""What a suite file may hold; whatever else it holds is one line that names the place, before anything runs."""

import codecs
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robench.audit import AUDIT, share_of
from robench.errors import InputError
from robench.suite import load_suite, parse_suite

SMALLEST = """
[[evaluations]]
models = "digits-standard"
datasets = "digits"
threats = { norm = "linf", eps = 0.1 }
"""


def block(**changes):
    """A block with some of its lines replaced, or left out by None."""
    lines = {
        "models": '["digits-standard"]',
        "datasets": '["digits"]',
        "threats": '[{ norm = "linf", eps = ["0.1"] }]',
    } | changes
    return "[[evaluations]]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items() if value is not None)


def refused(text):
    with pytest.raises(InputError) as raised:
        parse_suite(text)
    line = str(raised.value)
    assert line.startswith("suite.toml: ")
    assert "\n" not in line and line.isprintable() and len(line) < 600
    return line.removeprefix("suite.toml: ")


def test_single_entries_need_no_list():
    assert parse_suite(SMALLEST).cells == parse_suite(block()).cells
    (cell,) = parse_suite(SMALLEST).cells
    assert cell.settings.attacks is None and cell.settings.certifiers is None
    assert [str(eps) for eps in cell.settings.eps] == ["0.1"]


def test_a_matrix_is_every_model_on_every_dataset_under_every_threat_in_this_order():
    suite = parse_suite(
        block(
            models='["digits-standard", "digits-ibp"]',
            datasets='["digits", "digits | subset:n=5"]',
            threats='[{ norm = "l2", eps = [1, 0.5] }, { norm = "l1", eps = "8/255" }]',
        )
    )
    found = [
        (cell.model, cell.dataset, cell.settings.norm, [str(eps) for eps in cell.settings.eps]) for cell in suite.cells
    ]
    assert found == [
        (model, dataset, norm, eps)
        for dataset in ("digits", "digits | subset:n=5")
        for model in ("digits-standard", "digits-ibp")
        for norm, eps in (("l2", ["1", "0.5"]), ("l1", ["8/255"]))
    ]
    assert (
        suite.cells
        == parse_suite(
            block(
                models='["digits-standard", "digits-ibp"]',
                datasets='["digits", "digits | subset:n=5"]',
                threats='[{ norm = "l2", eps = [1, 0.5] }, { norm = "l1", eps = "8/255" }]',
            )
        ).cells
    )


def test_a_block_has_the_files_settings_unless_it_has_its_own():
    text = 'seed = 3\nsplit = "train"\nprecision = "fp64"\nbatch_size = 8\nsamples = "0:9"\ndevice = "cpu"\n'
    one, other = parse_suite(text + block() + block(seed="4", batch_size='"auto"', samples='"0:5"')).cells
    assert (one.settings.seed, one.settings.split, one.settings.precision) == (3, "train", "fp64")
    assert (one.settings.batch_size, one.settings.samples, one.settings.device) == (8, "0:9", "cpu")
    assert (other.settings.seed, other.settings.batch_size, other.settings.samples) == (4, None, "0:5")
    assert other.settings.split == "train"
    (usual,) = parse_suite(block()).cells
    assert (usual.settings.seed, usual.settings.split, usual.settings.batch_size) == (0, "test", None)


@pytest.mark.parametrize("written", ["[]", '"none"', '["none"]'])
def test_a_side_is_switched_off(written):
    (cell,) = parse_suite(block(certifiers=written)).cells
    assert (cell.settings.attacks, cell.settings.certifiers) == (None, ())


def test_a_model_may_say_what_boards_show():
    entry = (
        '{ spec = "digits-ibp", name = "Mine", paper = "P", licence = "MIT", training_data = "D", more = { x = "1" } }'
    )
    (cell,) = parse_suite(block(models=entry)).cells
    assert cell.settings.display.model_dump() == {
        "name": "Mine",
        "paper": "P",
        "licence": "MIT",
        "training_data": "D",
        "more": {"x": "1"},
    }


def test_a_bound_is_computed_once_for_all_blocks_about_its_samples():
    text = block(bounds='"transport"') + block(
        models=None,
        bounds='"transport"',
        threats='[{ norm = "linf", eps = ["0.3", "1/10"] }, { norm = "l2", eps = 1 }]',
    )
    suite = parse_suite(text + block(bounds='"transport"', samples='"0:9"', seed="1"))
    assert [(cell.norm, cell.samples, [eps.value for eps in cell.eps]) for cell in suite.bounds] == [
        ("linf", None, [0.1, 0.3]),
        ("l2", None, [1.0]),
        ("linf", "0:9", [0.1]),
    ]
    assert suite.tasks == (*suite.bounds, *suite.cells)
    assert len(suite.cells) == 2


def test_files_are_relative_to_the_suite_file(tmp_path, monkeypatch):
    (tmp_path / "suites" / "net").mkdir(parents=True)
    (tmp_path / "suites" / "net" / "a").write_text("1")
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "suites" / "a.toml"
    file.write_text(block(models='"checkpoint:net"'))
    monkeypatch.chdir(tmp_path / "elsewhere")
    (cell,) = load_suite(file).cells
    assert re.fullmatch(r"checkpoint:net@sha256:[0-9a-f]{12}", cell.model)
    assert cell.settings.search == (tmp_path / "suites",)
    file.write_text(block(models='"checkpoint:suites/net"'))
    with pytest.raises(
        InputError, match=rf"^{file}: evaluations\[0\]\.models\[0\]: checkpoint: .*no file '.*suites/suites/net'"
    ):
        load_suite(file)


WRONG = [
    ("", "evaluations: is missing"),
    ("evaluations = []", "evaluations: holds nothing: give at least one"),
    ("evaluations = 3", "evaluations[0]: must be a table"),
    ("[[evaluation]]", "unknown key 'evaluation'; did you mean 'evaluations'? (and 1 more)"),
    ("models = [", "not TOML: Invalid value (at end of document)"),
    (block(model='"x"'), "evaluations[0]: unknown key 'model'; did you mean 'models'?"),
    (block(zzz="1"), "evaluations[0]: unknown key 'zzz'; there are split, samples, seed, device, precision, "),
    (block(models=None), "evaluations[0]: no models and no bounds: there is nothing to run"),
    (block(models="[]"), "evaluations[0]: no models and no bounds: there is nothing to run"),
    (block(models="[3]"), "evaluations[0].models[0]: must be a table"),
    (block(models='{ name = "x" }'), "evaluations[0].models[0].spec: is missing"),
    (
        block(models='{ spec = "digits-standard", nmae = "x" }'),
        "evaluations[0].models[0]: unknown key 'nmae'; did you mean 'name'?",
    ),
    (
        block(models='{ spec = "digits-standard", name = "a\\u001bb" }'),
        "evaluations[0].models[0].name: holds control characters",
    ),
    (block(models='"digits-standrad"'), "evaluations[0].models[0]: no model is called 'digits-standrad'; did you mean"),
    (
        block(models='"checkpoint:/no/where"'),
        "evaluations[0].models[0]: checkpoint: parameter 'folder': no file '/no/where'",
    ),
    (block(datasets=None), "evaluations[0].datasets: is missing"),
    (block(datasets="[]"), "evaluations[0].datasets: holds nothing: give at least one"),
    (
        block(datasets='["digits", "digit"]'),
        "evaluations[0].datasets[1]: no dataset is called 'digit'; did you mean 'digits'?",
    ),
    (block(datasets='""'), "evaluations[0].datasets[0]: is empty"),
    (block(threats=None), "evaluations[0].threats: is missing"),
    (block(threats="[]"), "evaluations[0].threats: holds nothing: give at least one"),
    (block(threats='{ norm = "l3", eps = 1 }'), "evaluations[0].threats[0].norm: Input should be 'linf', 'l2' or 'l1'"),
    (block(threats='{ norm = "l2" }'), "evaluations[0].threats[0].eps: is missing"),
    (block(threats='{ norm = "l2", eps = [] }'), "evaluations[0].threats[0].eps: holds nothing: give at least one"),
    (block(threats='{ norm = "l2", eps = [1, "x"] }'), "evaluations[0].threats[0].eps[1]: ε 'x' is not a number"),
    (block(threats='{ norm = "l2", eps = [0.1, "1/10"] }'), "evaluations[0].threats[0].eps: 1/10 stands there twice"),
    (block(threats='{ norm = "l2", eps = -1 }'), "evaluations[0].threats[0].eps[0]: ε '-1' must be greater than 0"),
    (block(threats='{ norm = "l2", eps = nan }'), "evaluations[0].threats[0].eps[0]: ε 'nan' is not a number"),
    (block(threats='{ norm = "l2", eps = true }'), "evaluations[0].threats[0].eps[0]: must be a number or a text"),
    (
        block(threats='{ norm = "l2", eps = 1979-05-27 }'),
        "evaluations[0].threats[0].eps[0]: must be a number or a text",
    ),
    (block(threats=f'{{ norm = "l2", eps = 0x{"f" * 9000} }}'), "evaluations[0].threats[0].eps[0]: is too large"),
    (block(threats=f'{{ norm = "l2", eps = {"9" * 9000} }}'), "not TOML: "),
    (block(attacks='["none", "pgd"]'), "evaluations[0].attacks: 'none' switches the side off: leave out the others"),
    (block(attacks='"auto"'), "evaluations[0].attacks[0]: no attack is called 'auto'"),
    (block(attacks='["pgd", "pgd:steps=0"]'), "evaluations[0].attacks[1]: pgd: parameter 'steps'"),
    (block(certifiers="[1]"), "evaluations[0].certifiers[0]: must be a text in quotes"),
    (block(certifiers='"pgd"'), "evaluations[0].certifiers[0]: no certifier is called 'pgd': that is a"),
    (block(bounds='"transpot"'), "evaluations[0].bounds[0]: no bound is called 'transpot'; did you mean 'transport'?"),
    (block(batch_size="0"), "evaluations[0].batch_size: must be a whole number from 1, or 'auto'"),
    (block(batch_size="true"), "evaluations[0].batch_size: must be a whole number from 1, or 'auto'"),
    (block(seed="1.0"), "evaluations[0].seed: must be a whole number"),
    (block(seed="9223372036854775808"), "evaluations[0].seed: "),
    (block(precision='"fp16"'), "evaluations[0].precision: Input should be 'fp32' or 'fp64'"),
    ('device = "tpu"\n' + block(), "device: unknown device 'tpu'"),
    (block(samples='"5"'), "evaluations[0].samples: --samples '5': write positions like 0:1000"),
    (block(samples='"5:5"'), "evaluations[0].samples: --samples '5:5' selects nothing"),
    (block() + block(), "evaluations[1]: digits-standard on digits, linf 0.1 stands in evaluations[0] already"),
    (
        block(models='["digits-standard", "robench/digits-standard"]'),
        "evaluations[0]: digits-standard on digits, linf 0.1 stands",
    ),
    (
        block() + block(threats='{ norm = "linf", eps = "1/10" }', device='"cpu"'),
        "evaluations[1]: digits-standard on digits",
    ),
    ("x = " + "[" * 100_000, "nested too deeply"),
    ('"\\u001b[31m" = 1\n' + block(), "unknown key '\\x1b[31m'"),
]


@pytest.mark.parametrize(("text", "line"), WRONG, ids=[line for _, line in WRONG])
def test_what_is_wrong_is_one_line_with_its_place(text, line):
    assert refused(text).startswith(line)


def test_two_seeds_or_selections_are_two_cells():
    assert len(parse_suite(block() + block(seed="1") + block(samples='"0:9"') + block(attacks='"fgsm"')).cells) == 4


def test_a_matrix_has_an_end():
    threats = ", ".join(f'{{ norm = "l2", eps = {i + 1} }}' for i in range(3000))
    datasets = ", ".join(f'"digits | subset:n={i + 1}"' for i in range(40))
    assert (
        refused(block(threats=f"[{threats}]", datasets=f"[{datasets}]")) == "120000 cells: at most 100000 are allowed"
    )


def test_files_that_are_no_suites(tmp_path):
    for name, content, said in (
        ("latin.toml", "x = 'ä'".encode("latin-1"), "no UTF-8 at byte 5"),
        ("large.toml", b"#" * (2 << 20), "more than 1 MiB"),
        ("zero.toml", b"\0", "not TOML: "),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"^{tmp_path / name}: {said}"):
            load_suite(tmp_path / name)
    for path, said in (
        (tmp_path, "Is a directory"),
        (tmp_path / "none.toml", "No such file"),
        ("a" * 5000, "too long"),
        ("a\0b", "is no path"),
    ):
        with pytest.raises(InputError, match=said):
            load_suite(path)


def test_the_mark_that_some_editors_put_before_utf_8_is_no_error(tmp_path):
    (tmp_path / "suite.toml").write_bytes(codecs.BOM_UTF8 + block().encode())
    assert load_suite(tmp_path / "suite.toml").cells == parse_suite(block(), folder=tmp_path).cells


VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["digits", "linf", "pgd", "none"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["spec", "norm", "eps", "name", "x"]), inner, max_size=3),
    ),
    max_leaves=6,
)


def toml(value):
    """A value as TOML; texts as JSON strings, which TOML reads alike."""
    import json

    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    return str(value).lower()


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(["models", "datasets", "threats", "attacks", "certifiers", "bounds", "seed", "samples"]), VALUES
    )
)
def test_whatever_stands_there_is_read_or_refused_on_one_line(values):
    text = block(**{key: toml(value) for key, value in values.items()})
    try:
        parse_suite(text)
    except InputError as error:
        assert str(error).startswith("suite.toml: ")
        assert "\n" not in str(error)


@pytest.mark.parametrize(("given", "share"), [("true", AUDIT), ("0.2", 0.2), ("false", None), (None, None)])
def test_trust_in_certificates_stands_at_the_top_or_in_a_block(given, share):
    top = "" if given is None else f"trust_certificates = {given}\n"
    (cell,) = parse_suite(top + block()).cells
    assert share_of(cell.settings.trust_certificates) == share
    (cell,) = parse_suite("trust_certificates = true\n" + block(trust_certificates=given)).cells
    assert share_of(cell.settings.trust_certificates) == (AUDIT if given is None else share)


@pytest.mark.parametrize("given", ["0.0", "1.5", '"yes"', "nan"])
def test_trust_without_an_audit_is_refused(given):
    assert "trust_certificates" in refused(f"trust_certificates = {given}\n" + block())


def test_the_same_evaluation_with_and_without_trust_are_two_cells():
    assert len(parse_suite(block() + block(trust_certificates="true")).cells) == 2
