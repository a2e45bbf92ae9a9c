"""`robench train`: a recipe, a dataset, a checkpoint folder."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robench.cli._app import app
from robench.cli._options import Json

if TYPE_CHECKING:
    from robench.training import Training

__all__ = ["train"]


@app.command("train")
def train(
    recipe: Annotated[str, typer.Argument(help="Recipe spec: standard, 'pgd-at:eps=8/255', ibp:epochs=100.")],
    dataset: Annotated[str, typer.Option("-d", "--dataset", help="Dataset spec: digits, npz:FILE.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint: new, empty, or an older checkpoint.")],
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of all that is random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the same command, killed before.")] = False,
    monitor: Annotated[
        str | None,
        typer.Option(metavar="EPS", help="Hold out a tenth of the samples; attack them in linf after each epoch."),
    ] = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Train a classifier and write a checkpoint folder.

    Trains on the split `train`. The folder holds the network as a graph (safetensors and JSON, no pickles), how it was
    made, its clean accuracy, and the figures of each epoch (history.parquet). It appears complete or not at all; until
    then the state after the last epochs lies in OUT.training, where --resume goes on. Exit codes: 0 fine, 2 bad input,
    130 interrupted.
    """
    from robench.cli._progress import Progress
    from robench.training import train as run

    with Progress(f"train {recipe.partition(':')[0]}", quiet=quiet or as_json) as progress:

        def report(epoch: int, epochs: int, figures: Mapping[str, float]) -> None:
            progress.update(epoch, epochs, {name: f"{value:.4g}" for name, value in figures.items()})

        try:
            training = run(
                recipe,
                dataset,
                out,
                seed=seed,
                device=device,
                report=report,
                resume=resume,
                monitor=monitor,
                warn=lambda line: progress.message(f"robench: {line}"),
            )
        except KeyboardInterrupt:
            print(f"robench: interrupted; {out} is as it was; --resume goes on", file=sys.stderr)
            raise typer.Exit(130) from None
        for note in training.notes:
            progress.message(f"robench: {note}")
    if as_json:
        document = {
            "schema": 1,
            "checkpoint": str(out),
            "fingerprint": training.fingerprint,
            "seconds": round(training.seconds, 3),
            **training.metadata,
        }
        print(json.dumps(document, ensure_ascii=False, indent=1))
    else:
        _show(training, dataset)


def _show(training: Training, dataset: str) -> None:
    metadata = training.metadata
    test = metadata["test_accuracy"]
    budget = next(((norm, texts[len(texts) // 2]) for norm, texts in training.thresholds.items() if texts), None)
    norm, eps = budget or ("linf", "EPS")
    asked = training.evaluate or ("--norm", norm, "--eps", eps)
    command = ["robench", "eval", "-m", f"checkpoint:{training.folder}", "-d", dataset, *asked]
    print(
        f"recipe      {metadata['recipe']}, seed {metadata['seed']}: {training.seconds:.1f} s on {metadata['device']}"
    )
    print(f"dataset     {metadata['dataset']}, {metadata['samples']} samples of {metadata['split']}")
    print(f"accuracy    train {metadata['train_accuracy']:.4f}, test {'-' if test is None else format(test, '.4f')}")
    print(f"checkpoint  {training.folder}  {training.fingerprint[:16]}")
    print(f"next        {shlex.join(command)}")
