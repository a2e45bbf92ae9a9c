import gzip
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from robench.check import check
from robench.cli import app
from robench.errors import DataError
from robench.importing import write
from robench.metrics import results
from robench.runs import find_runs
from robench.testing import check_importer
from robench_plugins.importers._vnncomp_answers import named_eps, read_answers, status_of
from robench_plugins.importers._vnncomp_instances import Instances, path_of
from robench_plugins.importers._vnncomp_points import read_point
from robench_plugins.importers.vnncomp import VnnComp

# One network f(x) = (x0 - x1, 0), label 0: unsafe exactly where x0 <= x1.
SAFE = "(assert (>= X_0 0.25))\n(assert (<= X_0 0.5))\n(assert (>= X_1 0.125))\n(assert (<= X_1 0.2))\n"
UNSAFE = SAFE.replace("0.2))", "0.5))")
DECLARED = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
CONDITION = "(assert (or (and (>= Y_1 Y_0))))\n"


def line(prop, word, net="net", seconds="1.5", benchmark="toy"):
    where = f"./benchmarks/{benchmark}"
    return f"{benchmark},{where}/onnx/{net}.onnx,{where}/vnnlib/{prop}.vnnlib,.25,{word},{seconds}\n"


def tool(root, name, *lines, benchmark="toy"):
    folder = root / "results" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{benchmark}.csv").write_text("".join(lines))
    return folder


def point(folder, prop, *x, net="net", text=None):
    """A published counterexample."""
    pairs = "\n".join(f"(X_{i} {value})" for i, value in enumerate(x))
    (folder / "counterexamples").mkdir(exist_ok=True)
    file = folder / "counterexamples" / f"{net}_{prop}.counterexample.gz"
    file.write_bytes(gzip.compress((text or f"({pairs}\n(Y_0 0.0)\n(Y_1 0.0))").encode()))
    return file


