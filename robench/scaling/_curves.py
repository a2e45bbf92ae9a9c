"""From curves on disk and the figures of their classifiers to accuracies by size, and their law."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from robench.metrics import Result, Share
from robench.scaling._law import Law, law
from robench.scaling._neighbours import Nearness, intrinsic_dimension
from robench.scaling._record import Scale
from robench.threat import Epsilon, Norm

__all__ = ["QUANTITIES", "Curve", "ScaleCurves", "curves_of"]

QUANTITIES = ("clean", "certified", "empirical")


@dataclass(frozen=True)
class Curve:
    """One accuracy by size.

    Attributes:
        function: what stands behind the classifiers' specs, like `smooth:sigma=0.25`; empty for themselves.
        quantity: `clean`, `certified` or `empirical`.
        norm: the norm; None of clean accuracy.
        eps: the budget; None of clean accuracy.
        samples: test samples.
        sizes: training samples, ascending.
        values: accuracies [sizes, seeds], of the seeds that have one at every size.
        missing: trainings without a figure.
    """

    function: str
    quantity: str
    norm: Norm | None
    eps: Epsilon | None
    samples: int
    sizes: tuple[int, ...]
    values: npt.NDArray[np.float64]
    missing: int

    @cached_property
    def law(self) -> Law:
        """What the values say."""
        return law(self.sizes, self.values, self.samples)

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        where = "" if self.norm is None else f" {self.norm} {self.eps}"
        return f"{self.quantity}{where}" + (f" of | {self.function}" if self.function else "")


@dataclass(frozen=True)
class ScaleCurves:
    """A scaling curve with its figures: clean accuracy first, then certified and empirical at each ε."""

    scale: Scale
    curves: tuple[Curve, ...]

    @cached_property
    def medians(self) -> tuple[tuple[int, ...], npt.NDArray[np.float64]]:
        """Sizes, and median distances [sizes, seeds] of test samples to the nearest training sample."""
        known = {(one.n, one.seed): one.median for one in self.scale.manifest.distances}
        sizes = sorted({n for n, _ in known})
        seeds = [seed for seed in sorted({seed for _, seed in known}) if all((n, seed) in known for n in sizes)]
        return tuple(sizes), np.array([[known[n, seed] for seed in seeds] for n in sizes]).reshape(
            len(sizes), len(seeds)
        )

    @cached_property
    def nearness(self) -> Nearness | None:
        """The law of the nearest neighbour, where distances are known."""
        sizes, medians = self.medians
        return intrinsic_dimension(sizes, medians) if medians.size else None


def curves_of(scales: Sequence[Scale], results: Sequence[Result]) -> list[ScaleCurves]:
    """Return the curves of `scales` by what `results` say about their classifiers; none without two sizes."""
    return [ScaleCurves(scale, tuple(_curves(scale, results))) for scale in scales]


def _curves(scale: Scale, results: Sequence[Result]) -> Iterator[Curve]:
    about = scale.manifest.dataset
    places: dict[str, list[tuple[str, int, int]]] = {}
    for member in scale.manifest.members:
        for function, fingerprint in member.fingerprints.items():
            # A recipe that draws nothing makes one classifier of all data, whatever the seed.
            places.setdefault(fingerprint, []).append((function, member.n, member.seed))
    cells: dict[tuple[str, str, Norm | None, float], dict[tuple[int, int], tuple[Share, Result]]] = {}
    for result in results:
        subject = result.subject
        if (subject.dataset_hash, subject.split) != (about.hash, about.split):
            continue
        for quantity in QUANTITIES:
            share: Share | None = getattr(result, quantity)
            if share is not None and share.n:
                where = (None, 0.0) if quantity == "clean" else (result.norm, result.eps.value)
                for function, n, seed in places.get(subject.fingerprint, ()):
                    cells.setdefault((function, quantity, *where), {})[n, seed] = share, result
    order = sorted(cells, key=lambda key: (key[0], QUANTITIES.index(key[1]), str(key[2]), key[3]))
    for key in order:
        function, quantity, norm, _ = key
        curve = _curve(scale, function, quantity, norm, cells[key])
        if curve is not None:
            yield curve


def _curve(
    scale: Scale, function: str, quantity: str, norm: Norm | None, cell: dict[tuple[int, int], tuple[Share, Result]]
) -> Curve | None:
    """Return the curve of one cell: of figures on equally many samples, those that most have."""
    counts = [share.n for share, _ in cell.values()]
    samples = max(set(counts), key=lambda n: (counts.count(n), n))
    known = {place: share.value for place, (share, _) in cell.items() if share.n == samples}
    members = {(member.n, member.seed) for member in scale.manifest.members}
    sizes = sorted({n for n, _ in known})
    seeds = [seed for seed in sorted({seed for _, seed in known}) if all((n, seed) in known for n in sizes)]
    if len(sizes) < 2 or not seeds:
        return None
    _, result = next(iter(cell.values()))
    return Curve(
        function,
        quantity,
        norm,
        None if norm is None else result.eps,
        samples,
        tuple(sizes),
        np.array([[known[n, seed] for seed in seeds] for n in sizes], np.float64),
        len(members - set(known)),
    )
