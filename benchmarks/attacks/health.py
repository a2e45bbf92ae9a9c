"""How well health indicators tell masked classifiers from honest ones.

    ROBENCH_DATA=… python benchmarks/attacks/health.py --cache FOLDER [--samples 150] [--attack NAME]

Honest: the six bundled classifiers, the networks of the portfolio's benchmark (MNIST only where ROBENCH_DATA is set),
and problems of two and three classes; each in three norms, at half, one and two times an ε where 30 to 80 % survive.
Masked: every mask of `masked.py` on three bundled classifiers and a binary one, and a network trained to mislead, at
one and two times that ε. Every setting is probed. With `--attack`, honest classifiers are then attacked in full at that
ε, for their grade over all of it, and so is a mask that raises nothing, beside its base: what matters is a number
above the truth with a clean grade.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _nets import LISTS, Net
from masked import MASKS, Mask, masked, winners_take_all
from torch import Tensor

import robench
from robench.classifier import Classifier, margins
from robench.contracts import TrainContext
from robench.graph import GraphClassifier, from_torch
from robench.health import CATALOGUE, Indicator
from robench.metrics import Measured
from robench.samples import Samples
from robench.streams import Stream
from robench.threat import NORMS, Domain, Epsilon, Norm, Threat
from robench_plugins.attacks.probe import Probe
from robench_plugins.datasets.classes import Classes
from robench_plugins.datasets.digits import Digits
from robench_plugins.training.ibp import Ibp
from robench_plugins.training.pgd_at import PgdAt
from robench_plugins.training.standard import Standard
from robench_plugins.zoo.digits import BUNDLED

CPU = torch.device("cpu")
PROBED = [one for one in CATALOGUE.values() if one.origin == "probe"]
EPS: dict[Norm, float] = {"linf": 0.1, "l2": 0.5, "l1": 1.5}


@dataclass(frozen=True)
class Subject:
    """A classifier with samples, and an ε per norm."""

    name: str
    classifier: Classifier
    x: Tensor
    y: Tensor
    eps: dict[Norm, float]
    base: Subject | None = None
    mask: Mask | None = None


@dataclass(frozen=True)
class Setting:
    """A subject at one (norm, ε), what a probe measured there, by code, and the share of samples that it left open."""

    subject: Subject
    norm: Norm
    eps: float
    measured: dict[str, Measured]
    open: float

    def raised(self, one: Indicator) -> bool:
        """Whether an indicator is raised."""
        return one.code in self.measured and self.measured[one.code].raised

    def share(self, one: Indicator) -> float:
        """The share of the samples beyond an indicator's threshold."""
        return self.measured[one.code].share if one.code in self.measured else 0.0

    @property
    def flagged(self) -> bool:
        """Whether the grade is `flagged`."""
        return any(self.raised(one) and one.decides for one in PROBED)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=150)
    parser.add_argument("--attack")
    options = parser.parse_args()

    honest = [
        probed(subject, norm, factor * subject.eps[norm])
        for subject in honest_subjects(options.samples, options.cache)
        for norm in NORMS
        for factor in (0.5, 1, 2)
    ]
    hidden = [
        probed(subject, norm, factor * subject.eps[norm])
        for subject in masked_subjects(options.samples)
        for norm in NORMS
        for factor in (1, 2)
    ]
    harmless = [one for one in hidden if one.subject.mask and one.subject.mask.harmless]
    hiding = [one for one in hidden if one not in harmless]
    print(
        f"{len({one.subject.name for one in honest})} honest classifiers, {len(honest)} settings; "
        f"{len({one.subject.name for one in harmless})} harmless masks, {len(harmless)}; "
        f"{len({one.subject.name for one in hiding})} masked classifiers, {len(hiding)}\n"
    )
    print("| indicator | honest: most | limit | false alarms | raised on masked | alone |\n|---|---|---|---|---|---|")
    for one in PROBED:
        print(line(one, honest, hiding))
    print(
        f"| **grade** | | | {rate(one.flagged for one in honest)} | {rate(one.flagged for one in hiding)} | |\n\n"
        f"harmless masks flagged: {rate(one.flagged for one in harmless)}\n"
    )
    quiet = [one for one in hiding if not one.flagged]
    print(f"{len(quiet)} masked settings are not flagged:\n")
    print(
        "| classifier | norm | ε | left by the probe | of its base |"
        + (" left in full | of its base |" if options.attack else "")
    )
    print("|---|---|---|---|---|" + ("---|---|" if options.attack else ""))
    for one in quiet:
        base = one.subject.base and probed(one.subject.base, one.norm, one.eps)
        cells = [one.subject.name, one.norm, f"{one.eps:g}", percent(one.open), percent(base.open) if base else ""]
        if options.attack:
            cells.append(percent(attacked(one.subject, one.norm, one.eps, options.attack)))
            truth = one.subject.base and attacked(one.subject.base, one.norm, one.eps, options.attack)
            cells.append("" if truth is None else percent(truth))
        print(f"| {' | '.join(cells)} |", flush=True)
    for one in honest:
        if one.flagged:
            print("flagged:", one.subject.name, one.norm, one.eps, [i.code for i in PROBED if one.raised(i)])
    if options.attack:
        grades(honest, options.attack)


