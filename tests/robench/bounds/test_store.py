"""Bounds on disk: what compute stores is found again, and nothing else is believed."""

import hashlib
import json
import math
import platform
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import robench
from oracles.bounds import Exact, fake_bound, save
from oracles.evidence import fake_run
from robench import Bound, BoundCurve, DataError, InputError, PluginError
from robench.bounds import BoundManifest, compute, find_bounds
from robench.runs import find_runs
from robench.storage import LocalStorage

X = np.array([[0.1], [0.2], [0.5], [0.55], [0.9]])
Y = np.array([0, 1, 0, 1, 0])


@dataclass(frozen=True)
class Given(Bound):
    """Answers with what it was given."""

    curve: Any = None

    def evaluate(self, samples, norm, epsilons, progress):
        return self.curve


def curve(values, **changes):
    return replace(BoundCurve(values, "ceiling", "samples", "none", "nowhere"), **changes)


def test_what_is_computed_is_what_is_found(tmp_path):
    seen = []
    run = compute(
        Exact(), (X, Y), norm="l2", eps=["0.1", 0.01, "1/10"], out=tmp_path, progress=lambda *s: seen.append(s)
    )
    assert [(row.eps.text, row.value) for row in run.rows] == [("0.01", 1.0), ("1/10", 0.6)]
    assert seen == [(1, 2), (2, 2)]
    (found,) = find_bounds(tmp_path)
    assert (found.manifest, found.rows) == (run.manifest, run.rows)
    assert run.manifest.dataset.n == 5 and run.manifest.dataset.samples_hash == run.rows[0].samples_hash
    assert run.manifest.command.startswith("robench bound ")
    assert str(tmp_path) not in run.manifest.to_json().decode()


def test_the_samples_are_those_that_runs_call_by_the_same_hash(site, tmp_path):
    site.add("robench-example")
    site.load()
    bound = robench.bound("twins", "halves:n=20 | every:k=3", norm="linf", eps=0.05, samples="1:4", out=tmp_path)
    made = robench.evaluate(
        "halves", "halves:n=20 | every:k=3", eps=0.05, attacks=["descent"], certifiers=(), samples="1:4", out=tmp_path
    )
    about, same = bound.manifest.dataset, made.run.manifest.dataset
    assert about == same and about.n == 3
    assert bound.manifest.command == (
        "robench bound twins -d 'halves:n=20 | every:k=3' --norm linf --eps 0.05 --samples 1:4"
    )
    assert made.summary["results"][0]["ceiling"] == 1.0


@pytest.mark.parametrize("level", ["", "*", "*/_bounds", "*/_bounds/*", "*/_bounds/*/*"])
def test_any_folder_on_the_way_leads_to_the_bounds_below_it(tmp_path, level):
    for number, norm in enumerate(("linf", "l2")):
        save(tmp_path, fake_bound({"0.1": 0.5}, number=number, norm=norm))
    fake_run(n=4).clean(dict.fromkeys(range(4), True)).save(tmp_path)
    paths = [path for path in tmp_path.glob(level) if path.is_dir()] if level else [tmp_path]
    assert [run.rows[0].norm for run in find_bounds(paths)] == ["linf", "l2"]
    assert [run.rows[0].norm for run in find_bounds([*paths, tmp_path])] == ["linf", "l2"]


