"""Suites that run: the cells of `eval --resume`, each once, whatever happens to the others."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robench import __version__
from robench.api import evaluate
from robench.bounds import find_bounds
from robench.check import check_folders
from robench.errors import InputError
from robench.runs import Run, find_runs
from robench.suite import Suite, parse_suite, plan_suite, run_suite
from robench.suite._perform import reason_of
from robench_plugins.datasets.digits import Digits
from sites import Site

# A model that cannot be loaded, one that runs out of memory, a bound that fails, an attack that takes its time, and one
# that kills its process.
PLUGINS = """
import os, signal, time
from dataclasses import dataclass

import torch
from robench import Attack, BoundCurve, Proposal, hookimpl

robench_api = 1


@dataclass(frozen=True)
class Broken:
    def load(self, device, dtype):
        raise ValueError("no\\n\\x1b[31mweights")


@dataclass(frozen=True)
class Huge:
    def load(self, device, dtype):
        raise torch.OutOfMemoryError("CUDA out of memory")


@dataclass(frozen=True)
class Quits:
    def load(self, device, dtype):
        raise SystemExit(3)


@dataclass(frozen=True)
class Talks:
    def load(self, device, dtype):
        print("hello")
        raise GeneratorExit("enough")


@dataclass(frozen=True)
class Wrong:
    def evaluate(self, samples, norm, epsilons, progress):
        if norm == "l2":
            raise RuntimeError("no bound in l2")
        return BoundCurve([0.75] * len(epsilons), "ceiling", "samples", "none", "nobody")


@dataclass(frozen=True)
class Slow(Attack):
    def perturb(self, classifier, x, y, threat, stream):
        time.sleep(float(os.environ.get("ROBENCH_T_SLOW", 0)))
        return Proposal(x + stream.uniform(x.shape[1:], -threat.eps, threat.eps, dtype=x.dtype))


@dataclass(frozen=True)
class Deadly(Attack):
    def perturb(self, classifier, x, y, threat, stream):
        os.kill(os.getpid(), signal.SIGKILL)


def lazily(register, kind):
    for name in kind:
        register(name.lower(), f"{__name__}:{name}", summary="a test's")


@hookimpl
def robench_register_models(register):
    lazily(register, ["Broken", "Huge", "Quits", "Talks"])


@hookimpl
def robench_register_bounds(register):
    lazily(register, ["Wrong"])


@hookimpl
def robench_register_attacks(register):
    lazily(register, ["Slow", "Deadly"])
"""

TWO = """
samples = "0:24"
[[evaluations]]
models = ["digits-standard", "digits-aol"]
datasets = "digits"
threats = [{ norm = "linf", eps = ["0.05", "0.1"] }, { norm = "l2", eps = 0.25 }]
attacks = "fgsm"
"""


@pytest.fixture
def plugins(site):
    site.write("robench-t-suite", PLUGINS)
    site.load()
    return site


def rows(run):
    """A run's evidence without what may differ between equal runs."""
    table = run.evidence().drop_columns(["run", "seconds"]).to_pylist()
    return sorted(table, key=lambda row: (row["sample"], row["evaluator"], row["norm"] or "", row["eps"] or 0.0))


def test_a_cell_is_what_eval_measures_and_runs_once(tmp_path):
    suite = parse_suite(TWO)
    assert {one.state for one in plan_suite(suite, tmp_path / "out")} == {"to do"}
    assert not (tmp_path / "out").exists()
    first = run_suite(suite, tmp_path / "out")
    assert [one.state for one in first.outcomes] == ["done"] * 4
    assert [one.cell for one in first.outcomes] == list(suite.cells)
    for one in first.outcomes:
        settings = one.cell.settings
        alone = evaluate(
            settings.model,
            "digits",
            norm=settings.norm,
            eps=settings.eps,
            attacks="fgsm",
            samples="0:24",
            out=tmp_path / "b",
        )
        assert alone.run.manifest.request == one.run.manifest.request
        assert rows(alone.run) == rows(one.run)
        assert alone.run.manifest.command == one.run.manifest.command
    again = run_suite(suite, tmp_path / "out")
    assert [one.state for one in again.outcomes] == ["complete"] * 4
    assert len(find_runs(tmp_path / "out")) == 4
    assert {one.state for one in plan_suite(suite, tmp_path / "out")} == {"complete"}
    assert check_folders([tmp_path / "out"]).findings == ()
    # Results stand in the file's order, which is not the alphabet's.
    assert [one.subject.classifier for one in first.results()] == ["digits-standard"] * 3 + ["digits-aol"] * 3


