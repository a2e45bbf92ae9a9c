"""Checks, what they found, and how a list of them is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from robench.text import one_line

__all__ = [
    "ALL",
    "Check",
    "Choice",
    "ConformanceError",
    "Finding",
    "NotApplicable",
    "Violation",
    "raise_for",
    "run_checks",
]

CaseT = TypeVar("CaseT")


@dataclass(frozen=True)
class Finding:
    """What one check saw.

    Attributes:
        check: its name, which `skip=` takes.
        outcome: `skipped` where the check does not apply to this plugin.
        required: what a conforming plugin does.
        why: what goes wrong otherwise.
        seen: what happened, and where.
    """

    check: str
    outcome: Literal["passed", "failed", "skipped"]
    required: str
    why: str
    seen: str

    @property
    def ok(self) -> bool:
        """Whether there is nothing to mend."""
        return self.outcome != "failed"

    def __str__(self) -> str:
        """One line."""
        if self.outcome != "failed":
            return f"{self.outcome}: {self.check}: {self.required} ({self.seen})"
        return f"failed: {self.check}: required: {self.required}; why: {self.why}; seen: {self.seen}"


class ConformanceError(AssertionError):
    """A plugin that does not conform; `findings` holds all findings, the message the failed ones."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        """List what failed."""
        super().__init__("\n".join(str(finding) for finding in findings if not finding.ok))
        self.findings = tuple(findings)


class Violation(Exception):
    """Raised by a check; the message says what was seen."""


class NotApplicable(Exception):
    """Raised by a check that this plugin gives nothing to look at; the message says why."""


@dataclass(frozen=True)
class Check(Generic[CaseT]):
    """A named requirement and the function that looks for a violation; it returns what it looked at."""

    name: str
    required: str
    why: str
    run: Callable[[CaseT], str]


@dataclass(frozen=True)
class Choice:
    """Which checks to run: all but `skip`, or `only` these."""

    skip: frozenset[str] = frozenset()
    only: frozenset[str] | None = None

    @classmethod
    def of(cls, skip: Iterable[str] = (), only: Iterable[str] | None = None) -> Choice:
        """Choose by the names of checks."""
        return cls(frozenset(skip), None if only is None else frozenset(only))

    def from_(self, names: Sequence[str]) -> set[str]:
        """Return the names that are chosen. Raises ValueError for a name that there is not."""
        if unknown := (self.skip | (self.only or set())) - set(names):
            raise ValueError(f"no check named {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
        return (set(names) if self.only is None else set(self.only)) - self.skip


ALL = Choice()


def run_checks(checks: Sequence[Check[CaseT]], case: CaseT, choice: Choice) -> list[Finding]:
    """Run the chosen checks; an exception of the plugin's is a finding, not a crash."""
    chosen = choice.from_([check.name for check in checks])
    findings = []
    for check in checks:
        outcome: Literal["passed", "failed", "skipped"]
        if check.name not in chosen:
            outcome, seen = "skipped", "left out on request"
        else:
            outcome, seen = _look(check, case)
        findings.append(Finding(check.name, outcome, check.required, check.why, seen))
    return findings


def _look(check: Check[CaseT], case: CaseT) -> tuple[Literal["passed", "failed", "skipped"], str]:
    try:
        return "passed", check.run(case)
    except Violation as violation:
        return "failed", str(violation)
    except NotApplicable as reason:
        return "skipped", str(reason)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit included: a plugin must not end the process
        return "failed", f"it raised {one_line(error)}"


def raise_for(findings: Sequence[Finding]) -> list[Finding]:
    """Return `findings`, or raise ConformanceError where one failed or none could look at anything."""
    if any(not finding.ok for finding in findings) or all(finding.outcome == "skipped" for finding in findings):
        raise ConformanceError(findings)
    return list(findings)
