"""Time and memory of the bound `transport`, beside the plain way to the same numbers.

    ROBENCH_DATA=… python benchmarks/transport.py [--threads 2] [--case NAME]…

The plain way: a full matrix of distances in float64, and for every ε a graph of its own and scipy's
`maximum_bipartite_matching`. Each side runs in a process of its own, in turn; time is from samples in memory to the
answer, memory is the process's peak beyond what it had with the samples loaded. Both must find the same matchings.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from robench.samples import Samples
from robench_plugins.datasets.classes import Classes
from robench_plugins.datasets.mnist import Mnist
from robench_plugins.theory.transport import Transport

GRID = (2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
PAIR, ALL = ("3", "7"), tuple("0123456789")

# Split, classes, the first samples of each, norm, ε.
CASES: dict[str, tuple[str, tuple[str, ...], int | None, str, tuple[float, ...]]] = {
    "test 3-7, l2": ("test", PAIR, None, "l2", GRID),
    "test 3-7, linf": ("test", PAIR, None, "linf", (0.1, 0.2, 0.3, 0.4)),
    "test 3-7, l1": ("test", PAIR, None, "l1", (10.0, 20.0, 30.0, 40.0)),
    "train 3-7, 2 x 5,000, l2, one ε": ("train", PAIR, 5000, "l2", (5.0,)),
    "train 3-7, 2 x 5,000, l2": ("train", PAIR, 5000, "l2", GRID),
    "test, ten classes, l2": ("test", ALL, None, "l2", GRID),
}


def load(case: str) -> Samples:
    """Return a case's samples."""
    split, keep, first, _, _ = CASES[case]
    whole = Classes(keep).apply(Mnist(Path(os.environ["ROBENCH_DATA"]) / "mnist")).load(split)
    return whole.select(np.concatenate([np.flatnonzero(whole.y == label)[:first] for label in range(len(keep))]))


def ours(case: str, samples: Samples) -> tuple[list[int], int]:
    """Return matching sizes and the number of conflicts at the largest ε."""
    _, _, _, norm, epsilons = CASES[case]
    curve = Transport().evaluate(samples, norm, epsilons, lambda done, steps: None)  # type: ignore[arg-type]
    detail = curve.detail or ()
    return [one["matching"] for one in detail if one], int((detail[-1] or {})["edges"])


def plain(case: str, samples: Samples) -> tuple[list[int], int]:
    """Return the same, the plain way."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching
    from scipy.spatial.distance import cdist

    _, keep, _, norm, epsilons = CASES[case]
    x, y = np.asarray(samples.x[:], np.float64).reshape(len(samples), -1), samples.y
    two = len(keep) == 2
    a, b = (x[y == 0], x[y == 1]) if two else (x, x)
    if norm == "l2":
        far = np.sqrt(np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T, 0))
    else:
        far = cdist(a, b, {"linf": "chebyshev", "l1": "cityblock"}[norm])
    if not two:
        far[y[:, None] == y] = np.inf
    sizes = []
    for eps in epsilons:
        graph = csr_matrix(far <= 2 * eps)
        sizes.append(int((maximum_bipartite_matching(graph) >= 0).sum()))
    return sizes, graph.nnz // (1 if two else 2)


SIDES: dict[str, Callable[[str, Samples], tuple[list[int], int]]] = {"transport": ours, "plain": plain}


def measure(side: str, case: str, threads: int) -> tuple[list[int], int, float, float]:
    """Return sizes, conflicts, seconds and MiB."""
    torch.set_num_threads(threads)
    samples = load(case)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    sizes, edges = SIDES[side](case, samples)
    seconds = time.perf_counter() - start
    return sizes, edges, seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", action="append", choices=list(CASES))
    options = parser.parse_args()
    if not os.environ.get("ROBENCH_DATA"):
        parser.error("ROBENCH_DATA must name the folder above mnist/")
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    print(f"{'MNIST':34} {'ε':>2} {'conflicts':>11} {'transport':>17} {'plain':>17}  ratio")
    for case in options.case or CASES:
        found = {}
        for side in SIDES:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[side] = pool.apply(measure, (side, case, options.threads))
        (sizes, edges, *mine), (others, _, *theirs) = found["transport"], found["plain"]
        if sizes != others:
            raise SystemExit(f"{case}: {sizes} and {others}")
        spent = "".join(f" {seconds:7.2f} s {memory:5.0f} MiB" for seconds, memory in (mine, theirs))
        print(f"{case:34} {len(sizes):2} {edges:11,}{spent}  {theirs[0] / mine[0]:5.1f}", flush=True)


if __name__ == "__main__":
    main()
