"""Ceilings by the samples that they hold for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robench.bounds._run import BoundRun
from robench.threat import Norm

__all__ = ["Ceiling", "Ceilings"]

Key = tuple[str, str, str, Norm]


@dataclass(frozen=True)
class Ceiling:
    """What no classifier's robust accuracy on some samples is above, at `eps` and every larger budget.

    Attributes:
        value: robust accuracy, 0 … 1.
        eps: where it was computed, at most the ε asked for.
        bound: canonical spec of the bound.
        run: its run.
        source: paper and equation.
        assumptions: what must hold.
    """

    value: float
    eps: float
    bound: str
    run: str
    source: str
    assumptions: str


class Ceilings:
    """The ceilings among bounds: rows with direction `ceiling` and scope `samples`, whatever computed them."""

    def __init__(self, bound_runs: Iterable[BoundRun] = ()) -> None:
        """Take the ceilings of `bound_runs`."""
        known: dict[Key, set[Ceiling]] = {}
        for run in bound_runs:
            about, name = run.manifest.dataset, run.manifest.bound.canonical
            for row in run.rows:
                if row.direction == "ceiling" and row.scope == "samples":
                    ceiling = Ceiling(row.value, row.eps.value, name, run.manifest.run, row.source, row.assumptions)
                    known.setdefault((about.hash, about.split, row.samples_hash, row.norm), set()).add(ceiling)
        # The lowest first; of equal ones the nearest to the samples, then the oldest.
        self._known = {key: sorted(found, key=lambda c: (c.value, c.eps, c.run)) for key, found in known.items()}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._known)

    def at(self, dataset_hash: str, split: str, samples_hash: str, norm: Norm, eps: float) -> Ceiling | None:
        """Return the lowest ceiling at ε for exactly these samples, or None.

        One computed at ε' ≤ ε counts: whoever is robust within ε is robust within ε'.
        """
        known = self._known.get((dataset_hash, split, samples_hash, norm), ())
        return next((ceiling for ceiling in known if ceiling.eps <= eps), None)

    def curve(self, dataset_hash: str, split: str, samples_hash: str, norm: Norm) -> tuple[tuple[float, float], ...]:
        """Return (ε, value) at every ε where a ceiling was computed, ascending, never rising; () where none was."""
        key = (dataset_hash, split, samples_hash, norm)
        budgets = sorted({ceiling.eps for ceiling in self._known.get(key, ())})
        found = [(eps, self.at(*key, eps)) for eps in budgets]
        return tuple((eps, ceiling.value) for eps, ceiling in found if ceiling is not None)
