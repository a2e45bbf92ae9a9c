"""The chain lower ≤ r* ≤ upper over results, sample by sample, and everything else that cannot be right in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from robench.bounds import BoundRun, Ceilings, find_bounds
from robench.check._asked import asked_of_run
from robench.check._ceilings import above_ceilings, of_bounds
from robench.check._chain import chain
from robench.check._disputes import disputes
from robench.check._draws import rows_of_random_run, with_counts, with_distances, with_settled
from robench.check._findings import CODES, Checked, Finding, gathered
from robench.check._rows import rows_of_run, samples_of_run
from robench.check._witnesses import witnesses_of_run
from robench.errors import DataError
from robench.evidence import EVIDENCE
from robench.metrics import subjects
from robench.runs import find_runs

if TYPE_CHECKING:
    from robench.runs import Manifest, Run

__all__ = ["CODES", "Checked", "Finding", "check", "check_folders"]

_COLUMNS = [
    *("sample", "label", "prediction", "evaluator", "kind", "norm", "eps", "lower", "upper", "confidence", "status"),
]


def check_folders(results: str | Path | Iterable[str | Path]) -> Checked:
    """Check all runs and bounds in results folders. Raises DataError where there are no runs."""
    damaged: list[str] = []
    bounds = find_bounds(results, damaged.append)
    return check(find_runs(results), bounds, damaged)


def check(runs: Sequence[Run], bounds: Sequence[BoundRun] = (), damaged: Iterable[str] = ()) -> Checked:
    """Check `runs` one by one and together: parts, rows, witnesses, and the chain of every function and norm.

    What is certified is held against the ceilings of `bounds` about the same samples. A part that cannot be read is a
    finding, and its run takes no part in the chain; so is each line of `damaged`, about bounds that cannot be read.
    """
    ceilings = Ceilings(bounds)
    findings: list[Finding] = list(of_bounds(bounds, damaged))
    notes: list[str] = []
    readable: list[Run] = []
    drawn: dict[tuple[str, ...], set[int]] = {}
    witnesses = rows = 0
    for run in runs:
        manifest = run.manifest
        findings += (_of_run(manifest, "edited", problem) for problem in _edits(run))
        try:
            more, count, samples = _inside(run)
        except DataError as error:
            findings.append(_of_run(manifest, "schema", str(error)))
            continue
        readable.append(run)
        witnesses += count
        findings += more
        if manifest.classifier.randomized:
            key = manifest.classifier.fingerprint, manifest.dataset.hash, manifest.dataset.split
            drawn.setdefault(key, set()).update(samples)
            rows += len(samples)
        if not manifest.complete:
            notes.append(f"run {manifest.run} of {manifest.classifier.canonical} is not complete")
    about = subjects(readable)
    for subject in about:
        for broken, remarks in (chain(subject), above_ceilings(subject, ceilings)):
            findings += broken
            notes += remarks
        findings += disputes(subject)
    counts = {
        "runs": len(runs),
        "classifiers": len({*(subject.fingerprint for subject in about), *(key[0] for key in drawn)}),
        "samples": sum(len(subject.samples) for subject in about) + sum(map(len, drawn.values())),
        "rows": sum(len(subject.rows) for subject in about) + rows,
        "witnesses": witnesses,
        "bounds": len(bounds),
    }
    return Checked(gathered(findings), tuple(notes), counts)


def _edits(run: Run) -> Iterator[str]:
    yield from run.verify_parts()
    if run.manifest.parts and not run.manifest.complete:
        yield "not complete, but its manifest lists the hashes of its parts, as only a complete run's does"


def _inside(run: Run) -> tuple[list[Finding], int, list[int]]:
    """What cannot be right within one run, the number of its witnesses, and the sample of each row."""
    manifest = run.manifest
    columns = [*_COLUMNS, "detail"] if manifest.classifier.randomized else _COLUMNS
    tables = [part.select(columns) for part in run.iter_evidence()]
    table = pa.concat_tables(tables or [EVIDENCE.empty_table().select(columns)]).unify_dictionaries()
    tables.clear()
    rows = table.to_pandas(split_blocks=True, self_destruct=True)
    if manifest.classifier.randomized:
        rows = with_counts(rows)
        findings, count = witnesses_of_run(manifest, with_distances(rows), run.iter_witnesses())
        own = [*rows_of_random_run(manifest, rows), *samples_of_run(manifest, rows)]
        return [*own, *asked_of_run(manifest, with_settled(rows)), *findings], count, rows["sample"].tolist()
    findings, count = witnesses_of_run(manifest, rows, run.iter_witnesses())
    return [*rows_of_run(manifest, rows), *asked_of_run(manifest, rows), *findings], count, rows["sample"].tolist()


def _of_run(manifest: Manifest, code: str, what: str) -> Finding:
    return Finding(
        code=code,
        text=f"run {manifest.run} of {manifest.classifier.canonical}: {what}",
        classifier=manifest.classifier.canonical,
        fingerprint=manifest.classifier.fingerprint,
        runs=(manifest.run,),
    )
