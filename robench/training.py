"""From a recipe and a dataset to a checkpoint folder, with everything that it takes to make it again."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

import robench
from robench.classifier import Classifier, margins
from robench.contracts import Recipe, TrainContext, Trained
from robench.errors import DataError, InputError, PluginError, RobenchError
from robench.graph import GraphClassifier, check_folder, from_torch, save
from robench.loading import load_data, parse_device
from robench.registry import Part, Resolved, load_plugins
from robench.samples import Samples
from robench.text import one_line
from robench.threat import Norm

__all__ = ["Training", "accuracy", "train"]

Report = Callable[[int, int, Mapping[str, float]], None]

_BATCH = 256


@dataclass(frozen=True)
class Training:
    """What `train` did; `metadata` is what it wrote into the checkpoint, `evaluate` options that fit the recipe."""

    folder: Path
    metadata: Mapping[str, Any]
    fingerprint: str
    seconds: float
    thresholds: Mapping[Norm, tuple[str, ...]]
    notes: tuple[str, ...]
    evaluate: tuple[str, ...] = ()


def train(
    recipe: str, dataset: str, out: Path, *, seed: int = 0, device: str = "auto", report: Report | None = None
) -> Training:
    """Train `recipe` on the split `train` of `dataset` (specs) and write a checkpoint to `out`.

    `report` is called after each epoch with (epoch, epochs, figures). Accuracies are measured on the network graph
    that is saved. Raises RobenchError, and nothing is written, where anything is wrong; `out` must be absent, empty or
    a checkpoint, which is then replaced.
    """
    plugins = load_plugins()
    chosen, source = plugins.resolve("recipes", recipe), plugins.resolve("datasets", dataset)
    where = parse_device(device)
    _refuse_unwritable(check_folder(out))
    data = load_data(source, "train")
    test, notes = _test_split(source)
    context = TrainContext(seed, where) if report is None else TrainContext(seed, where, report)
    start = time.monotonic()
    trained = _trained(chosen.parts[0], data.samples, context)
    seconds = time.monotonic() - start
    graph = from_torch(trained.module.cpu(), data.samples.shape)
    classifier = GraphClassifier(graph, where)
    if classifier.classes != len(data.samples.classes):
        raise PluginError(
            chosen.parts[0].name, f"made a net with {classifier.classes} logits for {len(data.samples.classes)} classes"
        )
    metadata = {
        "recipe": chosen.canonical,
        "recipe_full": chosen.full,
        "dataset": data.canonical,
        "dataset_full": data.full,
        "dataset_hash": data.hash,
        "split": data.split,
        "selection": data.selection,
        "samples": len(data.samples),
        "classes": list(data.samples.classes),
        "seed": seed,
        "device": where.type,
        "threads": torch.get_num_threads(),
        "versions": _versions((*chosen.parts, *source.parts)),
        "train_accuracy": accuracy(classifier, data.samples),
        "test_accuracy": None if test is None else accuracy(classifier, test),
        "history": [{name: _json(value) for name, value in figures.items()} for figures in trained.history],
    }
    save(graph, out.absolute(), metadata)
    evaluate = tuple(getattr(chosen.parts[0].value, "evaluate", ()))
    return Training(out, metadata, classifier.fingerprint, seconds, data.samples.thresholds or {}, notes, evaluate)


def accuracy(classifier: Classifier, samples: Samples) -> float:
    """Return the fraction of `samples` whose label's logit is strictly above every other."""
    correct = 0
    with torch.no_grad():
        for start in range(0, len(samples), _BATCH):
            x = torch.tensor(samples.batch(start, start + _BATCH), dtype=classifier.dtype, device=classifier.device)
            y = torch.tensor(samples.y[start : start + _BATCH], device=classifier.device)
            correct += int((margins(classifier.logits(x), y) > 0).sum())
    return correct / max(1, len(samples))


def _refuse_unwritable(folder: Path) -> None:
    """Better before the training than after it."""
    above = next(path for path in folder.absolute().parents if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"{folder} cannot be written: {above} is no folder that you may write to")


def _test_split(source: Resolved) -> tuple[Samples | None, tuple[str, ...]]:
    """Return the samples of `test`, or None and why: training needs none."""
    try:
        return load_data(source, "test").samples, ()
    except DataError as error:
        return None, (f"no test accuracy: {error}",)


def _trained(part: Part, samples: Samples, context: TrainContext) -> Trained:
    """Run the recipe; what it raises names the plugin."""
    try:
        trained: object = cast(Recipe, part.value).train(samples, context)
    except (RobenchError, OSError):
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise InputError(f"{part.name} ran out of memory: train with a smaller batch or network") from None
    except Exception as error:
        raise PluginError(part.name, f"failed while training: {one_line(error)}") from error
    if not (isinstance(trained, Trained) and isinstance(trained.module, torch.nn.Module)):
        raise PluginError(part.name, f"train returned {type(trained).__name__}, not robench.Trained with a module")
    return trained


def _versions(parts: tuple[Part, ...]) -> dict[str, str]:
    return {
        "robench": robench.__version__,
        "torch": torch.__version__,
        **{part.distribution: part.version for part in parts},
    }


def _json(value: float) -> float | None:
    """JSON knows no NaN and no infinity."""
    number = float(value)
    return number if math.isfinite(number) else None
