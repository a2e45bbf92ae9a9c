"""`bab` on the networks and properties of VNN-COMP, beside what the competition's tools answered.

    ROBENCH_DATA=… OMP_NUM_THREADS=2 python benchmarks/verify/competition.py mnist_fc --net mnist-net_256x2
        [--seconds 120] [--only 0,5,8]

One instance after the other, each with its own time limit (`--seconds` where that is shorter). A published answer is
shown where the tools that decided agree; an answer of ours that differs from it is an error and ends the program.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections import Counter
from pathlib import Path

import torch

from robench.graph import GraphClassifier, from_onnx
from robench.streams import Stream
from robench.threat import Threat
from robench_plugins.datasets.vnnlib import Vnnlib
from robench_plugins.verify.bab import BaB

DOUBTED = frozenset({"cgdtest"})
"""Tools whose answers replayed counterexamples contradict."""
WORDS = {"certified": "unsat", "falsified": "sat"}


def published(folder: Path, benchmark: str) -> dict[tuple[str, str], Counter[str]]:
    """Return how many tools answered what, by (network, property)."""
    answers: dict[tuple[str, str], Counter[str]] = {}
    for file in sorted(folder.glob(f"*/{benchmark}.csv")):
        if file.parent.name in DOUBTED:
            continue
        with file.open(newline="", encoding="ascii") as stream:
            for row in csv.reader(stream):
                answers.setdefault((plain(row[1]), plain(row[2])), Counter())[row[4]] += 1
    return answers


def plain(name: str) -> str:
    """Return a file's name without folder and .gz."""
    return Path(name).name.removesuffix(".gz")


def main() -> None:
    """Print one line per instance and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmark")
    parser.add_argument("--net", required=True)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    root = Path(os.environ["ROBENCH_DATA"]) / "vnncomp"
    data = Vnnlib(root / given.benchmark, net=given.net).load("test")
    assert data.regions is not None
    net = f"{given.net}.onnx"
    file = next(path for path in (root / given.benchmark / "onnx").iterdir() if plain(path.name) == net)
    classifier = GraphClassifier(from_onnx(file))
    answers = published(root / "results", given.benchmark)
    chosen = [int(one) for one in given.only.split(",") if one] or range(len(data))
    counts: Counter[str] = Counter()
    total = 0.0
    for at in chosen:
        start = time.perf_counter()
        region = data.regions.batch(slice(at, at + 1))
        seconds = min(given.seconds, float(data.regions.seconds[at]))
        x = torch.from_numpy(data.batch(at, at + 1)).float()
        y = torch.tensor([int(data.y[at])])
        threat = Threat("linf", 1.0, data.domain, region)
        stream = Stream.for_samples(0, "bab", [at])
        made = BaB(timeout=seconds).certify(classifier, x, y, threat, stream)
        word = WORDS.get(made.status[0], made.status[0])
        took = time.perf_counter() - start
        total += took
        counts[word] += 1
        name = data.regions.names[at]
        said = answers.get((net, plain(name)), Counter())
        theirs = ", ".join(f"{word_} {said[word_]}" for word_ in ("unsat", "sat") if said[word_])
        detail = dict((made.detail or [None])[0] or {})
        print(f"{at:3d}  {word:8s} {took:7.1f} s   tools: {theirs or '-':16s}  {detail}", flush=True)
        if word in ("unsat", "sat") and said and not said[word] and (said["unsat"] or said["sat"]):
            raise SystemExit(f"{name}: {word}, but the tools say {theirs}")
    print(f"{dict(counts)} in {total:.0f} s")


if __name__ == "__main__":
    main()
