"""Evidence rows from arrays, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from robench.evidence._checks import check_evidence
from robench.evidence._columns import Names, codes, column, details
from robench.evidence._schema import EVIDENCE, KINDS, STATUSES, Kind
from robench.threat import NORMS, Norm

__all__ = ["EvidenceBuilder"]

Words = str | Sequence[str] | npt.NDArray[Any]

_CONSTANT = ("run", "classifier", "fingerprint", "dataset", "dataset_hash", "split")
_VOCABULARY: dict[str, Sequence[str]] = {"kind": KINDS, "norm": NORMS, "status": STATUSES}
_NUMBERS = ("sample", "label", "prediction", "eps", "lower", "upper", "confidence", "forwards", "backwards", "seconds")


class EvidenceBuilder:
    """Collects rows about one classifier on one dataset; `table` hands them out."""

    def __init__(
        self, *, run: str, classifier: str, fingerprint: str, dataset: str, dataset_hash: str, split: str
    ) -> None:
        """Take what all rows share."""
        self._constant = (run, classifier, fingerprint, dataset, dataset_hash, split)
        self._clear()

    def _clear(self) -> None:
        self._n = 0
        self._names = {name: Names(_VOCABULARY.get(name)) for name in ("evaluator", "kind", "norm", "status")}
        self._codes: dict[str, list[Any]] = {name: [] for name in self._names}
        self._chunks: dict[str, list[pa.Array]] = {name: [] for name in (*_NUMBERS, "detail")}

    def __len__(self) -> int:
        """The number of rows collected."""
        return self._n

    def add_rows(
        self,
        *,
        evaluator: Words,
        kind: Kind | Words,
        norm: Norm | Sequence[str | None] | None,
        eps: Any,
        sample: Any,
        label: Any,
        prediction: Any,
        lower: Any,
        upper: Any,
        status: Words,
        confidence: Any = 1.0,
        forwards: Any = 0,
        backwards: Any = 0,
        seconds: Any = 0.0,
        detail: str | Mapping[str, Any] | Sequence[Mapping[str, Any] | str | None] | None = None,
    ) -> None:
        """Add the rows of `sample`, int64 [B]. Every other argument is one value for all or [B] values.

        Nulls: None for the whole column, None in a list, or a masked array. Numbers must fit their column's
        type. Raises ValueError, before any row is added, for a value that does not fit or an unknown word.
        """
        n = len(sample)
        words = {"evaluator": evaluator, "kind": kind, "norm": norm, "status": status}
        numbers = {
            "sample": sample, "label": label, "prediction": prediction, "eps": eps, "lower": lower, "upper": upper,
            "confidence": confidence, "forwards": forwards, "backwards": backwards, "seconds": seconds,
        }  # fmt: skip
        try:
            coded = {name: codes(self._names[name], value, n) for name, value in words.items()}
            made = {name: column(value, EVIDENCE.field(name).type, n) for name, value in numbers.items()}
            made["detail"] = details(detail, n)
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise ValueError(f"evidence of {evaluator!r}: {error}") from None
        for name, value in coded.items():
            self._codes[name].append(value)
        for name, value in made.items():
            self._chunks[name].append(value)
        self._n += n

    def table(self) -> pa.Table:
        """Return the rows collected, checked, and start again with none."""
        zeros = pa.array(np.zeros(self._n, np.int32))
        arrays: dict[str, Any] = {
            name: pa.DictionaryArray.from_arrays(zeros, pa.array([value], pa.string()))
            for name, value in zip(_CONSTANT, self._constant, strict=True)
        }
        for name, names in self._names.items():
            arrays[name] = names.array(self._codes[name])
        for name, chunks in self._chunks.items():
            arrays[name] = pa.concat_arrays(chunks) if chunks else pa.array([], EVIDENCE.field(name).type)
        table = pa.Table.from_arrays([arrays[field.name] for field in EVIDENCE], schema=EVIDENCE)
        check_evidence(table, "evidence")
        self._clear()
        return table