def test_runs_are_no_bounds_and_bounds_are_no_runs(tmp_path):
    folder = save(tmp_path, fake_bound({"0.1": 0.5}))
    run = fake_run(n=4).clean(dict.fromkeys(range(4), True)).save(tmp_path)
    assert len(find_runs(tmp_path)) == 1
    assert find_bounds(run.location) == []
    assert find_bounds(folder)[0].manifest.run == folder.name
    with pytest.raises(DataError, match="no such results folder"):
        find_bounds(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert find_bounds(tmp_path / "empty") == []


@pytest.mark.parametrize("at", [0, 1])
def test_a_kill_between_the_two_files_leaves_no_bound(tmp_path, monkeypatch, at):
    put, calls = LocalStorage.put, []

    def killed(self, key, data):
        if not key.endswith("robench.json"):
            calls.append(key)
            if len(calls) > at:
                raise KeyboardInterrupt
        put(self, key, data)

    monkeypatch.setattr(LocalStorage, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        compute(Exact(), (X, Y), norm="l2", eps=0.1, out=tmp_path)
    monkeypatch.undo()
    assert calls[0].endswith("bound.parquet") and (at == 0 or calls[1].endswith("manifest.json"))
    assert find_bounds(tmp_path) == []
    compute(Exact(), (X, Y), norm="l2", eps=0.1, out=tmp_path)
    assert len(find_bounds(tmp_path)) == 1


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (None, "evaluate returned NoneType, not robench.BoundCurve"),
        (curve([0.5]), "1 values for 2 ε"),
        (curve([0.5, 0.5, 0.5]), "3 values for 2 ε"),
        (curve([0.5, 0.6]), "the ceiling rises with ε: 0.6 after 0.5"),
        (curve([0.5, math.nan]), "value nan is no accuracy"),
        (curve([1.5, 0.5]), "value 1.5 is no accuracy"),
        (curve([0.5, -0.1]), "value -0.1 is no accuracy"),
        (curve(["a", "b"]), "no sequence of numbers"),
        (curve(7), "no sequence of numbers"),
        (curve([0.5, 0.5], direction="up"), "direction 'up'"),
        (curve([0.5, 0.5], scope="all"), "scope 'all'"),
        (curve([0.5, 0.5], source=None), "source is no text"),
        (curve([0.5, 0.5], assumptions="a\nb"), "assumptions is longer than"),
        (curve([0.5, 0.5], source="x" * 3000), "source is longer than"),
        (curve([0.5, 0.5], detail=[{}]), "detail is no sequence of 2"),
        (curve([0.5, 0.5], detail=[{}, 3]), "detail int is no mapping"),
        (curve([0.5, 0.5], detail=[{}, {"a": object()}]), "detail"),
        (curve([0.5, 0.5], facts={"a\x1b": 1}), "facts"),
    ],
)
def test_what_cannot_be_a_bound_is_refused_with_the_name_of_its_maker(tmp_path, answer, complaint):
    with pytest.raises(PluginError, match=r"^python:Given.*: ") as caught:
        compute(Given(answer), (X, Y), norm="l2", eps=[0.1, 0.2], out=tmp_path / "results")
    assert complaint in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_a_floor_may_rise_and_a_population_bound_is_kept(tmp_path):
    for changes in ({"direction": "floor", "value": [0.1, 0.2]}, {"scope": "population"}):
        run = compute(Given(curve([0.5, 0.5], **changes)), (X, Y), norm="l2", eps=[0.1, 0.2], out=tmp_path)
        assert find_bounds(run.location)[0].rows == run.rows


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"norm": "l3"}, "unknown norm"),
        ({"eps": []}, "no ε given"),
        ({"eps": ["0"]}, "must be greater than 0"),
        ({"eps": ["many"]}, "not a number"),
        ({"samples": "9:3"}, "selects nothing"),
        ({"bound": "no-such-bound"}, "no bound is called"),
        ({"bound": 7}, "is no bound"),
        ({"dataset": "no-such-data"}, "no dataset is called"),
        ({"dataset": (X[:0], Y[:0])}, "no samples"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, changes, complaint):
    asked = {"bound": Exact(), "dataset": (X, Y), "norm": "l2", "eps": [0.1], "out": tmp_path / "results", **changes}
    with pytest.raises(InputError, match=complaint) as caught:
        compute(asked.pop("bound"), asked.pop("dataset"), **asked)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not a robench results folder"):
        compute(Exact("ceiling", lambda **_: pytest.fail("computed first")), (X, Y), norm="l2", eps=0.1, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_bound_that_changes_the_working_folder_is_stored_where_it_was_asked_for(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)

    def moves(values, **_):
        monkeypatch.chdir(tmp_path / "elsewhere")
        return values

    compute(Exact("ceiling", moves), (X, Y), norm="l2", eps=0.1, out="results")
    assert len(find_bounds(tmp_path / "results")) == 1 and list((tmp_path / "elsewhere").iterdir()) == []


def test_resume_returns_the_equal_bound_and_no_other(site, tmp_path):
    site.add("robench-example")
    site.load()
    asked = {"norm": "l2", "eps": ["0.1", "1/5"], "out": tmp_path, "resume": True}
    first = compute("twins", "halves:n=20", **asked)
    assert compute("twins", "halves:n=20", **asked).manifest.run == first.manifest.run
    assert compute("twins", "halves:n=20", **{**asked, "eps": [0.2, 0.1]}).manifest.run == first.manifest.run
    others = [
        compute("twins", "halves:n=20", **{**asked, "resume": False}),
        compute("twins", "halves:n=21", **asked),
        compute("twins", "halves:n=20", **{**asked, "eps": ["0.1"]}),
        compute("twins", "halves:n=20", **{**asked, "norm": "linf"}),
        compute("twins", "halves:n=20", samples="0:10", **asked),
        compute("twins", "halves:n=20", split="train", **asked),
    ]
    assert len({run.manifest.run for run in [first, *others]}) == 7
    # Another row selection with the same result is the same request; a damaged equal one is computed anew.
    whole = compute("twins", "halves:n=20", **asked).manifest.run
    assert compute("twins", "halves:n=20", samples="0:20", **asked).manifest.run == whole
    for run in find_bounds(tmp_path):
        (LocalStorage(run.location).root / "bound.parquet").write_bytes(b"")
    assert compute("twins", "halves:n=20", **asked).manifest.run not in {run.manifest.run for run in [first, *others]}


def rewrite(folder, change_table=None, change_manifest=None, fix_hash=True):
    """Edit a stored bound: its table (Arrow) and its manifest (JSON), as somebody hostile would."""
    file, text = folder / "bound.parquet", folder / "manifest.json"
    if change_table:
        made = change_table(pq.read_table(file))
        if isinstance(made, bytes):
            file.write_bytes(made)
        else:
            pq.write_table(made, file)
    manifest = json.loads(text.read_text())
    if fix_hash:
        manifest["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    if change_manifest:
        change_manifest(manifest)
    text.write_text(json.dumps(manifest))


def column(name, values):
    def change(table):
        place = table.column_names.index(name)
        return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (column("value", [0.5, math.nan]), "value nan is no accuracy"),
        (column("value", [1.5, 0.5]), "value 1.5 is no accuracy"),
        (column("value", [None, 0.5]), "no value"),
        (column("eps", [0.1, 0.1]), "not about the ε of the manifest"),
        (column("eps", [0.2, 0.1]), "not about the ε of the manifest"),
        (column("eps", [0.1, math.inf]), "not about the ε of the manifest"),
        (column("norm", ["linf", "l2"]), "norm 'l2'"),
        (column("direction", ["ceiling", "roof"]), "direction 'roof'"),
        (column("scope", ["samples", "\x1b[31m"]), "scope"),
        (column("samples_hash", ["0" * 64] * 2), "samples_hash '0000"),
        (column("source", ["a\nb", "c"]), "source is longer than"),
        (column("assumptions", ["x" * 5000, "c"]), "assumptions is longer than"),
        (column("detail", ["{", None]), "detail"),
        (column("detail", ["[1]", None]), "detail"),
        (column("detail", ['{"a": NaN}', None]), "not finite"),
        (column("detail", ['{"a": 1e999}', None]), "not finite"),
        (column("detail", ['{"a": "\\u202e"}', None]), "control characters"),
        (column("detail", ['{"a": ' + "[" * 30 + "]" * 30 + "}", None]), "nested deeper"),
        (column("detail", ['{}, "facts": {}', None]), "detail"),
        (lambda table: table.slice(0, 1), "not about the ε of the manifest"),
        (lambda table: pa.concat_tables([table] * 6000), "more than can be right"),
        (lambda table: table.drop_columns("detail"), "not the columns of a bound"),
        (lambda table: table.append_column("more", pa.array([1, 2])), "not the columns of a bound"),
        (lambda table: table.replace_schema_metadata({"robench_bound_schema": "2"}), "another robench"),
        (lambda table: b"PAR1 nothing PAR1", "not a readable Parquet file"),
        (lambda table: b"", "not a readable Parquet file"),
    ],
)
def test_rows_of_strangers_are_refused_on_one_line(tmp_path, change, complaint):
    folder = save(tmp_path, fake_bound({"0.1": 0.75, "0.2": 0.5}))
    rewrite(folder, change)
    with pytest.raises(DataError) as caught:
        find_bounds(tmp_path)
    text = str(caught.value)
    assert complaint in text and "bound.parquet" in text
    assert text.isprintable() and len(text) < 1000
    told: list[str] = []
    assert find_bounds(tmp_path, told.append) == []
    assert told == [text]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(more=1),
        lambda m: m.pop("sha256"),
        lambda m: m.update(norm="l7"),
        lambda m: m.update(eps=["0.2", "0.1"]),
        lambda m: m.update(eps=["0.1", "1/10"]),
        lambda m: m.update(eps=[]),
        lambda m: m["dataset"].update(samples_hash=None),
        lambda m: m["dataset"].update(hash="../../x"),
        lambda m: m.update(run="../x"),
        lambda m: m.update(facts={"a": "\x1b[0m"}),
        lambda m: m.update(facts={"a": 10**30}),
        lambda m: m.update(facts={"a": ["x" * 3000]}),
        lambda m: m.update(started="2026-01-01T00:00:00"),
        lambda m: m.update(schema_version=2),
    ],
)
def test_manifests_of_strangers_are_refused_on_one_line(tmp_path, change):
    folder = save(tmp_path, fake_bound({"0.1": 0.75, "0.2": 0.5}))
    rewrite(folder, change_manifest=change)
    with pytest.raises(DataError, match=r"manifest\.json: not a bound's manifest: ") as caught:
        find_bounds(tmp_path)
    assert str(caught.value).isprintable()


