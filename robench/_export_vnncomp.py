"""Runs over properties (VNN-LIB) in the words of the verification competition: a table, and counterexamples.

A line is `category,onnx,vnnlib,prepare_time,result,run_time`; a counterexample `((X_0 v) … (Y_0 v) …)`, with inputs as
exact decimals of the numbers that the model got, and its outputs as executed in its own precision. Nothing is called
`sat` unless the model, asked again, shows it: within the closed box, with no tolerance.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from robench._replay_load import load_recorded_data, load_recorded_subject
from robench.classifier import deterministic
from robench.errors import DataError, InputError
from robench.evidence import decode_point
from robench.graph import full_precision
from robench.loading import Data, Subject, parse_device
from robench.runs import ClassifierInfo, Run

__all__ = ["Exported", "counterexample", "export_vnncomp"]

_ORDER = ("timeout", "error", "unknown")
"""What is said about an instance that nothing settles: the first of these that any row says."""


@dataclass
class Exported:
    """What was written: lines of the tables, files of counterexamples, and remarks about what was left out."""

    lines: list[tuple[str, ...]] = field(default_factory=list)
    counterexamples: list[Path] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def export_vnncomp(
    runs: Sequence[Run],
    out: Path,
    *,
    model: Any = None,
    dataset: Any = None,
    device: str = "auto",
    search: Sequence[Path] = (),
) -> Exported:
    """Write what `runs` show to the folder `out`: `<category>.csv` each, and `counterexamples/`.

    Args:
        runs: measured runs about properties; of several about one network and benchmark the first that settles an
            instance counts, by its time.
        out: the folder; files that are there already are refused.
        model: model to ask instead of the manifests', a spec or an object; its fingerprint must be the same.
        dataset: dataset to use instead of the manifests', a spec or an object; its hash must be the same.
        device: where to ask.
        search: folders in which the manifests' files are looked for.

    Raises:
        InputError: no run is about properties, or model or data cannot be found or are not the ones evaluated.
        DataError: a file is there already.
    """
    about: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        manifest = run.manifest
        if manifest.origin == "measured" and manifest.dataset.regions is not None:
            key = manifest.classifier.fingerprint, manifest.dataset.hash, manifest.dataset.split
            about.setdefault(key, []).append(run)
    if not about:
        raise InputError("no run here is about properties: evaluate a dataset vnnlib:FOLDER first")
    made, tables, points = Exported(), dict[str, list[tuple[str, ...]]](), _Points(out / "counterexamples")
    for mine in about.values():
        mine.sort(key=lambda run: run.manifest.run)
        first = mine[0].manifest
        data = load_recorded_data(first, dataset, search)
        subject = load_recorded_subject(first, model, data, parse_device(device), search)
        category, net = _category(first.dataset.canonical), _net(first.classifier)
        with full_precision():
            for line in _Verdicts(subject, data, mine, made).lines():
                name, result, seconds, text = line
                tables.setdefault(category, []).append((category, f"onnx/{net}", name, "0", result, seconds))
                if text is not None and (remark := points.add(net, name, text, len(tables[category]))):
                    made.remarks.append(f"{category}: {remark}")
    files = {out / f"{category}.csv": _table(lines) for category, lines in tables.items()} | points.texts
    if there := [path for path in files if path.exists()]:
        raise DataError(f"{there[0]} is there already: give another folder with --out")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    made.lines = [line for lines in tables.values() for line in lines]
    made.counterexamples = list(points.texts)
    return made


class _Points:
    """Counterexamples by file in `folder`: `<network>_<property>`, and a number where that name is another's."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.texts = folder, dict[Path, str]()
        self.taken: set[str] = set()

    def add(self, net: str, name: str, text: str, row: int) -> str | None:
        """Keep the counterexample of the table's line `row` (from 1); return a remark where the usual name is taken."""
        usual = f"{_stem(net.removesuffix('.onnx'))}_{_stem(Path(name).name.removesuffix('.vnnlib'))}"
        stem, number = usual, row
        while stem.casefold() in self.taken:  # there are file systems to which A and a are one
            stem, number = f"{usual}-{number}", number + 1
        self.taken.add(stem.casefold())
        self.texts[self.folder / f"{stem}.counterexample"] = text
        if stem == usual:
            return None
        return f"{name}: {usual}.counterexample is another instance's, so its own is {stem}.counterexample"


