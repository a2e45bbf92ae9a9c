"""`robench scale`: one recipe on training sets of several sizes, and how its accuracies grow with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robench.cli._app import app
from robench.cli._options import Device, Json
from robench.errors import InputError

if TYPE_CHECKING:
    from robench.scaling import Failure, Member, Plan

__all__ = ["scale"]


@app.command("scale")
def scale(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="Recipe spec: aol, 'pgd-at:eps=0.1'.")],
    dataset: Annotated[str, typer.Option("-d", "--dataset", metavar="DATASET", help="Dataset spec: digits, mnist.")],
    sizes: Annotated[
        str, typer.Option(metavar="SIZES", help="Training samples: 64:4096:x2, 100:1000:+100, 48+97+all.")
    ],
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Seeds 0 to N-1: subsets, weights and orders.")] = 3,
    compute: Annotated[
        str,
        typer.Option(metavar="WHAT", help="Held constant: steps (smaller sets take more epochs), or epochs."),
    ] = "steps",
    norm: Annotated[
        str | None, typer.Option(metavar="NORM", help="linf, l2 or l1; else as the recipe proposes.")
    ] = None,
    eps: Annotated[
        list[str] | None,
        typer.Option(metavar="EPS", help="Budget in the domain's units, like 8/255; repeatable; likewise."),
    ] = None,
    attack: Annotated[
        list[str] | None, typer.Option("-a", "--attack", metavar="ATTACK", help="As of robench eval; none: no attack.")
    ] = None,
    certifier: Annotated[
        list[str] | None,
        typer.Option("-c", "--certifier", metavar="CERTIFIER", help="As of robench eval; none: no certificate."),
    ] = None,
    samples: Annotated[str | None, typer.Option(metavar="A:B", help="Only these test samples, like 0:1000.")] = None,
    target: Annotated[
        list[float] | None,
        typer.Option(metavar="ACCURACY", help="Say how many samples this accuracy would take; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Results folder.")] = Path("results"),
    models: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the checkpoints go.")] = Path("models"),
    device: Device = "auto",
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, metavar="N", help="Evaluations at a time.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the trainings, and write nothing.")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Train a recipe on ever more data and fit how accuracy grows.

    Trains on nested subsets of the training set, with several seeds each, and evaluates every network. The same
    command goes on where it was interrupted: what is trained and what is evaluated stays. Exit codes: 0 fine, 2 bad
    input, 3 a training or an evaluation failed (the others are kept), 130 interrupted.
    """
    from robench.cli.run import report_failures, run_shown
    from robench.report import safe
    from robench.report_scaling import scale_document, scale_lines
    from robench.scaling import evaluations, make_plan, record

    started, targets = datetime.now(UTC), target or []
    for one in targets:
        if not 0 < one < 1:
            raise InputError(f"--target {one:g}: an accuracy lies between 0 and 1")
    if compute not in ("steps", "epochs"):
        raise InputError(f"--compute {compute!r:.40}: hold steps or epochs constant")
    norm, eps = _threat(recipe, norm, eps, quiet or as_json)
    asked = _asked(norm, eps, attack, certifier, samples, device)
    plan = make_plan(recipe, dataset, sizes, range(seeds), compute, models)  # type: ignore[arg-type]
    if dry_run:
        _show_plan(plan, device)
        return
    members, failures = _train(plan, device, quiet or as_json)
    suite = evaluations(members, dataset, asked)
    debug = bool((context.obj or {}).get("debug"))
    outcome = run_shown(suite, out, jobs=jobs, quiet=quiet or as_json, debug=debug)
    curves = record(plan, members, outcome, out, started, asked, targets)
    if as_json:
        print(json.dumps({"schema": 1, **scale_document(curves)}, ensure_ascii=False, indent=1))
    else:
        print("\n".join(scale_lines(curves)))
        print(f"\nnext: robench report {out}  |  robench leaderboard build {out} --out site")
    for failure in failures:
        print(f"robench: {safe(_title(failure.member))} failed: {safe(failure.reason)}", file=sys.stderr)
    report_failures(outcome)
    if failures:
        raise typer.Exit(3)


def _threat(recipe: str, norm: str | None, eps: list[str] | None, quiet: bool) -> tuple[str, list[str]]:
    """Return norm and ε: those given, and for what is not the recipe's proposal, which is said."""
    from robench.registry import load_plugins

    if norm and eps:
        return norm, eps
    words = tuple(getattr(load_plugins().resolve("recipes", recipe).value, "evaluate", ()))
    proposed = list(zip(words[::2], words[1::2], strict=False))
    theirs = next((value for option, value in proposed if option == "--norm"), "linf")
    if not eps and norm in (None, theirs):
        eps = [value for option, value in proposed if option == "--eps"]
    if not eps:
        raise InputError("no ε given: add --eps, for example --eps 36/255 with --norm l2")
    norm = norm or theirs
    if not quiet:
        print(f"robench: evaluated in {norm} at ε = {', '.join(eps)}: --norm and --eps choose others", file=sys.stderr)
    return norm, eps


def _asked(
    norm: str,
    eps: list[str],
    attacks: list[str] | None,
    certifiers: list[str] | None,
    samples: str | None,
    device: str,
) -> dict[str, Any]:
    """Return the evaluation in the words of a suite file. What is misspelt in it is told before any training."""
    from robench.loading import parse_device, parse_rows
    from robench.registry import load_plugins
    from robench.threat import Epsilon, parse_norm

    parse_norm(norm)
    parse_device(device)
    parse_rows(samples, 10**18)
    for text in eps:
        Epsilon.parse(text)
    for kind, specs in (("attacks", attacks), ("certifiers", certifiers)):
        for spec in specs or ():
            if spec not in ("none", "auto"):
                load_plugins().resolve(kind, spec)
    given: dict[str, Any] = {"threats": [{"norm": norm, "eps": eps}], "device": device}
    given |= {"attacks": attacks} if attacks else {}
    given |= {"certifiers": certifiers} if certifiers else {}
    return given | ({"samples": samples} if samples else {})


def _train(plan: Plan, device: str, quiet: bool) -> tuple[list[Member], list[Failure]]:
    from robench.cli._bars import Bars
    from robench.scaling import train_members

    with Bars("trainings", len(plan.members), quiet) as bars:
        running = 0

        def begun(position: int, member: Member) -> None:
            nonlocal running
            running = position
            bars.begin(position, _title(member))

        def report(member: Member, epoch: int, epochs: int, figures: Mapping[str, float]) -> None:
            bars.update(running, epoch, epochs, {name: f"{value:.4g}" for name, value in figures.items()})

        return train_members(
            plan,
            device=device,
            begun=begun,
            report=report,
            ended=lambda position, member, said: bars.end(position, f"{_title(member)}: {said}"),
        )


def _title(member: Member) -> str:
    return f"{member.n} samples, seed {member.seed}"


def _show_plan(plan: Plan, device: str) -> None:
    from robench.report import safe
    from robench.training import OtherTraining, is_trained

    for member in plan.members:
        length = "" if member.epochs is None else f", {member.epochs} epochs"
        try:
            done = is_trained(member.recipe, member.dataset, member.folder, seed=member.seed, device=device)
            there = "trained" if done else "to do"
        except OtherTraining as error:
            there = f"fails, choose another --models: {safe(error.what)}"
        print(f"{_title(member)}{length}: {there}  {member.folder}")
