"""What almost-orthogonal layers cost: a forward and backward pass of their MLP beside the plain one's.

    OMP_NUM_THREADS=1 python benchmarks/training/aol.py [--repeats 7] [--device cuda]

Both are eight dense layers with MaxMin on 784 inputs, as trained on MNIST by Prach & Lampert (2025), with the same
weights. A pass is the loss of a batch and the gradients of all weights, in float32. Repeats alternate between the two;
the median of each, and the median of the pairs' ratios. The last column is the ratio that operations alone would
give: a batch of B costs a layer of n units 6 B n², its rescaling n³ for half of a Gram matrix, 2 n³ for the gradient.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

from robench.graph import GroupSort
from robench_plugins.training.lipschitz.losses import offset_cross_entropy
from robench_plugins.training.lipschitz.networks import mlp
from robench_plugins.training.lipschitz.recipes import Aol

DEPTH = 8
INPUTS = 784
CLASSES = 10


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads")
    print(f"{'width':>6} {'batch':>6} {'plain ms':>9} {'aol ms':>9} {'ratio':>6} {'by operations':>14}")
    for width, batch in ((256, 256), (512, 256), (1024, 256), (1024, 512), (1024, 1024)):
        plain, rescaled = networks(width, device)
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(batch, INPUTS, generator=generator).to(device)
        y = torch.randint(CLASSES, (batch,), generator=generator).to(device)
        pairs = []
        for repeat in range(options.repeats + 1):
            pair = seconds(plain, x, y), seconds(rescaled, x, y)
            if repeat:  # the first warms up
                pairs.append(pair)
        ours, theirs = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(after / before for before, after in pairs)
        print(f"{width:6} {batch:6} {ours:9.1f} {theirs:9.1f} {ratio:6.2f} {1 + 3 * width / (6 * batch):14.2f}")


def networks(width: int, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """Return the plain MLP and that of almost-orthogonal layers, with equal weights."""
    mean, generator = torch.zeros(INPUTS), torch.Generator().manual_seed(0)
    rescaled = mlp(Aol.family, mean, (INPUTS,), CLASSES, width, DEPTH, generator)
    layers: list[nn.Module] = []
    for layer in rescaled:
        if isinstance(layer, GroupSort):
            layers.append(layer)
        elif hasattr(layer, "weight"):
            linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
            linear.load_state_dict(layer.state_dict())
            layers.append(linear)
    return nn.Sequential(*layers).to(device), rescaled.to(device)


def seconds(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the time of one forward and backward pass: CPU time, or wall time on another device."""
    network.zero_grad(set_to_none=True)
    _settle(x)
    clock = time.perf_counter if x.is_cuda else time.process_time
    start = clock()
    offset_cross_entropy(network(x), y, 0.2, 0.25).backward()  # type: ignore[no-untyped-call]
    _settle(x)
    return clock() - start


def _settle(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


if __name__ == "__main__":
    main()
