"""From a recipe and a dataset to a checkpoint folder, with everything that it takes to make it again."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

import robench
from robench._train_history import co_epoch, parquet, stopped
from robench._train_state import Epochs, OtherTraining, StateFolder, differences
from robench.classifier import Classifier, margins
from robench.contracts import HeldOut, Recipe, TrainContext, Trained
from robench.errors import DataError, InputError, PluginError, RobenchError
from robench.graph import GraphClassifier, check_folder, from_torch, load, save
from robench.loading import Data, load_data, parse_device
from robench.registry import Part, Resolved, load_plugins
from robench.samples import Samples
from robench.text import one_line
from robench.threat import Epsilon, Norm

__all__ = ["OtherTraining", "Training", "accuracy", "is_trained", "train"]

Report = Callable[[int, int, Mapping[str, float]], None]

_BATCH = 256
_WATCHED = 1000  # samples held out at most


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
    recipe: str,
    dataset: str,
    out: Path,
    *,
    seed: int = 0,
    device: str = "auto",
    report: Report | None = None,
    resume: bool = False,
    monitor: str | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> Training:
    """Train `recipe` on the split `train` of `dataset` (specs) and write a checkpoint to `out`.

    `report` is called after each epoch with (epoch, epochs, figures); `warn`, before the first, with a line about what
    looks like a mistake. Accuracies are measured on the network graph
    that is saved. With `monitor`, an ε in linf, a tenth of the samples (at most 1,000) is not trained on but attacked
    after each epoch. The state after an epoch (every one, but at most each two seconds) is kept in the folder
    OUT.training until the checkpoint is written; with `resume` an unfinished training goes on from there, and a
    finished one is returned as it is.

    Raises RobenchError where anything is wrong; `out` must be absent, empty or a checkpoint, which is replaced in the
    end.
    """
    plugins = load_plugins()
    chosen, source = plugins.resolve("recipes", recipe), plugins.resolve("datasets", dataset)
    where = parse_device(device)
    _refuse_unwritable(check_folder(out))
    data = load_data(source, "train")
    eps = None if monitor is None else Epsilon.parse(monitor)
    samples, held_out = _held_out(data.samples, eps)
    evaluate = tuple(getattr(chosen.parts[0].value, "evaluate", ()))
    thresholds = data.samples.thresholds or {}
    watched = None if held_out is None else {"eps": str(eps), "samples": len(held_out.samples)}
    request = _request(chosen, source, data, seed, where, watched)
    threads = torch.get_num_threads()  # sums on a CPU depend on it: the rest would have other bits
    states = StateFolder(out, {**request, "threads": threads} if where.type == "cpu" else request)
    if resume and (finished := _finished(out, states, request)) is not None:
        metadata, fingerprint = finished
        note = f"{out} is finished already: nothing was trained"
        return Training(out, metadata, fingerprint, 0.0, thresholds, (note,), evaluate)
    if too_large := _too_large(chosen.parts[0].value, evaluate, samples):
        warn(too_large)
    test, notes = _test_split(source)
    start = time.monotonic()
    with states.held():
        epochs = Epochs(states, states.read() if resume else None, report)
        context = TrainContext(seed, where, epochs.report, held_out, epochs.resume, epochs.keep)
        trained = _trained(chosen.parts[0], samples, context)
        seconds = time.monotonic() - start
        graph = from_torch(trained.module.cpu(), samples.shape)
        classifier = GraphClassifier(graph, where)
        if classifier.classes != len(samples.classes):
            raise PluginError(
                chosen.parts[0].name, f"made a net with {classifier.classes} logits for {len(samples.classes)} classes"
            )
        overfitted, ended = co_epoch(trained.history), stopped(trained.history)
        metadata = {
            "recipe": chosen.canonical,
            "dataset": data.canonical,
            "dataset_full": data.full,
            **request,
            "samples": len(samples),
            "classes": list(samples.classes),
            "facts": data.samples.facts or {},
            "threads": threads,
            "train_accuracy": accuracy(classifier, samples),
            "test_accuracy": None if test is None else accuracy(classifier, test),
            "co_epoch": overfitted,
            "stopped": ended,
            "history": [{name: _json(value) for name, value in figures.items()} for figures in trained.history],
        }
        save(graph, out.absolute(), metadata, parquet(trained.history, epochs.of(len(trained.history))))
        states.drop()
    notes = (*notes, *_warnings(overfitted, ended, held_out, trained))
    return Training(out, metadata, classifier.fingerprint, seconds, thresholds, notes, evaluate)


def is_trained(recipe: str, dataset: str, out: Path, *, seed: int = 0, device: str = "auto") -> bool:
    """Return whether `train` with these arguments, and `resume`, would find its finished checkpoint in `out`.

    Raises OtherTraining where what lies there was asked for otherwise.
    """
    plugins = load_plugins()
    chosen, source = plugins.resolve("recipes", recipe), plugins.resolve("datasets", dataset)
    request = _request(chosen, source, load_data(source, "train"), seed, parse_device(device), None)
    return _finished(out, StateFolder(out, request), request) is not None


def accuracy(classifier: Classifier, samples: Samples) -> float:
    """Return the fraction of `samples` whose label's logit is strictly above every other."""
    correct = 0
    with torch.no_grad():
        for start in range(0, len(samples), _BATCH):
            x = torch.tensor(samples.batch(start, start + _BATCH), dtype=classifier.dtype, device=classifier.device)
            y = torch.tensor(samples.y[start : start + _BATCH], device=classifier.device)
            correct += int((margins(classifier.logits(x), y) > 0).sum())
    return correct / max(1, len(samples))


