"""What pages tell about the health of attacks: the catalogue in words, and what was measured at each ε."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robench.health import CATALOGUE, Indicator
from robench.metrics import Measured, Result

__all__ = ["HealthRow", "HealthTable", "Rule", "health_table", "rules"]


@dataclass(frozen=True)
class Rule:
    """An indicator of the catalogue, its thresholds in words."""

    indicator: Indicator

    @property
    def threshold(self) -> str:
        """When a sample counts: `above 0.99`."""
        return f"{self.indicator.direction} {self.indicator.threshold:g}"

    @property
    def limit(self) -> str:
        """How many samples raise it: `more than 0.2 %, 5 at least`."""
        least = f", {self.indicator.count} at least" if self.indicator.count > 1 else ""
        return (f"more than {100 * self.indicator.share:g} %" if self.indicator.share else "any") + least


@dataclass(frozen=True)
class HealthRow:
    """An indicator and what was measured at each ε; None where nobody measured it."""

    rule: Rule
    at: tuple[Measured | None, ...]


@dataclass(frozen=True)
class HealthTable:
    """The health of the attacks in one norm: a row per indicator that was measured somewhere."""

    results: tuple[Result, ...]
    rows: tuple[HealthRow, ...]

    @property
    def flagged(self) -> bool:
        """Whether any ε is flagged."""
        return any(result.health is not None and result.health.grade == "flagged" for result in self.results)


def rules() -> tuple[Rule, ...]:
    """Return every indicator of the catalogue."""
    return tuple(map(Rule, CATALOGUE.values()))


def health_table(results: Sequence[Result]) -> HealthTable | None:
    """Return what is known about the attacks of a subject in one norm, at each ε; None where there are none."""
    attacked = tuple(result for result in results if result.health is not None)
    if not attacked:
        return None
    found = [{one.indicator.code: one for one in result.health.indicators} for result in attacked if result.health]
    rows = (HealthRow(rule, tuple(at.get(rule.indicator.code) for at in found)) for rule in rules())
    return HealthTable(attacked, tuple(row for row in rows if any(row.at)))
