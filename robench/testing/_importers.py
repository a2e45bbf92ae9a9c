"""What every importer must do: `check_importer`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robench.contracts import Importer
from robench.errors import DataError
from robench.testing._findings import ALL, Check, Choice, Finding, NotApplicable, Violation, run_checks
from robench.testing._guard import Traces, watch

__all__ = ["importer_findings"]


@dataclass
class ImporterCase:
    """An importer and the folder or file that it reads."""

    importer: Any
    path: Path | None
    traces: Traces = field(default_factory=Traces)

    def read(self) -> list[Any]:
        """Return every run under the path."""
        if self.path is None:
            raise NotApplicable("needs a path to read: check_importer(importer, path)")
        with watch(self.traces):
            return list(self.importer.read(self.path))


def _reads(case: ImporterCase) -> str:
    from robench.importing import ImportedRun

    runs = case.read()
    if not runs:
        raise Violation("read nothing")
    for run in runs:
        if not isinstance(run, ImportedRun):
            raise Violation(f"yielded {type(run).__name__}, not ImportedRun")
    return f"{len(runs)} runs"


def _consistent(case: ImporterCase) -> str:
    from robench.check import check
    from robench.importing import write

    with tempfile.TemporaryDirectory() as folder:
        runs = [write(imported, Path(folder))[0] for imported in case.read()]
        checked = check(runs)
    if checked.findings:
        raise Violation(f"{len(checked.findings)} findings, the first: {checked.findings[0].text}")
    return f"{checked.counts['rows']} rows of {len(runs)} runs, nothing wrong"


def _repeats(case: ImporterCase) -> str:
    first, second = case.read(), case.read()
    if [run.manifest().request for run in first] != [run.manifest().request for run in second]:
        raise Violation("read twice, different runs")
    if any(not a.evidence("run").equals(b.evidence("run")) for a, b in zip(first, second, strict=True)):
        raise Violation("read twice, different rows")
    return "read twice, the same"


def _traceable(case: ImporterCase) -> str:
    place = str(case.path.resolve()) if case.path is not None else ""
    for run in case.read():
        if not run.source.strip():
            raise Violation(f"{run.classifier}: no source")
        if place and place in run.manifest().to_json().decode():
            raise Violation(f"{run.classifier}: the local path is in the manifest")
    return "every run has one"


def _missing(case: ImporterCase) -> str:
    with tempfile.TemporaryDirectory() as folder:
        try:
            runs = list(case.importer.read(Path(folder) / "nothing"))
        except DataError as error:
            return f"DataError: {str(error).replace(folder, '…')}"
    raise Violation(f"a path that does not exist gave {len(runs)} runs")


def _foreign(case: ImporterCase) -> str:
    contents = {
        "empty": b"",
        "binary": bytes(range(256)) * 8,
        "text": b"once upon a time\n" * 40,
        "nul": b"1\t2\t\0\n" * 9,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            for suffix in (".tsv", ".csv", ".json", ".log", ""):
                file = Path(folder) / f"{name}{suffix}"
                file.write_bytes(content)
                try:
                    runs = list(case.importer.read(file))
                except DataError:
                    continue
                finally:
                    file.unlink()
                if runs:
                    raise Violation(f"a file of {name} content, {suffix or 'no suffix'}, gave {len(runs)} runs")
    return f"{len(contents)} foreign files under 5 suffixes refused"


def _quiet(case: ImporterCase) -> str:
    for _ in range(2):
        case.read()
    case.traces.refuse("random", "read")
    return "as it was"


CHECKS: list[Check[ImporterCase]] = [
    Check("reads", "at least one imported run from the path given", "it is what an importer is for", _reads),
    Check(
        "consistent",
        "written as evidence, `robench check` finds nothing wrong in the rows",
        "rows that claim what they cannot would be found only when somebody reads them",
        _consistent,
    ),
    Check("traceable", "a source for every run, and no local path", "readers must find the original", _traceable),
    Check("repeats", "reading twice gives the same runs", "imports are compared and renewed", _repeats),
    Check("missing", "a path that does not exist raises DataError", "a user can mistype one", _missing),
    Check("foreign", "foreign files raise DataError or give nothing", "files of others are hostile", _foreign),
    Check("random state", "the global random state is neither used nor set", "others rely on it", _quiet),
]


def importer_findings(importer: Importer, path: Path | None = None, choice: Choice = ALL) -> list[Finding]:
    """Run every check of importers; those that read are skipped without a path."""
    return run_checks(CHECKS, ImporterCase(importer, path), choice)