class _Verdicts:
    """The answers about one network's properties, from the rows of its runs."""

    def __init__(self, subject: Subject, data: Data, runs: Sequence[Run], made: Exported) -> None:
        self.classifier = deterministic(subject.classifier, subject.canonical)
        self.samples, self.made = data.samples, made
        self.frames = [run.evidence().to_pandas() for run in runs]
        self.points: list[dict[int, npt.NDArray[Any]]] = []
        for run in runs:
            found: dict[int, npt.NDArray[Any]] = {}
            for table in run.iter_witnesses():
                for row in table.to_pylist():
                    found.setdefault(int(row["sample"]), decode_point(row))
            self.points.append(found)

    def lines(self) -> Iterator[tuple[str, str, str, str | None]]:
        """Yield (property, result, run time, counterexample or None) in the data's order."""
        assert self.samples.regions is not None
        for position, sample in enumerate(self.samples.index.tolist()):
            told: tuple[str, str | None, str] | None = None
            for frame, points in zip(self.frames, self.points, strict=True):
                rows = frame[frame["sample"] == sample]
                if len(rows) == 0 or (told is not None and told[0] == "sat" and not _proved(rows)):
                    continue
                found = self._result(position, sample, rows, points)
                if told is None or told[0] in _ORDER:
                    told = (*found, f"{rows['seconds'].sum():.6f}")
                elif {told[0], found[0]} == {"sat", "unsat"}:
                    self.made.remarks.append(
                        f"{self.samples.regions.names[position]}: {told[0]} by the first run that "
                        f"settles it, {found[0]} by a later one (`robench check` says more)"
                    )
            if told is not None:
                yield self.samples.regions.names[position], told[0], told[2], told[1]

    def _result(
        self, position: int, sample: int, rows: pd.DataFrame, points: Mapping[int, npt.NDArray[Any]]
    ) -> tuple[str, str | None]:
        assert self.samples.regions is not None
        name, status = self.samples.regions.names[position], set(map(str, rows["status"]))
        if status & {"falsified", "incorrect"}:
            point = points.get(sample) if "falsified" in status else self.samples.batch(position, position + 1)[0]
            text = None if point is None else self._counterexample(position, point)
            if text is not None:
                return "sat", text
            self.made.remarks.append(f"{name}: falsified, but the model as executed does not show it at the point kept")
        elif _proved(rows):
            return "unsat", None
        return next((word for word in _ORDER if word in status), "unknown"), None

    @torch.no_grad()
    def _counterexample(self, position: int, point: npt.NDArray[Any]) -> str | None:
        """Return the point's file where the model as executed shows it, else None."""
        assert self.samples.regions is not None
        x = torch.from_numpy(np.array(point)[None]).to(self.classifier.device, self.classifier.dtype)
        low, high = self.samples.regions.batch(slice(position, position + 1), x.device).inside(x)
        outputs = self.classifier.logits(x)[0].double().cpu().tolist()
        inside = bool(((x >= low) & (x <= high)).all()) and x.shape[1:] == self.samples.shape
        if not inside or not self.samples.regions.conditions[position].occurs(outputs):
            return None
        return counterexample(x.double().flatten().tolist(), outputs)


def _proved(rows: pd.DataFrame) -> bool:
    return bool(((rows["status"] == "certified") & (rows["confidence"] == 1.0)).any())


def counterexample(inputs: Sequence[float], outputs: Sequence[float]) -> str:
    """Return a counterexample in the competition's format, each number as its exact decimal."""
    pairs = [f"(X_{i} {Decimal(value + 0.0)})" for i, value in enumerate(inputs)]
    pairs += [f"(Y_{j} {Decimal(value + 0.0)})" for j, value in enumerate(outputs)]
    return "(" + "\n ".join(pairs) + ")\n"


def _table(lines: Sequence[tuple[str, ...]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def _category(canonical: str) -> str:
    """Return the benchmark's name: that of the folder or file in the dataset's spec."""
    found = re.match(r'vnnlib:"?([^@,"|]+)', canonical)
    return _stem((found[1] if found else "properties").removesuffix(".gz").removesuffix(".vnnlib").removesuffix(".csv"))


def _net(classifier: ClassifierInfo) -> str:
    """Return the network's file name in the model's spec, without .gz; one made of its fingerprint elsewhere."""
    found = re.match(r'onnx:"?([^@,"|]+)', classifier.canonical)
    name = found[1].removesuffix(".gz").removesuffix(".onnx") if found else f"network-{classifier.fingerprint[:8]}"
    return f"{_stem(name)}.onnx"


def _stem(text: str) -> str:
    """Return `text` as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip(".-")[:110] or "unnamed"