def test_a_bound_of_another_major_version_is_computed_again(tmp_path):
    threats = 'threats = { norm = "l2", eps = 1 }'
    suite = parse_suite(f'[[evaluations]]\ndatasets = "digits | subset:n=20"\n{threats}\nbounds = "transport"')

    def planned_and_run():
        (planned,), (ran,) = plan_suite(suite, tmp_path / "out"), run_suite(suite, tmp_path / "out").outcomes
        return planned.state, ran.state

    assert planned_and_run() == ("to do", "done")
    assert planned_and_run() == ("complete", "complete")
    (file,) = tmp_path.rglob("_bounds/*/*/manifest.json")
    file.write_text(file.read_text().replace(f'"robench": "{__version__}"', '"robench": "99.0"'))
    assert planned_and_run() == ("to do", "done")


FAILING = """
[[evaluations]]
models = ["digits-standard", "broken", "digits-aol", "huge"]
datasets = "digits | subset:n=10"
threats = [{ norm = "linf", eps = 0.1 }, { norm = "l2", eps = 0.5 }]
attacks = "fgsm"
certifiers = "none"
bounds = "wrong"
"""


ROGUES = """
samples = "0:10"
[[evaluations]]
models = ["quits", "talks", "digits-aol"]
datasets = "digits"
threats = { norm = "linf", eps = 0.1 }
attacks = "fgsm"
certifiers = "none"
"""


def test_a_plugin_neither_ends_the_suite_nor_writes_between_the_results(tmp_path, plugins, capsys):
    """Whatever a plugin raises fails its cell alone, and what it prints goes to stderr."""
    outcome = run_suite(parse_suite(ROGUES), tmp_path)
    assert [one.state for one in outcome.outcomes] == ["failed", "failed", "done"]
    quits, talks = (one.reason for one in outcome.failures)
    assert quits == "model quits: wanted to end the process (SystemExit: 3)"
    assert talks == "GeneratorExit: enough"
    out, err = capsys.readouterr()
    assert (out, err) == ("", "hello\n")


def test_an_error_of_the_system_is_told_with_its_file():
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results/part.parquet")
    error.filename2 = None
    assert reason_of(error) == "No space left on device (results/part.parquet)"
    assert reason_of(OSError("odd")) == "OSError: odd"


def test_a_failure_stops_nothing_else(tmp_path, plugins):
    outcome = run_suite(parse_suite(FAILING), tmp_path)
    assert [(one.cell.title, one.state) for one in outcome.outcomes] == [
        ("wrong on digits | subset:n=10, linf 0.1", "done"),
        ("wrong on digits | subset:n=10, l2 0.5", "failed"),
        ("digits-standard on digits | subset:n=10, linf 0.1", "done"),
        ("digits-standard on digits | subset:n=10, l2 0.5", "done"),
        ("broken on digits | subset:n=10, linf 0.1", "failed"),
        ("broken on digits | subset:n=10, l2 0.5", "failed"),
        ("digits-aol on digits | subset:n=10, linf 0.1", "done"),
        ("digits-aol on digits | subset:n=10, l2 0.5", "done"),
        ("huge on digits | subset:n=10, linf 0.1", "failed"),
        ("huge on digits | subset:n=10, l2 0.5", "failed"),
    ]
    bound, broken, _, huge, _ = outcome.failures
    assert "no bound in l2" in bound.reason
    assert broken.reason == "ValueError: no �[31mweights"
    assert 'raise ValueError("no' in broken.trace
    assert "out of memory" in huge.reason
    assert len(find_runs(tmp_path)) == len(outcome.runs) == 4
    assert [one.manifest.norm for one in find_bounds(tmp_path)] == ["linf"]
    ceilings = {(one.norm, one.ceiling and one.ceiling.value) for one in outcome.results()}
    assert ceilings == {("linf", 0.75), ("l2", None)}
    again = run_suite(parse_suite(FAILING), tmp_path)
    assert [one.state for one in again.outcomes if one.state != "failed"] == ["complete"] * 5
    assert len(find_runs(tmp_path)) == 4


@pytest.mark.slow
def test_in_processes_the_cells_are_the_same_and_one_that_dies_stops_nothing(tmp_path, plugins):
    head, _, body = TWO.partition("[[")
    deadly = body.replace('"fgsm"', '"deadly"').replace('"digits-standard", ', "")
    suite = parse_suite(f"{head}[[{deadly}[[{body}")
    said = []
    several = run_suite(
        suite,
        tmp_path / "a",
        jobs=2,
        started=lambda position, cell: said.append(("started", position, cell)),
        finished=lambda position, outcome: said.append(("finished", position, outcome.cell)),
    )
    assert [one.state for one in several.outcomes] == ["failed"] * 2 + ["done"] * 4
    assert {one.reason for one in several.failures} == {"its process died (SIGKILL): it may have run out of memory"}
    alone = run_suite(parse_suite(TWO), tmp_path / "b")
    for one, other in zip(several.outcomes[2:], alone.outcomes, strict=True):
        assert one.cell.settings == other.cell.settings
        assert one.run.manifest.request == other.run.manifest.request
        assert [row["status"] for row in rows(one.run)] == [row["status"] for row in rows(other.run)]
    assert [entry[1] for entry in said if entry[0] == "started"] == [0, 1, 2, 3, 4, 5]
    finished = [entry[1:] for entry in said if entry[0] == "finished"]
    assert sorted(finished, key=lambda entry: entry[0]) == list(enumerate(suite.cells))


