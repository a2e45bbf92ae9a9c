"""What certificates of a smoothed classifier cost beside their noise and their forward passes alone.

    OMP_NUM_THREADS=1 python benchmarks/smoothing/certify.py [--device cpu] [--n 10000] [--samples 4] [--repeats 3]

Nets with random weights. The floor draws normal noise into one buffer, adds an input and passes it on, as often as
the certificates take draws, and does nothing else: for each number of rows in a pass and each layout of images, the
best of which counts. `own` is the floor at the rows and the layout that the certifier chooses. The runs alternate; the
figures are medians. `memory` is how much the peak rises with ten times the draws: of the GPU, or of the process.
With `--cpu-time` seconds are those of the process on a processor, for machines that others use as well.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

import robench
from robench.classifier import Classifier
from robench.graph import full_precision
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.smoothing._votes import rows_per_pass
from robench_plugins.smoothing.certify import Smoothing
from robench_plugins.smoothing.noises import Gaussian
from robench_plugins.smoothing.smooth import SmoothedClassifier

SIGMA = 0.25


def mlp() -> nn.Module:
    """Return a network for MNIST."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def convnet(width: int) -> nn.Module:
    """Return a network for images of 32 × 32, four convolutions deep."""
    layers: list[nn.Module] = []
    before = 3
    for factor, stride in ((1, 1), (2, 2), (2, 1), (4, 2)):
        layers += [nn.Conv2d(before, factor * width, 3, stride, 1), nn.ReLU()]
        before = factor * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


class _Block(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        stride = 1 if before == width else 2
        first, second = nn.Conv2d(before, width, 3, stride, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.body = nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU(), second, nn.BatchNorm2d(width))
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(before, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet20() -> nn.Module:
    """Return a network of the size of ResNet-20: three stages of three blocks, 41 MFLOP a pass."""
    widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    blocks = [_Block(before, width) for before, width in pairwise(widths)]
    stem = nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU()
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (1, 28, 28)),
    "convnet 8": (lambda: convnet(8), (3, 32, 32)),
    "convnet 32": (lambda: convnet(32), (3, 32, 32)),
    "resnet20": (resnet20, (3, 32, 32)),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--net", choices=NETS, action="append")
    options = parser.parse_args()
    device = torch.device(options.device)
    clock = time.process_time if options.cpu_time else time.perf_counter
    print(f"{'net':12}{'draws/s':>10}{'floor/s':>10}{'wall/floor':>12}{'wall/own':>10}   best rows, layout (own rows)")
    for name in options.net or NETS:
        torch.manual_seed(0)
        make, shape = NETS[name]
        base = robench.from_module(make().eval(), shape, device=device)
        x = torch.rand(options.samples, *shape, device=device)
        draws = options.samples * options.n
        own = rows_per_pass(math.prod(shape), device), device.type == "cpu"
        settings = {own} | {
            (rows, last)
            for rows in ((16, 32, 64, 128, 256, 512) if device.type == "cpu" else (256, 1024, 4096, 8192))
            for last in (False, True)
        }
        # Each floor shortly, after a first time; then the best, the certifier's own and the certificates in turns.
        for setting in settings:
            _floor(clock, base, x, 2 * setting[0], *setting)
        quick = {setting: _floor(clock, base, x, max(draws // 10, 2048), *setting) for setting in settings}
        best = min(quick, key=quick.__getitem__)
        times = [
            (
                _certificates(clock, base, x, options.n),
                _floor(clock, base, x, draws, *best),
                _floor(clock, base, x, draws, *own),
            )
            for _ in range(options.repeats)
        ]
        wall = statistics.median(one[0] for one in times)
        floor = statistics.median(one[1] for one in times)
        over = statistics.median(one[0] / one[1] for one in times)
        mine = statistics.median(one[0] / one[2] for one in times)
        layout = "last" if best[1] else "first"
        print(f"{name:12}{draws / wall:10.0f}{draws / floor:10.0f}{over:12.3f}{mine:10.3f}", end="")
        print(f"   {best[0]}, {layout} ({own[0]})")
    before = _peak(device)
    _certificates(clock, base, x, 10 * options.n)
    print(f"\nmemory: {(_peak(device) - before) / 2**20:.1f} MiB more at n = {10 * options.n}")


def _certificates(clock: Callable[[], float], base: Classifier, x: Tensor, n: int) -> float:
    """Return the seconds that radii at n draws took."""
    classifier = SmoothedClassifier(base, Gaussian(SIGMA), f"smooth:sigma={SIGMA!r}")
    stream = Stream.for_samples(0, "benchmark", range(len(x)), x.device)
    # The label that the first draws choose, so that every sample is drawn for.
    labels = classifier.draws(x, stream).count(range(len(x)), [1] * len(x)).argmax(1)
    certifier = Smoothing(n=n, n0=1)
    _wait(x.device)
    start = clock()
    made = certifier.certify(classifier, x, labels, Threat("l2", None, Domain()), stream)
    _wait(x.device)
    seconds = clock() - start
    assert made.detail is not None
    assert all(one is not None and one["n"] == n for one in made.detail)
    return seconds


def _floor(clock: Callable[[], float], base: Classifier, x: Tensor, draws: int, rows: int, last: bool) -> float:
    """Return the seconds that `draws` draws of noise and their forward passes took, `rows` at once."""
    size = x[0].numel()
    block = torch.empty(rows, size, device=x.device)
    shift = (x[0].permute(1, 2, 0) if last else x[0]).reshape(-1)
    channels, height, width = base.input_shape
    inputs = block.view(-1, height, width, channels).permute(0, 3, 1, 2) if last else block.view(-1, *base.input_shape)
    generator = torch.Generator(x.device).manual_seed(0)
    _wait(x.device)
    start = clock()
    with full_precision(), torch.no_grad():
        for first in range(0, draws, rows):
            block.normal_(0.0, SIGMA, generator=generator).add_(shift)
            base.logits(inputs[: draws - first])
    _wait(x.device)
    return clock() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
