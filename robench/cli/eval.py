"""`robench eval`: attack and certify a classifier, sample by sample, into evidence."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robench.cli._app import app
from robench.cli._audit import AUDIT_FAILED, report_audits
from robench.cli._options import Device, Files, Json, places
from robench.errors import InputError

if TYPE_CHECKING:
    from robench.evaluation import Prepared
    from robench.runs import Run
    from robench.storage import LocalStorage

__all__ = ["evaluate"]

INCOMPLETE = 3


@app.command("eval")
def evaluate(
    model: Annotated[
        str, typer.Option("-m", "--model", metavar="MODEL", help="Model spec: a name, checkpoint:FOLDER, onnx:FILE.")
    ],
    dataset: Annotated[
        str,
        typer.Option(
            "-d",
            "--dataset",
            metavar="DATASET",
            help="Dataset spec: digits, npz:FILE, vnnlib:FOLDER, 'digits | subset:n=100'.",
        ),
    ],
    attack: Annotated[
        list[str] | None,
        typer.Option(
            "-a",
            "--attack",
            metavar="ATTACK",
            help="Attack spec, repeatable, like 'apgd:steps=50 | eot'; none switches the side off. Parameters of "
            "attacks and modifiers: robench plugins show NAME.",
        ),
    ] = None,
    certifier: Annotated[
        list[str] | None,
        typer.Option(
            "-c",
            "--certifier",
            metavar="CERTIFIER",
            help="Certifier spec, repeatable; auto takes all cheap ones, none switches the side off.",
        ),
    ] = None,
    norm: Annotated[str, typer.Option(metavar="NORM", help="linf, l2 or l1.")] = "linf",
    eps: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EPS",
            help="Budget in the domain's units, like 8/255; repeatable. None where the data bring sets of their own.",
        ),
    ] = None,
    samples: Annotated[
        str | None, typer.Option(metavar="A:B", help="Only these of the dataset's samples, like 0:1000.")
    ] = None,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Split of the dataset.")] = "test",
    device: Device = "auto",
    batch_size: Annotated[str, typer.Option(metavar="N", help="Samples at a time, or auto.")] = "auto",
    seed: Annotated[int, typer.Option(metavar="SEED", help="Seed of every sample's random stream.")] = 0,
    precision: Annotated[str, typer.Option(metavar="PRECISION", help="fp32 or fp64.")] = "fp32",
    draws: Annotated[
        int, typer.Option(metavar="N", help="Draws at each point of a classifier that draws at inference.")
    ] = 100,
    trust_certificates: Annotated[
        bool,
        typer.Option(
            "--trust-certificates",
            help="Attacks skip samples that are certified deterministically, but for an audited share; all certifiers "
            "run before them. No cost is claimed.",
        ),
    ] = False,
    audit: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="With --trust-certificates: the share of certified samples that is attacked nonetheless (0.05).",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Results folder.")] = Path("results"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest equal run that is not complete.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and write nothing.")] = False,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Display name on boards.")] = None,
    meta: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file with name, paper, training_data, licence and any other keys."),
    ] = None,
    files: Files = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Attack and certify a classifier, sample by sample.

    Both sides by default: without -a the default attack runs, without -c every certifier that applies at small
    cost. Exit codes: 0 fine, 1 an audited certificate is wrong, 2 bad input, 3 some samples ended in error, 130
    interrupted.
    """
    from robench.cli._progress import Progress, rows
    from robench.evaluation import Settings, display, execute, prepare
    from robench.runs import Run
    from robench.storage import LocalStorage

    results = LocalStorage(out)  # a plugin may change the working folder
    runs: list[Run] = []
    with Progress("eval", quiet=quiet or as_json) as progress:
        everything = prepare(
            Settings(
                model=model,
                dataset=dataset,
                eps=eps or [],
                norm=norm,
                attacks=_side(attack, "-a"),
                certifiers=_side(certifier, "-c"),
                samples=samples,
                split=split,
                device=device,
                batch_size=_batch_size(batch_size),
                seed=seed,
                precision=precision,
                draws=draws,
                trust_certificates=_trust(trust_certificates, audit),
                display=display(name, meta),
                search=places(files),
            )
        )
        if dry_run:
            _show_plans([(one, _found(one, out, resume)) for one in everything], as_json)
            return
        for prepared in everything:
            run = _found(prepared, out, resume)
            if run is not None and run.manifest.complete:
                progress.message(f"this evaluation is complete already: {run.location}")
                runs.append(run)
                continue
            with run or Run.create(out, prepared.manifest) as run:
                runs.append(run)
                if not (quiet or as_json):
                    subject = f" of {run.manifest.classifier.canonical}" if len(everything) > 1 else ""
                    progress.message(
                        f"run {run.manifest.run}{subject}: {len(run.done())} of {run.manifest.dataset.n} samples done"
                    )
                for note in prepared.notes:
                    progress.message(f"robench: {note}")
                try:
                    execute(
                        prepared,
                        run,
                        lambda done, total, counts: progress.update(done, total, rows(counts)),
                        progress.message,
                    )
                except KeyboardInterrupt:
                    kept = f"{len(run.done())} of {run.manifest.dataset.n} samples are kept in {run.location}"
                    raise KeyboardInterrupt(f"interrupted; {kept}; go on with --resume") from None
    _finish(runs, results, as_json)


