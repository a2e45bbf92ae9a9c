"""Deciding "radius ≥ r?" by a sequence of looks, beside a fixed n = 100,000, on the published files of Cohen et al.

    ROBENCH_DATA=… python benchmarks/smoothing/decide.py [--alpha 0.001] [--repeat 80]

Each image's probability of a hit is what its printed radius implies, under the file's own α (inferred, else .001):
the count whose bound gives that radius, over 100,000. All hits count as a probability of .5^(1/n), an abstention as
1/2. Draws are simulated at that probability, the same ones for every rule with the same looks. The fixed rule certifies
where the bound of all 100,000 gives at least r; accuracies are of images that are correct and certified. Radii beyond
the fixed rule's cap are left out. The draws that choose a class are not counted on either side.

The alternatives have the same futility stops: the mixture alone, Clopper-Pearson bounds with α divided by the number of
looks (at these looks, at doubling ones, and with half of α for the last), and betting: the likelihood ratio of the
share of hits so far, shrunk towards the middle of (p0, 1), renewed for every batch.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from robench.binomial import lower_bound
from robench_plugins.importers._alpha import infer_alpha
from robench_plugins.importers._certify import read_lines
from robench_plugins.smoothing._radii import gaussian_radius, gaussian_threshold, largest_radius
from robench_plugins.smoothing._sequence import Plan, plan

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Rule = Callable[[Plan, Integers], Bools]

N = 100_000
CASES = ((0.25, (0.25, 0.5, 0.75)), (0.5, (0.5, 1.0, 1.5)))
NET = Path("smoothing", "cifar10", "resnet110")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--repeat", type=int, default=80)
    options = parser.parse_args()
    if not os.environ.get("ROBENCH_DATA"):
        parser.error("ROBENCH_DATA must name the folder above smoothing/")
    folder = Path(os.environ["ROBENCH_DATA"]) / NET

    rules: dict[str, tuple[float, Rule]] = {
        "decide": (1.2, _decide),
        "mixture alone": (1.2, _mixture),
        "union, same looks": (1.2, _union),
        "union, doubling": (2.0, _union),
        "union, half last": (1.2, _half),
        "betting": (1.2, _betting),
    }
    # What a rule draws and how far it falls short of the fixed one, case by case.
    draws: dict[str, list[float]] = {name: [] for name in rules}
    gaps: dict[str, list[float]] = {name: [] for name in rules}
    print(f"{'sigma':>6}{'r':>6}{'alpha of file':>15}{'fixed %':>9}{'decide %':>10}{'gap':>7}{'draws':>8}{'ratio':>7}")
    for sigma, radii in CASES:
        p, correct, inferred = _probabilities(folder / f"noise_{sigma:.2f}" / "test" / f"sigma_{sigma:.2f}", sigma)
        p, correct = np.repeat(p, options.repeat), np.repeat(correct, options.repeat)
        for r in radii:
            if r > largest_radius(sigma, N, options.alpha):
                continue
            threshold = gaussian_threshold(r, sigma)
            for name, (ratio, rule) in rules.items():
                test = plan(threshold, options.alpha, n_max=N, ratio=ratio)
                hits = _draw(p, test.looks)
                accepted = rule(test, hits)
                stopped = accepted | (hits <= test.futile)
                stopped[:, -1] = True
                at = stopped.argmax(axis=1)
                mine = 100 * (np.take_along_axis(accepted, at[:, None], axis=1)[:, 0] & correct).mean()
                fixed = (
                    100 * ((gaussian_radius(lower_bound(hits[:, -1], N, options.alpha), sigma) >= r) & correct).mean()
                )
                mean = float(test.looks[at].mean())
                draws[name].append(mean)
                gaps[name].append(float(mine - fixed))
                if name == "decide":
                    source = f"{inferred:g}" if inferred else ".001 (taken)"
                    print(f"{sigma:6}{r:6}{source:>15}{fixed:9.2f}{mine:10.2f}", end="")
                    print(f"{mine - fixed:+7.2f}{mean:8.0f}{N / mean:7.1f}")
    print(f"\n{'rule':20}{'draws':>8}{'ratio':>7}{'mean gap':>10}{'worst gap':>11}")
    for name in rules:
        mean = float(np.mean(draws[name]))
        print(f"{name:20}{mean:8.0f}{N / mean:7.1f}{np.mean(gaps[name]):+10.2f}{min(gaps[name]):+11.2f}")


def _probabilities(file: Path, sigma: float) -> tuple[Floats, Bools, float | None]:
    """Return each image's probability of a hit, whether it is correct, and the α that was inferred."""
    lines = read_lines(file)
    inferred = infer_alpha([line.radius for line in lines], sigma, N)
    counts = np.arange(N // 2, N + 1)
    lattice = gaussian_radius(lower_bound(counts, N, inferred or 0.001), sigma)
    radii = np.array([float(line.radius) for line in lines])
    middle = (lattice[1:] + lattice[:-1]) / 2
    nearest = counts[np.searchsorted(middle, radii)]
    p = np.where(nearest == N, 0.5 ** (1 / N), nearest / N)
    return np.where(radii == 0, 0.5, p), np.array([line.correct for line in lines]), inferred


def _draw(p: Floats, looks: Integers) -> Integers:
    batches = np.diff(looks, prepend=0)
    return np.random.default_rng(0).binomial(batches, p[:, None]).cumsum(axis=1)


def _decide(test: Plan, hits: Integers) -> Bools:
    return hits >= test.accept


def _mixture(test: Plan, hits: Integers) -> Bools:
    alone = plan(test.threshold, test.alpha, n_max=N, last=1e-9)
    return hits >= alone.accept


def _union(test: Plan, hits: Integers) -> Bools:
    return hits >= _bounds(test, [test.alpha / len(test.looks)] * len(test.looks))


def _half(test: Plan, hits: Integers) -> Bools:
    early = len(test.looks) - 1
    return hits >= _bounds(test, [test.alpha / 2 / early] * early + [test.alpha / 2])


def _bounds(test: Plan, alphas: list[float]) -> Integers:
    enough = []
    for n, alpha in zip(test.looks.tolist(), alphas, strict=True):
        counts = np.arange(int(n * test.threshold), n + 1)
        enough.append(int(counts[0] + np.searchsorted(lower_bound(counts, n, alpha), test.threshold, side="right")))
    return np.array(enough)


def _betting(test: Plan, hits: Integers) -> Bools:
    before = np.concatenate([np.zeros_like(hits[:, :1]), hits[:, :-1]], axis=1)
    drawn = np.concatenate([[0], test.looks[:-1]])
    p0 = test.threshold
    bet = np.maximum((before + (1 + p0) / 2) / (drawn + 1), p0)
    new, count = hits - before, np.diff(test.looks, prepend=0)
    gain = new * np.log(bet / p0) + (count - new) * np.log((1 - bet) / (1 - p0))
    return np.asarray(gain.cumsum(axis=1) >= math.log(1 / test.alpha))


if __name__ == "__main__":
    main()
