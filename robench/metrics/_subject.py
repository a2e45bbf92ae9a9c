"""One classifier on one split: all rows that any of the given runs holds about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from robench.metrics._radii import Radii, merge, row_bounds
from robench.metrics._readings import frame_of, readings_of
from robench.metrics._regions import GIVEN, in_units, region_kind
from robench.runs import samples_hash
from robench.threat import NORMS, Epsilon, Norm

if TYPE_CHECKING:
    from robench.regions import RegionKind
    from robench.runs import EvaluatorInfo, Manifest

__all__ = ["RunLike", "Subject", "subjects"]

_SUBJECT = ["fingerprint", "dataset_hash", "split"]
_ROW = ["run", "sample", "evaluator", "norm", "eps"]
_COLUMNS = [
    *("run", "sample", "label", "prediction", "evaluator", "kind", "norm", "eps", "lower", "upper"),
    *("confidence", "status", "forwards", "backwards", "seconds", "classifier", "dataset"),
    *_SUBJECT,
]
_DISTANCES = {f"witness_{norm}": norm for norm in NORMS}


class RunLike(Protocol):
    """What the metrics need of a run; `robench.runs.Run` has it."""

    @property
    def manifest(self) -> Manifest:
        """What was asked for, of what."""

    def iter_evidence(self) -> Iterator[pa.Table]:
        """All rows, part by part."""

    def iter_witnesses(self) -> Iterator[pa.Table]:
        """All witnesses, part by part."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A function on a split, with everything known about it; joined by fingerprint and hash, never by name.

    Attributes:
        classifier: canonical spec, as the newest run calls it.
        fingerprint: the function.
        dataset: canonical spec.
        dataset_hash: identity of the split's data.
        split: name of the split.
        runs: manifests of the runs that speak about it, oldest first.
        silent: evaluators that were asked and left no row (every sample was settled before their turn). A composite
            attack is among them where none of its stages left one; older manifests do not tell the stages.
        regions: what the samples' own sets are about, where they came with the data: then the only ε is `GIVEN`, and
            bounds are in units of each region (`in_units`). None: budgets.
        rows: one row per evidence row, in an order that does not depend on the order of runs or files; besides
            the schema's columns `numerical` (open for numerical reasons) and `witness_<norm>` (+inf: none).
        readings: what attacks measured about single samples (`robench.health`): sample, norm, eps, code, value.
        dimension: number of input coordinates, where it is known.
    """

    classifier: str
    fingerprint: str
    dataset: str
    dataset_hash: str
    split: str
    runs: tuple[Manifest, ...]
    silent: tuple[EvaluatorInfo, ...]
    rows: pd.DataFrame
    readings: pd.DataFrame
    dimension: int | None
    regions: RegionKind | None = None

    @property
    def title(self) -> str:
        """The newest display name that a run gives, else the spec."""
        names = [manifest.display.name for manifest in self.runs if manifest.display.name]
        return names[-1] if names else self.classifier

    @cached_property
    def _names(self) -> dict[int, str]:
        return {sample: name for manifest in self.runs for sample, name in manifest.dataset.names.items()}

    def called(self, sample: int) -> str:
        """Return `sample N`, with what its source calls it where that is told."""
        name = self._names.get(sample)
        return f"sample {sample}" + (f" ({name})" if name else "")

    @cached_property
    def samples(self) -> npt.NDArray[np.int64]:
        """Original indices of all samples that a row is about, ascending."""
        return np.unique(self.rows["sample"].to_numpy(dtype=np.int64))

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """The label of each sample, [N]."""
        first = self.rows.drop_duplicates("sample").sort_values("sample")
        return first["label"].to_numpy(dtype=np.int64)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, as the newest run that knows them gives them; () where none does."""
        return next((manifest.dataset.classes for manifest in reversed(self.runs) if manifest.dataset.classes), ())

    @cached_property
    def samples_hash(self) -> str:
        """sha256 over `samples`, as in the manifests of runs and bounds."""
        return samples_hash(self.samples)

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each sample is classified correctly, [N]: no row says otherwise."""
        out = np.ones(len(self.samples), dtype=bool)
        np.logical_and.at(out, np.searchsorted(self.samples, self.rows["sample"].to_numpy()), self._right)
        return out

    @cached_property
    def _right(self) -> npt.NDArray[np.bool_]:
        rows = self.rows
        agrees = (rows["prediction"] == rows["label"]).to_numpy(dtype=bool, na_value=False)
        if self.regions == "conditions":  # on the outputs, about no label
            agrees = np.ones(len(rows), dtype=bool)
        return np.where(rows["kind"] == "clean", rows["status"] == "correct", agrees)

    @property
    def disputed(self) -> npt.NDArray[np.int64]:
        """Samples that one row calls correct and another does not; a vote's predictions differ by chance."""
        if self.smoothed:
            return np.empty(0, dtype=np.int64)
        right = pd.Series(self._right).groupby(self.rows["sample"].to_numpy()).agg(["min", "max"])
        return right.index[right["min"] != right["max"]].to_numpy(dtype=np.int64)

    @property
    def smoothed(self) -> bool:
        """Whether the classifier is a vote, so that its predictions are the outcomes of tests."""
        return any(manifest.classifier.smoothed for manifest in self.runs)

    @cached_property
    def abstained(self) -> npt.NDArray[np.bool_]:
        """Where a clean prediction abstained, [N]: not correct, but not shown to be wrong either."""
        clean = self.rows[(self.rows["kind"] == "clean") & (self.rows["prediction"] == -1)]
        return np.isin(self.samples, clean["sample"].to_numpy()) & ~self.correct

    @cached_property
    def requested(self) -> dict[Norm, tuple[Epsilon, ...]]:
        """The ε that were asked for in each norm, ascending, in the words they were given in."""
        if self.regions is not None:
            return {"linf": (GIVEN,)}
        found: dict[Norm, dict[float, Epsilon]] = {}
        for manifest in self.runs:
            if manifest.request.norm is not None:
                known = found.setdefault(manifest.request.norm, {})
                for text in manifest.request.eps:
                    eps = Epsilon.parse(text)
                    known.setdefault(eps.value, eps)
        made = self.rows[["norm", "eps"]].dropna().drop_duplicates()
        for norm, value in zip(made["norm"], made["eps"], strict=True):
            if norm in NORMS and 0 < value < math.inf:
                found.setdefault(norm, {}).setdefault(value, Epsilon.parse(float(value)))
        return {norm: tuple(found[norm][value] for value in sorted(found[norm])) for norm in NORMS if norm in found}

    def radii(self, norm: Norm) -> Radii:
        """Return everything known in `norm`, merged pointwise (computed once)."""
        if norm not in self._radii:
            self._radii[norm] = merge(self.rows, self.samples, self.correct, norm, self.dimension)
        return self._radii[norm]

    def bounds(self, norm: Norm) -> pd.DataFrame:
        """Return what each row says about `norm`: `proves` (lower) and `shows` (upper), carried over where needed."""
        return row_bounds(self.rows, norm, self.dimension)

    @cached_property
    def _radii(self) -> dict[Norm, Radii]:
        return {}