def _held_out(samples: Samples, eps: Epsilon | None) -> tuple[Samples, HeldOut | None]:
    """Return what is trained on, and what is watched instead: the same samples whatever recipe and seed."""
    if eps is None:
        return samples, None
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0)).numpy()
    count = min(_WATCHED, len(samples) // 10)
    if not count:
        raise InputError(f"--monitor holds out a tenth of the samples, and there are {len(samples)}: leave it out")
    watched, rest = np.sort(order[:count]), np.sort(order[count:])
    return samples.select(rest), HeldOut(samples.select(watched), eps.value)


def _request(
    chosen: Resolved, source: Resolved, data: Data, seed: int, device: torch.device, monitor: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what a checkpoint is compared by."""
    return {
        "recipe_full": chosen.full,
        "dataset_hash": data.hash,
        "split": data.split,
        "selection": data.selection,
        "samples_hash": data.samples_hash,
        "seed": seed,
        "device": device.type,
        "monitor": monitor,
        "versions": _versions((*chosen.parts, *source.parts)),
    }


def _too_large(recipe: Any, evaluate: tuple[str, ...], samples: Samples) -> str:
    """Say where a recipe trains against an ε in linf at which every point of the domain can become its middle."""
    eps, width = getattr(recipe, "eps", None), samples.domain.upper - samples.domain.lower
    asked = dict(zip(evaluate[::2], evaluate[1::2], strict=False))
    norm = getattr(recipe, "norm", asked.get("--norm", "linf"))
    if not isinstance(eps, Epsilon) or norm != "linf" or not eps.value > width / 2:
        return ""
    meant = f"; did you mean eps={eps}/255?" if eps.value >= 1 and width == 1 and "/" not in str(eps) else ""
    return (
        f"eps={eps} in linf is more than half the width of the domain [{samples.domain.lower:g}, "
        f"{samples.domain.upper:g}], where no classifier is robust{meant}"
    )


def _finished(out: Path, states: StateFolder, request: Mapping[str, Any]) -> tuple[dict[str, Any], str] | None:
    """Return metadata and fingerprint of a checkpoint in `out` that `request` made; None where none is there.

    Raises OtherTraining where it is another one's, and nothing unfinished lies beside it.
    """
    if states.read() is not None or not (out / "checkpoint.json").exists():
        return None
    graph, metadata = load(out)
    if other := differences(metadata, request):
        raise OtherTraining(
            f"{out} is a checkpoint that differs in {other}", "train without --resume, or choose another --out"
        )
    return metadata, GraphClassifier(graph).fingerprint


def _warnings(overfitted: int | None, ended: str | None, held_out: HeldOut | None, trained: Trained) -> Iterator[str]:
    """Say what a user must know about the result."""
    if ended is not None:
        yield ended
    if overfitted is not None:
        yield (
            f"catastrophic overfitting in epoch {overfitted}: accuracy under PGD collapses, under FGSM it stays; "
            "do not use this network, train with gradalign or pgd-at"
        )
    if held_out is not None and not any("pgd" in figures for figures in trained.history):
        yield "this recipe measures nothing on the samples that --monitor holds out"


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
        **{name: version for part in parts for name, version in getattr(part.value, "versions", {}).items()},
    }


def _json(value: float) -> float | None:
    """JSON knows no NaN and no infinity."""
    number = float(value)
    return number if math.isfinite(number) else None
