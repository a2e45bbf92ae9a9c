"""Theoretical bounds: computed on exactly the evaluated samples, stored beside the runs, looked up as ceilings.

<dataset>/_bounds/<bound>/<run>/bound.parquet    put first
                               /manifest.json    its presence commits both
"""

from robench.bounds._answer import answer_problem
from robench.bounds._ceilings import Ceiling, Ceilings
from robench.bounds._compute import compute, find_computed
from robench.bounds._find import find_bounds
from robench.bounds._manifest import BoundManifest
from robench.bounds._run import BoundRun
from robench.bounds._table import BoundRow

__all__ = [
    "BoundManifest",
    "BoundRow",
    "BoundRun",
    "Ceiling",
    "Ceilings",
    "answer_problem",
    "compute",
    "find_bounds",
    "find_computed",
]
