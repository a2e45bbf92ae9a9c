"""Linear bounds beside those of auto_LiRPA: how tight and how fast, at equal slopes, neurons and iterations.

    ROBENCH_DATA=… PYTHONPATH=FOLDER OMP_NUM_THREADS=1 python benchmarks/verify/bounds.py [--net conv …]

One thread; both sides in one process, in turn, on the same modules and points. Bounds are of all margins; auto_LiRPA
computes in float32, ours are proven in float64 with the error term (the float32 search of slopes included). Without
auto_LiRPA only our side is printed, and the floors: `ibp` beside a forward pass, `crown-ibp` beside a forward and a
backward pass of the same batch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from _nets import NETS, Net
from _peer import Peer, available
from torch import Tensor, nn

from robench.graph import Graph, from_torch
from robench.graph.intervals import ball_margin_lower, ieee_arithmetic
from robench.threat import Domain, Threat
from robench_plugins.verify._engine.backward import lower_bounds, unit_rows
from robench_plugins.verify._engine.bounds import Bounded, bounded, pieces, refined
from robench_plugins.verify._engine.owners import Owners
from robench_plugins.verify._engine.region import region_of
from robench_plugins.verify._engine.slopes import Schedule, optimise
from robench_plugins.verify._forms import Forms, interval_forms, label_forms
from robench_plugins.verify._proofs import crown_bounds

STEPS = 20
METHODS = (
    ("ibp", "IBP", True),
    ("crown-ibp", "CROWN-IBP", True),
    ("crown", "CROWN", True),
    ("alpha-crown:inside=false", "CROWN-Optimized", False),
    ("alpha-crown", "CROWN-Optimized", True),
)


def ours(graph: Graph, x: Tensor, y: Tensor, eps: float, method: str) -> Tensor:
    """Return proven lower bounds of all margins [B, classes − 1], of every row to the end."""
    region = region_of(x, Threat("linf", eps, Domain.unbounded()))
    forms = label_forms(y, graph.classes)
    with ieee_arithmetic(x.device):
        if method == "ibp":
            return interval_forms(forms, graph, region, (x, x)).reshape(len(y), -1)
        known = bounded(graph, region, "ibp" if method == "crown-ibp" else "crown")
        if method == "alpha-crown":
            known = refined(known, Schedule(STEPS))
        bounds = crown_bounds(known, forms)
        if method.startswith("alpha"):
            bounds = torch.maximum(bounds, _optimised(known, forms))
        return torch.maximum(bounds, interval_forms(forms, graph, region, known.boxes[-1])).reshape(len(y), -1)


def _optimised(known: Bounded, forms: Forms) -> Tensor:
    """Return the bounds of all rows [R] with slopes optimised to the last step, as auto_LiRPA does."""
    search, bounds = known.search(), []
    for part in pieces(known.program, len(forms)):
        rows = forms.rows(known.program.last, part)
        slopes = optimise(*search, rows.to(torch.float32), schedule=Schedule(STEPS)).slopes
        exact = {position: values.double() for position, values in slopes.items()}
        found = lower_bounds(known.program, known.region, known.lines, rows, slopes=exact, errors=known.errors)
        bounds.append(found.bound)
    return torch.cat(bounds)


def best(work: Callable[[], Tensor], least: float = 1.0) -> tuple[float, Tensor]:
    """Return (seconds of the fastest of some runs, its answer)."""
    start = time.perf_counter()
    found, spent, fastest = work(), 0.0, float("inf")  # the first one is for caches
    if (seconds := time.perf_counter() - start) > 5:
        return seconds, found
    while spent < least:
        start = time.perf_counter()
        found = work()
        seconds = time.perf_counter() - start
        fastest, spent = min(fastest, seconds), spent + seconds
    return fastest, found


def floors(name: str, module: nn.Module, graph: Graph, x: Tensor, y: Tensor, eps: float) -> None:
    """Print what the cheap methods take beside plain passes of the module."""

    def forward() -> Tensor:
        with torch.no_grad():
            return module(x)

    def both() -> Tensor:
        points = x.clone().requires_grad_()
        nn.functional.cross_entropy(module(points), y).backward()
        assert points.grad is not None
        return points.grad

    one, two = best(forward)[0], best(both)[0]
    ibp = best(lambda: ball_margin_lower(graph, x, y, "linf", eps, Domain.unbounded()))[0]
    crown = best(lambda: ours(graph, x, y, eps, "crown-ibp"))[0]
    print(f"  {len(x)} samples: ibp {ibp / one:.1f} forwards, crown-ibp {crown / two:.1f} forward-backwards in {name}")


def peers(module: nn.Module, x: Tensor, y: Tensor, eps: float, method: str, inside: bool) -> tuple[float, Tensor]:
    """Return (seconds, bounds) of auto_LiRPA."""
    for sparse in (True, False):
        other = Peer(module, x, y, eps, STEPS, sparse)
        try:
            return best(lambda other=other: other.bounds(method, inside))  # type: ignore[misc]
        except RuntimeError as error:
            print(f"  auto_LiRPA, {method}, sparse slopes {sparse}: {str(error)[:60]}")
    raise SystemExit("auto_LiRPA gives no bounds")


def searched(graph: Graph, x: Tensor, y: Tensor, eps: float) -> tuple[float, Tensor]:
    """Return the time of CROWN's same rows in float32 and without errors, as auto_LiRPA computes them."""
    region = region_of(x, Threat("linf", eps, Domain.unbounded()))
    known, forms = bounded(graph, region, "crown"), label_forms(y, graph.classes)
    asked = bounded(graph, region, "ibp")
    parts = []
    for position in known.program.activations[1:]:
        low, high = (side.flatten(1) for side in asked.inputs[position])
        for sample in range(len(x)):
            unit = ((low < 0) & (high > 0))[sample].nonzero()[:, 0]
            for chunk in unit.split(256):
                sign = torch.ones(2 * len(chunk))
                sign[len(chunk) :] = -1
                owners = Owners.uniform(1, 2 * len(chunk), x.device)
                rows = unit_rows(known.program.steps[position].inputs[0], owners, chunk.repeat(2), sign)
                parts.append((known.select(slice(sample, sample + 1)).search(), rows))
    last = known.search(), forms.rows(known.program.last).to(torch.float32)

    def work() -> Tensor:
        with torch.no_grad():
            for setting, rows in parts:
                lower_bounds(*setting, rows)
            return lower_bounds(*last[0], last[1]).bound

    return best(work)


