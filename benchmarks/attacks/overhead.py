"""What attacks add to the passes of the bare model: their CPU time over that of the same passes without an attack.

    OMP_NUM_THREADS=1 python benchmarks/attacks/overhead.py [--repeats 3] [--only apgd …]

One batch of 128 samples that are hard to break (each attack works to its last step on most), on the small CNN of
digits, on the same for MNIST (random weights), and on a network of the size of ResNet-18 (random weights, CIFAR-10
inputs, a batch of 16 and fewer steps: a pass takes .6 GFLOP). Each repeat runs the attack, then makes the same passes,
batch by batch, on the bare model. The median of the repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from _resnet import resnet18
from torch import Tensor

import robench
from robench.classifier import Classifier
from robench.registry import load_plugins
from robench.streams import Stream
from robench.threat import Domain, Norm, Threat
from robench_plugins.datasets.digits import Digits
from robench_plugins.training.networks import Normalise, build

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
    blank = Normalise(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    medium = robench.from_module(build("cnn", 16, blank, (1, 28, 28), 10, "he", torch.Generator()).eval(), (1, 28, 28))
    digits = torch.rand(128, 1, 28, 28)
    big = robench.from_module(resnet18(), (3, 32, 32))
    images = torch.rand(16, 3, 32, 32)
    print("| network | attack | norm | CPU s | the bare passes | ratio |\n|---|---|---|---|---|---|", flush=True)
    for name, model, points, labels, specs in (
        ("small CNN, 8 x 8, batch 128", small, x[kept], y[kept], SMALL),
        ("small CNN, 28 x 28, batch 128", medium, digits, medium.logits(digits).argmax(1), SMALL),
        ("ResNet-18, batch 16", big, images, big.logits(images).argmax(1), LARGE),
    ):
        for spec in specs:
            if options.only and spec.partition(":")[0] not in options.only:
                continue
            attack: Any = plugins.resolve("attacks", spec).value
            for norm, eps in EPS.items():
                if attack.applies(model, norm) is None:
                    print(_line(name, spec, attack, model, points, labels, norm, eps, options.repeats), flush=True)


class Recorder:
    """A classifier that remembers the passes made: rows, and whether a gradient was taken."""

    def __init__(self, inner: Classifier) -> None:
        """Start without passes."""
        self.inner, self.passes = inner, list[list[Any]]()
        self.input_shape, self.classes = inner.input_shape, inner.classes
        self.dtype, self.device = inner.dtype, inner.device
        self.fingerprint, self.graph = inner.fingerprint, inner.graph

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of `x`."""
        logits = self.inner.logits(x)
        one = [len(x), False]
        self.passes.append(one)
        if logits.requires_grad:
            logits.register_hook(lambda _: one.__setitem__(1, True))  # type: ignore[no-untyped-call]
        return logits

    def again(self, x: Tensor) -> float:
        """Make the same passes on the bare model and return their CPU seconds."""
        rows = {count: x.repeat(-(-count // len(x)), *[1] * (x.dim() - 1))[:count] for count, _ in self.passes}
        ones = {count: torch.ones(count, self.classes) for count in rows}
        start = time.process_time()
        for count, back in self.passes:
            if back:
                point = rows[count].detach().requires_grad_()
                torch.autograd.grad(self.inner.logits(point), point, ones[count])
            else:
                with torch.no_grad():
                    self.inner.logits(rows[count])
        return time.process_time() - start


def _line(
    name: str, spec: str, attack: Any, model: Any, x: Tensor, y: Tensor, norm: Norm, eps: float, repeats: int
) -> str:
    threat = Threat(norm, eps if attack.per_eps else None, Domain(0.0, 1.0))
    found = []
    for repeat in range(repeats + 1):
        recorder, stream = Recorder(model), Stream.for_samples(repeat, spec, range(len(x)))
        start = time.process_time()
        attack.perturb(recorder, x, y, threat, stream)
        found.append((time.process_time() - start, recorder.again(x)))
    whole, inside = (statistics.median(part) for part in zip(*found[1:], strict=True))  # the first one warms up
    ratio = statistics.median(one / other for one, other in found[1:])
    return f"| {name} | `{spec}` | {norm} | {whole:.2f} | {inside:.2f} | {ratio:.2f} |"


if __name__ == "__main__":
    main()
