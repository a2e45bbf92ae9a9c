"""A scaling curve made: every training, every evaluation as one suite, the distances, and the record of it all."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from robench.errors import DataError, InputError, RobenchError
from robench.loading import Data, load_data, plugin_infos
from robench.registry import load_plugins
from robench.runs import (
    Component,
    DatasetInfo,
    Run,
    folder_name,
    new_run_id,
    open_results,
    slug,
)
from robench.scaling._curves import ScaleCurves, curves_of
from robench.scaling._neighbours import median_distances
from robench.scaling._plan import Member, Plan
from robench.scaling._record import FOLDER, MANIFEST, Distance, Scale, ScaleManifest, ScaleMember
from robench.spec import Text, parse
from robench.suite import Cell, Outcome, Suite, SuiteOutcome, make_suite
from robench.text import one_line
from robench.training import OtherTraining, train

__all__ = ["Failure", "evaluations", "record", "train_members"]

Report = Callable[[Member, int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Failure:
    """A training that came to nothing, and why, on one line."""

    member: Member
    reason: str


def train_members(
    plan: Plan,
    *,
    device: str = "auto",
    begun: Callable[[int, Member], None] = lambda position, member: None,
    report: Report = lambda member, epoch, epochs, figures: None,
    ended: Callable[[int, Member, str], None] = lambda position, member, said: None,
) -> tuple[list[Member], list[Failure]]:
    """Train what is not trained yet; return what is there, and what failed, which stops no other.

    A checkpoint that the same request made is left alone, an interrupted training goes on. One that stopped because
    its loss was not finite had less compute than the others, and failed.
    """
    there, failures = [], []
    for position, member in enumerate(plan.members):
        begun(position, member)
        try:
            made = train(
                member.recipe,
                member.dataset,
                member.folder,
                seed=member.seed,
                device=device,
                resume=True,
                report=partial(report, member),
            )
            if stopped := made.metadata.get("stopped"):
                raise DataError(str(stopped))
        except (RobenchError, OSError) as error:
            said = f"choose another --models: {error.what}" if isinstance(error, OtherTraining) else str(error)
            failures.append(Failure(member, one_line(said)))
            ended(position, member, f"failed: {failures[-1].reason}")
            continue
        there.append(member)
        ended(position, member, f"trained in {made.seconds:.3g} s" if made.seconds else "is trained already")
    return there, failures


def evaluations(members: Sequence[Member], dataset: str, asked: Mapping[str, Any]) -> Suite:
    """Return the suite that evaluates `members` on `dataset`.

    `asked` holds what a block of a suite file may hold besides models and datasets (`threats`, `attacks`, …). Raises
    InputError.
    """
    if not members:
        raise InputError("no training succeeded: there is nothing to evaluate")
    models = [
        {"spec": f"checkpoint:{Text.of(str(member.folder))}", "name": _name(member), "training_data": member.shown}
        for member in members
    ]
    return make_suite({"evaluations": [{**asked, "models": models, "datasets": [dataset]}]}, "scale")


def _name(member: Member) -> str:
    return f"{member.recipe.partition(':')[0]}, {member.n} samples, seed {member.seed}"


def record(
    plan: Plan,
    members: Sequence[Member],
    outcome: SuiteOutcome,
    out: Path,
    started: datetime,
    asked: Mapping[str, Any],
    targets: Sequence[float] = (),
) -> ScaleCurves:
    """Put the record of a curve into the results folder `out`; return it with its figures.

    `asked` is as `evaluations` took it. Raises InputError.
    """
    cells = [one for one in outcome.outcomes if isinstance(one.cell, Cell)]
    shown = {member: _fingerprints(cell) for member, cell in zip(members, cells, strict=True)}
    first = next(iter(outcome.runs), None)
    if first is None:
        raise InputError("no evaluation succeeded: there is no curve")
    about = first.manifest.dataset
    run = new_run_id(started)
    manifest = ScaleManifest(
        run=run,
        recipe=Component(
            canonical=plan.recipe.canonical, full=plan.recipe.full, plugins=plugin_infos(plan.recipe.parts)
        ),
        dataset=about,
        train=plan.train.canonical,
        train_hash=plan.train.hash,
        compute=plan.compute,
        targets=tuple(targets),
        members=tuple(
            ScaleMember(n=one.n, seed=one.seed, epochs=one.epochs, fingerprints=shown.get(one, {}))
            for one in plan.members
        ),
        distances=tuple(_distances(plan, about)),
        environment=first.manifest.environment,
        started=started,
        finished=datetime.now(UTC),
        command=shlex.join(_command(plan, asked, targets)),
    )
    results = open_results(out)
    storage = results.at(f"{folder_name(about.canonical, about.hash)}/{FOLDER}/{slug(plan.recipe.canonical)}/{run}")
    storage.put(MANIFEST, manifest.to_json())
    (curves,) = curves_of([Scale(manifest, storage.locate())], outcome.results())
    return curves


def _command(plan: Plan, asked: Mapping[str, Any], targets: Sequence[float]) -> Iterable[str]:
    """Yield the words that ask for the same curve, its plugins in canonical form."""
    plugins = load_plugins()
    yield from ("robench", "scale", plan.recipe.canonical, "-d", plan.train.described)
    yield from ("--sizes", "+".join(map(str, plan.sizes)), "--seeds", str(len(plan.seeds)))
    if plan.compute != "steps":
        yield from ("--compute", plan.compute)
    for threat in asked["threats"]:
        yield from ("--norm", threat["norm"], *(word for eps in _several(threat["eps"]) for word in ("--eps", eps)))
    for option, kind in (("-a", "attacks"), ("-c", "certifiers")):
        for spec in _several(asked.get(kind, ())):
            yield from (option, spec if spec in ("none", "auto") else plugins.resolve(kind, spec).canonical)
    if asked.get("samples"):
        yield from ("--samples", asked["samples"])
    for target in targets:
        yield from ("--target", f"{target:g}")


def _several(given: str | Sequence[str]) -> Sequence[str]:
    """Return what a suite file may name once or as a list."""
    return (given,) if isinstance(given, str) else given


def _fingerprints(outcome: Outcome) -> dict[str, str]:
    """Return the functions that were evaluated by what stands behind the model's spec; {} where it failed."""
    found = {}
    for run in (outcome.run, *outcome.others):
        if isinstance(run, Run):
            behind = parse(run.manifest.classifier.canonical).specs[1:]
            found[" | ".join(map(str, behind))] = run.manifest.classifier.fingerprint
    return found


def _distances(plan: Plan, about: DatasetInfo) -> Iterable[Distance]:
    plugins = load_plugins()
    queries = load_data(plugins.resolve("datasets", plan.dataset), about.split).samples
    for seed in plan.seeds:
        parts: list[Data] = [
            load_data(plugins.resolve("datasets", member.dataset), "train")
            for member in plan.members
            if member.seed == seed
        ]
        for n, median in zip(plan.sizes, median_distances(queries, [part.samples for part in parts]), strict=True):
            if median <= 1e100:  # as a record takes it
                yield Distance(n=n, seed=seed, median=median)
