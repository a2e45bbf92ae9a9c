"""From a request to a checked plan: everything is loaded and nothing is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import cast

import torch
from pydantic import ValidationError

from robench import registry
from robench.audit import share_of
from robench.binomial import top_two_pvalue
from robench.classifier import Counted, SmoothedClassifier, is_smoothed, merely_draws
from robench.errors import InputError
from robench.evaluation._display import beneath, read_card
from robench.evaluation._evaluators import Asked, Choice, choose
from robench.evaluation._manifest import first_manifest
from robench.evaluation._regions import check_regions, regions_of
from robench.evaluation._settings import Settings
from robench.fields import first_problem
from robench.graph import full_precision
from robench.loading import (
    PRECISIONS,
    Data,
    Subject,
    given_data,
    given_subject,
    identified,
    load_data,
    load_subject,
    parse_device,
)
from robench.registry import Plugins
from robench.runner import Plan, automatic_batch_size, refuse_undeclared_randomness
from robench.runs import Manifest
from robench.threat import Epsilon, Norm, parse_norm

__all__ = ["Prepared", "prepare"]

MOST_DRAWS = 1_000_000
LEAST_NOISE = 1024
"""Standard deviation of a vote's noise, in units of the rounding of the inputs, from which on rounding is no matter."""


@dataclass(frozen=True)
class Prepared:
    """A checked plan and the manifest that its run will start with.

    `skipped` says why default attacks and cheap certifiers were left out; `notes` are lines that the user should see;
    `unidentified` are Python objects of which another run cannot tell whether it had the same.
    """

    plan: Plan
    manifest: Manifest
    batch_size: int
    skipped: Mapping[str, str]
    notes: tuple[str, ...] = ()
    unidentified: tuple[str, ...] = ()


@full_precision()
def prepare(settings: Settings) -> list[Prepared]:
    """Load and check everything that is needed: one run for the model, and one for each function made of it.

    Raises InputError before anything is written.
    """
    if torch.get_default_device().type == "meta":
        raise InputError("torch's default device is meta, which computes nothing: leave `with torch.device('meta')`")
    plugins = registry.load_plugins()
    norm = parse_norm(settings.norm)
    if settings.precision not in PRECISIONS:
        raise InputError(f"unknown precision {settings.precision!r}: choose one of {', '.join(PRECISIONS)}")
    if settings.batch_size is not None and settings.batch_size < 1:
        raise InputError(f"batch size {settings.batch_size} must be at least 1")
    if not 1 <= settings.draws <= MOST_DRAWS:
        raise InputError(f"{settings.draws} draws: ask for 1 to {MOST_DRAWS}")
    device = parse_device(settings.device)
    data = _data(plugins, settings)
    regions = regions_of(data, settings, norm)
    epsilons = () if regions else _epsilons(settings.eps)
    subject = _subject(plugins, settings, device, data)
    _check_fit(subject, data)
    check_regions(subject, data)
    refuse_undeclared_randomness(subject.classifier, data.samples)
    choices = choose(plugins, settings, subject, Asked(norm, regions))
    for choice in choices:
        _check_noise(choice.subject, data)
    prepared = [_prepared(settings, data, choice, norm, epsilons) for choice in choices]
    votes = sum(is_smoothed(choice.subject.classifier) for choice in choices)
    if votes > 1:
        note = f"who picks one of these {votes} votes by its figures spends α {votes} times: ask for α/{votes} in each"
        prepared[0] = replace(prepared[0], notes=(note, *prepared[0].notes))
    return prepared


def _prepared(settings: Settings, data: Data, choice: Choice, norm: Norm, epsilons: tuple[Epsilon, ...]) -> Prepared:
    subject, chosen = choice.subject, choice.evaluators
    evaluators = [one.evaluator for one in chosen]
    audit = share_of(settings.trust_certificates)
    plan = Plan(subject.classifier, data.samples, norm, epsilons, evaluators, settings.seed, settings.draws, audit)
    batch_size = settings.batch_size or automatic_batch_size(data.samples, subject.classifier)
    settings, notes = _with_card(_named(settings, choice), subject)
    notes += _out_of_reach(plan)
    notes += choice.notes
    certifiers = [one for one in evaluators if one.side == "certificate"]
    if audit is not None and not any(getattr(one.value, "deterministic", True) for one in certifiers):
        notes.append("--trust-certificates: nothing here certifies deterministically, so attacks skip nothing")
    notes += _too_few(plan)
    if is_smoothed(subject.classifier) and settings.draws != Settings.draws:
        notes.append(f"--draws is not for votes: {subject.canonical} draws as often as its own parameter n says")
    try:
        manifest = first_manifest(settings, plan, subject, data, chosen, batch_size)
    except ValidationError as error:
        raise InputError(f"the run cannot be described: {first_problem(error)}") from None
    if merely_draws(subject.classifier):
        notes.append(
            f"{subject.canonical} draws at inference: expected accuracies over {plan.draws} draws a point, by "
            + ", ".join(evaluator.spec for evaluator in evaluators)
        )
    why = getattr(subject.classifier, "why", "")
    if why:
        notes.append(f"no graph of {subject.canonical} ({why}): evidence is about the map as executed")
    domain = data.samples.domain
    if norm == "linf" and epsilons and plan.epsilons[-1].value >= domain.upper - domain.lower:
        notes.append(
            f"ε = {plan.epsilons[-1]} covers the whole domain [{domain.lower:g}, {domain.upper:g}]: is it 8/255?"
        )
    unidentified = [] if getattr(subject.classifier, "identified", True) else [subject.canonical]
    unidentified += [one.evaluator.spec for one in chosen if not (one.parts or identified(one.evaluator.value))]
    return Prepared(plan, manifest, batch_size, choice.skipped, tuple(notes), tuple(unidentified))


