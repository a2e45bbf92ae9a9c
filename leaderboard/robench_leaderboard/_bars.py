"""The picture of a bracket: where its parts lie on an axis from 0 to 100 %."""

from __future__ import annotations

from dataclasses import dataclass

from robench.metrics import Result, clopper_pearson

__all__ = ["EXAMPLE_SAMPLES", "Bar", "bar_of", "worked_example"]

EXAMPLE_SAMPLES = 1000


@dataclass(frozen=True)
class Bar:
    """Positions in per cent of all samples.

    Attributes:
        certified: proven robust up to here; None where no certifier was asked.
        empirical: unbroken up to here; None where no attack was asked.
        clean: correct up to here.
        low: lower end of the joint interval.
        high: upper end.
        words: what the picture shows, for those who cannot see it.
        ceiling: no classifier can be robust beyond; None where no bound speaks about these samples.
    """

    certified: float | None
    empirical: float | None
    clean: float
    low: float
    high: float
    words: str
    ceiling: float | None = None

    @property
    def proven(self) -> float:
        """End of the proven part."""
        return self.certified or 0.0

    @property
    def possible(self) -> float:
        """End of what is still possible: the empirical accuracy, else the clean one."""
        return self.clean if self.empirical is None else self.empirical

    @property
    def open(self) -> float:
        """Width of what is neither proven nor broken."""
        return max(0.0, self.possible - self.proven)

    @property
    def broken(self) -> float:
        """Width of what is correct but broken."""
        return max(0.0, self.clean - self.possible)


def bar_of(result: Result) -> Bar:
    """Return the bar of a result."""
    clean = 100 * (result.clean.value or 0.0)
    certified = None if result.certified is None else 100 * (result.certified.value or 0.0)
    empirical = None if result.empirical is None else 100 * (result.empirical.value or 0.0)
    ceiling = None if result.ceiling is None else 100 * result.ceiling.value
    low, high = (100 * end for end in result.joint_interval)
    words = [
        f"{certified:.1f} % certified" if certified is not None else "no certificates",
        f"{empirical:.1f} % empirical{_doubt(result)}" if empirical is not None else "no attacks",
        f"{clean:.1f} % clean",
        f"95 % interval {low:.1f} to {high:.1f} %",
        *([f"ceiling {ceiling:.1f} %"] if ceiling is not None else []),
    ]
    return Bar(certified, empirical, clean, low, high, ", ".join(words), ceiling)


def _doubt(result: Result) -> str:
    return " (may be too high)" if result.health is not None and result.health.grade == "flagged" else ""


def worked_example() -> Bar:
    """Return the bar that explains bars: 42 % certified, 64 % empirical and 90 % clean of `EXAMPLE_SAMPLES`."""
    low, high = clopper_pearson(420, EXAMPLE_SAMPLES).lower, clopper_pearson(640, EXAMPLE_SAMPLES).upper
    words = "42 % certified, 22 % open, 26 % broken: empirical accuracy 64 %, clean accuracy 90 %, ceiling 78 %"
    return Bar(42, 64, 90, 100 * low, 100 * high, words, 78)