def _found(prepared: Prepared, out: Path, resume: bool) -> Run | None:
    """Return the run that this evaluation goes on with."""
    from robench.runs import Run

    return Run.find_resumable(out, prepared.manifest.request) if resume else None


def _side(given: list[str] | None, option: str) -> list[str] | None:
    if given and "none" in given:
        if len(given) > 1:
            raise InputError(f"{option} none switches the side off: leave out the other {option}")
        return []
    return given or None


def _trust(trust: bool, audit: float | None) -> bool | float:
    if audit is not None and not trust:
        raise InputError("--audit is the share of trusted certificates that is attacked: add --trust-certificates")
    return trust if audit is None else audit


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**31):
        raise InputError(f"--batch-size {text!r}: give a whole number from 1, or auto")
    return int(text)


def _show_plans(plans: Sequence[tuple[Prepared, Run | None]], as_json: bool) -> None:
    if as_json:
        documents = [_plan_document(prepared, run) for prepared, run in plans]
        one = documents[0] if len(documents) == 1 else {"runs": documents}
        print(json.dumps({"schema": 1, **one}, ensure_ascii=False, indent=1))
        return
    for position, (prepared, run) in enumerate(plans):
        if position:
            print()
        _show_plan(prepared, run)


def _plan_document(prepared: Prepared, run: Run | None) -> dict[str, Any]:
    return {
        "request": prepared.manifest.request.model_dump(mode="json"),
        "batch_size": prepared.batch_size,
        "resumes": run.manifest.run if run else None,
        "samples_left": _left(prepared, run),
        "skipped": dict(prepared.skipped),
    }


def _left(prepared: Prepared, run: Run | None) -> int:
    return len(prepared.plan.samples) - (len(run.done()) if run else 0)


def _show_plan(prepared: Prepared, run: Run | None) -> None:
    plan = prepared.plan
    print(f"classifier  {prepared.manifest.classifier.canonical}  {plan.classifier.fingerprint[:16]}")
    data = prepared.manifest.dataset
    print(f"dataset     {data.canonical}, {data.n} samples of {data.split}")
    for evaluator, value in plan.passes():
        print(f"{evaluator.side:<11} {evaluator.spec}" + ("" if value is None else f" at {plan.norm} {value:g}"))
    for spec, why in prepared.skipped.items():
        print(f"left out    {spec}: {why}")
    for note in prepared.notes:
        print(f"note        {note}")
    print(f"batches of {prepared.batch_size} on {prepared.manifest.environment.device}, seed {plan.seed}")
    print(f"{_left(prepared, run)} samples to do" + (f", going on with run {run.manifest.run}" if run else ""))


def _finish(runs: Sequence[Run], out: LocalStorage, as_json: bool) -> None:
    from robench.bounds import Ceilings, find_bounds
    from robench.metrics import in_order, random_results, results, summarise
    from robench.report import print_results, safe
    from robench.report_draws import draws_lines

    # A damaged bound costs its ceiling, never the figures that were just measured.
    ceilings = Ceilings(find_bounds(out, lambda problem: print(f"robench: {safe(problem)}", file=sys.stderr)))
    found = results(runs, ceilings)
    if as_json:
        print(json.dumps(summarise(runs, ceilings, ordered=True), ensure_ascii=False, indent=1))
    else:
        print_results(in_order(found, runs), draws_lines(random_results(runs)))
        for run in runs:
            print(f"evidence: {run.location}")
        print(f"next: robench check {out.root}  |  robench replay {out.root}")
    audit_failed = report_audits(found)
    errors = sum(run.manifest.errors for run in runs)
    if errors:
        print(f"robench: {errors} samples ended in error; they are no evidence", file=sys.stderr)
        raise typer.Exit(INCOMPLETE)
    if audit_failed:
        raise typer.Exit(AUDIT_FAILED)