def grades(honest: list[Setting], attack: str) -> None:
    """Print the grades of honest classifiers after a full attack."""
    found = []
    for one in (one for one in honest if one.eps == one.subject.eps[one.norm]):
        health = result(one.subject, one.norm, one.eps, attack)["health"]
        found.append(health["grade"])
        if found[-1] != "clean":
            print("not clean:", one.subject.name, one.norm, one.eps, health, flush=True)
    print(f"honest classifiers, `{attack}`: " + ", ".join(f"{found.count(one)} {one}" for one in sorted(set(found))))


def line(one: Indicator, honest: list[Setting], hiding: list[Setting]) -> str:
    """Return an indicator's row."""
    alone = sum(
        setting.raised(one) and not any(setting.raised(other) for other in PROBED if other.decides and other is not one)
        for setting in hiding
    )
    return (
        f"| `{one.code}` | {percent(max(setting.share(one) for setting in honest))} | {percent(one.share)} "
        f"| {rate(setting.raised(one) for setting in honest)} | {rate(setting.raised(one) for setting in hiding)} "
        f"| {alone if one.decides else 'shown only'} |"
    )


def rate(values: Iterator[bool]) -> str:
    """Return "k of n"."""
    seen = list(values)
    return f"{sum(seen)} of {len(seen)}"


def percent(value: float) -> str:
    """Return a share in percent."""
    return f"{100 * value:.3g} %"


def probed(subject: Subject, norm: Norm, eps: float) -> Setting:
    """Probe the samples that `subject` gets right."""
    with torch.no_grad():
        right = margins(subject.classifier.logits(subject.x), subject.y) > 0
    x, y = subject.x[right], subject.y[right]
    stream = Stream.for_samples(0, "probe", right.nonzero()[:, 0].tolist())
    proposal = Probe().perturb(subject.classifier, x, y, Threat(norm, eps, Domain()), stream)
    readings = [dict(one["health"]) for one in proposal.detail or () if one]
    measured = {
        one.code: Measured(one, len(x), sum(map(one.beyond, values)))
        for one in PROBED
        if (values := [r[one.code] for r in readings if one.code in r])
    }
    with torch.no_grad():
        still = (margins(subject.classifier.logits(proposal.points), y) > 0).double().mean()
    return Setting(subject, norm, eps, measured, float(still))


def accuracy(subject: Subject) -> float:
    """Return the clean accuracy."""
    with torch.no_grad():
        return float((margins(subject.classifier.logits(subject.x), subject.y) > 0).double().mean())


