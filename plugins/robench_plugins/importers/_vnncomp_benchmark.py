"""A benchmark's folder beside the results: its properties, and counterexamples executed on its networks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robench.errors import DataError, GraphError, InputError
from robench.text import one_line
from robench_plugins.datasets.vnnlib import Property, net_name, read_lines, read_property
from robench_plugins.importers._vnncomp_instances import Instance, Instances, path_of
from robench_plugins.importers._vnncomp_points import Point, read_point

if TYPE_CHECKING:
    from robench.graph import Graph

__all__ = ["Benchmark", "Replay", "Told"]

Floats = npt.NDArray[np.float64]


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
        self._listed: dict[Instance, str] = {}
        self._told = lru_cache(maxsize=None)(_told)
        self._property = lru_cache(maxsize=4)(read_property)
        self._graph = lru_cache(maxsize=2)(_load)

    def instances(self) -> Instances | None:
        """Return what instances.csv lists, in its order; None without that file.

        Raises DataError for a file that is no list of instances.
        """
        file = self._folder / "instances.csv"
        if not file.is_file():
            return None
        lines = read_lines(file)
        found = Instances([(net_name(line.onnx), path_of(line.vnnlib)) for line in lines])
        for line, instance in zip(lines, found.names, strict=True):
            if instance in self._listed:
                raise DataError(f"{file}, line {line.number}: {instance[1]} of {instance[0]} is there twice")
            self._listed[instance] = line.vnnlib
        return found

    def told(self, instance: Instance) -> Told | None:
        """What a property tells about its sample; None where it is not there. Raises DataError for a malformed one."""
        file = self._file(instance)
        return None if file is None else self._told(file)

    def _file(self, instance: Instance) -> Path | None:
        """Return the property's file, gzipped or not: where instances.csv says, else in `vnnlib/` or the folder."""
        if instance in self._listed:
            return _either(self._folder, self._listed[instance].removesuffix(".gz"))
        name = f"{instance[1]}.vnnlib"
        return _either(self._folder / "vnnlib", name) or _either(self._folder, name)

    def replay(self, instance: Instance, file: Path) -> Replay:
        """Execute a published counterexample on the network. Raises DataError for damaged files.

        Decimals are no doubles: the point that is executed is, of the doubles next to the printed numbers, one in the
        closed box of the property's exact decimals. It holds where a rigorous enclosure of the logits there meets the
        unsafe condition.
        """
        point = read_point(file)
        detail: dict[str, Any] = {"counterexample_sha256": point.digest}
        property_file = self._file(instance)
        network_file = _either(self._folder / "onnx", f"{instance[0]}.onnx")
        if property_file is None or network_file is None:
            return Replay(False, False, detail | {"why": "network or property do not lie beside the results"})
        wanted = self._property(property_file)
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
        if wanted.condition.occurs(lower, upper):
            return Replay(True, False, detail)
        why = "the logits at the counterexample do not meet the unsafe condition, or too closely to tell"
        return Replay(False, True, detail | {"why": why})


def _told(file: Path) -> Told:
    wanted = read_property(file)
    return Told(wanted.label, wanted.outputs, float((wanted.upper - wanted.lower).max() / 2))


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


def _either(folder: Path, name: str) -> Path | None:
    return next((file for ending in ("", ".gz") if (file := folder / f"{name}{ending}").is_file()), None)
