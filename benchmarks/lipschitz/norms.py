"""How tight and how fast are bounds of a convolution that need no explicit matrix?

    OMP_NUM_THREADS=1 python benchmarks/lipschitz/norms.py

For each kernel and map: the norm of the explicit matrix, bound / norm and CPU seconds. Random kernels are the hard
case; `smooth` ones are all positive, with their supremum at frequency 0; `aol` is rescaled to row sums of 1; of
`orthogonal`, all singular values are 1 on the infinite grid.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from robench_plugins.lipschitz._correlation import correlate, row_sums, sums
from robench_plugins.lipschitz._grid import grid_maximum
from robench_plugins.lipschitz.spectral import spectral_norm_upper
from robench_plugins.lipschitz.symbol import torus_of, unfolded


def timed(work: Callable[[], float]) -> tuple[float, float]:
    """Return (result, CPU seconds)."""
    start = time.process_time()
    found = work()
    return found, time.process_time() - start


def explicit(weight: Tensor, size: int, stride: int) -> float:
    """Return the norm on a map of `size` squared with padding 1."""
    units = torch.eye(weight.shape[1] * size**2, dtype=torch.float64).reshape(-1, weight.shape[1], size, size)
    return spectral_norm_upper(torch.nn.functional.conv2d(units, weight, None, stride, 1).flatten(1))


def kernels() -> dict[str, Tensor]:
    """Return one kernel of each kind, 8 channels and 3 x 3."""
    torch.manual_seed(0)
    random = torch.randn(8, 8, 3, 3, dtype=torch.float64)
    entries = correlate(random[None]).entries[:, 0].abs()
    total = (entries.sum(0) + entries[1:].sum(0).T).sum(1)
    projections = [torch.linalg.qr(torch.randn(8, 4, dtype=torch.float64))[0] for _ in range(4)]
    factors = [(p @ p.T, torch.eye(8, dtype=torch.float64) - p @ p.T) for p in projections]
    across, down = (
        torch.stack((a[0] @ b[0], a[0] @ b[1] + a[1] @ b[0], a[1] @ b[1]), 2) for a, b in (factors[:2], factors[2:])
    )
    return {
        "random": random,
        "smooth": random.abs(),
        "aol": random / total.sqrt()[:, None, None],
        "orthogonal": torch.einsum("oka,kib->oiab", across, down),
    }


FINENESS = (8, 16, 64)


def row(weight: Tensor, size: int, stride: int) -> str:
    """Return the norm on a map, and how the bounds compare."""
    kernel = unfolded(weight, (stride, stride), (), 1)
    scale = float(kernel.abs().max())

    def grid(fineness: int) -> float:
        counts = (fineness * (kernel.shape[3] - 1), fineness * (kernel.shape[4] - 1))
        return grid_maximum(correlate(kernel / scale), counts)

    def torus() -> float:
        count = torus_of(size, -(-size // stride), weight.shape[2], stride, 1, (1, 1))
        assert count is not None
        return grid_maximum(correlate(kernel / scale), (count, count), between=False)

    true, taken = timed(lambda: explicit(weight, size, stride))
    cells = [f"1 {taken:9.3f} s"]
    works = [lambda: sums(kernel / scale), lambda: row_sums(correlate(kernel / scale))]
    for work in [*works, torus, *(partial(grid, fineness) for fineness in FINENESS)]:
        squared, taken = timed(work)
        cells.append(f"{squared**0.5 * scale / true:.4f} {taken:6.3f} s")
    return f"{size:>5} {stride:>6} {true:>8.4f} " + " ".join(f"{cell:>15}" for cell in cells)


def main() -> None:
    """Print a table."""
    columns = ("explicit", "sums", "rows", "torus", *(f"grid of {fineness}" for fineness in FINENESS))
    print(f"{'kernel':<11} {'map':>5} {'stride':>6} {'norm':>8}", *(f"{name:>15}" for name in columns))
    for name, weight in kernels().items():
        for size, stride in ((8, 1), (16, 1), (16, 2)):
            print(f"{name:<11} {row(weight, size, stride)}", flush=True)


if __name__ == "__main__":
    main()
