"""Speed of evidence: rows a second built, written and read, beside a bare pyarrow of the same table.

    python benchmarks/evidence.py [--rows 1000000] [--parts 16] [--repeat 5]

Written: from numpy arrays through `EvidenceBuilder`, the checks, Parquet, fsync and rename. Read: `Run.evidence`,
hence with every check that a stranger's file meets. The bare side is `pyarrow.parquet` with its defaults and zstd,
one file a part, without checks, hashes or fsync. Best of `--repeat`, both sides in turn in one process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from robench.evidence import EvidenceBuilder
from robench.runs import ClassifierInfo, DatasetInfo, Manifest, Request, Run

Array = npt.NDArray[np.int64]

EVALUATORS = (
    ("apgd:loss=ce", "attack"),
    ("apgd:loss=dlr", "attack"),
    ("ibp", "certificate"),
    ("linear", "certificate"),
)
EPSILONS = (2 / 255, 4 / 255, 8 / 255, 16 / 255)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--parts", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()

    per_sample = 1 + len(EVALUATORS) * len(EPSILONS)
    samples = np.array_split(np.arange(options.rows // per_sample), options.parts)
    rows = sum(map(len, samples)) * per_sample
    print(f"{rows} rows in {options.parts} parts; {per_sample} rows a sample\n")
    print(f"{'detail':8}{'what':10}{'rows/s':>12}{'bare':>12}{'ratio':>8}{'bytes/row':>11}{'bare':>8}")
    for detail in (False, True):
        _measure(samples, rows, options.repeat, detail)


def _measure(samples: list[Array], rows: int, repeat: int, detail: bool) -> None:
    times: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeat):
            arrays = [_arrays(part, detail) for part in samples]
            run = Run.create(Path(folder) / f"results{turn}", _manifest(sum(map(len, samples))))
            with run:
                _time(times, "write", partial(_write, run, samples, arrays))
            size = sum(path.stat().st_size for path in Path(run.location).rglob("*.parquet"))
            tables = [_build(run, part, given) for part, given in zip(samples, arrays, strict=True)]
            bare = Path(folder) / f"bare{turn}"
            bare.mkdir()
            _time(times, "bare write", partial(_write_bare, bare, tables))
            bare_size = sum(path.stat().st_size for path in bare.iterdir())
            _time(times, "read", Run.open(run.location).evidence)
            _time(times, "bare read", partial(_read_bare, bare))
    for what in ("write", "read"):
        ours, theirs = rows / times[what], rows / times[f"bare {what}"]
        sizes = f"{size / rows:11.1f}{bare_size / rows:8.1f}"
        print(f"{'JSON' if detail else 'none':8}{what:10}{ours:12,.0f}{theirs:12,.0f}{ours / theirs:8.2f}{sizes}")


def _time(times: dict[str, float], what: str, work: Callable[[], object]) -> None:
    start = time.perf_counter()
    work()
    times[what] = min(times.get(what, float("inf")), time.perf_counter() - start)


def _arrays(sample: Array, detail: bool) -> dict[str, Any]:
    """What a runner holds for a part, in the shapes it holds them in."""
    random = np.random.default_rng(int(sample[0]))
    n = len(sample)
    return {
        "label": random.integers(0, 10, n),
        "prediction": random.integers(0, 10, n).astype(np.int32),
        "radius": random.exponential(0.03, n),
        "forwards": random.integers(1, 500, n),
        "seconds": random.random(n),
        "detail": [{"reason": "margin", "nodes": k, "gap": k / 7} for k in range(n)] if detail else None,
    }


def _build(run: Run, sample: Array, given: dict[str, Any]) -> pa.Table:
    manifest = run.manifest
    builder = EvidenceBuilder(
        run=manifest.run,
        classifier=manifest.classifier.canonical,
        fingerprint=manifest.classifier.fingerprint,
        dataset=manifest.dataset.canonical,
        dataset_hash=manifest.dataset.hash,
        split=manifest.dataset.split,
    )
    shared = {"sample": sample, "label": given["label"], "prediction": given["prediction"]}
    builder.add_rows(
        **shared, evaluator="clean", kind="clean", norm=None, eps=None, lower=0.0, upper=np.inf, status="correct",
        forwards=1,
    )  # fmt: skip
    radius = given["radius"]
    for evaluator, kind in EVALUATORS:
        for eps in EPSILONS:
            won = radius <= eps
            attack = kind == "attack"
            builder.add_rows(
                **shared,
                evaluator=evaluator,
                kind=kind,
                norm="linf",
                eps=eps,
                lower=0.0 if attack else np.where(won, 0.0, eps),
                upper=np.where(won, radius, np.inf) if attack else np.inf,
                status=np.where(won, "falsified" if attack else "open", "open" if attack else "certified").tolist(),
                forwards=given["forwards"],
                backwards=given["forwards"],
                seconds=given["seconds"],
                detail=given["detail"],
            )
    return builder.table()


def _write(run: Run, samples: list[Array], arrays: list[dict[str, Any]]) -> None:
    for part, given in zip(samples, arrays, strict=True):
        run.put_part(int(part[0]), _build(run, part, given))
    run.finish()


def _write_bare(folder: Path, tables: list[pa.Table]) -> None:
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"part-{number:04d}.parquet", compression="zstd")


def _read_bare(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.iterdir())])


def _manifest(n: int) -> Manifest:
    net, data = "a" * 64, "b" * 64
    return Manifest(
        request=Request(
            fingerprint=net, dataset_hash=data, split="test", samples="all", norm="linf", eps=("8/255",),
            evaluators=tuple(name for name, _ in EVALUATORS), seed=0, precision="fp32",
        ),
        classifier=ClassifierInfo(canonical="checkpoint:cnn@sha256:0123456789ab", fingerprint=net, classes=10),
        dataset=DatasetInfo(canonical="digits", hash=data, split="test", n=n),
    )  # fmt: skip


if __name__ == "__main__":
    main()
