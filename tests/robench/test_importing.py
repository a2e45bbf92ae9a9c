import dataclasses

import numpy as np
import pytest

from robench.check import check
from robench.errors import DataError
from robench.evidence import EVIDENCE, EvidenceBuilder
from robench.importing import ImportedRows, ImportedRun, write
from robench.metrics import results
from robench.runs import Display, PluginInfo, find_runs

SAMPLE = np.array([3, 5, 9])


def rows(lower=0.5, confidence=0.999):
    clean = ImportedRows(
        evaluator="clean",
        kind="clean",
        norm=None,
        eps=None,
        sample=SAMPLE,
        status=["correct", "correct", "incorrect"],
        lower=0.0,
        upper=np.array([np.inf, np.inf, 0.0]),
    )
    proven = ImportedRows(
        evaluator="smoothing:sigma=0.5",
        kind="certificate",
        norm="l2",
        eps=None,
        sample=SAMPLE[:2],
        status=["certified", "abstain"],
        lower=np.array([lower, 0.0]),
        upper=np.inf,
        confidence=confidence,
        detail=[{"radius_printed": "0.5"}, None],
    )
    return clean, proven


def published(**changes):
    given = {
        "classifier": "net | smooth:sigma=0.5",
        "net": "net/0.5",
        "source": "https://example.org/results",
        "dataset": "cifar10",
        "split": "test",
        "classes": 10,
        "sample": SAMPLE,
        "label": np.array([0, 1, 2]),
        "prediction": np.array([0, 1, 0]),
        "rows": rows(),
        "norm": "l2",
        "eps": ("0.25", "0.75"),
    }
    return ImportedRun(**{**given, **changes})


def test_a_published_table_becomes_a_run_with_its_origin(tmp_path):
    plugin = PluginInfo(name="table", distribution="robench", version="1")
    run, new = write(published(display=Display(name="Net")), tmp_path, plugin)
    assert new
    manifest = find_runs(tmp_path)[0].manifest
    assert (manifest.origin, manifest.trust, manifest.complete) == ("imported", "imported", True)
    assert manifest.source == "https://example.org/results"
    assert manifest.evaluators[0].plugins == (plugin,)
    assert not manifest.evaluators[0].deterministic
    low, high = results(find_runs(tmp_path))
    assert (low.n, low.clean.count, low.certified.count, high.certified.count) == (3, 2, 1, 0)
    assert low.empirical is None
    assert check(find_runs(tmp_path)).findings == ()
    assert run.manifest.run == manifest.run


def test_equal_content_is_imported_once_and_other_content_beside_it(tmp_path):
    first, _ = write(published(), tmp_path)
    again, new = write(published(), tmp_path)
    assert (again.manifest.run, new) == (first.manifest.run, False)
    _, new = write(published(rows=rows(lower=0.6)), tmp_path)
    assert new
    assert len(find_runs(tmp_path)) == 2


def test_an_interrupted_import_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("robench.runs.Run.finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write(published(), tmp_path)
    monkeypatch.undo()
    assert not find_runs(tmp_path)[0].manifest.complete
    run, _ = write(published(), tmp_path)
    assert [one.manifest.run for one in find_runs(tmp_path)] == [run.manifest.run]
    assert find_runs(tmp_path)[0].manifest.complete


def test_identities_follow_the_source_and_the_net_not_the_name():
    base = published()
    assert base.fingerprint.startswith("import:")
    assert published(classifier="another name").fingerprint == base.fingerprint
    assert published(net="other").fingerprint != base.fingerprint
    assert published(source="elsewhere").fingerprint != base.fingerprint
    assert published(source="elsewhere").dataset_hash == base.dataset_hash
    assert published(split="train").dataset_hash != base.dataset_hash


BAD = {
    "a sample twice": {"sample": np.array([3, 5, 5])},
    "rows about other samples": {"sample": np.array([3, 5, 8])},
    "a name with control characters": {"classifier": "net\x1b[31m"},
    "trust that is not given to imports": {"trust": "measured"},
    "an ε that is no number": {"eps": ("big",)},
    "nan": {"rows": rows(lower=float("nan"))},
    "a negative radius": {"rows": rows(lower=-0.1)},
    "a confidence above 1": {"rows": rows(confidence=1.5)},
}


@pytest.mark.parametrize("case", BAD)
def test_what_no_run_may_hold_is_refused_in_one_line(tmp_path, case):
    with pytest.raises(DataError) as error:
        write(published(**BAD[case]), tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.parquet"))


def test_an_unknown_status_is_refused(tmp_path):
    clean, proven = rows()
    broken = dataclasses.replace(proven, status="proven")
    with pytest.raises(DataError, match="proven"):
        write(published(rows=(clean, broken)), tmp_path)


def test_the_rows_are_built_once_for_their_hash_and_for_the_run(tmp_path, monkeypatch):
    built = []

    class Counting(EvidenceBuilder):
        def __init__(self, **given):
            built.append(given["run"])
            super().__init__(**given)

    monkeypatch.setattr("robench.importing.EvidenceBuilder", Counting)
    one = published()
    run, _ = write(one, tmp_path)
    assert len(built) == 1
    evidence = run.evidence()
    assert evidence["run"].unique().to_pylist() == [run.manifest.run]
    assert evidence.drop_columns("run").equals(one.evidence("other").drop_columns("run"))
    assert one.evidence("other").schema.equals(EVIDENCE, check_metadata=True)
