"""Rows against the manifest: what a measured run was asked for and does not hold, and what it holds unasked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from robench.audit import audited
from robench.check._findings import Finding
from robench.metrics import GIVEN, certified_at, falsified_at, in_units
from robench.threat import Epsilon

if TYPE_CHECKING:
    from robench.runs import EvaluatorInfo, Manifest

__all__ = ["asked_of_run"]

_SHOWN = 10


def asked_of_run(manifest: Manifest, rows: pd.DataFrame) -> Iterator[Finding]:
    """Check a measured run's rows, complete or not, against what the runner does.

    Every sample has a clean row, and each evaluator a row about every correct sample that nothing had settled at that
    ε; a composite attack a row of one of its stages. Where a manifest does not tell the stages, as older ones do not,
    rows of names that it does not know are taken for stages, and the attacks are not held to this. Where attacks trust
    certificates, these settle a sample for them as well, unless its audit was drawn. Where samples have sets of their
    own, each evaluator is asked about these, once.
    """
    if manifest.origin != "measured":
        return
    if manifest.dataset.regions is not None:
        rows = in_units(rows)
    clean = rows[rows["kind"] == "clean"]
    right = np.unique(clean.loc[clean["status"] == "correct", "sample"].to_numpy())
    others = rows[rows["kind"] != "clean"]
    epsilons = sorted(Epsilon.parse(text).value for text in manifest.request.eps)
    epsilons = epsilons if manifest.dataset.regions is None else [GIVEN.value]
    names = {(info.kind, name) for info in manifest.evaluators for name in info.names}
    told = any(info.access is not None or info.stages is not None for info in manifest.evaluators)

    yield from _about(manifest, "no clean row", np.setdiff1d(rows["sample"], clean["sample"]))
    wrong = np.setdiff1d(others["sample"], right)
    yield from _about(manifest, "rows of evaluators, although it is not classified correctly", wrong, code="row")
    foreign = others["eps"].notna() & ~others["eps"].isin(epsilons)
    yield from _about(manifest, "rows at an ε that was not asked for", others.loc[foreign, "sample"], code="row")
    stages = False
    for (kind, name), group in others.groupby(["kind", "evaluator"], observed=True):
        if (kind, name) in names:
            continue
        if kind == "attack" and not told:
            stages = True
        else:
            yield from _about(manifest, f"rows of {name}, which was not asked for", group["sample"], code="row")
    for info in manifest.evaluators:
        if info.kind != "attack" or not stages:
            yield from _evaluator(manifest, info, others, right, epsilons)


def _evaluator(
    manifest: Manifest, info: EvaluatorInfo, rows: pd.DataFrame, right: npt.NDArray[np.int64], epsilons: list[float]
) -> Iterator[Finding]:
    own = ((rows["kind"] == info.kind) & rows["evaluator"].isin(info.names)).to_numpy()
    eps = rows["eps"].to_numpy(dtype=float)
    upper, lower = rows["upper"].to_numpy(dtype=float), rows["lower"].to_numpy(dtype=float)
    proof = (rows["confidence"] == 1.0).to_numpy() & ~own & (rows["kind"] != "attack").to_numpy()
    samples = rows["sample"].to_numpy()
    if info.kind == "attack":
        proof &= _trusted(manifest, samples)
    for asked in epsilons if info.per_eps or manifest.dataset.regions else [None]:
        if asked is None:
            looked = own & np.isnan(eps)
            if info.kind == "attack" and epsilons:
                looked |= proof & certified_at(lower, max(epsilons))
        else:
            looked = (own & (np.isnan(eps) | (eps == asked))) | falsified_at(upper, asked)
            looked |= proof & certified_at(lower, asked)
        at = "" if asked is None or manifest.dataset.regions else f" at {asked:g}"
        yield from _about(manifest, f"no row of {info.canonical}{at}, and nothing that settles it",
                          np.setdiff1d(right, samples[looked]), evaluator=info.canonical)  # fmt: skip


def _trusted(manifest: Manifest, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether the certificate of each row's sample, if there is one, keeps attacks from it, [N]."""
    if manifest.request.audit is None:
        return np.zeros(len(samples), dtype=bool)
    known, place = np.unique(samples, return_inverse=True)
    return ~audited(manifest.request.seed, manifest.request.audit, known.tolist())[place]


def _about(
    manifest: Manifest, what: str, samples: npt.ArrayLike, *, code: str = "missing", evaluator: str = ""
) -> Iterator[Finding]:
    """One finding for all samples of one kind."""
    about = np.unique(np.asarray(samples, dtype=np.int64))
    if not len(about):
        return
    some = ", ".join(map(str, about[:_SHOWN])) + (f" and {len(about) - _SHOWN} more" if len(about) > _SHOWN else "")
    yield Finding(
        code=code,
        text=f"sample {some} of {manifest.classifier.canonical}: {what} (run {manifest.run})",
        classifier=manifest.classifier.canonical,
        fingerprint=manifest.classifier.fingerprint,
        sample=int(about[0]),
        norm=manifest.request.norm,
        evaluators=(evaluator,) if evaluator else (),
        runs=(manifest.run,),
    )
