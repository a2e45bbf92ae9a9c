"""What every recipe must do: `check_recipe`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from robench.contracts import Recipe, TrainContext, Trained
from robench.samples import Samples
from robench.testing._data import Blobs
from robench.testing._findings import ALL, Check, Choice, Finding, Violation, run_checks
from robench.testing._guard import Traces, watch

__all__ = ["recipe_findings"]


@dataclass
class RecipeCase:
    """A recipe, trained on separable pictures; each seed is trained at most twice."""

    recipe: Any
    traces: Traces = field(default_factory=Traces)
    reports: list[tuple[int, int, Mapping[str, float]]] = field(default_factory=list)
    _made: dict[tuple[int, int], Trained] = field(default_factory=dict)

    @property
    def data(self) -> Samples:
        """The training data."""
        return Blobs().load("train")

    def train(self, seed: int = 0, time: int = 0) -> Trained:
        """Return what the recipe makes under `seed` at the first or second time."""
        if (seed, time) not in self._made:
            self.reports.clear()
            context = TrainContext(seed, torch.device("cpu"), lambda *report: self.reports.append(report))
            with watch(self.traces):
                made = self.recipe.train(self.data, context)
            if not isinstance(made, Trained):
                raise Violation(f"train returned {type(made).__name__}, not Trained")
            self._made[seed, time] = made
        return self._made[seed, time]


def _logits(trained: Trained, samples: Samples) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = trained.module(torch.from_numpy(np.asarray(samples.x[0 : len(samples)])))
    return out


def _learns(case: RecipeCase) -> str:
    trained, samples = case.train(), case.data
    logits = _logits(trained, samples)
    if tuple(logits.shape) != (len(samples), len(samples.classes)):
        raise Violation(f"logits are {list(logits.shape)} for {len(samples)} samples, {len(samples.classes)} classes")
    accuracy = float((logits.argmax(1) == torch.from_numpy(samples.y)).double().mean())
    if not (torch.isfinite(logits).all() and accuracy >= 0.5):
        raise Violation(f"accuracy {accuracy:.3f} on its own training data: four separable classes")
    return f"accuracy {accuracy:.3f} on four separable classes"


def _mode(case: RecipeCase) -> str:
    if training := [name or "the module" for name, part in case.train().module.named_modules() if part.training]:
        raise Violation(f"in training mode: {', '.join(training[:4])}")
    return "in evaluation mode"


def _repeats(case: RecipeCase) -> str:
    first, second = case.train().module.state_dict(), case.train(0, 1).module.state_dict()
    different = [name for name in first if name not in second or not torch.equal(first[name], second[name])]
    if different or len(first) != len(second):
        raise Violation(f"trained twice, different weights: {', '.join(different[:4])}")
    return f"{len(first)} tensors equal to the bit"


def _seeds(case: RecipeCase) -> str:
    first, other = case.train().module.state_dict(), case.train(1).module.state_dict()
    if all(torch.equal(first[name], other[name]) for name in first):
        raise Violation("seeds 0 and 1 gave the same weights")
    return "other weights"


def _history(case: RecipeCase) -> str:
    case._made.pop((0, 0), None)
    trained = case.train()
    epochs = [epoch for epoch, _, _ in case.reports]
    if len(trained.history) != len(epochs) or epochs != sorted(epochs):
        raise Violation(f"{len(trained.history)} entries of history, epochs reported: {epochs[:10]}")
    if bad := [row for row in trained.history if not all(isinstance(value, int | float) for value in row.values())]:
        raise Violation(f"figures that are not numbers: {dict(bad[0])}")
    return f"{len(epochs)} epochs"


def _quiet(case: RecipeCase) -> str:
    case.train()
    case.train(0, 1)
    case.traces.refuse("random", "train")
    case.traces.refuse("gradients", "train")
    return "as it was"


CHECKS: list[Check[RecipeCase]] = [
    Check("learns", "logits for every class, right on separable training data", "it is what training is for", _learns),
    Check("mode", "every module is in evaluation mode", "a checkpoint is one function of one sample", _mode),
    Check("repeats", "equal seeds give equal weights on the CPU", "a checkpoint must be repeatable", _repeats),
    Check("seeds", "another seed gives other weights", "seeds are how its chance is measured", _seeds),
    Check("history", "each epoch is reported once, in order, in numbers", "progress and records show it", _history),
    Check(
        "quiet",
        "the global random state and torch's settings stay as they were",
        "other code in the process must see what it would have seen",
        _quiet,
    ),
]


def recipe_findings(recipe: Recipe, choice: Choice = ALL) -> list[Finding]:
    """Run every check of recipes, on 64 pictures of 8 × 8 pixels."""
    return run_checks(CHECKS, RecipeCase(recipe), choice)
