"""What a check found: one sentence each, with the samples, evaluators, runs and values it is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from robench.metrics import Subject

__all__ = ["CODES", "Checked", "Finding", "about", "gathered", "named"]

_NAMED = 10

CODES = {
    "bound": "A stored bound cannot be read, was edited, or is a ceiling that rises with ε.",
    "ceiling": "More is certified than any classifier can reach on these samples: a certificate or the bound is wrong.",
    "clean": "Rows disagree about the label or the clean prediction of a sample.",
    "contradiction": "A certificate reaches a misclassified point: one of the two tools is wrong.",
    "chance": "More statistical bounds contradict each other, or a ceiling, than chance explains.",
    "disagreement": "Verifiers contradict each other without a point that tells who is right: one of them is wrong.",
    "distance": "A witness's recorded distance is not that of its point, or lies outside its budget.",
    "edited": "A part differs from the hash in the manifest, or the manifest was edited.",
    "missing": "A sample lacks a row that the run must hold.",
    "point": "A witness's point cannot be read, or lies outside the domain.",
    "row": "A row claims what its status, its budget or the clean prediction rules out.",
    "samples": "The rows are about other samples than the manifest says.",
    "schema": "A part does not follow the schema.",
    "verdict": "A witness is not misclassified.",
    "witness": "A falsified row has no witness, or a witness has no row.",
}
"""What each kind of finding means."""


@dataclass(frozen=True)
class Finding:
    """Something that cannot be right. `text` is one line that names the sample, the evaluators and the values."""

    code: str
    text: str
    classifier: str = ""
    fingerprint: str = ""
    sample: int | None = None
    norm: str | None = None
    evaluators: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    values: dict[str, float | None] = field(default_factory=dict)


def about(subject: Subject, code: str, text: str, *rows: pd.DataFrame, **more: Any) -> Finding:
    """Return a finding about one function, with the evaluators and runs of `rows`; `more` are fields, and go first."""
    told = {
        f"{column}s": tuple(sorted({str(name) for part in rows for name in part[column]}))
        for column in ("evaluator", "run")
    }
    said = {"classifier": subject.classifier, "fingerprint": subject.fingerprint, **told, **more}
    return Finding(code, text, **said)


@dataclass(frozen=True)
class Checked:
    """The outcome of a check: findings, remarks that are no findings, and how much was looked at."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    counts: dict[str, int]

    def document(self) -> dict[str, Any]:
        """Return the document of `robench check --json`."""
        return {
            "schema": 1,
            "checked": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
            "notes": list(self.notes),
        }


def named(evaluators: Iterable[str]) -> str:
    """Return the names on one line: sorted, ten of them, and how many more there are."""
    names = sorted(set(evaluators))
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def gathered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings sorted by code, classifier and sample, each once."""
    found = {finding.text: finding for finding in findings}
    return tuple(sorted(found.values(), key=lambda f: (f.code, f.classifier, f.sample is None, f.sample or 0, f.text)))