def benchmark(root, **props):
    """The benchmark's folder: the network, and properties by name."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    folder = root / "toy"
    for sub in ("onnx", "vnnlib"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    weight = numpy_helper.from_array(np.array([[1.0, -1.0], [0.0, 0.0]], np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "onnx" / "net.onnx")
    for name, box in props.items():
        (folder / "vnnlib" / f"{name}.vnnlib").write_text(DECLARED + box + CONDITION)
    (folder / "instances.csv").write_text("".join(f"onnx/net.onnx,vnnlib/{name}.vnnlib,60\n" for name in props))
    return folder


def rows(runs):
    """(tool, sample) -> row, of everything that was read."""
    found = {}
    for run in runs:
        for row in run.evidence("20260101T000000Z-000000").to_pylist():
            found[row["evaluator"], row["sample"]] = row
    return found


@pytest.mark.parametrize(
    ("word", "status"),
    [
        *(("unsat", "certified"), ("holds", "certified"), ("sat", "falsified"), ("violated", "falsified")),
        *(("timeout", "timeout"), ("timeout(120)", "timeout"), ("run_instance_timeout", "timeout")),
        *(("prepare_instance_timeout", "timeout"), ("unknown", "open"), ("no_result_in_file", "error")),
        *(("error", "error"), ("error_exit_code_137", "error"), ("error_nonmaximal", "error")),
        *(("prepare_instance_error_1", "error"), ("satisfied", "open"), ("unsatisfied", "open"), ("", "open")),
    ],
)
def test_every_word_has_a_status(word, status):
    assert status_of(word) == status


@pytest.mark.parametrize(
    ("name", "eps"),
    [
        *(
            ("prop_3_0.05", 0.05),
            ("prop_4_eps_0.008", 0.008),
            ("img8194-eps0.018300653594771243", 0.018300653594771243),
        ),
        *(("spec_idx_3_eps_0.00350_n1", 0.0035), ("image1_epsilon.5", 0.5), ("p_eps1e-3", 0.001)),
        *(("prop_3", None), ("spec0_screw", None), ("prop_3_0.0", None), ("eps_", None)),
    ],
)
def test_the_epsilon_of_a_name(name, eps):
    assert named_eps(name) == eps


BAD = {
    "empty": ("", "without lines"),
    "five columns": ("toy,a.onnx,b.vnnlib,1,sat\n", "line 1: 5 columns"),
    "no network": (line("p_0.1", "sat").replace(".onnx", ".txt"), "line 1: network .* does not end in .onnx"),
    "no name": (line(" ", "sat"), "line 1: property"),
    "hidden name": (line("..", "sat"), "line 1: property"),
    "time": (line("p_0.1", "sat", seconds="soon"), "line 1: 'soon' is not a number of seconds"),
    "infinite time": (line("p_0.1", "sat", seconds="inf"), "line 1: 'inf'"),
    "negative time": (line("p_0.1", "sat", seconds="-2"), "line 1: '-2'"),
    "word": (line("p_0.1", "sat;rm"), "line 1: result"),
    "escape": (line("p_0.1", "\x1b[31m"), "line 1: result"),
    "twice": (line("p_0.1", "sat") * 2, "line 2: instance p_0.1 of net is there twice"),
    "quoted": ('"toy,' + line("p_0.1", "sat"), "line 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_malformed_results_are_refused_in_one_line(tmp_path, case):
    text, message = BAD[case]
    folder = tool(tmp_path, "one", text)
    with pytest.raises(DataError, match=message) as error:
        list(VnnComp().read(folder))
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


def test_bytes_that_are_no_text_and_folders_without_results(tmp_path):
    folder = tool(tmp_path, "one", "")
    (folder / "toy.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not plain text"):
        list(VnnComp().read(folder))
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "nothing", "no such"), (tmp_path / "empty", "no results here")):
        with pytest.raises(DataError, match=message):
            list(VnnComp().read(path))
    with pytest.raises(DataError, match="not a tool's name"):
        list(VnnComp().read(tool(tmp_path, "a b", line("p_0.1", "sat"))))
    with pytest.raises(DataError, match="no folder"):
        list(VnnComp(benchmarks=str(tmp_path / "nothing")).read(folder))


def test_an_instance_that_was_never_run_took_no_time(tmp_path):
    (answer,) = read_answers("one", [tool(tmp_path, "one", line("p_0.1", "error", seconds="-1")) / "toy.csv"])
    assert (answer.seconds, answer.prepare) == (0.0, 0.25)


def test_without_the_benchmark_answers_are_claims(tmp_path):
    words = {"a_0.1": "unsat", "b_0.1": "sat", "c": "unsat", "d_0.2": "timeout", "e_0.1": "strange"}
    point(tool(tmp_path, "one", *(line(*pair) for pair in words.items())), "b_0.1", 0.3, 0.3)
    runs = list(VnnComp().read(tmp_path / "results"))
    found = rows(runs)
    assert [found["one", i]["status"] for i in range(5)] == ["certified", "falsified", "certified", "timeout", "open"]
    assert [found["one", i]["eps"] for i in range(5)] == [0.1, 0.1, None, 0.2, 0.1]
    assert {found["one", i]["upper"] for i in range(5)} == {math.inf}
    assert {found["one", i]["label"] for i in range(5)} == {-1}
    assert "strange" in found["one", 4]["detail"]
    assert "do not lie beside" in found["one", 1]["detail"]
    (imported,) = runs
    assert imported.names == dict(enumerate(words))
    run, _ = write(imported, tmp_path / "out")
    assert check([run]).findings == ()
    (result,) = results([run])
    assert (result.n, result.certified.count, result.empirical.count) == (5, 2, 5)


def test_one_tool_or_all_of_them_and_any_order_of_lines_give_the_same_subject(tmp_path):
    lines = [line("a_0.1", "unsat"), line("b_0.1", "sat"), line("a_0.1", "unsat", net="other")]
    one, two = tool(tmp_path, "one", *lines), tool(tmp_path, "two", *lines)
    whole = {(run.net, run.rows[0].evaluator): run for run in VnnComp().read(tmp_path / "results")}
    assert len(whole) == 4
    for path, name in ((one, "one"), (two, "two"), (one / "toy.csv", "one")):
        for run in VnnComp().read(path):
            same = whole[run.net, name]
            assert (run.fingerprint, run.dataset_hash) == (same.fingerprint, same.dataset_hash)
            assert run.manifest().request == same.manifest().request
    tool(tmp_path, "two", *lines[:1])  # answered less: its numbers are those of the longer list
    assert rows(VnnComp().read(tmp_path / "results"))["two", 0]["status"] == "certified"
    (alone,) = VnnComp().read(two)
    assert alone.dataset_hash != whole["toy/net", "two"].dataset_hash  # nobody told it of the others: not comparable
    tool(tmp_path, "two", line("z_0.1", "sat"))
    with pytest.raises(DataError, match=r"z_0\.1 of net is not in what one answered"):
        list(VnnComp().read(tmp_path / "results"))


def test_years_are_different_sources(tmp_path):
    folder = tool(tmp_path, "one", line("a_0.1", "unsat"))
    prints = {next(iter(VnnComp(year=year).read(folder))).fingerprint for year in (2021, 2022, 2023)}
    assert len(prints) == 3


def test_a_counterexample_that_holds_contradicts_who_proved_the_opposite(tmp_path):
    """The point is a corner of the box: closed, and executed without a tolerance."""
    benchmark(tmp_path, a=UNSAFE, b=SAFE)
    point(tool(tmp_path, "seer", line("b", "unsat"), line("a", "sat")), "a", "0.25", "0.5")
    tool(tmp_path, "liar", line("a", "unsat"), line("b", "unsat"))
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["import", "vnncomp", str(tmp_path / "results"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    found = find_runs(out)
    assert {run.manifest.dataset.regions for run in found} == {"labels"}
    outcome = check(found)
    (finding,) = outcome.findings
    assert (finding.code, finding.sample, finding.evaluators) == ("contradiction", 0, ("liar", "seer"))
    assert "sample 0 (a) of toy/net: liar" in finding.text
    assert CliRunner().invoke(app, ["check", str(out)]).exit_code == 1
    assert str(tmp_path) not in "".join(run.manifest.to_json().decode() for run in found)


@pytest.mark.parametrize(
    ("name", "x", "why"),
    [
        ("outside", ("0.25", "0.501"), "X_1 lies 0.001 outside"),
        ("safe", ("0.26", "0.25"), "do not meet the unsafe condition"),
        ("tie", ("0.25", "0.25"), "too closely to tell"),  # real arithmetic has a tie here; an enclosure cannot say so
        ("short", ("0.25",), "1 inputs instead of 2"),
    ],
)
def test_a_counterexample_that_does_not_hold_leaves_the_answer_open(tmp_path, name, x, why):
    benchmark(tmp_path, a=UNSAFE)
    point(tool(tmp_path, name, line("a", "sat")), "a", *x)
    row = rows(VnnComp().read(tmp_path / "results"))[name, 0]
    assert (row["status"], row["upper"], row["label"]) == ("open", math.inf, 0)
    assert why in row["detail"]


def test_a_printed_bound_that_is_no_double_is_met_by_the_double_inside(tmp_path):
    """0.1 as a double lies above the decimal, which bounds x1: the point moves inward by one double, and no further."""
    assert Fraction(0.1) > Fraction("0.1")
    box = "(assert (>= X_0 0))\n(assert (<= X_0 1))\n(assert (>= X_1 0))\n(assert (<= X_1 0.1))\n"
    benchmark(tmp_path, a=box, b=box)
    folder = tool(tmp_path, "one", *(line(prop, "sat") for prop in "ab"))
    point(folder, "a", "0.05", "0.1")
    point(folder, "b", "0.05", repr(math.nextafter(0.1, 1)))
    found = rows(VnnComp().read(folder))
    assert [found["one", i]["status"] for i in range(2)] == ["falsified", "open"]


def test_what_cannot_be_executed_stays_a_claim(tmp_path):
    folder = benchmark(tmp_path, a=UNSAFE)
    point(tool(tmp_path, "seer", line("a", "sat")), "a", "0.25", "0.5")
    (folder / "onnx" / "net.onnx").rename(folder / "onnx" / "other.onnx")
    row = rows(VnnComp().read(tmp_path / "results"))["seer", 0]
    assert (row["status"], row["upper"], row["label"]) == ("falsified", math.inf, 0)


def test_instances_of_the_benchmark_give_the_numbers(tmp_path):
    folder = benchmark(tmp_path, b=SAFE, a=UNSAFE)
    tool(tmp_path, "one", line("a", "timeout"))
    assert set(rows(VnnComp().read(tmp_path / "results"))) == {("one", 1)}
    assert set(rows(VnnComp(benchmarks=str(tmp_path)).read(tmp_path / "results" / "one"))) == {("one", 1)}
    tool(tmp_path, "one", line("c", "timeout"))
    with pytest.raises(DataError, match=r"c of net is not in the benchmark's instances\.csv"):
        list(VnnComp().read(tmp_path / "results"))
    (folder / "instances.csv").write_text("onnx/net.onnx\n")
    with pytest.raises(DataError, match=r"instances\.csv, line 1"):
        list(VnnComp().read(tmp_path / "results"))


def test_properties_of_one_name_in_two_folders_are_two(tmp_path):
    folder = benchmark(tmp_path, p=UNSAFE, a=UNSAFE)
    for name, box in (("a", UNSAFE), ("b", SAFE)):
        (folder / name).mkdir()
        (folder / name / "p.vnnlib").write_text(DECLARED + box + CONDITION)
    places = ["b/p", "vnnlib/a", "./a/p", "a/p_0.3", "vnnlib/p"]
    (folder / "instances.csv").write_text("".join(f"onnx/net.onnx,{one}.vnnlib,60\n" for one in places))
    answered = [("b/p", "unsat"), ("vnnlib/a", "unsat"), ("a/p", "sat"), ("a/p_0.3", "unsat"), ("vnnlib/p", "sat")]
    lines = [line("*", word).replace("vnnlib/*", place) for place, word in answered]
    seer = tool(tmp_path, "seer", *lines)
    tool(tmp_path, "late", *lines[2:])
    point(seer, "p", 0.25, 0.125)  # of neither: the network is safe there
    point(seer, "p-5", 0.25, 0.5)  # the fifth line's
    runs = list(VnnComp().read(tmp_path / "results"))
    assert {run.rows[0].evaluator: dict(run.names) for run in runs} == {
        "seer": {0: "b/p", 1: "a", 2: "a/p", 3: "p_0.3", 4: "vnnlib/p"},
        "late": {2: "a/p", 3: "p_0.3", 4: "vnnlib/p"},
    }
    found = rows(runs)
    status = [found["seer", sample]["status"] for sample in range(5)]
    assert status == ["certified", "certified", "open", "certified", "falsified"]
    assert found["seer", 4]["upper"] == found["seer", 4]["eps"] < math.inf
    assert found["seer", 0]["eps"] == 0.125 and found["seer", 2]["eps"] == 0.1875  # half of each box's widest side
    assert found["seer", 3]["eps"] == 0.3 and [found["seer", i]["label"] for i in range(5)] == [0, 0, 0, -1, 0]
    tool(tmp_path, "late", lines[0].replace("b/p", "c/p"))
    with pytest.raises(DataError, match=r"line 1: p of net is not in the benchmark's instances\.csv"):
        list(VnnComp().read(tmp_path / "results"))
    tool(tmp_path, "late", lines[0], lines[2], lines[0].replace("./benchmarks", "elsewhere"))
    with pytest.raises(DataError, match="line 3: instance b/p of net is there twice"):
        list(VnnComp().read(tmp_path / "results"))


def test_folders_tell_properties_apart_without_the_benchmark_too(tmp_path):
    lines = [line("*", word).replace("vnnlib/*", place) for place, word in (("a/p", "sat"), ("b/p", "unsat"))]
    tool(tmp_path, "one", *lines)
    tool(tmp_path, "two", *(text.replace("./benchmarks/toy/", "") for text in lines[::-1]))
    found = rows(VnnComp().read(tmp_path / "results"))
    assert {key: row["status"] for key, row in found.items()} == {
        ("one", 0): "falsified",
        ("two", 0): "falsified",
        ("one", 1): "certified",
        ("two", 1): "certified",
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"onnx/net.onnx,vnnlib/a.vnnlib\n", "line 1: 2 columns"),
        (b'\nonnx/net.onnx,"vnnlib/a.vnnlib,60\n', "line 2: not a line of a table"),
        (b"onnx/net.onnx,../a.vnnlib,60\n", "line 1: the property lies outside the folder"),
        (b"\n" + 2 * b"onnx/net.onnx,vnnlib/a.vnnlib,60\n", "line 3: a of net is there twice"),
        (b"\xff\xfe", "neither instances.csv nor"),
        (b"," * (16 << 20) + b",", "larger than 16 MiB"),
    ],
    ids=["columns", "quote", "outside", "twice", "bytes", "size"],
)
def test_a_malformed_list_of_instances_is_refused_as_in_the_dataset(tmp_path, text, why):
    tool(tmp_path, "one", line("a", "unsat"))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "instances.csv").write_bytes(text)
    with pytest.raises(DataError, match=why) as error:
        list(VnnComp().read(tmp_path / "results"))
    assert "instances.csv" in str(error.value) and "\n" not in str(error.value)


def test_names_are_the_shortest_that_tell_instances_apart():
    paths = ["a/x/p", "b/x/p", "p", "a/q", "../c d/e/q.vnnlib.gz", "r"]
    known = Instances([("net", path_of(path)) for path in paths] + [("other", path_of("a/p"))])
    assert [name for _, name in known.names] == ["a/x/p", "b/x/p", "p", "a/q", "e/q", "r", "p"]
    for path, (network, name) in zip([*paths, "a/p"], known.names, strict=True):
        assert known.find(network, path_of(path)) == known.find(network, ("home", *path_of(path))) == (network, name)
    assert known.find("net", path_of("anywhere/r")) == ("net", "r") and known.find("net", path_of("z/q")) is None
    # Thousands of one name, and paths that differ further up than anyone looks.
    many = Instances([("net", ("f", str(i), "p")) for i in range(20_000)])
    assert many.find("net", ("f", "19999", "p")) == ("net", "19999/p")
    deep = [path_of(f"{top}/{'d/' * 10_000}p") for top in "ab"]
    assert deep[0] == deep[1] and len(Instances([("net", path) for path in deep]).names[0][1]) == 1


def test_empty_lines_are_no_instances(tmp_path):
    tool(tmp_path, "one", line("a", "unsat"))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "instances.csv").write_text(
        "onnx/net.onnx,vnnlib/b.vnnlib,60\n\nonnx/net.onnx,vnnlib/a.vnnlib,60\n"
    )
    assert set(rows(VnnComp().read(tmp_path / "results"))) == {("one", 1)}


@pytest.mark.parametrize(
    "text",
    [
        *("", "sat", "()", "((Y_0 1.0))", "((X_1 1.0))", "((X_0 1.0) (X_0 2.0))", "((X_0 nan))", "((X_0 1e999))"),
        *("((X_0 1.0)", "((X_0 1.0))x", "((X_0 1.0) (X_2 1.0))", "((X_0 one))", "((Z_0 1.0))", "\x1b((X_0 1.0))"),
    ],
)
def test_malformed_counterexamples_are_refused(tmp_path, text):
    file = point(tool(tmp_path, "one", ""), "a", text=text or " ")
    with pytest.raises(DataError) as error:
        read_point(file)
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


def test_damaged_counterexamples_are_refused(tmp_path):
    file = point(tool(tmp_path, "one", ""), "a", 0.5)
    data = file.read_bytes()
    for damaged in (data[:-9], data[:12], data[:-12] + bytes(12), b"", b"\x1f\x8b"):
        file.write_bytes(damaged)
        with pytest.raises(DataError):
            read_point(file)
    assert read_point(point(tool(tmp_path, "one", ""), "a", text="sat\n((X_0 -1.5e-3)\n (Y_0 2))")).x.tolist() == [
        -0.0015
    ]


def test_digits_without_end_are_refused(tmp_path):
    # A pattern that tries every split of them would take 10 s.
    file = tmp_path / "x.counterexample"
    for digits in ("1" * 1599, "1" * 400 + "." + "1" * 1200, "." + "1" * 1199):
        file.write_text("(" + f"(X_0 {digits}!)" * 400 + ")")
        with pytest.raises(DataError, match="not a counterexample"):
            read_point(file)


@pytest.mark.parametrize("text", ["5", "5.", ".5", "0.5", "+5e-3", "-0.5E+1", "1" * 300 + "." + "1" * 1200])
def test_numbers_are_read_as_python_reads_them(tmp_path, text):
    file = tmp_path / "x.counterexample"
    file.write_text(f"((X_0 {text}))")
    assert read_point(file).x.tolist() == [float(text)]


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=20))
def test_points_are_read_to_the_bit(tmp_path_factory, x):
    file = point(tool(tmp_path_factory.mktemp("p"), "one", ""), "a", *map(repr, x))
    assert read_point(file).x.tolist() == x


def test_conformance(tmp_path):
    tool(tmp_path, "one", line("a_0.1", "unsat"), line("b_0.1", "sat"))
    tool(tmp_path, "two", line("a_0.1", "timeout"), line("b_0.1", "sat"))
    check_importer(VnnComp(), tmp_path / "results")


@pytest.mark.data
@pytest.mark.parametrize("beside", [True, False])
def test_the_competition_of_2022(data_folder, tmp_path, beside):
    """What the answers alone tell: three regions that a replayed point refutes, six in dispute, nothing else."""
    pytest.importorskip("onnx")
    folder = data_folder / "vnncomp"
    (tmp_path / "none").mkdir()
    importer = VnnComp() if beside else VnnComp(benchmarks=str(tmp_path / "none"))
    runs = [write(imported, tmp_path / "out")[0] for imported in importer.read(folder / "results")]
    assert len(runs) == 32
    found = check(runs).findings
    shown = {(one.code, one.text.partition("(")[2].partition(")")[0]) for one in found}
    refuted = {"prop_2_0.03", "prop_0_0.05", "prop_4_0.05"}
    disputed = {
        *("prop_6_0.05", "prop_8_0.05", "cifar_wide_kw-img1909-eps0.0033986928104575162"),
        *("cifar_base_kw-img8194-eps0.018300653594771243", "cifar_base_kw-img4763-eps0.024705882352941175"),
        "cifar_base_kw-img6767-eps0.020000000000000004",
    }
    if beside:
        assert shown == {("contradiction", name) for name in refuted} | {("disagreement", name) for name in disputed}
        assert {one.evaluators for one in found if one.code == "contradiction"} == {("cgdtest", "verinet")}
    else:
        assert shown == {("disagreement", name) for name in refuted | disputed}
    total = {"mnist-net_256x2": 11 if beside else 0, "mnist-net_256x4": 0, "cifar_base_kw": 0, "cifar_wide_kw": 0}
    for result in results(runs):
        net = result.subject.classifier.rpartition("/")[2]
        assert result.n - result.empirical.count == total[net]  # what all eleven published points show


PIECES = st.sampled_from(
    ["toy", ",", ".onnx", ".vnnlib", "\n", '"', "sat", "1.5", "(X_0 ", "(Y_0 1)", ")", "(", "\x00", "\x1b", "é"]
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=30).map("".join))
def test_whatever_stands_in_a_file_is_read_or_refused_in_one_line(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("fuzz") / "toy.csv"
    file.write_bytes(text.encode(errors="replace"))
    for read in (lambda: read_answers("one", [file]), lambda: read_point(file)):
        try:
            read()
        except DataError as error:
            assert str(error).replace(str(file), "").isprintable()
