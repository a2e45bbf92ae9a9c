"""Ask again: every witness, every clean prediction, every deterministic certificate of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from robench import registry
from robench._replay_draws import replay_draws
from robench.classifier import Counted
from robench.contracts import Certifier
from robench.distances import distances
from robench.errors import DataError, InputError
from robench.evidence import decode_points
from robench.graph import full_precision
from robench.loading import Data, Subject, given_data, given_subject, load_data, load_subject, parse_device
from robench.runner import Judge, automatic_batch_size
from robench.runs import Manifest, Run, samples_hash
from robench.streams import Stream
from robench.text import one_line
from robench.threat import NORMS, Domain, Threat, parse_norm

__all__ = ["ObjectNeeded", "OtherFound", "Problem", "Replay", "replay"]

Row = dict[str, Any]

_CALL = "robench.replay(run, model=…, dataset=…)"

ROUNDING = 1e-9
"""A certificate derived again may fall this much (relative) below the recorded one: another order of summation."""


class ObjectNeeded(InputError):
    """A run of a Python object that was not given: nothing that its manifest says leads there."""


class OtherFound(InputError):
    """A model or dataset that is not the one evaluated."""


@dataclass(frozen=True)
class Problem:
    """One thing that did not come out as recorded."""

    kind: str
    sample: int | None
    evaluator: str
    text: str


@dataclass
class Replay:
    """What asking again showed: how many of each kind were asked, and what failed."""

    run: str
    clean: int = 0
    witnesses: int = 0
    certificates: int = 0
    not_replayed: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return the `--json` document."""
        return {
            "schema": 1,
            "run": self.run,
            "clean": self.clean,
            "witnesses": self.witnesses,
            "certificates": self.certificates,
            "not_replayed": self.not_replayed,
            "problems": [vars(problem) for problem in self.problems],
        }


def replay(
    run: Run,
    *,
    model: Any = None,
    dataset: Any = None,
    device: str = "auto",
    search: Sequence[Path] = (),
    progress: Callable[[int, int, Mapping[str, int]], None] = lambda done, total, counts: None,
) -> Replay:
    """Ask `run`'s classifier again about everything that can be asked.

    Args:
        run: a measured run.
        model: model to ask instead of the manifest's, a spec or an object; its fingerprint must be the same.
        dataset: dataset to use instead of the manifest's, a spec or an object; its hash must be the same.
        device: where to replay.
        search: folders in which the manifest's files (`net.onnx@sha256:…`) are looked for.
        progress: called with (rows asked, rows to ask, counts).

    Raises:
        InputError: the run is imported, or model or data cannot be found or are not the ones evaluated.
    """
    manifest = run.manifest
    if manifest.origin != "measured":
        raise InputError(f"run {manifest.run} was imported from {manifest.source}: there is no model to ask again")
    data = _load_data(manifest, dataset, search)
    subject = _load_subject(manifest, model, data, parse_device(device), search)
    result = Replay(manifest.run)
    result.problems += [Problem("part", None, "", text) for text in run.verify_parts()]
    evidence = run.evidence()
    result.problems += [
        Problem("manifest", None, "", text) for text in _misdescribed(manifest, subject, data, evidence)
    ]
    clean, falsified, proofs = _rows(evidence, "clean"), _rows(evidence, "falsified"), _rows(evidence, "proven")
    drawn = manifest.classifier.randomized
    total = evidence.num_rows if drawn else len(clean) + len(falsified) + len(proofs)

    def asked() -> None:
        counts = {"clean": result.clean, "witnesses": result.witnesses, "certificates": result.certificates}
        progress(sum(counts.values()), total, counts)

    with full_precision():
        asker = Asker(result, subject, data, asked)
        if drawn:
            replay_draws(asker, run, evidence)
            return result
        asker.clean(asker.known(clean))
        asker.witnesses(run, asker.known(falsified))
        asker.certificates(manifest, asker.known(proofs), search)
    return result


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


def _load_data(manifest: Manifest, dataset: Any, search: Sequence[Path]) -> Data:
    given = dataset or manifest.dataset.canonical
    if isinstance(given, str):
        _refuse_python(manifest, given, "-d DATASET")
        data = load_data(registry.load_plugins().resolve("datasets", given, search=search), manifest.dataset.split)
    else:
        data = given_data(given, manifest.dataset.split)
    if data.hash != manifest.dataset.hash:
        found, recorded = data.hash[:12], manifest.dataset.hash[:12]
        what = f"{data.canonical} is not the data evaluated"
        raise _other(manifest.dataset.canonical, f"run {manifest.run}: {what}: hash {found}, recorded {recorded}")
    return data


