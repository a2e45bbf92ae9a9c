"""Overhead of an evaluation: `pgd` through the runner, beside the same forward and backward passes made bare.

    python benchmarks/overhead.py [--samples 256] [--steps 100] [--repeat 3]

A first evaluation records every pass (its rows, and whether a gradient was taken). The bare side makes those passes
and nothing else: the torch module on batches of the same sizes, cross-entropy, gradient by the input. The runner's
side is a whole `robench.evaluate`: reading, hashing, attacking, judging, writing evidence. Best of `--repeat`, both
sides in turn.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import robench
from robench.classifier import Counted

Pass = tuple[int, bool]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()

    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 14 * 14, 100), nn.ReLU(), nn.Linear(100, 10)),
    ).eval()
    x = np.random.default_rng(0).random((options.samples, 1, 28, 28), dtype=np.float32)
    with torch.no_grad():
        y = model(torch.from_numpy(x)).argmax(1)
    attack = f"pgd:steps={options.steps}"

    def evaluation() -> None:
        # ε small enough that most samples stay unbroken and every step is made.
        with tempfile.TemporaryDirectory() as folder:
            robench.evaluate(
                model, (x, y.numpy()), eps=0.0005, attacks=[attack], certifiers=[], batch_size=256, out=folder
            )

    passes = _recorded(evaluation)
    inputs, labels = torch.from_numpy(x), y

    def bare() -> None:
        for rows, gradient in passes:
            _pass(model, inputs[:rows], labels[:rows], gradient)

    times: dict[str, float] = {"runner": float("inf"), "bare": float("inf")}
    for _ in range(options.repeat):
        for name, work in (("runner", evaluation), ("bare", bare)):
            start = time.perf_counter()
            work()
            times[name] = min(times[name], time.perf_counter() - start)
    forwards, backwards = sum(rows for rows, _ in passes), sum(rows for rows, gradient in passes if gradient)
    print(f"{attack}, {options.samples} samples of 28x28, {torch.get_num_threads()} threads")
    print(f"{len(passes)} batches: {forwards} forward and {backwards} backward passes")
    print(f"runner {times['runner']:.2f} s   bare {times['bare']:.2f} s   ratio {times['runner'] / times['bare']:.3f}")


def _recorded(evaluation: Callable[[], None]) -> list[Pass]:
    """Return the passes that an evaluation makes, in order."""
    passes: list[Pass] = []
    honest = Counted.logits

    def logits(self: Counted, x: Tensor) -> Tensor:
        passes.append((len(x), torch.is_grad_enabled() and x.requires_grad))
        return honest(self, x)

    Counted.logits = logits  # type: ignore[method-assign]
    try:
        evaluation()
    finally:
        Counted.logits = honest  # type: ignore[method-assign]
    return passes


def _pass(model: nn.Module, x: Tensor, y: Tensor, gradient: bool) -> None:
    if not gradient:
        with torch.no_grad():
            model(x)
        return
    at = x.detach().requires_grad_(True)
    torch.autograd.grad(nn.functional.cross_entropy(model(at), y, reduction="sum"), at)


if __name__ == "__main__":
    main()
