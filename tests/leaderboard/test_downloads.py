"""Files beside the pages hold what the pages say, and the evidence that they follow from."""

import csv
import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oracles.bounds import fake_bound
from oracles.evidence import fake_run, toy_runs
from oracles.pages import pages_of, site_of
from robench.bounds import Ceilings
from robench.evidence import EVIDENCE, from_parquet
from robench.metrics import results, subjects, summarise
from robench.runs import find_runs
from robench_leaderboard._downloads import COLUMNS, evidence_file, evidence_of

CEILING = {"1/16": 0.9, "1/8": 0.4, "0.2": 0.1}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    bound = fake_bound(CEILING, dataset="digits", samples=range(60))
    return folder, bound, site_of(folder, toy_runs(n=60), bounds=[bound])


def test_the_whole_json_is_the_document_of_the_command_line(toy):
    folder, bound, files = toy
    expected = summarise(find_runs(folder / "results"), Ceilings([bound]))
    assert json.loads(files["results.json"]) == json.loads(json.dumps(expected))


def test_csv_json_and_parquet_of_a_board_agree_with_the_metrics(toy):
    folder, bound, files = toy
    stem = next(name.removesuffix(".csv") for name in files if name.endswith("-linf.csv"))
    table = list(csv.DictReader(io.StringIO(files[f"{stem}.csv"].decode())))
    frame = pq.read_table(pa.BufferReader(files[f"{stem}.parquet"])).to_pylist()
    documents = json.loads(files[f"{stem}.json"])["results"]
    found = {(r.subject.classifier, r.eps.text): r for r in results(find_runs(folder / "results"), Ceilings([bound]))}
    assert len(table) == len(frame) == len(documents) == len(found) == 12
    for text, record, document in zip(table, frame, documents, strict=True):
        result = found[record["classifier"], record["eps"]]
        assert {key: value for key, value in document.items() if key in result.document()} == json.loads(
            json.dumps(result.document())
        )
        assert record["certified"] == result.certified.value == float(text["certified"])
        assert (record["certified_low"], record["certified_high"]) == result.certified.interval
        assert (record["joint_low"], record["joint_high"]) == result.joint_interval
        assert (
            record["ceiling"] == CEILING[record["eps"]] == document["ceiling_from"]["value"] == float(text["ceiling"])
        )
        assert record["flags"].split() == sorted({flag.code for flag in result.flags})
        assert document["rank"] == (
            None if record["rank_best"] is None else [record["rank_best"], record["rank_worst"]]
        )


def test_the_evidence_is_every_row_about_the_classifier_and_no_other(toy):
    folder, _, files = toy
    runs = find_runs(folder / "results")
    for subject in subjects(runs):
        table = from_parquet(files[evidence_file(subject)], "evidence", "download")
        assert table.schema.equals(EVIDENCE)
        whole = pa.concat_tables(part for run in runs for part in run.iter_evidence()).to_pandas()
        mine = whole[whole["fingerprint"] == subject.fingerprint]
        keys = ["run", "sample", "kind", "evaluator", "norm", "eps", "status"]
        left, right = (
            frame.astype(dict.fromkeys(frame.select_dtypes("category").columns, "object"))
            .sort_values(keys)
            .reset_index(drop=True)
            for frame in (table.to_pandas(), mine)
        )
        pd.testing.assert_frame_equal(left, right, check_dtype=False)


def test_the_evidence_does_not_depend_on_the_order_of_rows_and_runs():
    a = fake_run(0, n=2).clean({0: True, 1: True}).add("pgd", "attack", "linf", 0.1, {0: ("open", 0, 9.0)})
    b = fake_run(0, n=2).add("pgd", "attack", "linf", 0.1, {0: ("open", 0, 9.0)}).clean({1: True, 0: True})
    other = fake_run(1, n=2).clean({0: True, 1: False})
    subject = subjects([a, other])[0]
    assert evidence_of(subject, [a, other]) == evidence_of(subject, [other, b])


def test_a_side_that_was_not_asked_for_is_empty(tmp_path):
    run = fake_run(0, n=1, evaluators=(("pgd", "attack"),)).clean({0: True})
    files = site_of(tmp_path, [run.add("pgd", "attack", "linf", 0.1, {0: ("open", 0, 9.0)})])
    row = next(csv.DictReader(io.StringIO(files["results.csv"].decode())))
    assert (row["empirical"], row["certified"], row["certified_low"], row["ceiling"]) == ("1.0", "", "", "")
    record = pq.read_table(pa.BufferReader(files["results.parquet"])).to_pylist()[0]
    assert record["certified"] is None
    assert record["ceiling"] is None


def test_the_page_lists_every_file_and_every_column(toy):
    _, _, files = toy
    page = pages_of(files)["downloads.html"]
    data = {
        name
        for name in files
        if name.endswith((".csv", ".parquet")) or (name.endswith(".json") and name != "robench.json")
    }
    assert data <= set(page.links)
    told = {name.strip() for names, _ in COLUMNS for name in names.split(",")}
    header = files["results.csv"].decode().split("\n")[0].split(",")
    assert {name for name in header if not name.startswith(("clean_", "certified_", "empirical_"))} == told
