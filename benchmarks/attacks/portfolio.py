"""The default attack beside the published AutoAttack: accuracy left, and what it cost, on the same networks and points.

    ROBENCH_DATA=… python benchmarks/attacks/portfolio.py --cache FOLDER [--list test] [--seeds 3] [--attack portfolio]
        [--only baseline|ours|table] [--nets NAME …] [--norms linf …]

The other side is the package of the authors' code, `pip install --no-deps pyautoattack` (0.2.0), version `standard`,
its passes counted around the network; `--list bundled --attack autoattack` holds ours against it. Ours is
`robench.evaluate`; its cost is every pass in the evidence, clean ones, probes and the runner's own included. A unit is
a forward pass of one sample; a backward pass counts two. Every (network, norm, side, seed) is kept in the cache: a
broken-off benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from _nets import LISTS, Bundled, Net
from _published import NAMES, Result, published
from torch import Tensor, nn

import robench
from robench.threat import Norm

Side = Callable[[nn.Module, Tensor, Tensor, Norm, float, int], Result]


def main() -> None:
    """Run what the cache lacks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--list", choices=sorted(LISTS), default="test")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--attack", default="portfolio")
    parser.add_argument("--only", choices=["baseline", "ours", "table"])
    parser.add_argument("--nets", nargs="+")
    parser.add_argument("--norms", nargs="+", choices=list(NAMES), default=list(NAMES))
    options = parser.parse_args()
    nets = [net for net in LISTS[options.list] if not options.nets or net.name in options.nets]
    # In the cache `autoattack` is the package; ours goes by its full name.
    attack = "autoattack:standard" if options.attack == "autoattack" else options.attack
    sides: dict[str, Side] = {"autoattack": published, attack: _ours(attack)}
    wanted = {"baseline": ["autoattack"], "ours": [attack], "table": []}.get(options.only, list(sides))
    print(
        "| network | norm | ε | left by AutoAttack: mean, all seeds | by ours | difference, 95 % | units: theirs "
        "| ours | share | CPU s: theirs | ours |\n|---|---|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for net in nets:
        for norm in options.norms:
            for name in wanted:
                for seed in range(options.seeds):
                    _cached(options.cache, net, norm, name, seed, sides[name])
            found = [_kept(options.cache, net, norm, name, options.seeds) for name in sides]
            if options.only in (None, "table") and all(found):
                print(_line(net, norm, *found), flush=True)


def _file(cache: Path, net: Net | Bundled, norm: Norm, name: str, seed: int) -> Path:
    plain = "".join(letter if letter.isalnum() or letter in "=,.-" else "_" for letter in name)
    return cache / "runs" / f"{net.name}_{norm}_{net.eps[norm]:g}_{net.samples}_{plain}_{seed}.npz"


def _cached(cache: Path, net: Net | Bundled, norm: Norm, name: str, seed: int, side: Side) -> None:
    file = _file(cache, net, norm, name, seed)
    if file.exists():
        return
    module, (x, y) = net.module(cache / "nets"), net.points()
    made = side(module, x, y, norm, net.eps[norm], seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as sink:
        np.savez(sink, left=made.left, cost=[made.forwards, made.backwards], seconds=made.seconds)


def _kept(cache: Path, net: Net | Bundled, norm: Norm, name: str, seeds: int) -> list[Result]:
    """Return the runs of a side, or none where one is missing."""
    files = [_file(cache, net, norm, name, seed) for seed in range(seeds)]
    if not all(file.exists() for file in files):
        return []
    out = []
    for file in files:
        with np.load(file) as kept:
            out.append(Result(kept["left"], *map(int, kept["cost"]), float(kept["seconds"])))
    return out


def _line(net: Net | Bundled, norm: Norm, theirs: Sequence[Result], ours: Sequence[Result]) -> str:
    """Return the table's row: the interval is of the mean over samples of (ours − theirs), each a mean over seeds."""
    mine, other = (np.mean([run.left for run in side], 0) for side in (ours, theirs))
    together = np.all([run.left for run in theirs], 0).mean()
    paired = mine - other
    half = 1.96 * paired.std(ddof=1) / np.sqrt(len(paired))
    units = [float(np.mean([run.units for run in side])) for side in (theirs, ours)]
    seconds = [float(np.mean([run.seconds for run in side])) for side in (theirs, ours)]
    return (
        f"| {net.name} | {norm} | {net.eps[norm]:g} | {100 * other.mean():.2f}, {100 * together:.2f} "
        f"| {100 * mine.mean():.2f} | {100 * paired.mean():+.2f} ± {100 * half:.2f} "
        f"| {units[0] / 1e6:.2f} M | {units[1] / 1e6:.2f} M | 1/{units[0] / units[1]:.1f} "
        f"| {seconds[0]:.0f} | {seconds[1]:.0f} |"
    )


def _ours(attack: str) -> Side:
    def run(module: nn.Module, x: Tensor, y: Tensor, norm: Norm, eps: float, seed: int) -> Result:
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            evaluation = robench.evaluate(
                module,
                (x.numpy(), y.numpy()),
                eps=eps,
                norm=norm,
                attacks=[attack],
                certifiers=[],
                batch_size=500,
                seed=seed,
                out=folder,
            )
            rows = evaluation.evidence
        seconds = time.process_time() - start
        broken = rows[rows["status"].isin(["falsified", "incorrect", "error"])]["sample"].unique()
        left = np.ones(len(y), bool)
        left[broken.astype(int)] = False
        return Result(left, int(rows["forwards"].sum()), int(rows["backwards"].sum()), seconds)

    return run


if __name__ == "__main__":
    main()
