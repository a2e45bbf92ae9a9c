"""Synthetic bounds for tests: ceilings in memory, beside the runs of `oracles.evidence`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from oracles.evidence import START, sha
from robench.bounds import BoundManifest, BoundRow, BoundRun
from robench.runs import Component, DatasetInfo, samples_hash
from robench.threat import Epsilon, Norm


def fake_bound(
    values: Mapping[str, float],
    *,
    n: int = 4,
    norm: Norm = "linf",
    dataset: str = "toy",
    dataset_hash: str | None = None,
    bound: str = "transport",
    number: int = 0,
) -> BoundRun:
    """A ceiling on samples 0 … n − 1 at each ε of `values`, which ascend."""
    samples = samples_hash(range(n))
    manifest = BoundManifest(
        run=f"{START + timedelta(minutes=number):%Y%m%dT%H%M%SZ}-{number:06x}",
        bound=Component(canonical=bound, full=bound),
        dataset=DatasetInfo(
            canonical=dataset, hash=dataset_hash or sha(dataset), split="test", n=n, samples_hash=samples
        ),
        norm=norm,
        eps=tuple(values),
        started=START,
        finished=START,
        sha256=sha("rows"),
    )
    rows = tuple(
        BoundRow(norm, Epsilon.parse(text), value, "ceiling", "samples", samples, "none", "Bhagoji et al. 2021")
        for text, value in values.items()
    )
    return BoundRun(manifest, rows, "nowhere")
