"""What a minority pays: how much lower its accuracy is than that of the other classes, and over several trainings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from robench.errors import InputError
from robench.metrics._intervals import Interval, student_mean, welch
from robench.metrics._per_class import SIDES, ClassBracket, Classes, Side
from robench.metrics._summary import LEVEL, Share
from robench.threat import Epsilon, Norm

__all__ = ["Gap", "SeedGap", "gaps", "seed_gaps"]


@dataclass(frozen=True)
class Gap:
    """Accuracy on the samples of all other classes minus that on those of the minority, of one classifier."""

    majority: Share
    minority: Share

    @property
    def value(self) -> float:
        """The gap, -1 to 1: positive where the minority is worse off."""
        return (self.majority.value or 0.0) - (self.minority.value or 0.0)

    @property
    def interval(self) -> Interval:
        """An interval about the population, at `LEVEL` at least: from two that each err half as often."""
        level = (1 + LEVEL) / 2
        majority, minority = (Share(one.count, one.n, level).interval for one in (self.majority, self.minority))
        return Interval(majority.lower - minority.upper, majority.upper - minority.lower)


@dataclass(frozen=True)
class SeedGap:
    """The gaps, on one side, of all classifiers of one name: trainings that differ in the seed.

    Attributes:
        title: the name.
        dataset: canonical spec and split.
        samples: identity of the data, and of the samples selected.
        side: whose accuracies.
        norm: the norm; None of clean accuracies.
        eps: the budget; None of clean accuracies.
        values: the gap of each classifier.
    """

    title: str
    dataset: str
    samples: tuple[str, str]
    side: Side
    norm: Norm | None
    eps: Epsilon | None
    values: tuple[float, ...]

    def less(self, other: SeedGap) -> Interval | None:
        """Return Welch's interval of this mean less `other`'s; None where they are not about the same accuracies."""
        here, there = ((one.samples, one.side, one.norm, one.eps) for one in (self, other))
        return welch(self.values, other.values, LEVEL) if here == there else None

    @property
    def mean(self) -> float:
        """The mean gap."""
        return sum(self.values) / len(self.values)

    @property
    def interval(self) -> Interval | None:
        """Student's interval of the mean over new trainings, on these samples; None of one classifier."""
        return student_mean(self.values, LEVEL)

    def document(self) -> dict[str, Any]:
        """Return an entry of `gaps` of `report --per-class --json`."""
        return {
            "name": self.title,
            "dataset": self.dataset,
            "accuracy": f"{self.side}_accuracy",
            "norm": self.norm,
            "eps": self.eps.text if self.eps else None,
            "values": list(self.values),
            "mean": self.mean,
            "interval": list(self.interval) if self.interval else None,
        }


def gaps(classes: Classes, minority: Sequence[str]) -> dict[Side, Gap] | None:
    """Return the gap on each side that was asked for; None where no sample is of the minority, or all are.

    `minority` names classes; where no class has that name it is a label.
    """
    few = [one for one in classes.brackets if any(_means(word, one, classes) for word in minority)]
    many = [one for one in classes.brackets if one not in few]
    if not (few and many):
        return None
    found: dict[Side, Gap] = {}
    for side in SIDES:
        if getattr(classes.brackets[0], side) is not None:
            found[side] = Gap(*(_pooled(getattr(one, side) for one in part) for part in (many, few)))
    return found


def seed_gaps(found: Sequence[Classes], minority: Sequence[str]) -> list[SeedGap]:
    """Return the gaps of all classifiers of one name on the same samples together, in the order of `found`.

    Raises InputError for a class that none has samples of, and where the minority is all there is.
    """
    for word in minority:
        if not any(_means(word, one, classes) for classes in found for one in classes.brackets):
            raise InputError(f"no result has samples of a class {word!r:.60}: name classes as --per-class lists them")
    groups: dict[tuple[Any, ...], dict[str, float]] = {}
    datasets: dict[str, str] = {}
    for classes in found:
        result, subject = classes.result, classes.result.subject
        datasets.setdefault(subject.dataset_hash, f"{subject.dataset} {subject.split}")
        for side, gap in (gaps(classes, minority) or {}).items():
            samples = subject.dataset_hash, subject.samples_hash
            at = (None, None) if side == "clean" else (result.norm, result.eps)
            groups.setdefault((subject.title, samples, side, *at), {})[subject.fingerprint] = gap.value
    if not groups:
        raise InputError("the minority is all the classes that there are: leave one out")
    return [
        SeedGap(title, datasets[samples[0]], samples, side, norm, eps, tuple(values.values()))
        for (title, samples, side, norm, eps), values in groups.items()
    ]


def _means(word: str, one: ClassBracket, classes: Classes) -> bool:
    """Whether `word` names the class: by its name or, where no class has that name, by its label."""
    names = {*(other.name for other in classes.brackets), *classes.absent}
    return word == one.name or (word == str(one.label) and word not in names)


def _pooled(shares: Iterable[Share]) -> Share:
    known = list(shares)
    return Share(sum(share.count for share in known), sum(share.n for share in known))
