"""Paired comparison of classifiers on common samples: exact McNemar tests, Holm's correction, rank ranges.

About the population that the samples were drawn from; on these samples the counts are what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

__all__ = ["Comparison", "holm", "mcnemar", "rank_ranges"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Comparison:
    """Two classifiers on the samples they share.

    Attributes:
        n: number of common samples.
        only_first: samples that only the first one is robust on.
        only_second: samples that only the second one is robust on.
        p: two-sided p-value of the exact McNemar test.
    """

    n: int
    only_first: int
    only_second: int
    p: float


def mcnemar(first: Mapping[int, bool], second: Mapping[int, bool]) -> Comparison:
    """Return the exact McNemar test (1947) of two outcomes per sample index, on the common samples.

    Given the discordant pairs, either direction is a fair coin under the hypothesis of equal accuracy.
    """
    common = first.keys() & second.keys()
    only_first = sum(1 for sample in common if first[sample] and not second[sample])
    only_second = sum(1 for sample in common if second[sample] and not first[sample])
    p = float(_sign_test(np.array(only_first), np.array(only_second)))
    return Comparison(len(common), only_first, only_second, p)


def _sign_test(one: Ints, other: Ints) -> Floats:
    """Two-sided exact p-values that a fair coin falls `one` to `other`: it is symmetric, so twice the smaller tail."""
    tail = np.asarray(bdtr(np.minimum(one, other).astype(float), one + other, 0.5), dtype=np.float64)
    return np.minimum(1.0, 2.0 * tail)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[position])
        adjusted[position] = min(1.0, running)
    return adjusted


def rank_ranges(outcomes: Sequence[Mapping[int, bool]], level: float = 0.95) -> list[tuple[int, int]]:
    """Return (best, worst) rank of each classifier that the data cannot rule out, 1 being the best.

    A classifier is placed behind another only where the paired test, corrected for all pairs, says so.
    """
    size = len(outcomes)
    alone = _alone(outcomes)
    pairs = [(i, j) for i in range(size) for j in range(i + 1, size)]
    first, second = np.triu_indices(size, 1)
    p_values = _sign_test(alone[first, second], alone[second, first]).tolist()
    ahead, behind = [0] * size, [0] * size
    for (i, j), p in zip(pairs, holm(p_values), strict=True):
        if p > 1 - level:
            continue
        better, worse = (i, j) if alone[i, j] > alone[j, i] else (j, i)
        behind[better] += 1
        ahead[worse] += 1
    return [(1 + ahead[i], size - behind[i]) for i in range(size)]


def _alone(outcomes: Sequence[Mapping[int, bool]]) -> Ints:
    """Of every two classifiers, on how many common samples the first one alone is robust: [M, M]."""
    samples = sorted(set().union(*outcomes))
    place = {sample: position for position, sample in enumerate(samples)}
    robust, failed = np.zeros((2, len(outcomes), len(samples)))
    for row, outcome in enumerate(outcomes):
        for sample, hit in outcome.items():
            (robust if hit else failed)[row, place[sample]] = 1.0
    return np.rint(robust @ failed.T).astype(np.int64)
