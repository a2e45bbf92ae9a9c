"""The chunks of a run, and a guard against undeclared randomness."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import cast

import numpy as np
import torch

from robench.classifier import Classifier, RandomizedClassifier, is_random
from robench.errors import InputError
from robench.graph import full_precision
from robench.runner._chunk import Chunk, ChunkResult
from robench.runner._draws import RandomChunk
from robench.runner._plan import Plan
from robench.samples import Samples
from robench.streams import Stream

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


def evaluate_chunk(plan: Plan, start: int, stop: int, limit: int, warn: Callable[[str], None]) -> ChunkResult:
    """Evaluate samples start … stop − 1 in batches of at most `limit`."""
    classifier = plan.classifier
    x = torch.from_numpy(np.ascontiguousarray(plan.samples.batch(start, stop)))
    x = x.to(device=classifier.device, dtype=classifier.dtype)
    y = torch.from_numpy(plan.samples.y[start:stop]).to(classifier.device)
    kind = RandomChunk if is_random(classifier) else Chunk
    with full_precision():
        return kind(plan, x, y, plan.samples.index[start:stop].tolist(), limit, warn).run()


def refuse_undeclared_randomness(classifier: Classifier | RandomizedClassifier, samples: Samples) -> None:
    """Ask twice about the first samples; raises InputError when the answers differ by more than rounding.

    Of a classifier that draws: when equal streams do not give equal draws. Of any other: also when the answer about a
    sample alone is another than in the batch.
    """
    x = torch.from_numpy(np.ascontiguousarray(samples.batch(0, min(len(samples), 16))))
    x = x.to(device=classifier.device, dtype=classifier.dtype)
    random = is_random(classifier)
    with torch.no_grad(), full_precision():
        if random:
            indices = samples.index[: len(x)].tolist()
            first, second = (
                cast(RandomizedClassifier, classifier).sample(x, Stream.for_samples(0, "twice", indices, x.device))
                for _ in range(2)
            )
        else:
            first, second, alone = (cast(Classifier, classifier).logits(rows) for rows in (x, x, x[:1]))
    if tuple(first.shape) != (len(x), classifier.classes):
        raise InputError(f"the model gives logits {list(first.shape)}, expected {[len(x), classifier.classes]}")
    scale = first.abs().nan_to_num(0, 0, 0).max().clamp_min(1)
    apart = (first - second).abs().nan_to_num(0, 0, 0).max()
    if apart > 1e-4 * scale and random:
        raise InputError(
            f"the model's draws differ for equal streams (by {float(apart):.3g}): draw from the stream that `sample` "
            "is given"
        )
    if apart > 1e-4 * scale:
        raise InputError(
            f"the model gives different logits for the same input (by {float(apart):.3g}): put it into evaluation "
            "mode, or, if it is meant to draw, give it `sample(x, stream)` instead of `logits`"
        )
    if not random and (first[:1] - alone).abs().nan_to_num(0, 0, 0).max() > 1e-3 * scale:
        raise InputError(
            "the model's logits of a sample depend on the others in its batch: put it into evaluation mode"
        )
