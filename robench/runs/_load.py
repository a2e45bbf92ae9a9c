"""Evidence as a pandas data frame."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from robench.runs._find import find_runs

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["load"]


def load(results: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """Return all evidence in results folders, one row per (run, sample, evaluator, norm, ε).

    The columns are those of the evidence schema, and `origin` and `trust` from the manifests. Names are
    categories; `prediction` is Int32, null where the clean input gave an error.
    """
    import pandas as pd

    tables = []
    for run in find_runs(results):
        table = run.evidence()
        for name, value in (("origin", run.manifest.origin), ("trust", run.manifest.trust)):
            words = pa.repeat(pa.scalar(value, pa.string()), len(table)).dictionary_encode()
            table = table.append_column(name, words)
        tables.append(table)
    table = pa.concat_tables(tables).unify_dictionaries()
    prediction = table["prediction"]
    frame: pd.DataFrame = table.drop_columns("prediction").to_pandas()
    place = table.column_names.index("prediction")
    frame.insert(place, "prediction", prediction.to_pandas(types_mapper={pa.int32(): pd.Int32Dtype()}.get))
    return frame
