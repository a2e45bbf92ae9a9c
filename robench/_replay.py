"""Ask again: every witness, every clean prediction, every certificate of a run that can be derived or drawn again."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from robench._replay_asker import Asker, Problem, Replay
from robench._replay_certificates import replay_certificates
from robench._replay_draws import replay_draws
from robench._replay_load import Imported, ObjectNeeded, OtherFound, load_recorded_data, load_recorded_subject
from robench._replay_redraw import Redraw
from robench._replay_votes import replay_votes
from robench.classifier import SmoothedClassifier, is_random, is_smoothed
from robench.errors import DataError, InputError
from robench.graph import full_precision
from robench.loading import Data, Subject, parse_device
from robench.runs import Manifest, Run, find_runs, samples_hash

__all__ = ["REDRAW", "Imported", "ObjectNeeded", "OtherFound", "Problem", "Replay", "replay"]

Row = dict[str, Any]

REDRAW = 8
"""Rows of each evaluator that are drawn anew, unless asked otherwise."""


def replay(
    run: Run | str | Path,
    *,
    model: Any = None,
    dataset: Any = None,
    device: str = "auto",
    search: Sequence[Path] = (),
    redraw: int = REDRAW,
    seed: int | None = None,
    progress: Callable[[int, int, Mapping[str, int]], None] = lambda done, total, counts: None,
) -> Replay:
    """Ask `run`'s classifier again about everything that can be asked.

    Args:
        run: a measured run, or its folder.
        model: model to ask instead of the manifest's, a spec or an object; its fingerprint must be the same.
        dataset: dataset to use instead of the manifest's, a spec or an object; its hash must be the same.
        device: where to replay.
        search: folders in which the manifest's files (`net.onnx@sha256:…`) are looked for.
        redraw: how many rows of each evaluator to draw anew, where what they say is statistical; 0 for none.
        seed: seed of these draws and of the choice of rows. By default a random one, which nobody who wrote the
            evidence can have known; the result names it, so that a replay can be repeated.
        progress: called with (rows asked, rows to ask, counts).

    Raises:
        DataError: the folder holds no run, or several.
        InputError: the run is imported, model or data cannot be found or are not the ones evaluated, or `redraw` is
            below 0.
    """
    if not isinstance(run, Run):
        found = find_runs(run)
        if len(found) > 1:
            raise DataError(f"{run}: {len(found)} runs here: name the folder of one")
        run = found[0]
    manifest = run.manifest
    if redraw < 0:
        raise InputError(f"{redraw} rows cannot be drawn anew: ask for 0 or more")
    if manifest.origin != "measured":
        raise Imported(f"run {manifest.run} was imported from {manifest.source}: there is no model to ask again")
    data = load_recorded_data(manifest, dataset, search)
    subject = load_recorded_subject(manifest, model, data, parse_device(device), search)
    result = Replay(manifest.run)
    result.problems += [Problem("part", None, "", text) for text in run.verify_parts()]
    evidence = run.evidence()
    described = [*_another_kind(manifest, subject, model is None), *_misdescribed(manifest, subject, data, evidence)]
    result.problems += [Problem("manifest", None, "", text) for text in described]
    smoothed, drawn = is_smoothed(subject.classifier), is_random(subject.classifier)
    if (manifest.classifier.smoothed, manifest.classifier.randomized) != (smoothed, drawn and not smoothed):
        return result  # its rows are not what is recorded about such a classifier
    clean, falsified, proofs = _rows(evidence, "clean"), _rows(evidence, "falsified"), _rows(evidence, "proven")
    total = len(clean) + len(falsified) + len(proofs) if smoothed or not drawn else evidence.num_rows

    def asked() -> None:
        counts = {"clean": result.clean, "witnesses": result.witnesses}
        counts["certificates"] = result.certificates + result.rederived
        progress(sum(counts.values()), total, counts)

    fresh = Redraw(manifest.run, redraw, secrets.randbits(48) if seed is None else seed)
    with full_precision():
        asker = Asker(result, subject, data, asked)
        if smoothed:
            replay_votes(asker, run, asker.known(clean), asker.known(falsified), fresh)
        elif drawn:
            replay_draws(asker, run, evidence)
            return result
        else:
            asker.clean(asker.known(clean))
            asker.witnesses(run, asker.known(falsified))
        replay_certificates(asker, manifest, asker.known(proofs), search, fresh)
    result.seed = fresh.seed if result.redrawn else None
    return result


def _another_kind(manifest: Manifest, subject: Subject, own: bool) -> Iterator[str]:
    """Yield what the manifest says about draws and votes that is not so; `own`: the model is the manifest's."""
    smoothed, request = is_smoothed(subject.classifier), manifest.request
    drawn = is_random(subject.classifier) and not smoothed
    told: list[tuple[str, Any, Any]] = [
        ("that the classifier votes", manifest.classifier.smoothed, smoothed),
        ("that the classifier draws at inference", manifest.classifier.randomized, drawn),
    ]
    if smoothed and own:
        vote = cast(SmoothedClassifier, subject.classifier)
        told += [("n of a prediction", request.draws, vote.n), ("alpha of a prediction", request.alpha, vote.alpha)]
    for what, recorded, found in told:
        if recorded != found:
            yield f"{what} is recorded as {recorded}, but is {found}"


def _misdescribed(manifest: Manifest, subject: Subject, data: Data, evidence: pa.Table) -> Iterator[str]:
    """Yield what the manifest says about model and data that is not so."""
    domain = data.whole.domain
    samples = evidence["sample"].unique().to_numpy()
    hashed = manifest.dataset.samples_hash
    for what, recorded, found in (
        ("the domain", manifest.dataset.bounds, (domain.lower, domain.upper)),
        ("the input shape", manifest.classifier.input_shape, tuple(subject.classifier.input_shape)),
        ("the number of classes", manifest.classifier.classes, subject.classifier.classes),
        ("the number of samples", manifest.dataset.n if manifest.complete else len(samples), len(samples)),
        (
            "the samples' hash",
            hashed if manifest.complete else None,
            samples_hash(samples) if manifest.complete else None,
        ),
    ):
        if recorded != found:
            yield f"{what} is recorded as {recorded}, but is {found}"


def _rows(evidence: pa.Table, which: str) -> list[Row]:
    """Return the `clean` or `falsified` rows, or those that claim a lower bound or a safe region."""
    if which == "proven":
        certified = pc.equal(evidence["status"].cast(pa.string()), "certified")
        keep = pc.or_(pc.greater(evidence["lower"], 0.0), certified)
    else:
        column = "kind" if which == "clean" else "status"
        keep = pc.equal(evidence[column].cast(pa.string()), which)
    return evidence.filter(keep).to_pylist()  # type: ignore[no-any-return]