def _load_subject(manifest: Manifest, model: Any, data: Data, device: torch.device, search: Sequence[Path]) -> Subject:
    given, precision = model or manifest.classifier.canonical, manifest.request.precision
    if isinstance(given, str):
        _refuse_python(manifest, given, "-m MODEL")
        subject = load_subject(registry.load_plugins().resolve("models", given, search=search), device, precision)
    else:
        subject = given_subject(given, data.whole.shape, device, precision)
    found, recorded = subject.classifier.fingerprint[:12], manifest.classifier.fingerprint[:12]
    if found != recorded:
        what = f"{subject.canonical} is not the function evaluated"
        text = f"run {manifest.run}: {what}: fingerprint {found}, recorded {recorded}"
        raise _other(manifest.classifier.canonical, text)
    return subject


def _other(recorded: str, text: str) -> InputError:
    if recorded.startswith("python:"):
        return ObjectNeeded(f"{text}; it used a Python object ({recorded}): {_CALL}")
    return OtherFound(text)


def _refuse_python(manifest: Manifest, text: str, option: str) -> None:
    if text.startswith("python:"):
        raise ObjectNeeded(
            f"run {manifest.run} used a Python object ({text}): name its file with {option}, or from Python {_CALL}"
        )


class Asker:
    """Asks one classifier about rows of one run, in batches."""

    def __init__(self, result: Replay, subject: Subject, data: Data, asked: Callable[[], None]) -> None:
        self.result, self.data, self.asked = result, data, asked
        self.size = automatic_batch_size(data.samples)
        self.position = {int(index): row for row, index in enumerate(data.samples.index)}
        self.classifier = Counted(subject.classifier)
        self.judge = Judge(Counted(subject.classifier))

    def known(self, rows: list[Row]) -> list[Row]:
        """Return the rows about samples of the dataset; the others are reported."""
        for row in rows:
            if row["sample"] not in self.position:
                self.found(row["kind"], row, "the dataset has no such sample")
        return [row for row in rows if row["sample"] in self.position]

    def inputs(self, rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the clean inputs and labels of these rows' samples, as the classifier takes them."""
        positions = np.array([self.position[row["sample"]] for row in rows], dtype=np.int64)
        x = torch.from_numpy(np.ascontiguousarray(self.data.samples.x[positions]))
        y = torch.from_numpy(self.data.samples.y[positions])
        return x.to(self.classifier.device, self.classifier.dtype), y.to(self.classifier.device)

    def found(self, kind: str, row: Row, text: str) -> None:
        self.result.problems.append(Problem(kind, row["sample"], row["evaluator"], text))

    def clean(self, rows: list[Row]) -> None:
        """Compare every label, prediction and clean verdict."""
        for part in self._batches(rows):
            x, y = self.inputs(part)
            correct, error, prediction, _ = (one.tolist() for one in self.judge.clean(x, y))
            for row, label, good, bad, seen in zip(part, y.tolist(), correct, error, prediction, strict=True):
                now = "error" if bad else "correct" if good else "incorrect"
                if label != row["label"]:
                    self.found("clean", row, f"recorded label {row['label']}, the data says {label}")
                elif now != row["status"]:
                    self.found("clean", row, f"recorded {row['status']}, now {now}")
                elif not bad and good != (row["prediction"] == label):
                    self.found("clean", row, f"recorded prediction {row['prediction']}, now {seen}")
            self.result.clean += len(part)
            self.asked()

    def witnesses(self, run: Run, falsified: list[Row]) -> None:
        """Ask about every witness, and measure it again."""
        domain = self.data.whole.domain
        waiting = {_key(row): row for row in falsified}
        for table in run.iter_witnesses():
            for start in range(0, len(table), self.size):
                part = table.slice(start, self.size)
                points = torch.from_numpy(np.ascontiguousarray(decode_points(part)))
                rows = part.drop_columns(["point", "clean"]).to_pylist()
                here = [i for i, row in enumerate(rows) if row["sample"] in self.position]
                for row in rows:
                    if row["sample"] not in self.position:
                        self.found("witness", row, "the dataset has no such sample")
                if here:
                    self._witnesses([rows[i] for i in here], points[here], waiting, domain)
        for row in waiting.values():
            self.found("witness", row, "the evidence says falsified, but no witness is kept")

    def _witnesses(
        self, rows: list[Row], points: torch.Tensor, waiting: dict[tuple[Any, ...], Row], domain: Domain
    ) -> None:
        x, y = self.inputs(rows)
        if points.shape != x.shape or points.dtype != x.dtype:
            found, taken = f"{points.dtype} {list(points.shape)}", f"{x.dtype} {list(x.shape)}"
            raise DataError(f"run {self.result.run}: witnesses are {found}, the model takes {taken}")
        points = points.to(x.device)
        lower_box, upper_box = domain.box(x)
        inside = ((points >= lower_box) & (points <= upper_box)).flatten(1).all(1).tolist()
        wrong, margin, _, _ = self.judge.confirm(points, y)
        apart = {norm: value.tolist() for norm, value in distances(points, x).items()}
        for i, row in enumerate(rows):
            recorded = waiting.pop(_key(row), None)
            now = apart[row["norm"]][i]
            text = None
            if recorded is None:
                text = "a witness without a falsified row in the evidence"
            elif not inside[i]:
                text = "the point lies outside the domain"
            elif not wrong[i]:
                text = f"the point is classified correctly (margin {float(margin[i]):.6g})"
            elif row["eps"] is not None and not now <= row["eps"]:
                text = f"the point is {now!r} away, more than ε = {row['eps']!r}"
            elif not now <= recorded["upper"] <= now * (1 + ROUNDING):
                text = f"the point is {now!r} away, the evidence says {recorded['upper']!r}"
            elif any(apart[norm][i] > row[norm] for norm in NORMS):
                text = "the recorded distances are smaller than the point's own"
            if text:
                self.found("witness", row, text)
        self.result.witnesses += len(rows)
        self.asked()

    def certificates(self, manifest: Manifest, rows: list[Row], search: Sequence[Path]) -> None:
        """Derive again whatever a deterministic evaluator claims as a lower bound."""
        proofs = [row for row in rows if row["confidence"] == 1.0]
        self.result.not_replayed.update({row["evaluator"]: "statistical" for row in rows if row["confidence"] != 1.0})
        proofs.sort(key=lambda row: (row["evaluator"], str(row["norm"]), row["eps"] or 0.0, row["sample"]))
        for (spec, norm, eps), group in groupby(proofs, lambda row: (row["evaluator"], row["norm"], row["eps"])):
            if spec.startswith("python:"):
                self.result.not_replayed[spec] = "the certifier was a Python object"
                continue
            for part in self._batches(list(group)):
                try:
                    threat = Threat(parse_norm(str(norm)), eps, self.data.whole.domain)
                    certifier = registry.load_plugins().resolve("certifiers", spec, search=search).parts[0].value
                    self._certificates(certifier, spec, threat, part, manifest.request.seed)
                except Exception as error:  # a plugin's, or of a row that no run could have written
                    for row in part:
                        self.found("certificate", row, f"cannot be derived again: {one_line(error)}")
                self.result.certificates += len(part)
                self.asked()

    def _certificates(self, certifier: Certifier, spec: str, threat: Threat, rows: list[Row], seed: int) -> None:
        x, y = self.inputs(rows)
        stream = Stream.for_samples(seed, spec, [row["sample"] for row in rows], x.device)
        made = certifier.certify(self.classifier, x, y, threat, stream)
        for row, lower, status in zip(rows, made.lower.tolist(), made.status, strict=True):
            if status != "certified" or not lower >= row["lower"] * (1 - ROUNDING):
                self.found("certificate", row, f"recorded lower {row['lower']!r}, now {status} {lower!r}")

    def _batches(self, rows: list[Row]) -> Iterator[list[Row]]:
        for start in range(0, len(rows), self.size):
            yield rows[start : start + self.size]


def _rows(evidence: pa.Table, which: str) -> list[Row]:
    """Return the `clean` or `falsified` rows, or those that claim a lower bound, without what replay has no use for."""
    if which == "proven":
        keep = pc.greater(evidence["lower"], 0.0)
    else:
        column = "kind" if which == "clean" else "status"
        keep = pc.equal(evidence[column].cast(pa.string()), which)
    return evidence.filter(keep).drop_columns(["detail"]).to_pylist()  # type: ignore[no-any-return]


def _key(row: Row) -> tuple[Any, ...]:
    return row["sample"], row["evaluator"], row["norm"], row["eps"]
