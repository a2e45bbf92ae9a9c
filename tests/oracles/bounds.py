"""Bounds for tests: in memory or on disk, and the exact one by enumeration."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from oracles.evidence import START, sha
from robench import Bound, BoundCurve, Norm, Samples
from robench.bounds import BoundManifest, BoundRow, BoundRun
from robench.bounds._table import to_parquet
from robench.runs import Component, DatasetInfo, open_results, samples_hash
from robench.testing._separated import Separated
from robench.threat import Epsilon

__all__ = ["Exact", "fake_bound", "save"]


def fake_bound(
    values: Mapping[str, float],
    *,
    number: int = 0,
    name: str = "oracle",
    dataset: str = "toy",
    split: str = "test",
    samples: Iterable[int] = range(4),
    norm: Norm = "linf",
    direction: Any = "ceiling",
    scope: Any = "samples",
    details: Sequence[Mapping[str, Any] | None] | None = None,
    **changes: Any,
) -> BoundRun:
    """A bound with these values by ε (ascending), about the samples of `fake_run(dataset=…, n=4)`; never on disk."""
    indices = np.array(sorted(samples))
    hashed = samples_hash(indices)
    rows = tuple(
        BoundRow(
            norm=norm,
            eps=Epsilon.parse(text),
            value=value,
            direction=direction,
            scope=scope,
            samples_hash=hashed,
            assumptions="none",
            source="enumeration",
            detail=detail,
        )
        for (text, value), detail in zip(values.items(), details or [None] * len(values), strict=True)
    )
    when = START + timedelta(minutes=number)
    fields: dict[str, Any] = {
        "run": f"{when:%Y%m%dT%H%M%SZ}-b{number:05x}",
        "bound": Component(canonical=name, full=name),
        "dataset": DatasetInfo(
            canonical=dataset, hash=sha(dataset), split=split, n=len(indices), samples_hash=hashed, classes=("a", "b")
        ),
        "norm": norm,
        "eps": tuple(values),
        "started": when,
        "finished": when,
        "command": f"robench bound {name} -d {dataset} --norm {norm}",
        "sha256": hashlib.sha256(to_parquet(rows)).hexdigest(),
    }
    return BoundRun(BoundManifest(**{**fields, **changes}), rows, "memory")


def save(results: Path, bound: BoundRun) -> Path:
    """Write a bound where `robench bound` would, whatever it says; returns its folder."""
    manifest = bound.manifest
    key = f"{manifest.dataset.canonical}-{manifest.dataset.hash[:8]}/_bounds/{manifest.bound.canonical}/{manifest.run}"
    storage = open_results(results).at(key)
    storage.put("bound.parquet", to_parquet(bound.rows))
    storage.put("manifest.json", manifest.to_json())
    return Path(storage.locate())


_KNOWN: dict[tuple[Any, ...], Separated] = {}  # enumeration is slow


@dataclass(frozen=True)
class Exact(Bound):
    """What the best classifier reaches on at most 14 samples, by enumeration, with one thing done to the values."""

    direction: Any = "ceiling"
    lie: Callable[..., Any] = lambda values, **_: values

    def evaluate(
        self, samples: Samples, norm: Norm, epsilons: Sequence[float], progress: Callable[[int, int], None]
    ) -> BoundCurve:
        """Return the exact values, or what `lie` makes of them."""
        x = np.array(samples.x[0 : len(samples)])
        fresh = Separated("given", x, samples.y.copy(), samples.domain)
        known = _KNOWN.setdefault((x.tobytes(), str(x.dtype), x.shape, samples.y.tobytes()), fresh)
        values = []
        for done, eps in enumerate(epsilons, 1):
            values.append(known.best(norm, eps) / len(samples))
            progress(done, len(epsilons))
        made = self.lie(values=values, known=known, samples=samples, norm=norm, epsilons=epsilons)
        if isinstance(made, BoundCurve):
            return made
        return BoundCurve(made, self.direction, "samples", assumptions="none", source="enumeration")
