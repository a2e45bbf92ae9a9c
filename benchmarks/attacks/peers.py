"""Our attacks beside those of foolbox, torchattacks, adv-lib and pyautoattack, on the same points.

    ROBENCH_DATA=… python benchmarks/attacks/peers.py --cache FOLDER [--nets pgd-linf …] [--samples 200] [--only fmn …]

`--cache` is the folder of `portfolio.py`, which holds the networks. Every attack, theirs and ours, gets the samples
that are correct, in batches of 100, and its points are judged by the runner's rules; CPU time covers both.
Settings: equal numbers of steps and restarts where both sides have them, each side's defaults otherwise. Libraries
that are not installed are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _nets import LISTS
from _published import published
from torch import Tensor

import robench
from robench.classifier import Classifier, Counted
from robench.errors import InputError
from robench.registry import Plugins, load_plugins
from robench.runner._judge import Judge
from robench.streams import Stream
from robench.threat import Domain, Norm, Threat

PAIRS: list[tuple[Norm, str, Sequence[str]]] = [
    ("linf", "pgd:steps=40,restarts=1,targets=0", [
        "foolbox:LinfPGD,options=steps=40", "torchattacks:PGD,options=steps=40+alpha=0.01",
        "advlib:pgd_linf,options=steps=40",
    ]),
    ("linf", "apgd", ["advlib:apgd,options=loss_function=ce", "torchattacks:APGD,options=steps=100"]),
    ("linf", "apgd:loss=dlr,targets=9", ["advlib:apgd_targeted", "torchattacks:APGDT,options=steps=100"]),
    ("linf", "square", ["torchattacks:Square"]),
    ("linf", "deepfool", ["foolbox:LinfDeepFoolAttack", "advlib:df"]),
    ("linf", "fmn:starts=0,targets=0", ["foolbox:LInfFMNAttack,options=steps=100", "advlib:fmn,options=steps=100"]),
    ("linf", "fmn", ["foolbox:LInfFMNAttack,options=steps=100", "advlib:fmn,options=steps=100"]),
    ("linf", "fab:restarts=1,targets=9", [
        "advlib:fab,options=targeted_restarts=true", "torchattacks:FAB,options=steps=100",
    ]),
    ("linf", "fab:targets=9", ["advlib:fab,options=targeted_restarts=true", "torchattacks:FAB,options=steps=100"]),
    ("linf", "autoattack", ["torchattacks:AutoAttack", "pyautoattack"]),
    ("linf", "portfolio", ["pyautoattack"]),
    ("l2", "pgd:steps=40,restarts=1,targets=0", [
        "foolbox:L2PGD,options=steps=40", "torchattacks:PGDL2,options=steps=40+alpha=0.05",
    ]),
    ("l2", "apgd", ["advlib:apgd,options=loss_function=ce", "torchattacks:APGD,options=steps=100"]),
    ("l2", "square", ["torchattacks:Square"]),
    ("l2", "deepfool", ["foolbox:L2DeepFoolAttack", "torchattacks:DeepFool", "advlib:df"]),
    ("l2", "ddn:starts=0,targets=0", ["foolbox:DDNAttack", "advlib:ddn"]),
    ("l2", "ddn", ["foolbox:DDNAttack", "advlib:ddn"]),
    ("l2", "fmn:starts=0,targets=0", ["foolbox:L2FMNAttack,options=steps=100", "advlib:fmn,options=steps=100"]),
    ("l2", "fmn", [
        "foolbox:L2FMNAttack,options=steps=100", "advlib:fmn,options=steps=100", "advlib:alma,options=num_steps=1000",
    ]),
    ("l2", "cw:starts=0,targets=0", [
        "foolbox:L2CarliniWagnerAttack,options=steps=1000", "advlib:carlini_wagner_l2,options=max_iterations=1000",
    ]),
    ("l2", "cw", [
        "foolbox:L2CarliniWagnerAttack,options=steps=1000", "torchattacks:CW,options=steps=1000",
        "advlib:carlini_wagner_l2,options=max_iterations=1000",
    ]),
    ("l2", "fab:restarts=1,targets=9", [
        "advlib:fab,options=targeted_restarts=true", "torchattacks:FAB,options=steps=100",
    ]),
    ("l2", "fab:targets=9", ["advlib:fab,options=targeted_restarts=true", "torchattacks:FAB,options=steps=100"]),
    ("l2", "autoattack", ["pyautoattack"]),
    ("l2", "portfolio", ["pyautoattack"]),
    ("l1", "pgd:steps=40,restarts=1,targets=0", [
        "foolbox:L1PGD,options=steps=40", "foolbox:SparseL1DescentAttack,options=steps=40",
    ]),
    ("l1", "apgd", ["advlib:apgd,options=loss_function=ce"]),
    ("l1", "fmn:starts=0,targets=0", ["foolbox:L1FMNAttack,options=steps=100", "advlib:fmn,options=steps=100"]),
    ("l1", "fmn", [
        "foolbox:L1FMNAttack,options=steps=100", "advlib:fmn,options=steps=100", "foolbox:EADAttack,options=steps=1000",
    ]),
    ("l1", "autoattack", ["pyautoattack"]),
    ("l1", "portfolio", ["pyautoattack"]),
]  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What an attack left unbroken, in percent, its passes per sample, and CPU seconds."""

    left: float
    units: float
    seconds: float


