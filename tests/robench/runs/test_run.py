"""Runs on disk: written by parts, resumed, found again, and checked against what was written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from recorded import NET, SHAPE, go_on, manifest, part, point, record, rows
from robench.errors import DataError, InputError, LockedError
from robench.evidence import decode_points, from_parquet, to_parquet
from robench.runs import Run, find_runs, load, samples_hash
from robench.storage import LocalStorage


def files(run: Run, kind: str) -> list[Path]:
    return sorted((Path(run.location) / kind).glob("*.parquet"))


def test_the_layout(tmp_path: Path) -> None:
    run = record(tmp_path / "results", 8, 3)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    folder = f"results/digits-bbbbbbbb/checkpoint-cnn-aaaaaaaa/{run.manifest.run}"
    parts = [f"{folder}/{kind}/part-00000000{k}.parquet" for kind in ("evidence", "witnesses") for k in (0, 3, 6)]
    # samples 6 and 7: 6's radius is 0.35, 7's is 0.05, so all three parts have witnesses
    assert found == sorted([*parts, f"{folder}/manifest.json", "results/robench.json"])


def test_rows_and_points_come_back(tmp_path: Path) -> None:
    run = Run.open(record(tmp_path, 8, 3).location)
    evidence, witnesses = part(run.manifest.run, range(8))
    assert rows(run.evidence()) == rows(evidence)
    assert rows(run.witnesses()) == rows(witnesses)
    assert run.done() == set(range(8))
    table = run.witnesses()
    points = decode_points(table)
    assert points.shape == (len(table), *SHAPE)
    for made, sample, eps in zip(points, table["sample"].to_pylist(), table["eps"].to_pylist(), strict=True):
        assert (made == point(sample, eps)).all()


def test_the_complete_manifest(tmp_path: Path) -> None:
    run = record(tmp_path, 5, 5)
    done = Run.open(run.location).manifest
    assert done == run.manifest
    assert done.complete
    assert done.finished is not None
    assert done.finished >= done.started
    assert set(done.parts) == {"evidence/part-000000000.parquet", "witnesses/part-000000000.parquet"}
    assert Run.open(run.location).verify_parts() == []


def test_changes_with_the_last_manifest(tmp_path: Path) -> None:
    with Run.create(tmp_path, manifest(2)) as run:
        run.save_manifest(errors=1)
        assert Run.open(run.location).manifest.errors == 1
        with pytest.raises(DataError, match="errors"):
            run.save_manifest(errors=-1)
        run.put_part(0, *part(run.manifest.run, [0, 1]))
        run.finish(errors=2)
    assert Run.open(run.location).manifest.errors == 2


def test_a_run_is_complete_only_with_all_samples(tmp_path: Path) -> None:
    with Run.create(tmp_path, manifest(3)) as run:
        run.put_part(0, *part(run.manifest.run, [0, 1]))
        with pytest.raises(DataError, match="1 samples are missing"):
            run.finish()
    assert not Run.open(run.location).manifest.complete


def test_a_run_in_progress_is_readable(tmp_path: Path) -> None:
    with Run.create(tmp_path, manifest(4)) as run:
        (reader,) = find_runs(tmp_path)
        assert len(reader.evidence()) == len(reader.witnesses()) == 0
        assert reader.done() == set()
        run.put_part(0, *part(run.manifest.run, [0, 1]))
        assert reader.done() == {0, 1}
        assert set(reader.evidence()["sample"].to_pylist()) == {0, 1}
        # Half a part: witnesses, a temporary, no evidence yet.
        folder = Path(run.location)
        (folder / "witnesses/part-000000002.parquet").write_bytes(b"half")
        (folder / "evidence/.part-000000002.parquet.0123456789ab.tmp").write_bytes(b"half")
        assert set(reader.witnesses()["sample"].to_pylist()) <= {0, 1}
        assert reader.verify_parts() == []
        run.put_part(2, *part(run.manifest.run, [2, 3]))
        run.finish()
    assert Run.open(run.location).verify_parts() == []


def test_what_put_part_refuses(tmp_path: Path) -> None:
    run = Run.create(tmp_path, manifest(4))
    good = part(run.manifest.run, [0, 1])
    with run:
        run.put_part(0, *good)
        for first, tables, why in [
            (2, part(run.manifest.run, [1, 2]), "sample 1 is done already"),
            (0, part(run.manifest.run, [2, 3]), "there already"),
            (2, part("20260101T000000Z-ffffff", [2, 3]), "rows of another run"),
            (2, (good[0].slice(0, 0), None), "no rows"),
            (2, (part(run.manifest.run, [2])[0].take([0, 1, 1]), None), "there twice"),
        ]:
            with pytest.raises(ValueError, match=why):
                run.put_part(first, *tables)
    with pytest.raises(ValueError, match="needs the run's lock"):
        run.put_part(2, *part(run.manifest.run, [2, 3]))
    assert len(files(run, "evidence")) == 1
    done = record(tmp_path / "other", 2)
    with done, pytest.raises(ValueError, match="complete run is not written again"):
        done.save_manifest(errors=1)


def test_resume_takes_the_newest_incomplete_run(tmp_path: Path) -> None:
    request = manifest(8).request
    assert Run.find_resumable(tmp_path / "nothing", request) is None
    started = []
    for hour in range(3):
        with Run.create(tmp_path, manifest(8, run=f"20260101T0{hour}0000Z-00000{hour}")) as run:
            run.put_part(0, *part(run.manifest.run, range(hour + 1)))
        started.append(run.manifest.run)
    record(tmp_path, 8, run="20260102T000000Z-ffffff")
    for name in reversed(started):
        found = Run.find_resumable(tmp_path, request)
        assert found is not None
        with found:
            assert found.manifest.run == name
            assert found.done() == set(range(started.index(name) + 1))
            go_on(found, 8, 4)
        assert rows(Run.open(found.location).evidence()) == rows(part(name, range(8))[0])
    complete = Run.find_resumable(tmp_path, request)
    assert complete is not None
    assert complete.manifest.complete
    assert complete.manifest.run == "20260102T000000Z-ffffff"


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "a" * 8 + "c" * 56},
        {"dataset_hash": "b" * 8 + "c" * 56},
        {"split": "train"},
        {"samples": "0:4"},
        {"samples_hash": samples_hash(np.arange(1, 9))},
        {"norm": "l2"},
        {"eps": ("0.1",)},
        {"eps": ("0.1", "0.2")},  # the same number, another text: rows carry the text's value, boards its text
        {"evaluators": ("pgd",)},
        {"seed": 1},
        {"precision": "fp64"},
        {"versions": {"robench": "1"}},
    ],
)
def test_another_request_is_another_run(tmp_path: Path, change: dict[str, Any]) -> None:
    with Run.create(tmp_path, manifest(8)):
        pass
    assert Run.find_resumable(tmp_path, manifest(8, change).request) is None
    same = Run.find_resumable(tmp_path, manifest(8).request)
    assert same is not None
    same.close()


def test_resume_looks_past_names(tmp_path: Path) -> None:
    """The function counts, not what it was called, nor a neighbour whose manifest cannot be read."""
    renamed = manifest(8).classifier.model_copy(update={"canonical": "another name"})
    with Run.create(tmp_path, manifest(8, classifier=renamed)) as run:
        pass
    broken = Path(run.location).with_name("20270101T000000Z-000000")
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    found = Run.find_resumable(tmp_path, manifest(8).request)
    assert found is not None
    assert found.manifest.run == run.manifest.run
    found.close()


def test_a_live_lock(tmp_path: Path) -> None:
    with Run.create(tmp_path, manifest(8)) as run:
        with pytest.raises(LockedError) as caught:
            Run.find_resumable(tmp_path, run.manifest.request)
        assert caught.value.exit_code == 2
        with pytest.raises(LockedError), Run.open(run.location):
            pass
    with Run.open(run.location) as again:
        assert again.manifest == run.manifest


def test_a_live_lock_of_another_process(tmp_path: Path) -> None:
    with Run.create(tmp_path, manifest(8)) as run:
        code = (
            "import sys; from robench.runs import Run; from recorded import manifest\n"
            "Run.find_resumable(sys.argv[1], manifest(8).request)"
        )
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", code, str(tmp_path)]
        other = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert other.returncode == 1
        assert "LockedError" in other.stderr
        assert run.location in other.stderr


def test_a_run_that_another_process_finished_meanwhile(tmp_path: Path) -> None:
    with Run.create(tmp_path, manifest(2)) as run:
        stale = Run.open(run.location)
        go_on(run, 2, 2)
    with stale:
        assert stale.manifest.complete
        with pytest.raises(ValueError, match="complete"):
            stale.put_part(9, *part(run.manifest.run, [5]))


def test_leftovers_of_a_killed_process(tmp_path: Path) -> None:
    with Run.create(tmp_path, manifest(8)) as run:
        run.put_part(0, *part(run.manifest.run, [0, 1]))
    folder = Path(run.location)
    (folder / "witnesses/part-000000002.parquet").write_bytes(b"orphan")
    (folder / "witnesses/part-000000005.parquet").write_bytes(b"orphan")
    (folder / "evidence/.part-000000002.parquet.0123456789ab.tmp").write_bytes(b"half")
    (folder / ".manifest.json.0123456789ab.tmp").write_bytes(b"half")
    found = Run.find_resumable(tmp_path, run.manifest.request)
    assert found is not None
    with found:
        left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        assert left == [".run.lock", "evidence/part-000000000.parquet", "manifest.json",
                        "witnesses/part-000000000.parquet"]  # fmt: skip
        go_on(found, 8, 2)
    assert Run.open(run.location).verify_parts() == []


@pytest.mark.parametrize("kind", ["evidence", "witnesses"])
def test_a_part_edited_on_disk_is_found(tmp_path: Path, kind: str) -> None:
    run = Run.open(record(tmp_path, 8, 3).location)
    path = files(run, kind)[1]
    table = from_parquet(path.read_bytes(), kind, "part")  # type: ignore[arg-type]
    column = "upper" if kind == "evidence" else "margin"
    values = np.array(table[column].to_pylist())
    values[0] = 0.125 if kind == "evidence" else -9.0
    place = table.column_names.index(column)
    path.write_bytes(to_parquet(table.set_column(place, table.schema.field(place), [values])))
    (problem,) = run.verify_parts()
    assert problem.startswith(f"{path}: edited since")
    assert len(run.evidence()) == 5 * 8  # a valid table: only the hash tells


def test_missing_and_extra_parts_are_found(tmp_path: Path) -> None:
    run = Run.open(record(tmp_path, 8, 3).location)
    first, second, third = files(run, "evidence")
    shutil.copy(first, second.with_name("part-000000099.parquet"))
    second.with_name("notes.txt").write_text("x")
    third.unlink()
    assert sorted(line.partition(": ")[2] for line in run.verify_parts()) == [
        "missing",
        "not a part of this run",
        "not a part of this run",
    ]
    with pytest.raises(DataError, match="rows of sample 0 are there twice"):
        run.evidence()


def test_parts_of_strangers(tmp_path: Path) -> None:
    run = Run.open(record(tmp_path, 8, 3).location)
    path = files(run, "evidence")[0]
    good = path.read_bytes()

    def refused(data: bytes, why: str) -> None:
        path.write_bytes(data)
        with pytest.raises(DataError, match=why) as caught:
            run.evidence()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    refused(good[:-100], "not a readable Parquet")
    refused(b"", "not a readable Parquet")
    refused(to_parquet(part("20260101T000000Z-ffffff", [0])[0]), "rows of another run: '20260101T000000Z-ffffff'")
    table = from_parquet(good, "evidence", "part")
    place = table.column_names.index("label")
    labels = table.set_column(place, table.schema.field(place), [np.full(len(table), 10, np.int32)])
    refused(to_parquet(labels), "label 10 of 10 classes")
    twice = table.take([0, 1, 2, 3, 3])
    refused(to_parquet(twice), "are there twice")
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="leads out"):
        run.evidence()


def test_find_runs(tmp_path: Path) -> None:
    results = tmp_path / "results"
    one = record(results, 2, run="20260101T000000Z-000001")
    two = record(results, 3, run="20260101T000000Z-000002")
    other = {"fingerprint": "c" * 64}
    with Run.create(results, manifest(3, other, run="20260101T000000Z-000000")):
        pass
    for reserved in ("_bounds", "_scale", "_studies", "_aggregates"):
        folder = results / "digits-bbbbbbbb" / reserved / "x" / "20260101T000000Z-000009"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("not a run's")
    (results / "digits-bbbbbbbb" / "empty" / "20260101T000000Z-000008").mkdir(parents=True)

    def names(*paths: Any) -> list[str]:
        return [run.manifest.run[-1] for run in find_runs(paths)]

    assert names(results) == ["0", "1", "2"]
    assert [run.manifest.run[-1] for run in find_runs(str(results))] == ["0", "1", "2"]
    assert names(LocalStorage(results)) == ["0", "1", "2"]
    assert names(results / "digits-bbbbbbbb") == ["0", "1", "2"]
    assert names(Path(one.location).parent) == ["1", "2"]
    assert names(two.location, one.location) == ["1", "2"]
    assert names(two.location, results) == ["0", "1", "2"]
    for path, why in [
        (tmp_path / "absent", "no such results folder"),
        (results / "robench.json", "no such results folder"),
        (results / "digits-bbbbbbbb" / "empty", "no runs here"),
    ]:
        with pytest.raises(DataError, match=why) as caught:
            find_runs([results, path])
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no results folder"):
        find_runs([])
    # A wildcard names the reserved folders too.
    assert names(*(results / "digits-bbbbbbbb").glob("[!e]*")) == ["0", "1", "2"]
    with pytest.raises(DataError, match="no runs here"):
        find_runs(results / "digits-bbbbbbbb" / "_bounds")


def test_copies_count_once_and_impostors_do_not_pass(tmp_path: Path) -> None:
    run = record(tmp_path / "results", 2)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "results", copy)
    assert len(find_runs([tmp_path / "results", copy])) == 1
    path = copy / Path(run.location).relative_to(tmp_path / "results") / "manifest.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "errors": 1}))
    with pytest.raises(DataError, match="different runs with one id"):
        find_runs([tmp_path / "results", copy])
    path.write_text("{}")
    with pytest.raises(DataError, match="not a run's manifest"):
        find_runs(copy)


def test_foreign_folders_are_not_written(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="choose another --out"):
        Run.create(tmp_path, manifest(2))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_id_that_is_taken_is_drawn_again(tmp_path: Path) -> None:
    made = {record(tmp_path, 2, run="20260101T000000Z-000001").manifest.run for _ in range(3)}
    assert len(made) == 3
    assert len(find_runs(tmp_path)) == 3
    for run in find_runs(tmp_path):
        assert set(run.evidence()["run"].to_pylist()) == {run.manifest.run}


def test_load(tmp_path: Path) -> None:
    one = record(tmp_path, 3)
    two = record(tmp_path, 2, origin="imported", trust="self-reported", source="a table")
    frame = load(tmp_path)
    assert len(frame) == 5 * (3 + 2)
    by_run = frame.groupby("run", observed=True)
    assert by_run["origin"].unique().map(list).to_dict() == {
        one.manifest.run: ["measured"],
        two.manifest.run: ["imported"],
    }
    assert by_run["trust"].unique().map(list)[two.manifest.run] == ["self-reported"]
    assert [*frame.columns][-3:] == ["detail", "origin", "trust"]
    assert str(frame["prediction"].dtype) == "Int32"
    assert str(frame["evaluator"].dtype) == "category"
    clean = frame[(frame["kind"] == "clean") & (frame["run"] == one.manifest.run)]
    assert clean["norm"].isna().all()
    assert clean["sample"].tolist() == [0, 1, 2]
    assert (frame["fingerprint"] == NET).all()
    assert len(load([one.location, two.location])) == 25


def test_samples_hash_is_of_the_set() -> None:
    one = samples_hash(np.array([3, 1, 2]))
    assert one == samples_hash(np.array([1, 2, 3], np.int32)) == samples_hash([2, 1, 3])
    assert one != samples_hash([1, 2])
    assert len(one) == 64


def test_parts_carry_the_schema_for_other_tools(tmp_path: Path) -> None:
    run = record(tmp_path, 2)
    plain = pq.read_table(files(run, "evidence")[0])
    assert plain.schema.metadata[b"robench_schema"] == b"1"
    assert len(plain) == 10