def subjects(runs: Sequence[RunLike]) -> list[Subject]:
    """Return the subjects of `runs`, sorted by dataset, classifier and fingerprint.

    Runs about classifiers that draw are left out: r* is not defined for them (`random_results`).
    """
    runs = [run for run in runs if not run.manifest.classifier.randomized]
    manifests = {run.manifest.run: run.manifest for run in runs}
    if not manifests:
        return []
    ordered = [run for _, run in sorted({run.manifest.run: run for run in runs}.items())]
    tables, found = [], []
    for run in ordered:
        for table in run.iter_evidence():
            tables.append(_slim(table))
            if run.manifest.origin == "measured":
                found.append(readings_of(table))
    frame, readings = _frame(tables), frame_of(found)
    if frame.empty:
        return []
    parts = [_distances(table) for run in ordered for table in run.iter_witnesses()]
    _add_distances(frame, pa.concat_tables(parts).to_pandas() if parts else pd.DataFrame(columns=[*_ROW, *NORMS]))

    shapes = {name: manifest.classifier.input_shape for name, manifest in manifests.items()}
    out = []
    for key, positions in frame.groupby(_SUBJECT, observed=True, sort=False).indices.items():
        fingerprint, dataset_hash, split = cast("tuple[str, str, str]", key)
        rows = _ordered(frame, np.asarray(positions, dtype=np.int64))
        names = sorted(map(str, rows["run"].unique()))
        about = tuple(manifests[name] for name in names)
        newest = rows[rows["run"] == names[-1]]
        kind, read = region_kind(about), readings[readings["run"].isin(names)]
        sizes = {math.prod(shapes[name]) for name in names if shapes.get(name)}
        out.append(
            Subject(
                classifier=min(map(str, newest["classifier"].unique())),
                fingerprint=fingerprint,
                dataset=min(map(str, newest["dataset"].unique())),
                dataset_hash=dataset_hash,
                split=split,
                runs=about,
                silent=_silent(rows, about),
                rows=rows if kind is None else in_units(rows),
                readings=read if kind is None else read.assign(eps=1.0),
                dimension=sizes.pop() if len(sizes) == 1 else None,
                regions=kind,
            )
        )
    return sorted(out, key=lambda s: (s.dataset, s.dataset_hash, s.split, s.classifier, s.fingerprint))