LONG = """
batch_size = 4
samples = "0:40"
[[evaluations]]
models = ["digits-standard", "digits-aol"]
datasets = "digits"
threats = [{ norm = "linf", eps = "0.05" }, { norm = "l2", eps = "0.25" }]
attacks = "slow"
certifiers = "none"
"""

RUN = """
import sys
from robench.suite import load_suite, run_suite
if __name__ == "__main__":
    run_suite(load_suite(sys.argv[1]), sys.argv[2], jobs=2)
"""


def stopped(folder: Path, site: Site, out: Path, how: signal.Signals) -> str:
    """Run LONG, two cells at a time, in a process of its own and stop it once there is evidence; return its stderr."""
    script, suite = folder / "run.py", folder / "long.toml"
    script.write_text(RUN)
    suite.write_text(LONG)
    environment = {**os.environ, "PYTHONPATH": ":".join([str(site.folder), *sys.path]), "ROBENCH_T_SLOW": "0.4"}
    command = [sys.executable, str(script), str(suite), str(out)]

    def parts() -> int:
        return len(list(out.glob("*/*/*/evidence/*.parquet")))

    before = parts()
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while parts() <= before:
        assert child.poll() is None, child.communicate()[1]
        time.sleep(0.02)
    child.send_signal(how)
    return child.communicate()[1]


def states(suite: Suite, out: Path) -> list[str]:
    """The states of the cells, once nobody writes them any more."""
    until = time.monotonic() + 60
    while "fails" in (found := [one.state for one in plan_suite(suite, out)]):
        assert time.monotonic() < until, "processes live on and hold their locks"
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_killed_and_interrupted_a_suite_goes_on_to_the_same_cells(tmp_path, plugins):
    out = tmp_path / "out"
    stopped(tmp_path, plugins, out, signal.SIGKILL)
    suite = parse_suite(LONG)
    found = states(suite, out)
    assert "resumes" in found and "to do" in found
    said = stopped(tmp_path, plugins, out, signal.SIGINT)
    assert re.search(
        rf"KeyboardInterrupt: interrupted; [0-4] of 4 cells are complete, .* kept in {out}; the same", said
    )
    left = [run for run in find_runs(out) if not run.manifest.complete]
    found = states(suite, out)
    assert len(left) == found.count("resumes") >= 1
    resumed = run_suite(suite, out)
    assert [one.state for one in resumed.outcomes].count("resumed") == len(left)
    whole = run_suite(suite, tmp_path / "whole")
    assert len(find_runs(out)) == 4
    for one, other in zip(resumed.outcomes, whole.outcomes, strict=True):
        assert rows(one.run) == rows(other.run)


def test_an_interrupt_says_what_is_kept(tmp_path):
    def stop(position, done, total, counts):
        if position == 2 and done:
            raise KeyboardInterrupt

    with pytest.raises(
        KeyboardInterrupt, match=f"^interrupted; 2 of 4 cells are complete, .* kept in {tmp_path}; the same"
    ):
        run_suite(parse_suite("batch_size = 8" + TWO), tmp_path, progress=stop)
    runs = [run for run in find_runs(tmp_path) if not run.manifest.complete]
    assert [len(run.done()) for run in runs] == [8]
    assert [one.state for one in run_suite(parse_suite(TWO), tmp_path).outcomes] == [
        "complete",
        "complete",
        "resumed",
        "done",
    ]


def test_a_cell_that_another_process_writes_is_left_to_it(tmp_path):
    suite = parse_suite(TWO)
    run = run_suite(suite, tmp_path / "a").runs[0]
    manifest = run.manifest.replace(complete=False, parts={}, finished=None)
    with Run.create(tmp_path / "b", manifest):
        outcome = run_suite(suite, tmp_path / "b")
    assert [one.state for one in outcome.outcomes] == ["failed", "done", "done", "done"]
    assert "another process is writing here" in outcome.failures[0].reason


def test_results_go_into_a_folder_of_ours_only(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and not a robench results folder"):
        run_suite(parse_suite(TWO), tmp_path)
    with pytest.raises(InputError, match="at least 1"):
        run_suite(parse_suite(TWO), tmp_path / "new", jobs=0)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_dataset_is_loaded_once_for_all_its_cells(tmp_path, monkeypatch):
    loaded = []
    load = Digits.load
    monkeypatch.setattr(Digits, "load", lambda self, split: loaded.append(split) or load(self, split))
    run_suite(parse_suite(TWO), tmp_path)
    assert loaded == ["test"]
