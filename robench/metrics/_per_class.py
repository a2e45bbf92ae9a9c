"""Accuracies of each class: its samples, certified and unbroken; the worst class bounds what all can rely on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from robench.metrics._intervals import Interval
from robench.metrics._summary import LEVEL, Result, Share, joint_interval

__all__ = ["SIDES", "ClassBracket", "Classes", "Side", "Worst", "per_class"]

Side = Literal["clean", "certified", "empirical"]
SIDES: Final[tuple[Side, ...]] = ("clean", "certified", "empirical")


@dataclass(frozen=True)
class ClassBracket:
    """What is known of the `n` samples of one class; a side that was not asked for is None.

    `confidence` is that of the whole result: the lowest of a statement used.
    """

    label: int
    name: str
    n: int
    clean: Share
    certified: Share | None
    empirical: Share | None
    confidence: float | None

    @property
    def joint_interval(self) -> Interval:
        """The bracket's confidence interval, as `Result.joint_interval`, for this class alone."""
        return joint_interval(self.clean, self.certified, self.empirical, self.confidence)

    @property
    def order(self) -> tuple[float, float, float, int]:
        """Sorts the classes, the worst first: by empirical, certified and clean accuracy."""
        shares = self.empirical, self.certified, self.clean
        empirical, certified, clean = (1.0 if share is None else share.value or 0.0 for share in shares)
        return empirical, certified, clean, self.label


@dataclass(frozen=True)
class Worst:
    """The class of the lowest accuracy on one side, the first of several.

    Attributes:
        of: the class.
        share: its accuracy.
        interval: of the lowest accuracy that one of these classes has in the population. The class was chosen for its
            figure, so all have intervals that hold together (Bonferroni); the lowest lies between their lowest ends.
            Nothing is said of classes without a sample.
        below_best: how much lower it is than that of the best class.
        below_mean: how much lower than the mean over the classes, each counted once.
    """

    of: ClassBracket
    share: Share
    interval: Interval
    below_best: float
    below_mean: float


@dataclass(frozen=True)
class Classes:
    """The classes that have samples, by label, at the (norm, ε) of `result`; `absent` names those that have none."""

    result: Result
    brackets: tuple[ClassBracket, ...]
    absent: tuple[str, ...]

    def worst(self, side: Side) -> Worst | None:
        """Return the lowest accuracy of a class; None where that side was not asked for."""
        return self._worst[side]

    @cached_property
    def _worst(self) -> dict[Side, Worst | None]:
        return {side: _worst(self.brackets, side) for side in SIDES}

    def document(self) -> dict[str, Any]:
        """Return the entry `per_class` of `report --per-class --json`."""
        return {
            "classes": [_bracket_document(one) for one in self.brackets],
            "absent": list(self.absent),
            "worst": {f"{side}_accuracy": _worst_document(self.worst(side)) for side in SIDES},
        }


def per_class(result: Result) -> Classes | None:
    """Return the brackets of each class; None where the samples are of fewer than two."""
    subject, eps = result.subject, result.eps.value
    labels, names, radii = subject.labels, subject.class_names, subject.radii(result.norm)
    present = np.unique(labels).tolist()
    if len(present) < 2:
        return None
    certified = radii.certified(eps) if result.certified is not None else None
    empirical = radii.empirical(eps) if result.empirical is not None else None
    brackets = []
    for label in present:
        here = labels == label
        brackets.append(
            ClassBracket(
                label=label,
                name=names[label] if 0 <= label < len(names) else str(label),
                n=int(here.sum()),
                clean=_share(subject.correct, here),
                certified=None if certified is None else _share(certified, here),
                empirical=None if empirical is None else _share(empirical, here),
                confidence=result.confidence,
            )
        )
    absent = tuple(name for label, name in enumerate(names) if label not in set(present))
    return Classes(result, tuple(brackets), absent)


def _share(hits: npt.NDArray[np.bool_], here: npt.NDArray[np.bool_]) -> Share:
    return Share(int((hits & here).sum()), int(here.sum()))


def _worst(brackets: Sequence[ClassBracket], side: Side) -> Worst | None:
    known = [(share, one) for one in brackets if (share := getattr(one, side)) is not None]
    if not known:
        return None
    values = [share.value or 0.0 for share, _ in known]
    at = min(range(len(known)), key=values.__getitem__)
    level = 1 - (1 - LEVEL) / len(known)
    ends = [Share(share.count, share.n, level).interval for share, _ in known]
    return Worst(
        of=known[at][1],
        share=known[at][0],
        interval=Interval(min(one.lower for one in ends), min(one.upper for one in ends)),
        below_best=max(values) - values[at],
        below_mean=sum(values) / len(values) - values[at],
    )


def _bracket_document(one: ClassBracket) -> dict[str, Any]:
    shares = {f"{side}_accuracy": getattr(one, side) for side in SIDES}
    return {
        "class": one.name,
        "label": one.label,
        "n": one.n,
        **{name: share.value if share else None for name, share in shares.items()},
        "intervals": {
            **{name: list(share.interval) if share else None for name, share in shares.items()},
            "joint": list(one.joint_interval),
        },
    }


def _worst_document(worst: Worst | None) -> dict[str, Any] | None:
    if worst is None:
        return None
    return {
        "class": worst.of.name,
        "value": worst.share.value,
        "interval": list(worst.interval),
        "below_best": worst.below_best,
        "below_mean": worst.below_mean,
    }
