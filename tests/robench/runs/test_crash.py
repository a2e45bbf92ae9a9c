"""A run killed at any instant is readable, and goes on to the rows of one that was not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from recorded import go_on, manifest, part, record, rows
from robench.errors import DataError
from robench.evidence import EVIDENCE, WITNESSES
from robench.runs import Run, find_runs

WRITER = Path(__file__).with_name("crash_writer.py")
N, BATCH = 7, 3


def killed_runs(way: str, folder: Path) -> list[Path]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(WRITER), way, str(folder)], env=env, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr.decode()
    return sorted(folder.iterdir())


def check_readable(results: Path, n: int) -> int:
    """Everything that readers do works on what was left; returns the number of samples that were committed."""
    try:
        (run,) = find_runs(results)
    except DataError:
        assert not list(results.rglob("*.parquet"))  # killed before the manifest
        return 0
    evidence, witnesses = run.evidence(), run.witnesses()
    done = run.done()
    assert set(evidence["sample"].to_pylist()) == done <= set(range(n))
    assert set(witnesses["sample"].to_pylist()) <= done
    assert rows(evidence) == rows(expected(run, sorted(done))[0])
    assert rows(witnesses) == rows(expected(run, sorted(done))[1])
    if run.manifest.complete:
        assert run.verify_parts() == []
    return len(done)


def expected(run: Run, samples: list[int]) -> tuple[pa.Table, pa.Table]:
    if not samples:
        return EVIDENCE.empty_table(), WITNESSES.empty_table()
    evidence, witnesses = part(run.manifest.run, samples)
    return evidence, WITNESSES.empty_table() if witnesses is None else witnesses


def resume(results: Path, n: int, batch: int) -> Run:
    run = Run.find_resumable(results, manifest(n).request)
    if run is None:
        return record(results, n, batch)
    if not run.manifest.complete:
        with run:
            go_on(run, n, batch)
    return run


def check_whole(results: Path, run: Run, n: int) -> None:
    run = Run.open(run.location)
    assert run.manifest.complete
    assert run.verify_parts() == []
    evidence, witnesses = expected(run, list(range(n)))
    assert rows(run.evidence()) == rows(evidence)
    assert rows(run.witnesses()) == rows(witnesses)
    # No temporary is left; at most the lock file, of a process killed between finishing and unlocking.
    left = [path.name for path in Path(run.location).rglob(".*")]
    assert left in ([], [".run.lock"])
    assert len(find_runs(results)) == 1


def test_killed_at_every_step(tmp_path: Path) -> None:
    """Before each single call into the file system, and halfway through each write."""
    folders = killed_runs("steps", tmp_path)
    assert len(folders) > 40
    seen = set()
    for batch, results in enumerate(folders):
        seen.add(check_readable(results, N))
        check_whole(results, resume(results, N, batch % 4 + 1), N)
    assert seen == {0, 3, 6, 7}


def test_killed_at_random_moments(tmp_path: Path) -> None:
    n = 12 * BATCH
    folders = killed_runs("times", tmp_path)
    assert len(folders) >= 20
    for results in folders:
        check_readable(results, n)
        check_whole(results, resume(results, n, BATCH), n)


@pytest.mark.parametrize("failing", [0, 1, 2, 3, 4, 5])
def test_a_full_disk_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """The disk fills up at the k-th put: manifest, then witnesses and evidence of each part."""
    write, puts = os.write, 0

    def full(descriptor: int, view: memoryview) -> int:
        nonlocal puts
        puts += 1
        if puts > failing + 1:  # the results folder's marker comes first
            write(descriptor, view[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, view)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        record(tmp_path, N, BATCH)
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.rglob(".*"))
    monkeypatch.undo()
    assert check_readable(tmp_path, N) == max(0, failing - 1) // 2 * 3
    check_whole(tmp_path, resume(tmp_path, N, BATCH), N)
