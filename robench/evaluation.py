"""From a request to a finished run: resolve, load, check, plan, execute, keep."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

import robench
from robench import registry
from robench.contracts import Attack, Certifier, CompositeAttack, Dataset, Model
from robench.errors import InputError
from robench.evidence import EvidenceBuilder, WitnessBuilder
from robench.loading import PRECISIONS, Data, Subject, deterministic, load_data, load_given, load_subject, parse_device
from robench.registry import Part, Plugins
from robench.runner import (
    ChunkResult,
    Evaluator,
    Plan,
    WitnessBlock,
    automatic_batch_size,
    chunks,
    evaluate_chunk,
    refuse_undeclared_randomness,
)
from robench.runs import (
    ClassifierInfo,
    DatasetInfo,
    Display,
    Environment,
    EvaluatorInfo,
    Flag,
    Manifest,
    PluginInfo,
    Request,
    Run,
    git_state,
)
from robench.samples import Samples
from robench.threat import Epsilon, parse_norm

__all__ = ["GALLERY", "Prepared", "Settings", "execute", "prepare"]

COMMIT_SECONDS = 2.0
"""A part is put when this much time has passed: what a killed process may lose, besides the chunk at hand."""

GALLERY = 24
"""Witnesses of the first samples of a run also keep the clean input, for pictures."""

Spec = str | Attack | CompositeAttack | Certifier


@dataclass(frozen=True)
class Settings:
    """What `robench eval` was asked for; the field names are its options.

    `attacks` and `certifiers`: None asks for the defaults, an empty sequence switches the side off.
    """

    model: str | torch.nn.Module | Model | Any
    dataset: str | Samples | Dataset
    eps: Sequence[str | float | Epsilon]
    norm: str = "linf"
    attacks: Sequence[str | Attack | CompositeAttack] | None = None
    certifiers: Sequence[str | Certifier] | None = None
    samples: str | None = None
    split: str = "test"
    device: str = "auto"
    batch_size: int | None = None
    seed: int = 0
    precision: str = "fp32"
    display: Display = field(default_factory=Display)
    search: Sequence[Path] = ()


@dataclass(frozen=True)
class Prepared:
    """A checked plan and the manifest that its run will start with."""

    plan: Plan
    manifest: Manifest
    batch_size: int
    skipped: Mapping[str, str]


def prepare(settings: Settings) -> Prepared:
    """Load and check everything that a run needs. Raises InputError before anything is written."""
    plugins = registry.load_plugins()
    norm = parse_norm(settings.norm)
    epsilons = _epsilons(settings.eps)
    if settings.precision not in PRECISIONS:
        raise InputError(f"unknown precision {settings.precision!r}: choose one of {', '.join(PRECISIONS)}")
    if settings.batch_size is not None and settings.batch_size < 1:
        raise InputError(f"batch size {settings.batch_size} must be at least 1")
    device = parse_device(settings.device)
    data = _data(plugins, settings)
    subject = _subject(plugins, settings, device, data)
    _check_fit(subject, data)
    refuse_undeclared_randomness(subject.classifier, data.samples)
    chosen = _attacks(plugins, settings)
    certifiers, skipped = _certifiers(plugins, settings, subject, norm)
    evaluators = [one.evaluator for one in (*chosen, *certifiers)]
    if not evaluators:
        raise InputError("both sides are switched off: leave out one of -a none and -c none")
    names = [one.spec for one in evaluators]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{twice!r} is asked for twice: each evaluator runs once")
    for one in evaluators:
        why = _inapplicable(one, subject, norm)
        if why:
            raise InputError(f"{one.spec} does not apply to {subject.canonical} in {norm}: {why}")
    plan = Plan(subject.classifier, data.samples, norm, epsilons, evaluators, settings.seed)
    batch_size = settings.batch_size or automatic_batch_size(data.samples)
    manifest = _manifest(settings, plan, subject, data, (*chosen, *certifiers), batch_size)
    return Prepared(plan, manifest, batch_size, skipped)


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
    plan, hooks = prepared.plan, registry.load_plugins().run_hooks
    name = run.manifest.run
    done = run.done()
    hooks.started(name, run.manifest.request.model_dump(mode="json"))
    counts: dict[str, int] = {}
    failed = _failed(run.evidence()) if done else set()
    finished, limit = len(done), prepared.batch_size
    parts = _Parts(run, lambda rows: hooks.written(name, rows))
    progress(finished, len(plan.samples), counts)
    try:
        for start, stop in chunks(plan, done, prepared.batch_size):
            result, limit = evaluate_chunk(plan, start, stop, limit, warn)
            evidence, witnesses = _tables(run.manifest, plan, start, result)
            parts.add(start, evidence, witnesses)
            failed |= _failed(evidence)
            for block in result.blocks:
                for status in block.status:
                    counts[f"{block.kind} {status}"] = counts.get(f"{block.kind} {status}", 0) + 1
            finished += stop - start
            progress(finished, len(plan.samples), counts)
    finally:
        parts.flush()
    flags = (Flag(code="errors", text=f"{len(failed)} samples ended in error"),) if failed else ()
    run.finish(errors=len(failed), flags=flags)
    hooks.finished(name, {"errors": len(failed), "samples": len(plan.samples)})
    return run.manifest


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


# ------------------------------------------------------------------- preparing


@dataclass(frozen=True)
class _Chosen:
    """An evaluator and what the manifest says about it."""

    evaluator: Evaluator
    full: str
    parts: tuple[Part, ...]
    default: bool


def _epsilons(given: Sequence[str | float | Epsilon]) -> tuple[Epsilon, ...]:
    parsed = sorted({Epsilon.parse(one).value: Epsilon.parse(one) for one in given}.values())
    if not parsed:
        raise InputError("no ε given: add --eps, for example --eps 8/255")
    return tuple(parsed)


def _data(plugins: Plugins, settings: Settings) -> Data:
    dataset = settings.dataset
    if isinstance(dataset, str):
        return load_data(plugins.resolve("datasets", dataset, search=settings.search), settings.split, settings.samples)
    value = _InMemory(dataset) if isinstance(dataset, Samples) else dataset
    return load_given(value, f"python:{type(value).__name__.lstrip('_')}", settings.split, settings.samples)


@dataclass(frozen=True)
class _InMemory:
    """Samples given from Python, whatever the split's name."""

    samples: Samples

    def load(self, split: str) -> Samples:
        return self.samples


