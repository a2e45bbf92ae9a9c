"""Certified radii of a whole test set beside a float64 forward pass over it, once the layers' norms are known.

    OMP_NUM_THREADS=1 python benchmarks/lipschitz/certify.py [--samples 2000]

Random orthogonal weights: the time does not depend on them. Both sides in one process, in turn, batch by batch; CPU
seconds, the least of the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robench.graph import GraphClassifier, GroupSort, from_torch
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.lipschitz.margin import LipschitzMargin

BATCH = 500
ROUNDS = 5


class Potential(nn.Module):
    """x − Wᵀ(Wx + b)⁺ with a 3x3 convolution W."""

    def __init__(self, channels: int) -> None:
        """Draw W."""
        super().__init__()
        weight = nn.init.orthogonal_(torch.empty(channels, channels * 9)).reshape(channels, channels, 3, 3) / 4
        self.ahead, self.back = (nn.Conv2d(channels, channels, 3, padding=1, bias=first) for first in (True, False))
        self.ahead.weight = nn.Parameter(weight)
        self.back.weight = nn.Parameter(weight.transpose(0, 1).flip((2, 3)).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Return the step's result."""
        return x - self.back(torch.relu(self.ahead(x)))


def mlp() -> nn.Sequential:
    """Eight layers of width 1024 with MaxMin, as of Prach & Lampert (2025) for MNIST."""
    sizes = [784, *[1024] * 7, 10]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), GroupSort()]
        nn.init.orthogonal_(layers[-2].weight)
    return nn.Sequential(*layers[:-1])


def convnet() -> nn.Sequential:
    """Six steps of a convex potential on 32 channels of 14 x 14, and a linear layer."""
    blocks = [Potential(32) for _ in range(6)]
    return nn.Sequential(nn.Conv2d(1, 32, 2, stride=2), *blocks, nn.Flatten(), nn.Linear(32 * 14 * 14, 10))


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(name: str, module: nn.Module, x: Tensor) -> str:
    """Return a row of the table."""
    graph = from_torch(module.eval(), (1, 28, 28))
    classifier, double = GraphClassifier(graph), GraphClassifier(graph, dtype=torch.float64)
    certifier, threat = LipschitzMargin(), Threat("l2", None, Domain())
    y = torch.cat([classifier.logits(batch).argmax(1) for batch in x.split(BATCH)])
    streams = Stream.for_samples(0, "lipschitz", range(BATCH))

    def certify() -> None:
        for batch, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
            certifier.certify(classifier, batch, labels, threat, streams)

    def forward() -> None:
        with torch.no_grad():
            for batch in x.split(BATCH):
                double.logits(batch.double())

    norms = seconds(lambda: certifier.certify(classifier, x[:1], y[:1], threat, streams))
    times = [(seconds(forward), seconds(certify)) for _ in range(ROUNDS)]
    plain, ours = (min(side) for side in zip(*times, strict=True))
    return f"{name:<10} {norms:>7.2f} s {plain:>7.2f} s {ours:>7.2f} s {ours / plain:>6.3f}"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    x = torch.rand(arguments.samples, 1, 28, 28)
    print(f"{'network':<10} {'norms':>9} {'forward':>9} {'certify':>9} {'ratio':>6}")
    print(measure("mlp", mlp(), x), flush=True)
    print(measure("convnet", convnet(), x))


if __name__ == "__main__":
    main()
