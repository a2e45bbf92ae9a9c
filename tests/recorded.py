"""Small runs with known rows, for tests that need results on disk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from robench.evidence import EvidenceBuilder, WitnessBuilder
from robench.runs import ClassifierInfo, DatasetInfo, Manifest, Request, Run, samples_hash

NET, DATA = "a" * 64, "b" * 64
EPSILONS = (0.1, 0.2)
SHAPE = (1, 2, 3)


def manifest(n: int = 8, request: dict[str, Any] | None = None, **changes: Any) -> Manifest:
    """A manifest of a run over samples 0 … n − 1 with two evaluators."""
    asked: dict[str, Any] = {
        "fingerprint": NET,
        "dataset_hash": DATA,
        "split": "test",
        "samples": f"0:{n}",
        "samples_hash": samples_hash(np.arange(n)),
        "norm": "linf",
        "eps": ("0.1", "1/5"),
        "evaluators": ("pgd", "ibp"),
        "seed": 0,
        "precision": "fp32",
        "versions": {"robench": "0"},
    }
    asked.update(request or {})
    fields = {
        "request": Request(**asked),
        "classifier": ClassifierInfo(canonical="checkpoint:cnn", fingerprint=asked["fingerprint"], classes=10),
        "dataset": DatasetInfo(canonical="digits", hash=asked["dataset_hash"], split=asked["split"], n=n),
    }
    return Manifest(**{**fields, **changes})


def part(run: str, samples: Any) -> tuple[pa.Table, pa.Table | None]:
    """Evidence and witnesses of some samples; every number follows from the sample's index alone."""
    samples = np.asarray(samples, np.int64)
    n = len(samples)
    radius = (samples % 7 + 1) / 20  # 0.05 … 0.35
    evidence = EvidenceBuilder(
        run=run, classifier="checkpoint:cnn", fingerprint=NET, dataset="digits", dataset_hash=DATA, split="test"
    )
    shared = {"sample": samples, "label": samples % 10, "prediction": samples % 10}
    evidence.add_rows(
        **shared, evaluator="clean", kind="clean", norm=None, eps=None, lower=0.0, upper=np.inf,
        status=["correct"] * n, forwards=1,
    )  # fmt: skip
    witnesses = WitnessBuilder(run=run)
    for eps in EPSILONS:
        broken = radius <= eps
        evidence.add_rows(
            **shared, evaluator="pgd", kind="attack", norm="linf", eps=eps, lower=0.0,
            upper=np.where(broken, radius, np.inf), status=np.where(broken, "falsified", "open"),
            forwards=samples + 10, backwards=10,
            detail=[{"restart": int(one)} if one % 2 else None for one in samples],
        )  # fmt: skip
        evidence.add_rows(
            **shared, evaluator="ibp", kind="certificate", norm="linf", eps=eps,
            lower=np.where(broken, 0.0, eps), upper=np.inf, status=np.where(broken, "open", "certified"), forwards=2,
        )  # fmt: skip
        points = np.stack([point(one, eps) for one in samples[broken]]) if broken.any() else None
        if points is not None:
            witnesses.add_rows(
                evaluator="pgd", norm="linf", eps=eps, sample=samples[broken], points=points, linf=radius[broken],
                l2=2 * radius[broken], l1=6 * radius[broken], prediction=(samples[broken] + 1) % 10, margin=-0.5,
            )  # fmt: skip
    return evidence.table(), witnesses.table()


def point(sample: int, eps: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The witness of a sample at ε."""
    return (np.arange(6, dtype=np.float32).reshape(SHAPE) + np.float32(sample)) * np.float32(eps)


def record(results: Any, n: int = 8, batch: int = 3, **changes: Any) -> Run:
    """A complete run in a results folder."""
    with Run.create(results, manifest(n, **changes)) as run:
        go_on(run, n, batch)
    return run


def go_on(run: Run, n: int, batch: int) -> None:
    """Put the parts that miss and finish, as the runner does."""
    rest = [sample for sample in range(n) if sample not in run.done()]
    for start in range(0, len(rest), batch):
        run.put_part(rest[start], *part(run.manifest.run, rest[start : start + batch]))
    run.finish()


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """A table's rows without the run's id, in an order that does not depend on the parts."""
    plain = table.drop_columns("run").to_pylist()
    return sorted(plain, key=lambda row: (row["sample"], row["evaluator"], row["norm"] or "", row["eps"] or 0.0))