def _subject(plugins: Plugins, settings: Settings, device: torch.device, data: Data) -> Subject:
    model = settings.model
    if isinstance(model, str):
        return load_subject(plugins.resolve("models", model, search=settings.search), device, settings.precision)
    dtype = PRECISIONS[settings.precision]
    name = f"python:{type(model).__name__}"
    if isinstance(model, torch.nn.Module):
        from robench.graph import from_module

        return Subject(from_module(model, data.samples.shape, device=device, dtype=dtype), name, name)
    if hasattr(model, "load"):
        return Subject(deterministic(model.load(device, dtype), name), name, name)
    return Subject(deterministic(model, name), name, name)


def _check_fit(subject: Subject, data: Data) -> None:
    classifier, samples = subject.classifier, data.samples
    if len(samples) == 0:
        raise InputError(f"{data.canonical} holds no samples in split {data.split!r}")
    if tuple(classifier.input_shape) != samples.shape:
        raise InputError(
            f"{subject.canonical} takes inputs {list(classifier.input_shape)}, but {data.canonical} "
            f"has {list(samples.shape)}: export the model for this shape, or reshape the data"
        )
    if classifier.classes < 2 or int(data.whole.y.max()) >= classifier.classes:
        raise InputError(
            f"{subject.canonical} has {classifier.classes} classes, but {data.canonical} has labels up to "
            f"{int(data.whole.y.max())}"
        )


def _attacks(plugins: Plugins, settings: Settings) -> list[_Chosen]:
    default = settings.attacks is None
    wanted = settings.attacks
    if wanted is None:
        wanted = [entry.name for entry in plugins.entries("attacks") if entry.default]
    chosen = []
    for one in wanted:
        if not isinstance(one, str):
            name = _python_name(one)
            chosen.append(_Chosen(Evaluator(name, "attack", one), name, (), False))
            continue
        resolved = plugins.resolve("attacks", one, search=settings.search)
        evaluator = Evaluator(resolved.canonical, "attack", cast(Attack, resolved.value))
        chosen.append(_Chosen(evaluator, resolved.full, resolved.parts, default))
    return chosen


def _certifiers(
    plugins: Plugins, settings: Settings, subject: Subject, norm: str
) -> tuple[list[_Chosen], dict[str, str]]:
    """Return the certifiers that were asked for, or every cheap one that applies; and why others do not."""
    chosen: list[_Chosen] = []
    skipped: dict[str, str] = {}
    wanted: list[tuple[str | Certifier, bool]] = []
    for one in settings.certifiers if settings.certifiers is not None else ("auto",):
        if one == "auto":
            wanted += [(entry.name, True) for entry in plugins.entries("certifiers") if entry.cost == "small"]
        else:
            wanted.append((one, False))
    for given, automatic in wanted:
        if not isinstance(given, str):
            name = _python_name(given)
            chosen.append(_Chosen(Evaluator(name, "certificate", given, early=True), name, (), False))
            continue
        resolved = plugins.resolve("certifiers", given, search=settings.search)
        part = resolved.parts[0]
        early = part.entry is not None and part.entry.cost == "small"
        evaluator = Evaluator(resolved.canonical, "certificate", cast(Certifier, part.value), early)
        why = _inapplicable(evaluator, subject, norm) if automatic else None
        if why:
            skipped[resolved.canonical] = why
        else:
            chosen.append(_Chosen(evaluator, resolved.full, resolved.parts, automatic))
    return chosen, skipped


