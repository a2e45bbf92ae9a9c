"""A benchmark's folder beside the results: its properties, and counterexamples executed on its networks."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robench.errors import DataError, GraphError, InputError
from robench.regions import Condition
from robench.text import one_line
from robench_plugins.datasets.vnnlib import Property, read_property
from robench_plugins.importers._vnncomp_points import Point, read_point

if TYPE_CHECKING:
    from robench.graph import Graph

__all__ = ["Benchmark", "Replay", "Told", "occurs"]

Floats = npt.NDArray[np.float64]
_LARGEST = 16 << 20  # of an instances.csv


@dataclass(frozen=True)
class Told:
    """What a property tells: the class that must stay ahead (None: no class), the outputs, half of its widest side."""

    label: int | None
    classes: int
    eps: float


@dataclass(frozen=True)
class Replay:
    """What came of a counterexample: it holds, it was executed and shows nothing, or (neither) it was not executed."""

    holds: bool
    refuted: bool
    detail: dict[str, Any] = field(default_factory=dict)


class Benchmark:
    """The folder of one benchmark: `instances.csv`, `onnx/`, `vnnlib/`; all of it may be missing."""

    def __init__(self, folder: Path) -> None:
        """Look at nothing yet."""
        self._folder = folder
        self.told = lru_cache(maxsize=None)(self._told)
        self._property = lru_cache(maxsize=4)(self._read)
        self._graph = lru_cache(maxsize=2)(_load)

    def instances(self) -> list[tuple[str, str]] | None:
        """Return (network, property) of each line of instances.csv; None without that file.

        Raises DataError for a file that is no list of instances.
        """
        file = self._folder / "instances.csv"
        if not file.is_file():
            return None
        try:
            text = file.read_bytes().decode("utf-8-sig") if file.stat().st_size <= _LARGEST else "\0"
        except (UnicodeDecodeError, OSError):
            text = "\0"
        found = []
        for number, cells in enumerate(csv.reader(text.splitlines()), start=1):
            if len(cells) != 3 or "\0" in cells[0]:
                raise DataError(f"{file}, line {number}: not a line network,property,seconds")
            found.append((_stem(cells[0], ".onnx"), _stem(cells[1], ".vnnlib")))
        if len(set(found)) != len(found):
            raise DataError(f"{file}: an instance is there twice")
        return found

    def _told(self, instance: str) -> Told | None:
        """What a property tells about its sample; None where it is not there. Raises DataError for a malformed one."""
        wanted = self._property(instance)
        if wanted is None:
            return None
        return Told(wanted.label, wanted.outputs, float((wanted.upper - wanted.lower).max() / 2))

    def _read(self, instance: str) -> Property | None:
        file = _either(self._folder / "vnnlib", f"{instance}.vnnlib")
        return None if file is None else read_property(file)

    def replay(self, network: str, instance: str, file: Path) -> Replay:
        """Execute a published counterexample on the network. Raises DataError for damaged files.

        Decimals are no doubles: the point that is executed is, of the doubles next to the printed numbers, one in the
        closed box of the property's exact decimals. It holds where a rigorous enclosure of the logits there meets the
        unsafe condition.
        """
        point = read_point(file)
        detail: dict[str, Any] = {"counterexample_sha256": point.digest}
        wanted = self._property(instance)
        network_file = _either(self._folder / "onnx", f"{network}.onnx")
        if wanted is None or network_file is None:
            return Replay(False, False, detail | {"why": "network or property do not lie beside the results"})
        x, outside = _inside(point, wanted)
        if outside:
            return Replay(False, True, detail | {"why": f"the counterexample is no point of the box: {outside}"})
        try:
            lower, upper = _logits(self._graph(network_file), x)
        except DataError:
            raise
        except InputError as error:
            return Replay(False, False, detail | {"why": one_line(f"the network was not executed: {error}", 200)})
        if wanted.outputs != len(lower):
            why = f"the network has {len(lower)} outputs, the property {wanted.outputs}"
            return Replay(False, False, detail | {"why": why})
        if occurs(wanted.condition, lower, upper):
            return Replay(True, False, detail)
        why = "the logits at the counterexample do not meet the unsafe condition, or too closely to tell"
        return Replay(False, True, detail | {"why": why})


def occurs(condition: Condition, lower: Floats, upper: Floats) -> bool:
    """Whether the condition is met for all logits between `lower` and `upper` [outputs]: in exact arithmetic."""
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        return False
    low, high = [Fraction(value) for value in lower.tolist()], [Fraction(value) for value in upper.tolist()]

    def most(row: Sequence[float], offset: float) -> Fraction:
        """The largest value of row @ f + offset."""
        ends = (Fraction(c) * (high[j] if c > 0 else low[j]) for j, c in enumerate(row) if c)
        return sum(ends, Fraction(offset))

    return any(
        all(most(row, offset) <= 0 for row, offset in zip(rows.tolist(), offsets.tolist(), strict=True))
        for rows, offsets in condition.strict or condition.disjuncts
    )


def _load(file: Path) -> Graph:
    from robench.graph import from_onnx

    return from_onnx(file)


def _logits(graph: Graph, x: Floats) -> tuple[Floats, Floats]:
    """Rigorous bounds of the logits at a point [inputs]: float64 [outputs] each."""
    import torch

    from robench.graph.intervals import logit_bounds

    if math.prod(graph.input_shape) != len(x):
        raise GraphError(f"it has {math.prod(graph.input_shape)} inputs, the counterexample {len(x)}")
    point = torch.from_numpy(x).reshape(1, *graph.input_shape)
    lower, upper = logit_bounds(graph, point, point)
    return lower[0].numpy(), upper[0].numpy()


def _inside(point: Point, wanted: Property) -> tuple[Floats, str | None]:
    """Return a point of the box at most one double from the printed one [inputs], or why there is none."""
    if len(point.x) != wanted.inputs:
        return point.x, f"{len(point.x)} inputs instead of {wanted.inputs}"
    x = np.clip(point.x, wanted.least, wanted.most)
    far = np.flatnonzero((x != point.x) & (x != np.nextafter(point.x, x)))
    if len(far):
        worst = far[np.abs(x - point.x)[far].argmax()]
        return x, f"X_{worst} lies {abs(x[worst] - point.x[worst]):.3g} outside"
    return x, None


def _stem(cell: str, ending: str) -> str:
    return cell.strip().removesuffix(".gz").removesuffix(ending).rsplit("/", 1)[-1]


def _either(folder: Path, name: str) -> Path | None:
    return next((file for ending in ("", ".gz") if (file := folder / f"{name}{ending}").is_file()), None)
