"""The manifest that a run starts with: what it takes to repeat it."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import torch

import robench
from robench.audit import AUDIT
from robench.classifier import Classifier, RandomizedClassifier, SmoothedClassifier, is_smoothed, merely_draws
from robench.contracts import Access, Attack
from robench.evaluation._evaluators import Chosen
from robench.evaluation._settings import Settings
from robench.loading import Data, Subject, plugin_infos
from robench.runner import Plan
from robench.runs import (
    ClassifierInfo,
    Environment,
    EvaluatorInfo,
    Manifest,
    Request,
    StageInfo,
    git_state,
)

__all__ = ["first_manifest", "with_stages"]


def first_manifest(
    settings: Settings,
    plan: Plan,
    subject: Subject,
    data: Data,
    chosen: Sequence[Chosen],
    batch_size: int,
) -> Manifest:
    classifier, graph = plan.classifier, _voter(plan.classifier).graph
    eps = tuple(epsilon.text for epsilon in plan.epsilons)
    versions = {"robench": robench.__version__, "torch": torch.__version__}
    for part in (part for one in chosen for part in one.parts):
        # An attack that runs somebody else's library says which.
        versions.update(getattr(part.value, "versions", {}))
    majors = {name: version.split(".")[0] for name, version in versions.items()}
    # What a wrapper is made of decides what is evaluated, as evaluators do; a model is known by its fingerprint.
    inside = [nested for part in subject.parts for nested in part.nested]
    for part in (*inside, *(part for one in chosen for part in one.parts)):
        majors[part.distribution] = part.version.split(".")[0]
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
        **_draws(plan),
        audit=plan.audit,
        versions=majors,
    )
    words = ["robench eval", "-m", subject.canonical, "-d", " | ".join(part.canonical for part in data.parts)]
    return Manifest(
        request=request,
        classifier=ClassifierInfo(
            canonical=subject.canonical,
            full=subject.full,
            plugins=plugin_infos(subject.parts),
            fingerprint=classifier.fingerprint,
            opaque=graph is None,
            randomized=merely_draws(classifier),
            smoothed=is_smoothed(classifier),
            classes=classifier.classes,
            input_shape=tuple(classifier.input_shape),
            parameters=None if graph is None else graph.parameters,
        ),
        dataset=data.info,
        evaluators=tuple(
            EvaluatorInfo(
                canonical=one.evaluator.spec,
                full=one.full,
                plugins=plugin_infos(one.parts),
                kind=one.evaluator.kind,
                side=one.evaluator.side,
                norm=plan.norm,
                per_eps=one.evaluator.per_eps,
                deterministic=bool(getattr(one.evaluator.value, "deterministic", True)),
                default=one.default,
                access=_access(one.evaluator.value) if one.evaluator.side == "attack" else None,
                stages={} if hasattr(one.evaluator.value, "stages") else None,
            )
            for one in chosen
        ),
        environment=Environment(
            device=_device_name(classifier.device),
            batch_size=batch_size,
            versions={**versions, "python": platform.python_version(), **_cuda_version(), **_runtime(classifier)},
            git=git_state(),
        ),
        display=settings.display,
        command=_command(words, settings, plan, chosen),
    )


def _voter(classifier: Classifier | RandomizedClassifier) -> Classifier | RandomizedClassifier:
    """Return whose graph a classifier rests on: a vote, which is no network, on that of its base."""
    return cast(SmoothedClassifier, classifier).base if is_smoothed(classifier) else classifier


def _draws(plan: Plan) -> dict[str, Any]:
    """Return what is asked of a classifier that draws: of a vote, as its own parameters say."""
    if is_smoothed(plan.classifier):
        vote = cast(SmoothedClassifier, plan.classifier)
        return {"draws": vote.n, "alpha": vote.alpha}
    return {"draws": plan.draws} if merely_draws(plan.classifier) else {}


def with_stages(
    known: tuple[EvaluatorInfo, ...], found: Mapping[str, Mapping[str, Attack]]
) -> tuple[EvaluatorInfo, ...]:
    """Return the evaluators of a manifest with the stages of composite attacks that `found` adds (`ChunkResult`)."""
    out = []
    for info in known:
        told = dict(info.stages or {})
        for name, attack in found.get(info.canonical, {}).items() if info.kind == "attack" else ():
            told.setdefault(name, StageInfo(access=_access(attack), per_eps=bool(getattr(attack, "per_eps", True))))
        out.append(info.model_copy(update={"stages": told}) if told else info)
    return tuple(out)


def _access(attack: Any) -> Access | None:
    """What an attack says that it asks for; None of a composite, and where it is no word that we know."""
    given: Any = getattr(attack, "access", None if hasattr(attack, "stages") else "gradients")
    return cast(Access, given) if isinstance(given, str) and given in get_args(Access) else None


def _command(words: list[str], settings: Settings, plan: Plan, chosen: Sequence[Chosen]) -> str:
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
        ("--draws", settings.draws, 100),
    ):
        if value != usual:
            words += [option, str(value)]
    if plan.audit is not None:
        words += ["--trust-certificates", *([] if plan.audit == AUDIT else ["--audit", str(plan.audit)])]
    return " ".join([words[0], *map(shlex.quote, words[1:])])


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads)"


def _runtime(classifier: object) -> dict[str, str]:
    """Return what executes an opaque classifier: it is the map as executed there."""
    return {str(name): str(version) for name, version in getattr(classifier, "runtime", {}).items()}


def _cuda_version() -> dict[str, str]:
    return {"cuda": str(torch.version.cuda)} if torch.cuda.is_available() else {}
