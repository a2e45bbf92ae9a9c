"""What it takes to decide a radius under smoothing on real classifiers, beside radii from a fixed number of draws.

    OMP_NUM_THREADS=1 ROBENCH_DATA=… python benchmarks/smoothing/models.py [--cache FOLDER] [--n 100000] [--samples 60]

Networks of digits and, where the data is there, of MNIST, trained on Gaussian noise; those that are not bundled are
trained first and kept in the cache. `fixed` and `decided` are shares of the samples, correct and certified at ε by
radii at n draws and by decisions that may take as many; `draws` are those of the decisions, per sample given to them,
and `fewer` how many times fewer than n; `faster` is the ratio of the seconds, all else included. Radii of one run
answer every ε; a decision is about one.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

import robench
from robench.classifier import Classifier
from robench.contracts import Certificates, TrainContext
from robench.registry import load_plugins
from robench.samples import Samples
from robench.streams import Stream
from robench.threat import Threat
from robench_plugins.smoothing.certify import Smoothing
from robench_plugins.smoothing.smooth import Smooth, SmoothedClassifier

NETS = (
    ("digits", "gaussian:sigma=0.25", 0.25, (0.25, 0.5, 0.75)),
    ("digits", "gaussian:sigma=0.5", 0.5, (0.5, 1.0, 1.5)),
    ("mnist", "gaussian:arch=mlp,epochs=8,sigma=0.25", 0.25, (0.25, 0.5, 0.75)),
    ("mnist", "gaussian:arch=mlp,epochs=8,sigma=0.5", 0.5, (0.5, 1.0, 1.5)),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--samples", type=int, default=60)
    options = parser.parse_args()
    print(f"n = {options.n}, {options.samples} samples")
    print(f"{'net':46}{'ε':>6}{'fixed':>8}{'decided':>9}{'draws':>8}{'fewer':>8}{'faster':>8}")
    for dataset, recipe, sigma, epsilons in NETS:
        if dataset == "mnist" and "ROBENCH_DATA" not in os.environ:
            continue
        base = _trained(dataset, recipe, options.cache)
        test = load_plugins().resolve("datasets", dataset).value.load("test").select(slice(0, options.samples))
        vote = Smooth(sigma=sigma, n=options.n).wrap(base)
        fixed, seconds = _certified(Smoothing(n=options.n), vote, test, None)
        for eps in epsilons:
            made, spent = _certified(Smoothing(mode="decide", n=options.n), vote, test, eps)
            told = [int(one["n"]) for one in made.detail or () if one and "n" in one]
            draws = sum(told) / max(1, len(told))
            shares = [float((one.lower >= eps).double().mean()) for one in (fixed, made)]
            print(f"{f'{dataset} {recipe}':46}{eps:6g}{shares[0]:8.3f}{shares[1]:9.3f}{draws:8.0f}", end="")
            # No draws at all where no count of n would reach ε.
            print(f"{options.n / draws:8.1f}{seconds / spent:8.1f}" if draws else f"{'-':>8}{'-':>8}", flush=True)


def _trained(dataset: str, recipe: str, cache: Path) -> Classifier:
    plugins = load_plugins()
    train: Samples = plugins.resolve("datasets", dataset).value.load("train")
    file = cache / f"{dataset}-{recipe.replace(':', '-').replace(',', '-')}.pt"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        made = plugins.resolve("recipes", recipe).value.train(train, TrainContext(0, torch.device("cpu")))
        torch.save(made.module, file)
    return robench.from_module(torch.load(file, weights_only=False), train.shape)


def _certified(
    certifier: Smoothing, vote: SmoothedClassifier, samples: Samples, eps: float | None
) -> tuple[Certificates, float]:
    """Return what is certified, batch by batch as the runner asks, and the seconds."""
    x, y = torch.from_numpy(samples.batch(0, len(samples)).copy()), torch.from_numpy(samples.y.copy())
    stream = Stream.for_samples(0, "benchmark", samples.index.tolist())
    start = time.perf_counter()
    made = certifier.certify(vote, x.to(vote.dtype), y, Threat("l2", eps, samples.domain), stream)
    return made, time.perf_counter() - start


if __name__ == "__main__":
    main()
