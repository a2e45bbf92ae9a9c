"""A scaling curve of synthetic runs: what is certified follows a law that a test chose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from oracles.evidence import START, FakeRun, fake_run, sha
from robench.runs import Component
from robench.scaling import Distance, Scale, ScaleManifest, ScaleMember

SAMPLES = 200


def scaled_runs(
    sizes: Sequence[int], seeds: Sequence[int], certified: Callable[[int, int], float], dataset: str = "toy"
) -> list[FakeRun]:
    """A run for each training; all are right on every sample, and a share of `certified(n, seed)` is certified."""
    runs = []
    for number, (n, seed) in enumerate((n, seed) for n in sizes for seed in seeds):
        run = fake_run(
            number,
            net=f"net-{n}-{seed}",
            n=SAMPLES,
            norm="l2",
            eps=("0.5",),
            evaluators=(("lipschitz", "certificate"),),
            dataset=dataset,
        ).clean(dict.fromkeys(range(SAMPLES), True))
        proven = round(certified(n, seed) * SAMPLES)
        rows = {
            i: ("certified", 0.6, float("inf")) if i < proven else ("open", 0.0, float("inf")) for i in range(SAMPLES)
        }
        runs.append(run.add("lipschitz", "certificate", "l2", None, rows))
    return runs


def scale_of(runs: Sequence[FakeRun], sizes: Sequence[int], seeds: Sequence[int], **changes: Any) -> Scale:
    """The record that joins what `scaled_runs` made."""
    values: dict[str, Any] = {
        "run": f"{START + timedelta(hours=9):%Y%m%dT%H%M%SZ}-00000a",
        "recipe": Component(canonical="aol:width=64", full="aol:width=64"),
        "dataset": runs[0].manifest.dataset,
        "train": "toy",
        "train_hash": sha("train"),
        "compute": "steps",
        "members": tuple(
            ScaleMember(n=n, seed=seed, epochs=7, fingerprints={"": sha(f"net-{n}-{seed}")})
            for n in sizes
            for seed in seeds
        ),
        "distances": tuple(Distance(n=n, seed=seed, median=3 * n ** (-1 / 20)) for n in sizes for seed in seeds),
        "started": START,
        "finished": START + timedelta(hours=10),
        "command": "robench scale aol:width=64 -d toy --sizes 50:800:x2",
    }
    return Scale(ScaleManifest.model_validate(values | changes), "here")


def put(scale: Scale, results: Path) -> None:
    """Write the record under `results`."""
    place = results / "toy-0" / "_scale" / "aol" / scale.manifest.run
    place.mkdir(parents=True)
    (place / "manifest.json").write_bytes(scale.manifest.to_json())
