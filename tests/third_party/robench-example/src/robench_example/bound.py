"""A bound: identical inputs with different labels, of which no classifier gets more than the majority right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from robench import Bound, BoundCurve, Norm, Samples

__all__ = ["Twins"]

_BATCH = 256


@dataclass(frozen=True)
class Twins(Bound):
    """A classifier gives identical inputs one label: it is right on those that have it, at every ε.

    Inputs count as identical where they are equal as stored. Rounding to another precision keeps them so.
    """

    def evaluate(
        self, samples: Samples, norm: Norm, epsilons: Sequence[float], progress: Callable[[int, int], None]
    ) -> BoundCurve:
        """Return the same ceiling at each of `epsilons`."""
        labels: dict[bytes, Counter[int]] = {}
        n = len(samples)
        for start in range(0, n, _BATCH):  # in batches: the inputs need not fit into memory
            stop = min(start + _BATCH, n)
            for x, label in zip(samples.batch(start, stop), samples.y[start:stop].tolist(), strict=True):
                labels.setdefault(x.tobytes(), Counter())[label] += 1
            progress(stop, n)
        right = sum(max(counts.values()) for counts in labels.values())
        value = min(1.0, math.nextafter(right / n, math.inf))  # a ceiling is rounded up
        return BoundCurve(
            value=[value] * len(epsilons),
            direction="ceiling",
            scope="samples",
            assumptions="the classifier is a function of the input",
            source="at most one label of an input is right",
            detail=[{"inputs": len(labels), "errors": n - right}] * len(epsilons),
        )
