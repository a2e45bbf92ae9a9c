"""A chunk's rows as tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from robench.evidence import EvidenceBuilder, WitnessBuilder
from robench.runner import ChunkResult, Plan, WitnessBlock
from robench.runs import Manifest

__all__ = ["GALLERY", "tables"]

GALLERY = 24
"""Witnesses of the first samples of a run also keep the clean input, for pictures."""


def tables(manifest: Manifest, plan: Plan, start: int, result: ChunkResult) -> tuple[pa.Table, pa.Table | None]:
    """Return the evidence and the witnesses of the chunk that begins at position `start`."""
    evidence = EvidenceBuilder(
        run=manifest.run,
        classifier=manifest.classifier.canonical,
        fingerprint=manifest.classifier.fingerprint,
        dataset=manifest.dataset.canonical,
        dataset_hash=manifest.dataset.hash,
        split=manifest.dataset.split,
    )
    for block in result.blocks:
        positions = block.rows + start
        evidence.add_rows(
            sample=plan.samples.index[positions],
            label=plan.samples.y[positions],
            prediction=[result.predictions[row] for row in block.rows.tolist()],
            evaluator=block.evaluator,
            kind=block.kind,
            norm=block.norm,
            eps=block.eps,
            lower=block.lower,
            upper=block.upper,
            confidence=block.confidence,
            status=block.status,
            forwards=block.forwards,
            backwards=block.backwards,
            seconds=block.seconds / max(1, len(positions)),
            detail=block.detail,
        )
    witnesses = WitnessBuilder(run=manifest.run)
    for found in result.witnesses:
        _add_witnesses(witnesses, plan, start, found)
    return evidence.table(), witnesses.table()


def _add_witnesses(builder: WitnessBuilder, plan: Plan, start: int, found: WitnessBlock) -> None:
    positions = found.rows + start
    clean = [
        np.asarray(plan.samples.batch(position, position + 1)[0]).astype(found.points.dtype)
        if position < GALLERY
        else None
        for position in positions.tolist()
    ]
    builder.add_rows(
        sample=plan.samples.index[positions],
        evaluator=found.evaluator,
        norm=found.norm,
        eps=found.eps,
        points=found.points,
        clean=clean,
        linf=found.distances["linf"],
        l2=found.distances["l2"],
        l1=found.distances["l1"],
        prediction=found.prediction,
        margin=found.margin,
        detail=found.detail,
    )
