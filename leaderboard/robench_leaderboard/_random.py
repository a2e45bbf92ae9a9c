"""The table of classifiers that draw: expected accuracies, in the order of data and name, without ranks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robench.metrics import Expected, RandomResult
from robench.report import interval
from robench.report_draws import share

__all__ = ["RandomRow", "random_rows"]


@dataclass(frozen=True)
class RandomRow:
    """One classifier at one ε, every figure in words."""

    result: RandomResult
    clean: str
    clean_interval: str
    attacked: str
    attacked_interval: str
    attacks: tuple[str, ...]
    passes: str


def random_rows(results: Iterable[RandomResult]) -> list[RandomRow]:
    """Return a row per result, in their order."""
    return [
        RandomRow(
            result=result,
            clean=share(result.clean),
            clean_interval=_ends(result.clean),
            attacked=share(result.attacked),
            attacked_interval=_ends(result.attacked),
            attacks=tuple(one.evaluator for one in result.evaluators if one.kind == "attack"),
            passes=f"{sum(one.forwards + one.backwards for one in result.evaluators) / max(1, result.n):,.0f}",
        )
        for result in results
    ]


def _ends(expected: Expected | None) -> str:
    return interval(expected.interval) if expected else ""