def main() -> None:
    """Print a row per pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--nets", nargs="+", default=["pgd-linf", "standard"])
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--only", nargs="+", default=[])
    options = parser.parse_args()
    plugins = load_plugins()
    print(
        "| network | norm | ours | left | CPU s | theirs | left | CPU s | theirs / ours |\n"
        "|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for net in (net for net in LISTS["test"] if net.name in options.nets):
        module, (x, y) = net.module(options.cache / "nets"), net.points()
        classifier = robench.from_module(module, tuple(x.shape[1:]))
        with torch.no_grad():
            kept = (classifier.logits(x).argmax(1) == y).nonzero()[: options.samples, 0]
        points, labels = x[kept], y[kept]
        known: dict[tuple[str, Norm], Outcome | str] = {}
        for norm, ours, theirs in PAIRS:
            if options.only and ours.partition(":")[0] not in options.only:
                continue
            for spec in (ours, *theirs):
                if (spec, norm) not in known:
                    known[spec, norm] = _measure(plugins, spec, module, classifier, points, labels, norm, net.eps[norm])
            for spec in theirs:
                print(_line(net.name, norm, ours, known[ours, norm], spec, known[spec, norm]), flush=True)


def _measure(
    plugins: Plugins, spec: str, module: Any, classifier: Classifier, x: Tensor, y: Tensor, norm: Norm, eps: float
) -> Outcome | str:
    """Return what the attack did, or why it cannot."""
    try:
        if spec == "pyautoattack":
            return _pyautoattack(module, x, y, norm, eps)
        attack: Any = plugins.resolve("attacks", spec).value
        if hasattr(attack, "stages"):
            return _composite(attack, spec, classifier, x, y, norm, eps)
        why = attack.applies(classifier, norm)
        if why:
            return str(why)
        return _single(attack, spec, classifier, x, y, norm, eps)
    except (InputError, ImportError) as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _single(attack: Any, spec: str, classifier: Classifier, x: Tensor, y: Tensor, norm: Norm, eps: float) -> Outcome:
    counted, left = Counted(classifier), 0
    start = time.process_time()
    judge = Judge(counted)
    threat = Threat(norm, eps if getattr(attack, "per_eps", True) else None, Domain(0.0, 1.0))
    for first in range(0, len(x), 100):
        rows = slice(first, first + 100)
        stream = Stream.for_samples(0, spec, range(first, first + len(x[rows])))
        proposal = attack.perturb(counted, x[rows], y[rows], threat, stream)
        verdict = judge.judge(x[rows], y[rows], proposal.points, threat)
        left += int((~(verdict.broken & (verdict.distances[norm] <= eps))).sum())
    return _outcome(counted.take(), left, len(x), time.process_time() - start)


def _composite(attack: Any, spec: str, classifier: Classifier, x: Tensor, y: Tensor, norm: Norm, eps: float) -> Outcome:
    import tempfile

    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        rows = robench.evaluate(
            classifier,
            (x.numpy(), y.numpy()),
            eps=eps,
            norm=norm,
            attacks=[spec],
            certifiers=[],
            batch_size=100,
            out=folder,
        ).evidence
    seconds = time.process_time() - start
    broken = rows[rows["status"].isin(["falsified", "incorrect"])]["sample"].nunique()
    return _outcome((int(rows["forwards"].sum()), int(rows["backwards"].sum())), len(x) - broken, len(x), seconds)


def _pyautoattack(module: Any, x: Tensor, y: Tensor, norm: Norm, eps: float) -> Outcome:
    found = published(module, x, y, norm, eps, 0)
    return _outcome((found.forwards, found.backwards), int(found.left.sum()), len(x), found.seconds)


def _outcome(passes: tuple[int, int], left: int, count: int, seconds: float) -> Outcome:
    return Outcome(100 * left / count, (passes[0] + 2 * passes[1]) / count, seconds)


def _line(net: str, norm: Norm, ours: str, mine: Outcome | str, theirs: str, other: Outcome | str) -> str:
    cells = [net, norm, f"`{ours}`", *_cells(mine), f"`{theirs}`", *_cells(other)]
    both = isinstance(mine, Outcome) and isinstance(other, Outcome)
    cells.append(f"{other.seconds / mine.seconds:.1f} x" if both else "")  # type: ignore[union-attr]
    return f"| {' | '.join(cells)} |"


def _cells(found: Outcome | str) -> tuple[str, str]:
    if isinstance(found, str):
        return found.replace("|", " ").splitlines()[0][:60], ""
    return f"{found.left:.1f} %", f"{found.seconds:.1f}"


if __name__ == "__main__":
    main()
