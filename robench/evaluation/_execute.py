"""From a plan to a finished run: chunk by chunk, resumable at any point."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from robench import registry
from robench.classifier import Classifier, RandomizedClassifier
from robench.errors import PluginError
from robench.evaluation._manifest import with_stages
from robench.evaluation._prepare import Prepared
from robench.evaluation._tables import tables
from robench.graph import fingerprint, full_precision
from robench.runner import Plan, chunks, evaluate_chunk
from robench.runs import Manifest, Run

__all__ = ["execute"]

COMMIT_SECONDS = 2.0
"""A part is put when this much time has passed: what a killed process may lose, besides the chunk at hand."""


@full_precision()
def execute(
    prepared: Prepared,
    run: Run,
    progress: Callable[[int, int, Mapping[str, int]], None] = lambda done, total, counts: None,
    warn: Callable[[str], None] = lambda line: None,
) -> Manifest:
    """Evaluate what `run` still lacks, a chunk at a time, and finish it; returns the final manifest.

    After each chunk `progress` gets (samples done, all samples, counts so far by status of this process's rows).
    An interrupt keeps every finished chunk.
    """
    plan, hooks = prepared.plan, registry.load_plugins().run_hooks.reporting(warn)
    name = run.manifest.run
    done = run.done()
    hooks.started(name, run.manifest.request.model_dump(mode="json"))
    counts: dict[str, int] = {}
    failed = _failed(run.evidence()) if done else set()
    finished, limit = len(done), prepared.batch_size
    certified = bool(done) and plan.audit is not None and _certified(plan, run.evidence())
    guard = _Unchanged(plan.classifier)
    parts = _Parts(run, lambda rows: hooks.written(name, rows))
    progress(finished, len(plan.samples), counts)
    try:
        for start, stop in chunks(plan, done, prepared.batch_size):
            result = evaluate_chunk(plan, start, stop, limit, warn, certified)
            certified |= result.certified
            guard.check()
            limit = result.limit
            evaluators = with_stages(run.manifest.evaluators, result.stages)
            if evaluators != run.manifest.evaluators:  # told before any part that holds their rows
                run.save_manifest(evaluators=evaluators)
            evidence, witnesses = tables(run.manifest, plan, start, result)
            parts.add(start, evidence, witnesses)
            failed |= _failed(evidence)
            for block in result.blocks:
                for status in block.status:
                    counts[f"{block.kind} {status}"] = counts.get(f"{block.kind} {status}", 0) + 1
            finished += stop - start
            progress(finished, len(plan.samples), counts)
    finally:
        parts.flush()
    guard.check(thoroughly=True)
    run.finish(errors=len(failed))
    hooks.finished(name, {"errors": len(failed), "samples": len(plan.samples)})
    return run.manifest


class _Unchanged:
    """Notices a plugin that writes into the classifier's weights: the rows would be about another function."""

    def __init__(self, classifier: Classifier | RandomizedClassifier) -> None:
        self.graph, self.dtype = classifier.graph, classifier.dtype
        self.versions, self.digest = self._versions(), self._digest()

    def _versions(self) -> list[int]:
        nodes = self.graph.nodes if self.graph else ()
        return [tensor._version for node in nodes for tensor in node.constants.values()]

    def _digest(self) -> str:
        return fingerprint(self.graph, self.dtype) if self.graph else ""

    def check(self, thoroughly: bool = False) -> None:
        """Raise PluginError where the weights changed; `thoroughly` hashes them, however they were written to."""
        same = self._versions() == self.versions and (not thoroughly or self._digest() == self.digest)
        if not same:
            raise PluginError(
                "a plugin", "changed the classifier's weights during the run: its evidence is not finished"
            )


class _Parts:
    """Finished chunks on their way to storage: together, so that quick work does not wait for the disk."""

    def __init__(self, run: Run, written: Callable[[int], None]) -> None:
        self.run, self.written = run, written
        self.waiting: list[tuple[int, pa.Table, pa.Table | None]] = []
        self.last = time.monotonic()

    def add(self, start: int, evidence: pa.Table, witnesses: pa.Table | None) -> None:
        """Take the tables of the chunk that begins at position `start`; put what waits when it is time."""
        self.waiting.append((start, evidence, witnesses))
        if time.monotonic() - self.last >= COMMIT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Put what waits as one part."""
        # Taken out first: a put that fails is not tried again.
        taken, self.waiting = self.waiting, []
        if taken:
            evidence = pa.concat_tables([table for _, table, _ in taken]).unify_dictionaries()
            points = [table for _, _, table in taken if table is not None]
            witnesses = pa.concat_tables(points).unify_dictionaries() if points else None
            self.run.put_part(taken[0][0], evidence, witnesses)
            self.written(evidence.num_rows)
        self.last = time.monotonic()


def _failed(evidence: pa.Table) -> set[int]:
    """Return the samples with a row of status `error`."""
    wrong = pc.equal(evidence["status"].cast(pa.string()), "error")
    return set(evidence.filter(wrong)["sample"].to_pylist())


def _certified(plan: Plan, evidence: pa.Table) -> bool:
    """Whether a sample was certified deterministically within the smallest ε, or within its own region."""
    proofs = pc.and_(pc.equal(evidence["confidence"], 1.0), pc.equal(evidence["status"].cast(pa.string()), "certified"))
    least = min((eps.value for eps in plan.epsilons), default=0.0)
    return bool(pc.any(pc.and_(proofs, pc.greater_equal(evidence["lower"], least))).as_py())
