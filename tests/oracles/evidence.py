"""Synthetic evidence for tests: runs in memory or on disk, row by row."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from robench.evidence import WITNESSES, EvidenceBuilder, WitnessBuilder
from robench.health import CATALOGUE
from robench.runs import (
    ClassifierInfo,
    DatasetInfo,
    Display,
    EvaluatorInfo,
    Manifest,
    Request,
    Run,
    StageInfo,
    samples_hash,
)

SHAPE = (4,)
Rows = Mapping[int, tuple[str, float, float]]
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class FakeRun:
    """A run that was never on disk; `save` puts it there."""

    manifest: Manifest
    builder: EvidenceBuilder
    points: WitnessBuilder
    table: pa.Table | None = None
    found: pa.Table | None = None
    samples: set[int] = field(default_factory=set)

    def add(
        self, evaluator: str, kind: str, norm: str | None, eps: float | None, rows: Mapping[int, tuple], **more: Any
    ) -> FakeRun:
        """Rows of one evaluator: sample -> (status, lower, upper); `label` and `prediction` default to 0 and 0."""
        index = sorted(rows)
        self.samples |= set(index)
        more = {"label": 0, "prediction": 0, "forwards": 1, "backwards": 0, "seconds": 0.5, **more}
        self.builder.add_rows(
            evaluator=evaluator,
            kind=kind,
            norm=norm,
            eps=eps,
            sample=np.array(index, dtype=np.int64),
            status=[rows[i][0] for i in index],
            lower=np.array([rows[i][1] for i in index], dtype=float),
            upper=np.array([rows[i][2] for i in index], dtype=float),
            **more,
        )
        return self

    def clean(self, correct: Mapping[int, bool]):
        """Clean rows: sample -> whether it is classified correctly."""
        for right in (True, False):
            rows = {
                i: ("correct", 0.0, np.inf) if right else ("incorrect", 0.0, 0.0)
                for i in correct
                if correct[i] == right
            }
            if rows:
                self.add("clean", "clean", None, None, rows, prediction=0 if right else 1)
        return self

    def witness(
        self, evaluator: str, norm: str, eps: float | None, sample: int, delta: Sequence[float], **more: Any
    ) -> FakeRun:
        """A witness at `delta` from the origin, with its true distances unless given otherwise."""
        step = np.array(delta, dtype=np.float32)
        exact = step.astype(float)
        given = {
            "linf": np.abs(exact).max(),
            "l2": np.nextafter(np.linalg.norm(exact), np.inf),
            "l1": np.nextafter(np.abs(exact).sum(), np.inf),
            "prediction": 1,
            "margin": -0.25,
            "clean": [np.zeros_like(step)],
            **more,
        }
        self.points.add_rows(
            evaluator=evaluator,
            norm=norm,
            eps=eps,
            sample=np.array([sample], dtype=np.int64),
            points=step[None],
            **given,
        )
        return self

    def evidence(self) -> pa.Table:
        if self.table is None:
            self.table = self.builder.table()
        return self.table

    def iter_evidence(self):
        yield self.evidence()

    def witnesses(self) -> pa.Table:
        if self.found is None:
            self.found = self.points.table()
            if self.found is None:
                self.found = WITNESSES.empty_table()
        return self.found

    def iter_witnesses(self):
        yield self.witnesses()

    def save(self, results: Path, *, complete: bool = True) -> Run:
        """Write the run under `results` in one part."""
        with Run.create(results, self.manifest.replace(complete=False)) as run:
            run.put_part(0, self.evidence(), self.witnesses())
            if complete:
                run.finish()
        return run


def info(name: str, kind: str = "attack", norm: str | None = "linf", **more: Any) -> EvaluatorInfo:
    """What a manifest says about an evaluator; without `more` nothing that an older one did not say."""
    side = "attack" if kind == "attack" else "certificate"
    return EvaluatorInfo(canonical=name, kind=kind, side=side, norm=norm, **more)


def composite(name: str, norm: str | None = "linf", **stages: str) -> EvaluatorInfo:
    """A composite attack with the stages given as name=access."""
    return info(name, norm=norm, stages={stage: StageInfo(access=access) for stage, access in stages.items()})


def fake_run(
    number: int = 0,
    *,
    net: str = "net",
    classifier: str | None = None,
    norm: str | None = "linf",
    eps: Sequence[str] = ("0.1",),
    evaluators: Sequence[tuple[str, str] | EvaluatorInfo] = (("pgd", "attack"), ("ibp", "certificate")),
    n: int = 4,
    shape: tuple[int, ...] = SHAPE,
    complete: bool = True,
    dataset: str = "toy",
    fingerprint: str | None = None,
    **changes: Any,
) -> FakeRun:
    """An empty run; `number` orders runs in time, `net` names the function."""
    run = f"{START + timedelta(minutes=number):%Y%m%dT%H%M%SZ}-{number:06x}"
    fingerprint = fingerprint or sha(net)
    canonical = classifier or net
    infos = tuple(one if isinstance(one, EvaluatorInfo) else info(*one, norm=norm) for one in evaluators)
    manifest = Manifest(
        run=run,
        complete=complete,
        request=Request(
            fingerprint=fingerprint,
            dataset_hash=sha(dataset),
            split="test",
            samples="all",
            samples_hash=samples_hash(range(n)),
            norm=norm,
            eps=tuple(eps),
            evaluators=tuple(one.canonical for one in infos),
            seed=0,
            precision="fp32",
        ),
        classifier=ClassifierInfo(canonical=canonical, fingerprint=fingerprint, classes=2, input_shape=shape),
        dataset=DatasetInfo(canonical=dataset, hash=sha(dataset), split="test", n=n),
        evaluators=infos,
        started=START + timedelta(minutes=number),
    )
    if isinstance(changes.get("display"), dict):
        changes["display"] = Display(**changes["display"])
    manifest = manifest.replace(**changes)
    shared = {"run": run, "classifier": canonical, "fingerprint": fingerprint}
    builder = EvidenceBuilder(**shared, dataset=dataset, dataset_hash=sha(dataset), split="test")
    return FakeRun(manifest, builder, WitnessBuilder(run=run))


NETS = (
    # name, display name, clean, median radius, share of its radius that certificates reach
    ("standard", "MLP, standard training", 0.97, 0.03, 0.3),
    ("pgd-at", "MLP, adversarial training (PGD-10)", 0.95, 0.11, 0.45),
    ("ibp", "MLP, interval bound training", 0.86, 0.12, 0.9),
    ("linear", "Linear classifier", 0.93, 0.045, 1.0),
)


def toy_runs(n: int = 450, epsilons: Sequence[str] = ("1/16", "1/8", "0.2")) -> list[FakeRun]:
    """Runs of a few nets whose true radii are drawn from known distributions: for pages and reports."""
    runs = []
    for number, (name, title, clean, median, reach) in enumerate(NETS):
        generator = np.random.default_rng(number)
        radius = median * np.exp(0.6 * generator.standard_normal(n))
        radius[generator.random(n) > clean] = 0.0
        proven = radius * np.minimum(1.0, reach * np.exp(0.15 * generator.standard_normal(n))) * 0.999
        if name == "linear":
            proven = np.nextafter(radius, 0)
        run = fake_run(
            number,
            net=name,
            n=n,
            eps=tuple(epsilons),
            dataset="digits",
            evaluators=(("pgd:restarts=5,steps=100", "attack"), ("ibp", "certificate")),
            display={"name": title},
        )
        correct = {i: bool(radius[i] > 0) for i in range(n)}
        run.clean(correct)
        right = [i for i in range(n) if correct[i]]
        for text in epsilons:
            eps = float(Fraction(text))
            step = float(np.float32(eps))
            step = step if step <= eps else float(np.nextafter(np.float32(eps), np.float32(0)))
            broken = {i: radius[i] <= step * 0.93 for i in right}
            rows = {i: ("falsified", 0.0, step) if broken[i] else ("open", 0.0, np.inf) for i in right}
            run.add(run.manifest.evaluators[0].canonical, "attack", "linf", eps, rows, forwards=103, backwards=100)
            for i in right:
                if broken[i]:
                    run.witness(run.manifest.evaluators[0].canonical, "linf", eps, i, [step, 0, 0, 0], clean=None)
            left = [i for i in right if not broken[i]]
            rows = {i: ("certified", eps, np.inf) if proven[i] >= eps else ("open", 0.0, np.inf) for i in left}
            run.add("ibp", "certificate", "linf", eps, rows, seconds=0.001)
        runs.append(run)
    return runs


def probed_run(number: int, net: str, n: int = 60, bad: Mapping[str, float] | None = None, **more: Any) -> FakeRun:
    """A run whose attacks measured their health at two ε: indicators on their thresholds but for the share in `bad`."""
    stages = composite("cascade", probe="gradients", apgd="gradients", square="logits")
    more = {"dataset": "digits", "eps": ("1/16", "1/8"), **more}
    run = fake_run(number, net=net, n=n, evaluators=(stages,), **more)
    run.clean(dict.fromkeys(range(n), True))
    for eps in (1 / 16, 1 / 8):
        details = []
        for i in range(n):
            values = {one.code: one.threshold for one in CATALOGUE.values() if one.origin == "probe"}
            for code, share in (bad or {}).items():
                if CATALOGUE[code].origin == "probe" and i < share * n and eps > 0.1:
                    values[code] += 1 if CATALOGUE[code].direction == "above" else -1
            details.append({"health": values})
        rows = dict.fromkeys(range(n), ("open", 0.0, np.inf))
        run.add("probe", "attack", "linf", eps, rows, backwards=5, detail=details)
        run.add("apgd", "attack", "linf", eps, rows, backwards=100)
        lost = int((bad or {}).get("blackbox-stronger", 0) * n) if eps > 0.1 else 0
        found = dict.fromkeys(range(lost), ("falsified", 0.0, 0.0625 + 0.001))
        run.add("square", "attack", "linf", eps, {**rows, **found}, forwards=500)
        for i in found:
            run.witness("square", "linf", eps, i, [0.0625 + 1e-3, 0, 0, 0], clean=None)
    return run
