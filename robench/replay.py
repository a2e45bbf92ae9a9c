"""Ask again: every witness, every clean prediction, every deterministic certificate of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from robench import registry
from robench.classifier import Counted
from robench.contracts import Certifier
from robench.distances import distances
from robench.errors import DataError, InputError
from robench.evidence import decode_points
from robench.loading import Data, Subject, load_data, load_subject, parse_device
from robench.runner import Judge, automatic_batch_size, full_precision
from robench.runs import Manifest, Run
from robench.streams import Stream
from robench.threat import NORMS, Domain, Norm, Threat

__all__ = ["Problem", "Replay", "replay"]

ROUNDING = 1e-9
"""A certificate derived again may fall this much (relative) below the recorded one: another order of summation."""


@dataclass(frozen=True)
class Problem:
    """One thing that did not come out as recorded."""

    kind: str
    sample: int
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
    model: str | None = None,
    dataset: str | None = None,
    device: str = "auto",
    search: Sequence[Path] = (),
    progress: Callable[[int, int, Mapping[str, int]], None] = lambda done, total, counts: None,
) -> Replay:
    """Ask `run`'s classifier again about everything that can be asked.

    Args:
        run: a measured run.
        model: model spec to load instead of the manifest's; its fingerprint must be the same.
        dataset: dataset spec to load instead of the manifest's; its hash must be the same.
        device: where to replay.
        search: folders in which the manifest's files (`net.onnx@sha256:…`) are looked for.
        progress: called with (samples done, samples, counts).

    Raises:
        InputError: the run is imported, or model or data cannot be found or are not the ones evaluated.
    """
    manifest = run.manifest
    if manifest.origin != "measured":
        raise InputError(f"run {manifest.run} was imported from {manifest.source}: there is no model to ask again")
    data = _load_data(manifest, dataset, search)
    subject = _load_subject(manifest, model, parse_device(device), search)
    result = Replay(manifest.run)
    evidence = run.evidence().to_pandas()
    position = {int(index): row for row, index in enumerate(data.samples.index)}
    missing = set(evidence["sample"].tolist()) - position.keys()
    if missing:
        raise DataError(f"{run.location}: sample {min(missing)} is not among the samples of {manifest.dataset.canonical}")
    with full_precision():
        asker = _Asker(result, subject, data, position, automatic_batch_size(data.samples))
        clean = evidence[evidence["kind"] == "clean"]
        asker.clean(clean)
        progress(1, 3, {"clean": result.clean})
        asker.witnesses(run, evidence, Domain(*manifest.dataset.bounds))
        progress(2, 3, {"witnesses": result.witnesses})
        asker.certificates(manifest, evidence, search)
        progress(3, 3, {"certificates": result.certificates})
    return result


def _load_data(manifest: Manifest, dataset: str | None, search: Sequence[Path]) -> Data:
    text = dataset or manifest.dataset.canonical
    _refuse_python(text, "-d DATASET")
    resolved = registry.load_plugins().resolve("datasets", text, search=search)
    data = load_data(resolved, manifest.dataset.split)
    if data.hash != manifest.dataset.hash:
        raise InputError(f"{text} is not the data evaluated: hash {data.hash[:12]}, recorded {manifest.dataset.hash[:12]}")
    return data


def _load_subject(manifest: Manifest, model: str | None, device: torch.device, search: Sequence[Path]) -> Subject:
    text = model or manifest.classifier.canonical
    _refuse_python(text, "-m MODEL")
    resolved = registry.load_plugins().resolve("models", text, search=search)
    subject = load_subject(resolved, device, manifest.request.precision)
    found, recorded = subject.classifier.fingerprint, manifest.classifier.fingerprint
    if found != recorded:
        raise InputError(f"{text} is not the function evaluated: fingerprint {found[:12]}, recorded {recorded[:12]}")
    return subject


def _refuse_python(text: str, option: str) -> None:
    if text.startswith("python:"):
        raise InputError(f"the run used a Python object ({text}): name its file with {option}")


class _Asker:
    """Asks one classifier about rows of one run, in batches."""

    def __init__(self, result: Replay, subject: Subject, data: Data, position: Mapping[int, int], size: int) -> None:
        self.result, self.data, self.position, self.size = result, data, position, size
        self.classifier = Counted(subject.classifier)
        self.judge = Judge(self.classifier)

    def inputs(self, samples: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the clean inputs and labels of `samples`, as the classifier takes them."""
        rows = np.array([self.position[int(sample)] for sample in samples], dtype=np.int64)
        x = torch.from_numpy(np.ascontiguousarray(self.data.samples.x[rows]))
        y = torch.from_numpy(self.data.samples.y[rows])
        return x.to(self.classifier.device, self.classifier.dtype), y.to(self.classifier.device)

    def found(self, kind: str, sample: int, evaluator: str, text: str) -> None:
        self.result.problems.append(Problem(kind, int(sample), str(evaluator), text))

    def clean(self, rows: pd.DataFrame) -> None:
        """Compare every clean verdict."""
        for start in range(0, len(rows), self.size):
            part = rows.iloc[start : start + self.size]
            x, y = self.inputs(part["sample"].tolist())
            correct, error, _, _ = (one.tolist() for one in self.judge.clean(x, y))
            for row, good, bad in zip(part.itertuples(), correct, error, strict=True):
                now = "error" if bad else "correct" if good else "incorrect"
                if now != row.status:
                    self.found("clean", row.sample, "clean", f"recorded {row.status}, now {now}")
            self.result.clean += len(part)

    def witnesses(self, run: Run, evidence: pd.DataFrame, domain: Domain) -> None:
        """Ask about every witness, and measure it again."""
        attacked = evidence[evidence["status"] == "falsified"]
        upper = {
            (row.sample, row.evaluator, row.norm, _key(row.eps)): row.upper for row in attacked.itertuples()
        }
        for table in run.iter_witnesses():
            for start in range(0, len(table), self.size):
                part = table.slice(start, self.size)
                points = torch.from_numpy(np.ascontiguousarray(decode_points(part)))
                self._witnesses(part.drop_columns(["point", "clean"]).to_pandas(), points, upper, domain)
        for sample, evaluator, _, _ in upper:
            self.found("witness", sample, evaluator, "the evidence says falsified, but no witness is kept")

    def _witnesses(
        self, rows: pd.DataFrame, points: torch.Tensor, upper: dict[tuple[Any, ...], float], domain: Domain
    ) -> None:
        x, y = self.inputs(rows["sample"].tolist())
        if points.shape != x.shape or points.dtype != x.dtype:
            raise DataError(f"witnesses are {points.dtype} {list(points.shape)}, the model takes {x.dtype} {list(x.shape)}")
        points = points.to(x.device)
        lower_box, upper_box = domain.box(x)
        inside = ((points >= lower_box) & (points <= upper_box)).flatten(1).all(1).tolist()
        wrong, margin, _, _ = self.judge.confirm(points, y)
        apart = {norm: value.tolist() for norm, value in distances(points, x).items()}
        for i, row in enumerate(rows.itertuples()):
            recorded = upper.pop((row.sample, row.evaluator, row.norm, _key(row.eps)), None)
            now = apart[cast(Norm, row.norm)][i]
            text = None
            if recorded is None:
                text = "a witness without a falsified row in the evidence"
            elif not inside[i]:
                text = "the point lies outside the domain"
            elif not wrong[i]:
                text = f"the point is classified correctly (margin {float(margin[i]):.6g})"
            elif not pd.isna(row.eps) and not now <= row.eps:
                text = f"the point is {now!r} away, more than ε = {row.eps!r}"
            elif not now <= recorded:
                text = f"the point is {now!r} away, the evidence says {recorded!r}"
            elif any(apart[norm][i] > getattr(row, norm) for norm in NORMS):
                text = "the recorded distances are smaller than the point's own"
            if text:
                self.found("witness", row.sample, row.evaluator, text)
        self.result.witnesses += len(rows)

    def certificates(self, manifest: Manifest, evidence: pd.DataFrame, search: Sequence[Path]) -> None:
        """Derive every deterministic certificate again."""
        domain = Domain(*manifest.dataset.bounds)
        certified = evidence[(evidence["status"] == "certified") & (evidence["confidence"] == 1.0)]
        for (spec, norm), rows in certified.groupby(["evaluator", "norm"], observed=True):
            if str(spec).startswith("python:"):
                self.result.not_replayed[str(spec)] = "the certifier was a Python object"
                continue
            certifier = registry.load_plugins().resolve("certifiers", str(spec), search=search).parts[0].value
            for eps, group in rows.groupby("eps", dropna=False):
                threat = Threat(cast(Norm, str(norm)), None if pd.isna(eps) else float(eps), domain)
                for start in range(0, len(group), self.size):
                    part = group.iloc[start : start + self.size]
                    self._certificates(certifier, str(spec), threat, part, manifest.request.seed)

    def _certificates(self, certifier: Certifier, spec: str, threat: Threat, rows: pd.DataFrame, seed: int) -> None:
        samples = [int(sample) for sample in rows["sample"]]
        x, y = self.inputs(samples)
        stream = Stream.for_samples(seed, spec, samples, x.device)
        made = certifier.certify(self.classifier, x, y, threat, stream)
        for row, lower, status in zip(rows.itertuples(), made.lower.tolist(), made.status, strict=True):
            if status != "certified" or not lower >= row.lower * (1 - ROUNDING):
                self.found("certificate", row.sample, spec, f"recorded lower {row.lower!r}, now {status} {lower!r}")
        self.result.certificates += len(rows)


def _key(eps: float) -> float | None:
    """ε as a dictionary key: NaN, which marks a minimum-norm search, equals nothing."""
    return None if pd.isna(eps) else float(eps)