def attacked(subject: Subject, norm: Norm, eps: float, attack: str) -> float:
    """Return the share of the samples classified correctly that a full attack leaves."""
    found = result(subject, norm, eps, attack)
    return float(found["empirical_accuracy"] / found["clean_accuracy"])


def result(subject: Subject, norm: Norm, eps: float, attack: str) -> dict[str, Any]:
    """Return the summary of a full attack."""
    with tempfile.TemporaryDirectory() as folder:
        done = robench.evaluate(
            subject.classifier, (subject.x.numpy(), subject.y.numpy()), norm=norm, eps=eps, attacks=[attack],
            certifiers=[], out=folder,
        )  # fmt: skip
    (found,) = done.summary["results"]
    return dict(found)


def honest_subjects(samples: int, cache: Path) -> Iterator[Subject]:
    """Yield the classifiers whose gradients are as they should be."""
    x, y = arrays(Digits().load("test"), samples)
    for bundled in BUNDLED:
        yield Subject(bundled.name, bundled().load(CPU, torch.float32), x, y, EPS)
    for net in (net for nets in LISTS.values() for net in nets if isinstance(net, Net) and net.masked is None):
        if net.data != "mnist" or os.environ.get("ROBENCH_DATA"):
            points, labels = (part[:samples] for part in net.points())
            subject = Subject(net.name, graph(net.module(cache), points), points, labels, net.eps)
            if accuracy(subject) > 0.5:
                yield subject
            else:
                print(f"left out: {net.name} learned nothing, {percent(accuracy(subject))} correct", file=sys.stderr)
    for keep, recipe in FEW_CLASSES:
        yield few_classes(keep, recipe, samples)


FEW_CLASSES: list[tuple[tuple[str, ...], Any]] = [
    (("3", "8"), Standard(width=4)),
    (("3", "8"), PgdAt(arch="mlp", width=8, eps=Epsilon.parse("0.15"))),
    (("1", "7", "9"), PgdAt(width=8, norm="l2", eps=Epsilon.parse("0.5"))),
    (("4", "5", "6"), Ibp(arch="mlp", width=8)),
]


def few_classes(keep: tuple[str, ...], recipe: Any, samples: int) -> Subject:
    """Train on some classes of digits."""
    data = Classes(keep).apply(Digits())
    x, y = arrays(data.load("test"), samples)
    module = recipe.train(data.load("train"), TrainContext(0, CPU)).module
    return Subject(f"{type(recipe).__name__.lower()} on {'+'.join(keep)}", graph(module, x), x, y, EPS)


def masked_subjects(samples: int) -> Iterator[Subject]:
    """Yield the classifiers whose gradients are not."""
    x, y = arrays(Digits().load("test"), samples)
    bases = [
        Subject(bundled.name, bundled().load(CPU, torch.float32), x, y, EPS)
        for bundled in BUNDLED
        if bundled.name in ("digits-pgd-linf", "digits-standard", "digits-aol")
    ]
    bases.append(few_classes(*FEW_CLASSES[1], samples))
    for base in bases:
        for mask in MASKS:
            yield Subject(
                f"{base.name}, {mask.name}", masked(base.classifier, mask), base.x, base.y, base.eps, base, mask
            )
    whole = arrays(Digits().load("train"), 10**6)
    yield Subject("winners take all", winners_take_all(*whole, epochs=10), x, y, EPS)


def graph(module: torch.nn.Module, x: Tensor) -> Classifier:
    """Return a network as its graph."""
    return GraphClassifier(from_torch(module.eval(), tuple(x.shape[1:])), CPU)


def arrays(data: Samples, samples: int) -> tuple[Tensor, Tensor]:
    """Return the first samples and their labels."""
    count = min(samples, len(data))
    return torch.from_numpy(data.batch(0, count).astype(np.float32)), torch.from_numpy(data.y[:count].copy())


if __name__ == "__main__":
    main()
