"""What attacks add to the passes of the bare model: CPU time over the CPU time inside of it.

    OMP_NUM_THREADS=1 python benchmarks/attacks/overhead.py [--repeats 3] [--only apgd …]

One batch of 128 samples that are hard to break (each attack works to its last step on most), on a small CNN of digits
and on a network of the size of ResNet-18 (random weights, CIFAR-10 inputs, a batch of 16 and fewer steps: it takes .6
GFLOP a pass). The median of the repeats; both times are taken in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from _resnet import resnet18
from _timed import Timed
from torch import Tensor

import robench
from robench.registry import load_plugins
from robench.streams import Stream
from robench.threat import Domain, Norm, Threat
from robench_plugins.datasets.digits import Digits

SMALL = [
    "pgd:steps=100",
    "apgd",
    "apgd:loss=dlr,targets=9",
    "fab:targets=9,steps=20",
    "square:queries=500",
    "ddn",
    "fmn",
]
LARGE = ["apgd:steps=10", "fab:targets=3,steps=3", "square:queries=20"]
EPS: dict[Norm, float] = {"linf": 0.05, "l2": 0.2, "l1": 0.5}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[])
    options = parser.parse_args()
    plugins = load_plugins()
    samples = Digits().load("test")
    small = plugins.resolve("models", "digits-pgd-linf").value.load(torch.device("cpu"), torch.float32)
    x = torch.from_numpy(samples.batch(0, 256).copy())
    y = torch.from_numpy(samples.y[:256].copy())
    kept = (small.logits(x).argmax(1) == y).nonzero()[:128, 0]
    torch.manual_seed(0)
    big = robench.from_module(resnet18(), (3, 32, 32))
    images = torch.rand(16, 3, 32, 32)
    print("| network | attack | norm | CPU s | inside the model | ratio |\n|---|---|---|---|---|---|", flush=True)
    for name, model, points, labels, specs in (
        ("small CNN, batch 128", small, x[kept], y[kept], SMALL),
        ("ResNet-18, batch 16", big, images, big.logits(images).argmax(1), LARGE),
    ):
        for spec in specs:
            if options.only and spec.partition(":")[0] not in options.only:
                continue
            attack: Any = plugins.resolve("attacks", spec).value
            for norm, eps in EPS.items():
                if attack.applies(model, norm) is None:
                    print(_line(name, spec, attack, model, points, labels, norm, eps, options.repeats), flush=True)


def _line(
    name: str, spec: str, attack: Any, model: Any, x: Tensor, y: Tensor, norm: Norm, eps: float, repeats: int
) -> str:
    threat = Threat(norm, eps if attack.per_eps else None, Domain(0.0, 1.0))
    found = []
    for repeat in range(repeats + 1):
        timed, stream = Timed(model), Stream.for_samples(repeat, spec, range(len(x)))
        start = time.process_time()
        attack.perturb(timed, x, y, threat, stream)
        found.append((time.process_time() - start, timed.seconds))
    whole, inside = (statistics.median(part) for part in zip(*found[1:], strict=True))  # the first one warms up
    ratio = statistics.median(one / other for one, other in found[1:])
    return f"| {name} | `{spec}` | {norm} | {whole:.2f} | {inside:.2f} | {ratio:.2f} |"


if __name__ == "__main__":
    main()
