"""The chunks of a run, and a guard against undeclared randomness."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import numpy as np
import torch
from torch import Tensor

from robench.classifier import Classifier, Counted, RandomizedClassifier, is_random, is_smoothed
from robench.errors import InputError, RobenchError
from robench.graph import full_precision
from robench.runner._chunk import Chunk, ChunkResult
from robench.runner._draws import RandomChunk
from robench.runner._plan import Plan
from robench.runner._regional import RegionChunk
from robench.runner._votes import SmoothedChunk
from robench.samples import Samples
from robench.streams import Stream
from robench.text import one_line

__all__ = ["chunks", "evaluate_chunk", "refuse_undeclared_randomness"]


def chunks(plan: Plan, done: Collection[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) positions of at most `size` neighbouring samples that are not `done` (original indices)."""
    left = np.flatnonzero(~np.isin(plan.samples.index, np.fromiter(done, np.int64, len(done))))
    start = 0
    while start < len(left):
        stop = start
        while stop < len(left) and stop - start < size and left[stop] - left[start] == stop - start:
            stop += 1
        yield int(left[start]), int(left[stop - 1]) + 1
        start = stop


def evaluate_chunk(
    plan: Plan, start: int, stop: int, limit: int, warn: Callable[[str], None], certified_before: bool = False
) -> ChunkResult:
    """Evaluate samples start … stop − 1 in batches of at most `limit`.

    `certified_before` says whether a sample before `start` was certified deterministically within the smallest ε; it
    counts where attacks trust certificates (`Plan.audit`).
    """
    classifier = plan.classifier
    x = _inputs(classifier, plan.samples, start, stop)
    y = torch.from_numpy(plan.samples.y[start:stop].copy()).to(classifier.device)
    indices = plan.samples.index[start:stop].tolist()
    if (regions := plan.samples.regions) is not None:
        region = regions.batch(slice(start, stop), classifier.device)
        with full_precision():
            return RegionChunk(plan, x, y, indices, limit, warn, region).run(certified_before)
    kind = SmoothedChunk if is_smoothed(classifier) else RandomChunk if is_random(classifier) else Chunk
    with full_precision():
        return kind(plan, x, y, indices, limit, warn).run(certified_before)


def refuse_undeclared_randomness(classifier: Classifier | RandomizedClassifier, samples: Samples) -> None:
    """Ask twice about the first samples; raises InputError when the answers differ by more than rounding.

    Of a classifier that draws: when equal streams do not give equal draws. Of any other: also when the answers about
    fewer samples, one and some, are others than in the batch. What it raises, or gives instead of logits, is told too.
    """
    x = _inputs(classifier, samples, 0, min(len(samples), 16))
    whole, indices = torch.arange(len(x)), samples.index[: len(x)].tolist()
    asked, random = Counted(classifier), is_random(classifier)

    def logits(rows: Tensor) -> Tensor:
        # Copies both ways: an answer may be a buffer that the next one is written into.
        if not random:
            return asked.logits(x[rows]).clone()
        stream = Stream.for_samples(0, "twice", [indices[row] for row in rows.tolist()], x.device)
        return asked.sample(x[rows], stream).clone()

    def ballots() -> Tensor:
        stream = Stream.for_samples(0, "twice", indices, x.device)
        return asked.draws(x, stream).count(range(len(x)), [32] * len(x))

    parts = [rows for rows in (whole[:1], whole[-3:], whole[:7]) if len(rows) < len(x)]
    try:
        with torch.no_grad(), full_precision():
            first, second = logits(whole), logits(whole)
            fewer = [(first[rows], logits(rows)) for rows in parts]
            steady = not asked.smoothed or bool((ballots() == ballots()).all())
    except RobenchError:
        raise
    except Exception as error:
        raise InputError(f"the model fails on clean samples: {one_line(error)}") from error
    scale = float(first.abs().nan_to_num(0, 0, 0).max().clamp_min(1))
    apart = _apart(first, second)
    if not steady:
        raise InputError("the model's votes differ for equal streams: seed its draws from the stream that it is given")
    if apart > 1e-4 * scale and random:
        raise InputError(
            f"the model's draws differ for equal streams (by {apart:.3g}): draw from the stream that `sample` is given"
        )
    if apart > 1e-4 * scale:
        raise InputError(
            f"the model gives different logits for the same input (by {apart:.3g}): put it into evaluation "
            "mode, or, if it is meant to draw, give it `sample(x, stream)` instead of `logits`"
        )
    if not random and any(_apart(*pair) > 1e-3 * scale for pair in fewer):
        raise InputError(
            "the model's logits of a sample depend on the others in its batch: put it into evaluation mode"
        )


def _apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference; infinite where one side alone is not a number, or infinite."""
    same = (one == other) | (one.isnan() & other.isnan())
    return float((one - other).abs().masked_fill(same, 0).nan_to_num(torch.inf).max())


def _inputs(classifier: Classifier | RandomizedClassifier, samples: Samples, start: int, stop: int) -> Tensor:
    """Return samples start … stop − 1 as the classifier takes them: a copy, never the user's own array."""
    x = torch.from_numpy(np.array(samples.batch(start, stop), order="C"))
    return x.to(device=classifier.device, dtype=classifier.dtype)