def _silent(rows: pd.DataFrame, manifests: tuple[Manifest, ...]) -> tuple[EvaluatorInfo, ...]:
    infos = [info for manifest in manifests for info in manifest.evaluators]
    spoke = {(str(kind), str(name)) for kind, name in rows[["kind", "evaluator"]].drop_duplicates().to_numpy()}
    known = {name for info in infos for name in info.names}
    unknown = {kind for kind, name in spoke if name not in known}  # stages that an older manifest does not tell
    quiet = [info for info in infos if not any((info.kind, name) in spoke for name in info.names)]
    return tuple(info for info in quiet if info.kind not in unknown)


def _slim(table: pa.Table) -> pa.Table:
    """What the metrics use of a part; of the details, which are most of its bytes, only `numerical`."""
    numerical = pc.and_(
        pc.equal(pc.cast(table["status"], pa.string()), "open"),
        pc.match_substring_regex(table["detail"], r'"reason":\s*"numerical"'),
    )
    return table.select(_COLUMNS).append_column("numerical", pc.fill_null(numerical, False))


def _frame(parts: list[pa.Table]) -> pd.DataFrame:
    """The parts, which are used up, as one frame."""
    if not parts:
        return pd.DataFrame()
    table = pa.concat_tables(parts).unify_dictionaries()
    parts.clear()
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True)
    for column in ("run", "kind", "evaluator", "norm", "status"):
        frame[column] = frame[column].cat.reorder_categories(sorted(frame[column].cat.categories))
    return frame


def _add_distances(frame: pd.DataFrame, witnesses: pd.DataFrame) -> None:
    """Add each row's witness distances."""
    for column in _DISTANCES:
        frame[column] = np.inf
    found = (frame["upper"] > 0) & (frame["upper"] < math.inf)
    if witnesses.empty or not found.any():
        return
    # Merged on text: the two tables' dictionaries differ. A repeated witness counts once, the nearest.
    nearest = witnesses.groupby(_ROW, dropna=False, sort=False, observed=True)[list(NORMS)].min().reset_index()
    left = frame.loc[found, _ROW].astype(dict.fromkeys(("run", "evaluator", "norm"), "object"))
    joined = left.merge(nearest, how="left", on=_ROW)
    for column, norm in _DISTANCES.items():
        frame.loc[found, column] = joined[norm].fillna(math.inf).to_numpy()


def _ordered(frame: pd.DataFrame, positions: npt.NDArray[np.int64]) -> pd.DataFrame:
    """The rows at `positions`, sorted by all that tells them apart: the order of parts and runs must not matter."""
    keys = []
    for name in ("sample", "run", "kind", "evaluator", "norm", "eps", "lower", "upper"):
        column = frame[name]
        values = column.cat.codes if isinstance(column.dtype, pd.CategoricalDtype) else column
        keys.append(values.to_numpy()[positions])
    return frame.iloc[positions[np.lexsort(keys[::-1])]].reset_index(drop=True)


def _distances(table: pa.Table) -> pa.Table:
    """The witness table without its points, names as plain text."""
    slim = table.select([*_ROW, *NORMS])
    text = [pa.field(f.name, pa.string()) if pa.types.is_dictionary(f.type) else f for f in slim.schema]
    return slim.cast(pa.schema(text))