def compare(net: Net, peer: bool) -> None:
    """Print one network's table."""
    torch.manual_seed(0)
    module, points = net.make()
    module.eval()
    x = points[: net.samples]
    with torch.no_grad():
        y = module(x).argmax(1)
    graph = from_torch(module, tuple(x.shape[1:]))
    print(f"{net.name}, eps {net.eps:.4g}, {len(x)} samples")
    for mine, theirs, inside in METHODS:
        seconds, bounds = best(lambda mine=mine: ours(graph, x, y, net.eps, mine))  # type: ignore[misc]
        line = f"  {mine:26} {bounds.mean():10.4f} {seconds:8.3f} s"
        if peer:
            taken, found = peers(module, x, y, net.eps, theirs, inside)
            found = found.double()
            line += f" | auto_LiRPA {found.mean():10.4f} {taken:8.3f} s | ours / theirs {seconds / taken:5.2f}"
            line += f" | least gain {(bounds - found).amin():+.1e}"
        print(line, flush=True)
        if mine == "crown":
            print(f"  {'(its rows in float32)':26} {'':10} {searched(graph, x, y, net.eps)[0]:8.3f} s")
    more = points[:32]
    labels = module(more).argmax(1)
    floors("float32", module, graph, more, labels, net.eps)
    floors("float64", module.double(), graph, more.double(), labels, net.eps)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", nargs="*", help="parts of names; all by default")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    peer = available()
    for net in NETS:
        if not given.net or any(part in net.name for part in given.net):
            compare(net, peer)


if __name__ == "__main__":
    main()