def test_an_edited_table_is_noticed_and_a_missing_one(tmp_path):
    folder = save(tmp_path, fake_bound({"0.1": 0.75, "0.2": 0.5}))
    rewrite(folder, column("value", [0.2, 0.1]), fix_hash=False)
    with pytest.raises(DataError, match="edited since it was written"):
        find_bounds(tmp_path)
    (folder / "bound.parquet").unlink()
    with pytest.raises(DataError, match="no such file"):
        find_bounds(tmp_path)
    (folder / "bound.parquet").write_bytes(bytes(17 << 20))
    with pytest.raises(DataError, match="more than the"):
        find_bounds(tmp_path)


def test_two_bounds_with_one_id_are_told_apart(tmp_path):
    one, other = fake_bound({"0.1": 0.5}), fake_bound({"0.1": 0.25}, name="other")
    save(tmp_path, one)
    save(tmp_path, other)
    assert one.manifest.run == other.manifest.run
    with pytest.raises(DataError, match="different bounds with one id"):
        find_bounds(tmp_path)


@settings(max_examples=40)
@given(st.data())
def test_no_flipped_byte_is_believed(tmp_path_factory, data):
    folder = save(tmp_path_factory.mktemp("flip"), fake_bound({"0.1": 0.75, "0.2": 0.5}))
    honest = find_bounds(folder)[0]
    name = data.draw(st.sampled_from(["bound.parquet", "manifest.json"]))
    content = bytearray((folder / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / name).write_bytes(content)
    told: list[str] = []
    found = find_bounds(folder, told.append)
    if found:  # a letter of some text in the manifest: the numbers are the same
        assert name == "manifest.json" and [row.value for row in found[0].rows] == [row.value for row in honest.rows]
    else:
        assert len(told) == 1 and told[0].isprintable()


def test_a_manifest_is_not_more_than_it_says(tmp_path):
    run = compute(Exact(), (X, Y), norm="l2", eps=0.1, out=tmp_path)
    text = run.manifest.to_json()
    assert BoundManifest.from_json(text, "here") == run.manifest
    assert str(tmp_path).encode() not in text and platform.node().encode() not in text
