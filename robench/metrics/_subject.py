"""One classifier on one split: all rows that any of the given runs holds about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from robench.metrics._radii import Radii, merge, row_bounds
from robench.threat import NORMS, Epsilon, Norm

if TYPE_CHECKING:
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

    def evidence(self) -> pa.Table:
        """All rows."""

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
        silent: evaluators that were asked and left no row (every sample was settled before their turn). Composite
            attacks are not among them: their stages leave the rows.
        rows: one row per evidence row, in an order that does not depend on the order of runs or files; besides
            the schema's columns `numerical` (open for numerical reasons) and `witness_<norm>` (+inf: none).
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
    dimension: int | None

    @property
    def title(self) -> str:
        """The newest display name that a run gives, else the spec."""
        names = [manifest.display.name for manifest in self.runs if manifest.display.name]
        return names[-1] if names else self.classifier

    @cached_property
    def samples(self) -> npt.NDArray[np.int64]:
        """Original indices of all samples that a row is about, ascending."""
        return np.unique(self.rows["sample"].to_numpy(dtype=np.int64))

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
        return np.where(rows["kind"] == "clean", rows["status"] == "correct", agrees)

    @property
    def disputed(self) -> npt.NDArray[np.int64]:
        """Samples that one row calls correct and another does not."""
        right = pd.Series(self._right).groupby(self.rows["sample"].to_numpy()).agg(["min", "max"])
        return right.index[right["min"] != right["max"]].to_numpy(dtype=np.int64)

    @cached_property
    def requested(self) -> dict[Norm, tuple[Epsilon, ...]]:
        """The ε that were asked for in each norm, ascending, in the words they were given in."""
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
    """Return the subjects of `runs`, sorted by dataset, classifier and fingerprint."""
    manifests = {run.manifest.run: run.manifest for run in runs}
    if not manifests:
        return []
    ordered = [run for _, run in sorted({run.manifest.run: run for run in runs}.items())]
    table = pa.concat_tables([run.evidence() for run in ordered]).unify_dictionaries()
    parts = [_distances(table) for run in ordered for table in run.iter_witnesses()]
    witnesses = pa.concat_tables(parts).to_pandas() if parts else pd.DataFrame(columns=[*_ROW, *NORMS])
    frame = _rows(table, witnesses)

    shapes = {name: manifest.classifier.input_shape for name, manifest in manifests.items()}
    out = []
    for key, rows in frame.groupby(_SUBJECT, observed=True, sort=True):
        names = sorted(map(str, rows["run"].unique()))
        about = tuple(manifests[name] for name in names)
        newest = rows[rows["run"] == names[-1]]
        sizes = {math.prod(shapes[name]) for name in names if shapes.get(name)}
        out.append(
            Subject(
                classifier=min(map(str, newest["classifier"].unique())),
                fingerprint=str(key[0]),
                dataset=min(map(str, newest["dataset"].unique())),
                dataset_hash=str(key[1]),
                split=str(key[2]),
                runs=about,
                silent=_silent(rows, about),
                rows=rows.reset_index(drop=True),
                dimension=sizes.pop() if len(sizes) == 1 else None,
            )
        )
    return sorted(out, key=lambda s: (s.dataset, s.dataset_hash, s.split, s.classifier, s.fingerprint))


def _silent(rows: pd.DataFrame, manifests: tuple[Manifest, ...]) -> tuple[EvaluatorInfo, ...]:
    infos = [info for manifest in manifests for info in manifest.evaluators]
    spoke = {(str(kind), str(name)) for kind, name in rows[["kind", "evaluator"]].drop_duplicates().to_numpy()}
    stages = {kind for kind, name in spoke if name not in {info.canonical for info in infos}}
    return tuple(info for info in infos if (info.kind, info.canonical) not in spoke and info.kind not in stages)


def _rows(table: pa.Table, witnesses: pd.DataFrame) -> pd.DataFrame:
    """Evidence as a frame in canonical order, with each row's witness distances."""
    frame = table.select(_COLUMNS).to_pandas()
    frame["numerical"] = pc.fill_null(
        pc.and_(
            pc.equal(pc.cast(table["status"], pa.string()), "open"),
            pc.match_substring_regex(table["detail"], r'"reason":\s*"numerical"'),
        ),
        False,
    ).to_numpy(zero_copy_only=False)
    for column in _DISTANCES:
        frame[column] = np.inf
    found = (frame["upper"] > 0) & (frame["upper"] < math.inf)
    if len(witnesses) and found.any():
        # Merged on text: the two tables' dictionaries differ. A repeated witness counts once, the nearest.
        nearest = witnesses.groupby(_ROW, dropna=False, sort=False, observed=True)[list(NORMS)].min().reset_index()
        left = frame.loc[found, _ROW].astype(dict.fromkeys(("run", "evaluator", "norm"), "object"))
        joined = left.merge(nearest, how="left", on=_ROW)
        for column, norm in _DISTANCES.items():
            frame.loc[found, column] = joined[norm].fillna(math.inf).to_numpy()
    for column in ("run", "kind", "evaluator", "norm", "status"):
        frame[column] = frame[column].cat.reorder_categories(sorted(frame[column].cat.categories))
    # Sorted by everything that tells rows apart, so that no result depends on the order of parts and runs.
    ordered: pd.DataFrame = frame.sort_values(
        ["sample", "run", "kind", "evaluator", "norm", "eps", "lower", "upper"], kind="stable"
    )
    return ordered


def _distances(table: pa.Table) -> pa.Table:
    """The witness table without its points, names as plain text."""
    slim = table.select([*_ROW, *NORMS])
    text = [pa.field(f.name, pa.string()) if pa.types.is_dictionary(f.type) else f for f in slim.schema]
    return slim.cast(pa.schema(text))
