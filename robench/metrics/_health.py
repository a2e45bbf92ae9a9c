"""Whether gradients can be trusted where an empirical number rests on them: indicators, a grade, reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from robench.health import CATALOGUE, LEAST_BACKWARDS, Grade, Indicator
from robench.metrics._compare import falsified_at, searched_at
from robench.threat import Norm

if TYPE_CHECKING:
    from robench.metrics._subject import Subject

__all__ = ["Health", "Measured", "health"]

Bools = npt.NDArray[np.bool_]

_PROBED = 0.5
"""A sample is probed where at least this share of the probe's deciding indicators was measured on it, and an evaluation
where at least this share of its unbroken samples is: they are what the number is made of."""


@dataclass(frozen=True)
class Measured:
    """One indicator at one (norm, ε).

    Attributes:
        indicator: what it is.
        n: samples that were looked at or broken; of an indicator from rows, all that are classified correctly.
        beyond: how many of them are beyond its threshold.
    """

    indicator: Indicator
    n: int
    beyond: int

    @property
    def share(self) -> float:
        """The share of these samples that are beyond the threshold."""
        return self.beyond / self.n

    @property
    def raised(self) -> bool:
        """Whether that is more than the catalogue allows."""
        return self.share > self.indicator.share and self.beyond >= self.indicator.count

    @property
    def words(self) -> str:
        """What it says once it is raised, for people."""
        return f"{self.indicator.text}, on {100 * self.share:.3g} % of {self.n} sample{'' if self.n == 1 else 's'}"


@dataclass(frozen=True)
class Health:
    """What is known about the ground under the attacks of a subject at one (norm, ε).

    Attributes:
        grade: `flagged` where an indicator that decides is raised, else `clean` where the samples were probed.
        probed: unbroken samples that a probe looked at.
        unbroken: samples that nothing broke.
        indicators: what was measured, in the order of the catalogue.
    """

    grade: Grade
    probed: int
    unbroken: int
    indicators: tuple[Measured, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is flagged, in words; empty otherwise."""
        return tuple(one.words for one in self.indicators if one.raised and one.indicator.decides)

    def document(self) -> dict[str, Any]:
        """Return it as JSON values: the entry `health` of a result in `eval --json`."""
        return {
            "grade": self.grade,
            "reasons": list(self.reasons),
            "probed": self.probed,
            "unbroken": self.unbroken,
            "indicators": {
                one.indicator.code: {
                    "n": one.n,
                    "beyond": one.beyond,
                    "share": one.share,
                    "threshold": one.indicator.threshold,
                    "direction": one.indicator.direction,
                    "limit": one.indicator.share,
                    "raised": one.raised,
                }
                for one in self.indicators
            },
        }


def health(subject: Subject, norm: Norm, eps: float) -> Health:
    """Return the health of the attacks on `subject` at (norm, ε), from what was measured there; imports say nothing."""
    unbroken = subject.radii(norm).empirical(eps)
    frame = subject.readings
    frame = frame[(frame["norm"] == norm).to_numpy() & searched_at(frame["eps"].to_numpy(), eps)]
    slot = np.searchsorted(subject.samples, frame["sample"].to_numpy())
    code, value = frame["code"].to_numpy(), frame["value"].to_numpy()

    # What was broken needed no probe, or stopped one on its way: it counts as sound.
    counted = subject.correct & ~unbroken
    counted[slot] = True
    found = {}
    seen, deciding = np.zeros(len(subject.samples), dtype=np.int64), 0
    for indicator in CATALOGUE.values():
        if indicator.origin == "rows":
            continue
        mine = code == indicator.code
        measured, beyond = np.zeros((2, len(subject.samples)), dtype=bool)
        measured[slot[mine]] = True
        bad = np.fromiter(map(indicator.beyond, value[mine].tolist()), dtype=bool, count=int(mine.sum()))
        beyond[slot[mine][bad]] = True  # measured twice: the worse counts
        seen += measured & indicator.decides
        deciding += indicator.decides
        found[indicator.code] = int(counted.sum()) if measured.any() else 0, int(beyond.sum())
    correct = int(subject.correct.sum())
    found |= {code: (correct, int(both.sum())) for code, both in _contradictions(subject, norm, eps)}

    indicators = tuple(Measured(one, *found[one.code]) for one in CATALOGUE.values() if found.get(one.code, (0, 0))[0])
    probed = seen >= max(1.0, _PROBED * deciding)
    if any(one.raised and one.indicator.decides for one in indicators):
        grade: Grade = "flagged"
    elif probed.any() and (probed & unbroken).sum() >= _PROBED * unbroken.sum():
        grade = "clean"
    else:
        grade = "unprobed"
    return Health(grade, int((probed & unbroken).sum()), int(unbroken.sum()), indicators)


