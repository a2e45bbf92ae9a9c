"""Other people's per-sample results as runs of evidence, with an origin, a trust level and a source.

An importer yields `ImportedRun`s; `write` turns one into a run on disk. Imported evidence never mixes with
measured evidence by accident: its fingerprint is `import:` + a hash of source and net, its dataset's hash
`import:` + a hash of the dataset's and split's names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robench.errors import DataError
from robench.evidence import EvidenceBuilder, Kind
from robench.runs import (
    ClassifierInfo,
    DatasetInfo,
    Display,
    EvaluatorInfo,
    Manifest,
    Request,
    Run,
    Trust,
    samples_hash,
)
from robench.text import one_line
from robench.threat import Norm

if TYPE_CHECKING:
    from robench.regions import RegionKind
    from robench.runs import PluginInfo

__all__ = ["ImportedRows", "ImportedRun", "write"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImportedRows:
    """What one evaluator showed about some samples; arguments as in `robench.evidence.EvidenceBuilder.add_rows`.

    Attributes:
        evaluator: canonical spec, in the words of the source where it has no plugin here.
        kind: `clean`, `attack`, `certificate` or `verifier`.
        norm: None for clean rows.
        eps: the ε searched; None for clean rows, minimum-norm searches and radii.
        sample: original indices in the split, int64 [B].
        status: one for all or [B].
        lower: proven radii [B]; both bounds are 0 on misclassified samples.
        upper: distances of misclassified points [B]; +inf says nothing.
        confidence: 1.0, 1 − α, or None where the source does not tell.
        forwards: passes, one for all or [B].
        backwards: passes.
        seconds: share of wall time.
        detail: the source's own figures [B] (JSON values), or None.
    """

    evaluator: str
    kind: Kind
    norm: Norm | None
    eps: float | None
    sample: Ints
    status: str | Sequence[str]
    lower: Any
    upper: Any
    confidence: float | None = 1.0
    forwards: Any = 0
    backwards: Any = 0
    seconds: Any = 0.0
    detail: Sequence[Mapping[str, Any] | None] | None = None


@dataclass(frozen=True, eq=False)
class ImportedRun:
    """One classifier's published results on one split, as an importer found them.

    Attributes:
        classifier: what boards call it when nobody gives a name; a spec if possible.
        net: the function's identity within the source; equal for equal functions.
        source: where the results come from: an address or a citation. Never a local path.
        dataset: canonical dataset spec, the same for every importer (`cifar10`).
        split: name of the split.
        classes: number of classes.
        sample: original indices, int64 [N].
        label: labels [N].
        prediction: clean predictions [N]; −1 abstains. None where the source does not tell them.
        rows: what each evaluator showed, clean rows among them.
        norm: the norm that the source is about.
        eps: the ε that the source reports, as text.
        input_shape: shape of one input, where it is known.
        domain: the box that inputs live in.
        trust: `imported` (per-sample results), `aggregate` or `self-reported`.
        display: name, paper, licence, training data.
        names: what the source calls the samples, by index, where it names them.
        regions: what sets of the samples' own are about, where the source is about these, not about radii: `lower` is
            then 0, and a finite `upper` says that a point is shown.
    """

    classifier: str
    net: str
    source: str
    dataset: str
    split: str
    classes: int
    sample: Ints
    label: Ints
    prediction: Ints | None
    rows: Sequence[ImportedRows]
    norm: Norm
    eps: Sequence[str]
    input_shape: tuple[int, ...] = ()
    domain: tuple[float | None, float | None] = (0.0, 1.0)
    trust: Trust = "imported"
    display: Display = field(default_factory=Display)
    names: Mapping[int, str] = field(default_factory=dict)
    regions: RegionKind | None = None

    @property
    def fingerprint(self) -> str:
        """`import:` + sha256 of source and net."""
        return _identity(self.source, self.net)

    @property
    def dataset_hash(self) -> str:
        """`import:` + sha256 of the dataset's and split's names: published rows carry no inputs to hash."""
        return _identity(self.dataset, self.split)

    def manifest(self, importer: PluginInfo | None = None) -> Manifest:
        """Return the manifest of a new run. Raises DataError for a value that no manifest may hold."""
        evaluators: dict[tuple[str, Literal["attack", "certificate", "verifier"]], list[ImportedRows]] = {}
        for rows in self.rows:
            if rows.kind != "clean":
                evaluators.setdefault((rows.evaluator, rows.kind), []).append(rows)
        dataset = {
            "canonical": self.dataset,
            "hash": self.dataset_hash,
            "split": self.split,
            "samples_hash": samples_hash(self.sample),
            "n": len(self.sample),
            "domain": self.domain,
            "names": dict(self.names),
            "regions": self.regions,
        }
        request = {
            "fingerprint": self.fingerprint,
            "dataset_hash": self.dataset_hash,
            "split": self.split,
            "samples": "as published",
            "samples_hash": samples_hash(self.sample),
            "norm": self.norm,
            "eps": tuple(self.eps),
            "evaluators": tuple(name for name, _ in evaluators),
            "seed": 0,
            "precision": "unknown",
            "versions": {"content": self._content()},
        }
        infos = tuple(
            EvaluatorInfo(
                canonical=name,
                plugins=(importer,) if importer else (),
                kind=kind,
                side="attack" if kind == "attack" else "certificate",
                norm=groups[0].norm,
                per_eps=any(rows.eps is not None for rows in groups),
                deterministic=all(rows.confidence == 1.0 for rows in groups),
            )
            for (name, kind), groups in evaluators.items()
        )
        try:
            return Manifest(
                origin="imported",
                trust=self.trust,
                source=self.source,
                request=Request(**request),  # type: ignore[arg-type]
                classifier=ClassifierInfo(
                    canonical=self.classifier,
                    fingerprint=self.fingerprint,
                    opaque=True,
                    classes=self.classes,
                    input_shape=self.input_shape,
                ),
                dataset=DatasetInfo(**dataset),  # type: ignore[arg-type]
                evaluators=infos,
                display=self.display,
            )
        except ValueError as error:
            raise DataError(f"{one_line(self.classifier, 80)} cannot be imported: {one_line(str(error))}") from None

    def evidence(self, run: str) -> pa.Table:
        """Return the rows as evidence of `run`. Raises DataError for values that do not fit."""
        place, n = self._table.column_names.index("run"), len(self._table)
        names = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), n), [run])
        return self._table.set_column(place, self._table.schema.field("run"), names)

    @cached_property
    def _table(self) -> pa.Table:
        """The rows, as evidence of no run yet: built once, for their hash and for the run."""
        builder = EvidenceBuilder(
            run="content",
            classifier=self.classifier,
            fingerprint=self.fingerprint,
            dataset=self.dataset,
            dataset_hash=self.dataset_hash,
            split=self.split,
        )
        place = {int(sample): position for position, sample in enumerate(self.sample)}
        if len(place) != len(self.sample):
            raise DataError(f"{one_line(self.classifier, 80)}: sample indices repeat")
        try:
            for rows in self.rows:
                at = np.array([place[int(sample)] for sample in rows.sample], dtype=np.int64)
                builder.add_rows(
                    evaluator=rows.evaluator,
                    kind=rows.kind,
                    norm=rows.norm,
                    eps=rows.eps,
                    sample=rows.sample,
                    label=self.label[at],
                    prediction=None if self.prediction is None else self.prediction[at],
                    lower=rows.lower,
                    upper=rows.upper,
                    status=rows.status,
                    confidence=rows.confidence,
                    forwards=rows.forwards,
                    backwards=rows.backwards,
                    seconds=rows.seconds,
                    detail=rows.detail,
                )
        except (KeyError, ValueError) as error:
            raise DataError(f"{one_line(self.classifier, 80)}: {one_line(str(error))}") from None
        return builder.table()

    def _content(self) -> str:
        """sha256 over everything that the source says about samples: the same content is imported once."""
        table = self._table
        sha = hashlib.sha256()
        for name in table.column_names:
            sha.update(f"{name}\0{table[name].to_pylist()!r}\0".encode())
        return sha.hexdigest()


def write(imported: ImportedRun, results: Path | str, importer: PluginInfo | None = None) -> tuple[Run, bool]:
    """Put an imported run into a results folder; return it and whether it is new.

    What is there already with the same content is not imported again: repeated statistical rows would
    be counted as repeated draws.
    """
    manifest = imported.manifest(importer)
    run = Run.find_resumable(results, manifest.request) if Path(results).is_dir() else None
    if run is not None and run.manifest.complete:
        return run, False
    with run or Run.create(results, manifest) as run:
        if not run.done():
            run.put_part(0, imported.evidence(run.manifest.run))
        run.finish()
    return run, True


def _identity(*parts: str) -> str:
    return "import:" + hashlib.sha256("\0".join(parts).encode()).hexdigest()
