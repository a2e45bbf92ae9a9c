"""Attacks that skipped what was certified (`--trust-certificates`): what was audited, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robench.metrics._compare import certified_at, falsified_at, searched_at
from robench.threat import Norm

if TYPE_CHECKING:
    from robench.metrics._subject import Subject

__all__ = ["Audit", "audit_of"]


@dataclass(frozen=True)
class Audit:
    """Certified samples at one (norm, ε), in the runs whose attacks trusted their certificates.

    Attributes:
        skipped: samples that no attack of such a run searched at ε: they are unbroken because they are certified.
        audited: certified samples that were attacked nonetheless.
        broken: those of them that an attack broke, original indices.
        certifiers: who certified these.
    """

    skipped: int
    audited: int
    broken: tuple[int, ...]
    certifiers: tuple[str, ...]


def audit_of(subject: Subject, norm: Norm, eps: float) -> Audit | None:
    """Return the audit of a subject at (norm, ε); None where no run trusted its certificates."""
    trusting = [manifest.run for manifest in subject.runs if manifest.request.audit is not None]
    if not trusting:
        return None
    skipped: set[int] = set()
    attacked: set[int] = set()
    broken: dict[int, set[str]] = {}
    for run in trusting:
        rows = subject.rows[(subject.rows["run"] == run) & (subject.rows["norm"] == norm)]
        proofs = rows[rows["kind"].isin(("certificate", "verifier")) & (rows["confidence"] == 1.0)]
        proofs = proofs[certified_at(proofs["lower"].to_numpy(dtype=float), eps)]
        attacks = rows[rows["kind"] == "attack"]
        proven = set(proofs["sample"].tolist())
        fallen = set(attacks.loc[falsified_at(attacks["upper"].to_numpy(dtype=float), eps), "sample"].tolist())
        searched = set(attacks.loc[searched_at(attacks["eps"].to_numpy(dtype=float), eps), "sample"].tolist()) | fallen
        skipped |= proven - searched
        attacked |= proven & searched
        for sample in proven & fallen:
            broken.setdefault(sample, set()).update(map(str, proofs.loc[proofs["sample"] == sample, "evaluator"]))
    names = {name for some in broken.values() for name in some}
    return Audit(len(skipped - attacked), len(attacked), tuple(sorted(broken)), tuple(sorted(names)))