def _check_noise(subject: Subject, data: Data) -> None:
    """Raise InputError where a vote's noise drowns in the rounding of the inputs: no theorem is about what is left."""
    if not is_smoothed(subject.classifier):
        return
    domain, precision = data.samples.domain, torch.finfo(subject.classifier.dtype)
    largest = max([abs(end) for end in (domain.lower, domain.upper) if math.isfinite(end)] or [1.0])
    least, sigma = LEAST_NOISE * precision.eps * largest, cast(SmoothedClassifier, subject.classifier).noise.sigma
    if not sigma >= least:
        raise InputError(
            f"{subject.canonical}: noise of sigma = {sigma:g} drowns in the rounding of {precision.dtype} inputs up to "
            f"{largest:g}: take {least:.2g} at least, or --precision fp64"
        )


def _too_few(plan: Plan) -> list[str]:
    """Return a line where no count of a vote's draws can show that a sample is misclassified, however clear."""
    if not is_smoothed(plan.classifier):
        return []
    vote, tests = cast(SmoothedClassifier, plan.classifier), sum(one.points for one, _ in plan.passes())
    if not tests or float(top_two_pvalue(vote.n, 0)) <= vote.alpha / tests:
        return []
    needed = next(n for n in count(vote.n + 1) if float(top_two_pvalue(n, 0)) <= vote.alpha / tests)
    return [
        f"{vote.n} draws can falsify no sample at alpha = {vote.alpha:g} over {tests} attempts: take smooth:n={needed} "
        "at least"
    ]


def _out_of_reach(plan: Plan) -> list[str]:
    """Return a line for each certifier and ε that it can never certify; raises InputError where that is every ε."""
    notes = []
    for evaluator in plan.evaluators:
        ask = getattr(evaluator.value, "out_of_reach", None)
        if evaluator.side != "certificate" or ask is None:
            continue
        asked = {eps: ask(Counted(plan.classifier), plan.norm, eps.value) for eps in plan.epsilons}
        lines = [f"{evaluator.spec} can never certify ε = {eps}: {why}" for eps, why in asked.items() if why]
        if lines and len(lines) == len(asked):
            raise InputError(lines[0])
        notes += lines
    return notes


def _epsilons(given: Sequence[str | float | Epsilon]) -> tuple[Epsilon, ...]:
    parsed = sorted({Epsilon.parse(one).value: Epsilon.parse(one) for one in given}.values())
    if not parsed:
        raise InputError("no ε given: add --eps, for example --eps 8/255")
    return tuple(parsed)


def _data(plugins: Plugins, settings: Settings) -> Data:
    dataset = settings.dataset
    if not isinstance(dataset, str):
        return given_data(dataset, settings.split, settings.samples)
    return load_data(plugins.resolve("datasets", dataset, search=settings.search), settings.split, settings.samples)


def _subject(plugins: Plugins, settings: Settings, device: torch.device, data: Data) -> Subject:
    model = settings.model
    if not isinstance(model, str):
        return given_subject(model, data.samples.shape, device, settings.precision)
    return load_subject(plugins.resolve("models", model, search=settings.search), device, settings.precision)


def _named(settings: Settings, choice: Choice) -> Settings:
    """Put what a certifier makes of the model behind the name that the user gave the model."""
    name = settings.display.name
    if name is None or not choice.wrapper:
        return settings
    display = settings.display.model_copy(update={"name": f"{name} | {choice.wrapper}"})
    return replace(settings, display=display)


def _with_card(settings: Settings, subject: Subject) -> tuple[Settings, list[str]]:
    """Put the model's card beneath `--name` and `--meta`. A wrapped model is another function: not its name."""
    card, wrong = read_card(subject.parts[0].value if subject.parts else settings.model)
    card = {key: text for key, text in card.items() if key != "name" or len(subject.parts) < 2}
    notes = [] if wrong is None else [f"{subject.canonical}: {wrong}"]
    return replace(settings, display=beneath(settings.display, card)), notes


def _check_fit(subject: Subject, data: Data) -> None:
    classifier, samples = subject.classifier, data.samples
    if len(samples) == 0:
        raise InputError(f"{data.canonical} holds no samples in split {data.split!r}")
    if tuple(classifier.input_shape) != samples.shape:
        flat = data.whole.regions is not None and math.prod(classifier.input_shape) == math.prod(samples.shape)
        advice = (
            "give the folder of an instances.csv that names the network's ONNX file, which tells the shape"
            if flat
            else "export the model for this shape, or reshape the data"
        )
        raise InputError(
            f"{subject.canonical} takes inputs {list(classifier.input_shape)}, but {data.canonical} "
            f"has {list(samples.shape)}: {advice}"
        )
    about_labels = data.whole.regions is None or data.whole.regions.kind(data.whole.y) == "labels"
    if (classifier.classes < 2 and about_labels) or int(data.whole.y.max()) >= classifier.classes:
        raise InputError(
            f"{subject.canonical} has {classifier.classes} classes, but {data.canonical} has labels up to "
            f"{int(data.whole.y.max())}"
        )