class _Attacks(NamedTuple):
    """Rows of measured attacks in one norm whose access is told, [R] each."""

    slot: npt.NDArray[np.int64]
    eps: npt.NDArray[np.float64]
    upper: npt.NDArray[np.float64]
    open: Bools
    backwards: npt.NDArray[np.int64]
    access: npt.NDArray[np.str_]
    nearest: Bools
    single: Bools


def _contradictions(subject: Subject, norm: Norm, eps: float) -> Iterator[tuple[str, Bools]]:
    """Yield each indicator from rows that the rows can speak about, with the samples [N] that it is raised on.

    All of them hold one thing against gradient attacks. *Left* are the samples that iterative gradient attacks at
    exactly this ε looked at, with `LEAST_BACKWARDS` backward passes or more between them, and none of them broke. Each
    indicator counts those of them that another kind of attack broke within ε.

    The order of attacks takes care of itself: who breaks a sample takes it from all that come later, so a black-box
    attack that comes first leaves no row of a gradient attack about what it broke, and nothing is counted. What is lost
    that way are contradictions, none is made up. Minimum-norm attacks come before the others in every run: they are
    contradicted by nobody, since finding a nearest point is harder than finding one within ε; what they break and
    others leave shows where runs meet, or among the stages of one attack.

    Not counted: attacks of which the manifest does not tell what they ask for, and runs that were imported.
    """
    rows = _attacks(subject, norm)
    size = len(subject.samples)

    def samples(which: Bools) -> Bools:
        out = np.zeros(size, dtype=bool)
        out[rows.slot[which]] = True
        return out

    gradients = (rows.access == "gradients") & ~rows.nearest
    at_eps = gradients & ~rows.single & (rows.eps == eps)
    spent = np.bincount(rows.slot[at_eps], rows.backwards[at_eps], size)
    looked = samples(at_eps) & (spent >= LEAST_BACKWARDS) & subject.correct
    broke = falsified_at(rows.upper, eps)
    left = looked & samples(at_eps & rows.open) & ~samples(at_eps & broke)

    reach = np.isnan(rows.eps) | (rows.eps <= eps)
    others = {
        "blackbox-stronger": np.isin(rows.access, ("logits", "labels")),
        "transfer-stronger": rows.access == "transfer",
        "single-step-breaks-more": gradients & rows.single,
        "minimum-norm-disagrees": (rows.access == "gradients") & rows.nearest,
        "budget-not-helping": gradients & ~rows.single & (rows.eps < eps),
    }
    for code, kind in others.items():
        if (looked & samples(kind & reach)).any():
            yield code, left & samples(kind & reach & broke)


def _attacks(subject: Subject, norm: Norm) -> _Attacks:
    told: dict[tuple[str, str], tuple[str, bool]] = {}
    for manifest in subject.runs:
        for info in manifest.evaluators if manifest.origin == "measured" else ():
            if info.kind == "attack" and info.access:
                told[manifest.run, info.canonical] = info.access, info.per_eps
            for name, stage in (info.stages or {}).items():
                if stage.access:
                    told.setdefault((manifest.run, name), (stage.access, stage.per_eps))
    rows = subject.rows[((subject.rows["kind"] == "attack") & (subject.rows["norm"] == norm)).to_numpy()]
    pair = rows.groupby(["run", "evaluator"], observed=True, sort=False).ngroup().to_numpy()
    first = np.unique(pair, return_index=True)[1]
    names = [(str(run), str(name)) for run, name in rows.iloc[first][["run", "evaluator"]].itertuples(index=False)]
    backwards = rows["backwards"].to_numpy(dtype=np.int64)
    most = np.zeros(len(names), dtype=np.int64)
    np.maximum.at(most, pair, backwards)
    access = np.array([told.get(name, ("", True))[0] for name in names], dtype=np.str_)
    nearest = np.array([not told.get(name, ("", True))[1] for name in names], dtype=bool)
    return _Attacks(
        slot=np.searchsorted(subject.samples, rows["sample"].to_numpy()),
        eps=rows["eps"].to_numpy(dtype=float),
        upper=rows["upper"].to_numpy(dtype=float),
        open=(rows["status"] == "open").to_numpy(),
        backwards=backwards,
        access=access[pair],
        nearest=nearest[pair],
        single=(most <= 1)[pair],
    )
