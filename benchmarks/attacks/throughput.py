"""What `fast` gives: passes per second of apgd in each precision, compiled and not, beside the bare network's.

    python benchmarks/attacks/throughput.py --device cuda [--batch 512] [--steps 20] [--repeats 3]
    OMP_NUM_THREADS=1 python benchmarks/attacks/throughput.py --device cpu --net small --batch 64

WRN-28-10 (random weights, CIFAR-10 inputs) or, with `--net small`, WRN-10-1. Passes are forwards plus backwards as the
runner counts them; ε is where about half of the samples survive plain `apgd`. `first` is the first run,
with what it compiles; `passes/s` is the median of the others. The bare network makes the same number of steps, a
forward and a backward pass each, on the whole batch. `left` is the share of samples that survive at full precision,
`equal` in how many the verdict is that of plain `apgd`, `again` how many were searched twice. The peak is of the
GPU's memory.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from _wide import wide_resnet
from torch import Tensor

import robench
from robench.classifier import Counted, margins
from robench.distances import project
from robench.graph import full_precision
from robench.registry import load_plugins
from robench.streams import Stream
from robench.threat import Domain, Threat

FORMS = [
    "",
    " | fast:precision=tf32",
    " | fast:precision=bf16",
    " | fast",
    " | fast:compile=true,precision=full",
    " | fast:compile=true,precision=tf32",
    " | fast:compile=true,precision=bf16",
    " | fast:compile=true",
]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--net", choices=["wrn-28-10", "small"], default="wrn-28-10")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without-compile", action="store_true", help="leave the compiled forms out")
    options = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device(options.device)
    net = wide_resnet() if options.net == "wrn-28-10" else wide_resnet(10, 1)
    model = robench.from_module(net, (3, 32, 32), device=device)
    # Smooth images: a network with random weights hardly tells one field of white noise from another.
    x = torch.nn.functional.interpolate(torch.rand(options.batch, 3, 4, 4), 32, mode="bicubic").clamp(0, 1).to(device)
    with full_precision():
        with torch.no_grad():
            y = model.logits(x).argmax(1)
        spec = f"apgd:steps={options.steps}"
        eps = _budget(spec, model, x, y)
        print(f"{options.net}, batch {options.batch}, {device}, linf {eps:.5f}\n")
        print("| search | first s | passes/s | of plain | peak GiB | left | equal | again |", flush=True)
        print("|---|---|---|---|---|---|---|---|", flush=True)
        rate, peak = _bare(model, x, options.steps, options.repeats)
        print(f"| bare network | | {rate:.0f} | | {peak} | | | |", flush=True)
        plain: tuple[float, Tensor] | None = None
        for form in FORMS:
            if options.without_compile and "compile" in form:
                continue
            first, rate, peak, left, again = _measured(spec + form, model, x, y, eps, options.repeats)
            plain = plain or (rate, left)
            name = (spec + form).replace("|", "\\|")
            print(
                f"| `{name}` | {first:.1f} | {rate:.0f} | {rate / plain[0]:.2f} | {peak} | "
                f"{left.double().mean():.1%} | {int((left == plain[1]).sum())}/{len(x)} | {again} |",
                flush=True,
            )


def _budget(spec: str, model: Any, x: Tensor, y: Tensor) -> float:
    """Return the ε at which about half of the samples survive the attack, by bisection."""
    low, high = 0.0, 0.25
    for _ in range(8):
        eps = (low + high) / 2
        _, left = _attacked(spec, model, x, y, eps)
        low, high = (eps, high) if left.double().mean() > 0.5 else (low, eps)
    return (low + high) / 2


def _attacked(spec: str | Any, model: Any, x: Tensor, y: Tensor, eps: float) -> tuple[Any, Tensor]:
    """Return the proposal, and which samples survive it by the classifier as it is, bool [B]."""
    attack = load_plugins().resolve("attacks", spec).value if isinstance(spec, str) else spec
    threat = Threat("linf", eps, Domain(0.0, 1.0))
    made = attack.perturb(model, x, y, threat, Stream.for_samples(0, "apgd", range(len(x)), x.device))
    with torch.no_grad():
        left = margins(model.logits(project(made.points, x, threat)), y) > 0
    return made, left


def _measured(
    spec: str, model: Any, x: Tensor, y: Tensor, eps: float, repeats: int
) -> tuple[float, float, str, Tensor, int]:
    """Return seconds of the first run, passes per second of the others, the peak, who survives and who went twice."""
    attack = load_plugins().resolve("attacks", spec).value
    counted = Counted(model)

    def run() -> Any:
        return _attacked(attack, counted, x, y, eps)

    seconds, rates = [], []
    _reset(x.device)
    for _ in range(repeats + 1):
        counted.take()
        taken, (made, left) = _timed(run, x.device)
        seconds.append(taken)
        rates.append(sum(counted.take()) / taken)
    again = sum(bool((one or {}).get("searched_again")) for one in made.detail)
    return seconds[0], statistics.median(rates[1:]), _peak(x.device), left, again


def _bare(model: Any, x: Tensor, steps: int, repeats: int) -> tuple[float, str]:
    """Return passes per second of gradient steps without an attack, and the peak."""

    def run() -> None:
        for _ in range(steps):
            point = x.detach().requires_grad_()
            torch.autograd.grad(model.logits(point).sum(), point)

    _reset(x.device)
    taken = [_timed(run, x.device)[0] for _ in range(repeats + 1)]
    return 2 * steps * len(x) / statistics.median(taken[1:]), _peak(x.device)


def _timed(run: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    start = time.perf_counter()
    made = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, made


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> str:
    return f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f}" if device.type == "cuda" else ""


if __name__ == "__main__":
    main()