def _inapplicable(evaluator: Evaluator, subject: Subject, norm: str) -> str | None:
    applies = getattr(evaluator.value, "applies", None)
    return cast("str | None", applies(subject.classifier, norm)) if applies else None


def _python_name(value: object) -> str:
    """Name an object given from Python: its class, and its parameters where its repr is short."""
    shown = repr(value)
    return f"python:{shown if len(shown) <= 200 and ' object at ' not in shown else type(value).__name__}"


def _manifest(
    settings: Settings,
    plan: Plan,
    subject: Subject,
    data: Data,
    chosen: Sequence[_Chosen],
    batch_size: int,
) -> Manifest:
    classifier, samples = plan.classifier, plan.samples
    eps = tuple(epsilon.text for epsilon in plan.epsilons)
    versions = {"robench": robench.__version__, "torch": torch.__version__}
    majors = {name: version.split(".")[0] for name, version in versions.items()}
    for one in chosen:
        majors.update({part.distribution: part.version.split(".")[0] for part in one.parts})
    request = Request(
        fingerprint=classifier.fingerprint,
        dataset_hash=data.hash,
        split=data.split,
        samples=data.selection or "all",
        samples_hash=data.samples_hash,
        norm=plan.norm,
        eps=eps,
        evaluators=tuple(one.spec for one in plan.evaluators),
        seed=plan.seed,
        precision=settings.precision,
        versions=majors,
    )
    words = ["robench eval", "-m", subject.canonical, "-d", " | ".join(part.canonical for part in data.parts)]
    return Manifest(
        request=request,
        classifier=ClassifierInfo(
            canonical=subject.canonical,
            full=subject.full,
            plugins=_plugins(subject.parts),
            fingerprint=classifier.fingerprint,
            opaque=classifier.graph is None,
            classes=classifier.classes,
            input_shape=tuple(classifier.input_shape),
            parameters=_parameters(classifier),
        ),
        dataset=DatasetInfo(
            canonical=data.canonical,
            full=data.full,
            plugins=_plugins(data.parts),
            hash=data.hash,
            split=data.split,
            selection=data.selection,
            samples_hash=data.samples_hash,
            n=len(samples),
            domain=tuple(  # type: ignore[arg-type]
                side if np.isfinite(side) else None for side in (samples.domain.lower, samples.domain.upper)
            ),
            classes=samples.classes,
            thresholds=samples.thresholds or {},
        ),
        evaluators=tuple(
            EvaluatorInfo(
                canonical=one.evaluator.spec,
                full=one.full,
                plugins=_plugins(one.parts),
                kind=one.evaluator.side,
                side=one.evaluator.side,
                norm=plan.norm,
                per_eps=one.evaluator.per_eps,
                deterministic=bool(getattr(one.evaluator.value, "deterministic", True)),
                default=one.default,
            )
            for one in chosen
        ),
        environment=Environment(
            device=_device_name(classifier.device),
            batch_size=batch_size,
            versions={**versions, "python": platform.python_version(), **_cuda_version()},
            git=git_state(),
        ),
        display=settings.display,
        command=_command(words, settings, plan, chosen),
    )


def _command(words: list[str], settings: Settings, plan: Plan, chosen: Sequence[_Chosen]) -> str:
    for option, side in (("-a", "attack"), ("-c", "certificate")):
        specs = [one.evaluator.spec for one in chosen if one.evaluator.side == side]
        for spec in specs or ["none"]:
            words += [option, spec]
    words += ["--norm", plan.norm]
    for epsilon in plan.epsilons:
        words += ["--eps", epsilon.text]
    if settings.samples:
        words += ["--samples", settings.samples]
    for option, value, usual in (
        ("--split", settings.split, "test"),
        ("--seed", settings.seed, 0),
        ("--precision", settings.precision, "fp32"),
    ):
        if value != usual:
            words += [option, str(value)]
    return " ".join([words[0], *map(shlex.quote, words[1:])])


def _plugins(parts: Sequence[Part]) -> tuple[PluginInfo, ...]:
    return tuple(PluginInfo(name=part.name, distribution=part.distribution, version=part.version) for part in parts)


def _parameters(classifier: Any) -> int | None:
    if classifier.graph is None:
        return None
    return sum(int(tensor.numel()) for node in classifier.graph.nodes for tensor in node.constants.values())


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def _cuda_version() -> dict[str, str]:
    return {"cuda": str(torch.version.cuda)} if torch.cuda.is_available() else {}


# ------------------------------------------------------------------- executing


def _tables(manifest: Manifest, plan: Plan, start: int, result: ChunkResult) -> tuple[pa.Table, pa.Table | None]:
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


def _failed(evidence: pa.Table) -> set[int]:
    """Return the samples with a row of status `error`."""
    wrong = pc.equal(evidence["status"].cast(pa.string()), "error")
    return set(evidence.filter(wrong)["sample"].to_pylist())
