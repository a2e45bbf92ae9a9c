"""Sets that come with the data: what may be asked together with them, and whether they fit the classifier."""

from __future__ import annotations

import numpy as np
import torch

from robench.errors import InputError
from robench.evaluation._settings import Settings
from robench.loading import Data, Subject
from robench.regions import RegionKind
from robench.threat import Norm

__all__ = ["check_regions", "regions_of"]


def regions_of(data: Data, settings: Settings, norm: Norm) -> RegionKind | None:
    """Return what the sets that come with the data are about, None without any.

    Raises InputError beside a budget or another norm.
    """
    if data.samples.regions is None:
        return None
    if settings.eps:
        raise InputError(f"{data.canonical} brings a set for each sample: leave out --eps")
    if norm != "linf":
        raise InputError(f"{data.canonical} brings a box for each sample: leave out --norm {norm}")
    return data.whole.regions.kind(data.whole.y) if data.whole.regions else data.samples.regions.kind(data.samples.y)


def check_regions(subject: Subject, data: Data) -> None:
    """Raise InputError where a box leaves the domain, a sample its box, or a condition is about other outputs."""
    regions, samples, dtype = data.samples.regions, data.samples, subject.classifier.dtype
    if regions is None:
        return
    if len(regions) and not (
        regions.lower.min() >= samples.domain.lower and regions.upper.max() <= samples.domain.upper
    ):
        box = f"[{samples.domain.lower:g}, {samples.domain.upper:g}]"
        raise InputError(f"{data.canonical}: a box reaches beyond the domain {box}, which proofs are about: widen it")
    for i, condition in enumerate(regions.conditions):
        if condition.outputs != subject.classifier.classes:
            raise InputError(
                f"{regions.names[i]} is about {condition.outputs} outputs, {subject.canonical} has "
                f"{subject.classifier.classes}: evaluate the net that the property is about"
            )
        x = torch.from_numpy(np.array(samples.batch(i, i + 1), order="C")).to(dtype)
        lower, upper = regions.batch(slice(i, i + 1)).inside(x)
        empty = (lower > upper).flatten()
        if empty.any():
            place, name = int(empty.nonzero()[0, 0]), str(dtype).removeprefix("torch.")
            more = "take --precision fp64" if dtype == torch.float32 else "no net computes there"
            raise InputError(f"{regions.names[i]}: no {name} number lies in the box of X_{place}: {more}")
        if not ((x >= lower) & (x <= upper)).all():
            raise InputError(f"{regions.names[i]}: sample {int(samples.index[i])} lies outside its own box")
