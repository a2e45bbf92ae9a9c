"""Properties of networks (VNN-LIB) as samples with sets of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robench import param
from robench.errors import DataError, GraphError
from robench.regions import Regions
from robench.samples import Samples
from robench.threat import Domain
from robench_plugins.datasets._vnnlib_folder import Instance, instances_of, net_name, one_net, read_lines
from robench_plugins.datasets._vnnlib_property import Property, read_property

__all__ = ["Property", "Vnnlib", "net_name", "read_lines", "read_property"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Vnnlib:
    """Properties in VNN-LIB 1 for one network: each is a sample with a box, and outputs that must not occur in it.

    Reads a benchmark's folder with its instances.csv (`network,property,seconds`), an instances.csv by itself, or one
    .vnnlib file; all but the table may be gzipped. A sample's index is its row in instances.csv, from 0. Its label is
    the class that must stay ahead, 0 where the property says something else. x is the box's centre; where boxes are
    cut off at 0 or 1, the point whose ball within [0, 1] the box is. Inputs take the shape of the network, where its
    ONNX file is there (which needs the `onnx` package: `pip install 'robench[onnx]'`); otherwise they stay flat.

    The box is that of the exact decimals: proofs are about it rounded outward, witnesses lie in it rounded inward.
    """

    path: Path = param(..., "the folder, its instances.csv, or one .vnnlib file", positional=True)
    net: str = param("", "name of the network, without folder and ending; needed where there are several")

    def load(self, split: str) -> Samples:
        """Return the samples; the only split is `test`. Raises DataError, with file and line, and InputError."""
        if split != "test":
            raise DataError(f"{self.path} has no split {split!r}: it has test")
        found = one_net(self.path, instances_of(self.path, self.net), self.net)
        properties = [read_property(one.vnnlib) for one in found]
        first = properties[0]
        for one, instance in zip(properties, found, strict=True):
            if (one.inputs, one.outputs) != (first.inputs, first.outputs):
                raise DataError(
                    f"{instance.vnnlib}: {one.inputs} inputs and {one.outputs} outputs, but {found[0].name} has "
                    f"{first.inputs} and {first.outputs}: they are about different networks"
                )
        shape = _shape(found[0], first)
        domain = _domain(properties)
        x = _centres(properties, domain).reshape(-1, *shape)
        boxes = {
            name: np.stack([getattr(one, name) for one in properties]).reshape(x.shape)
            for name in ("lower", "upper", "least", "most")
        }
        regions = Regions(
            conditions=tuple(one.condition for one in properties),
            names=tuple(one.name for one in found),
            seconds=np.array([one.seconds for one in found]),
            **boxes,
        )
        labels = np.array([one.label or 0 for one in properties], dtype=np.int64)
        index = np.array([one.row for one in found], dtype=np.int64)
        return Samples(x, labels, index, domain, tuple(map(str, range(first.outputs))), regions=regions)


def _shape(instance: Instance, wanted: Property) -> tuple[int, ...]:
    """Return the shape of the network's input, one dimension where it is not there. Raises DataError on a misfit."""
    if instance.onnx is None:
        return (wanted.inputs,)
    from robench.graph import from_onnx

    try:
        graph = from_onnx(instance.onnx)
    except GraphError:  # the model may be another form of it, such as onnxruntime's
        return _declared_shape(instance.onnx, wanted.inputs)
    if prod(graph.input_shape) != wanted.inputs or graph.classes != wanted.outputs:
        raise DataError(
            f"{instance.onnx} has {prod(graph.input_shape)} inputs and {graph.classes} outputs, but {instance.name} "
            f"{wanted.inputs} and {wanted.outputs}: the property is about another network"
        )
    return tuple(graph.input_shape)


def _declared_shape(onnx_file: Path, inputs: int) -> tuple[int, ...]:
    """Return the shape that an ONNX file declares for its only input, without the batch; flat where it does not fit."""
    import onnx

    from robench.graph import read_onnx

    graph = onnx.load_model_from_string(read_onnx(onnx_file)[0]).graph
    constants = {tensor.name for tensor in graph.initializer}
    shapes = [
        tuple(size.dim_value for size in one.type.tensor_type.shape.dim)
        for one in graph.input
        if one.name not in constants
    ]
    shape = shapes[0][1:] if len(shapes) == 1 else ()
    return shape if shape and prod(shape) == inputs else (inputs,)


def _domain(properties: Sequence[Property]) -> Domain:
    """Return [0, 1] where all boxes lie in it and one is cut off there; unbounded otherwise."""
    inside = all(one.lower.min() >= 0 and one.upper.max() <= 1 for one in properties)
    cut = any((one.lower == 0).any() or (one.upper == 1).any() for one in properties)
    return Domain(0.0, 1.0) if inside and cut else Domain.unbounded()


def _centres(properties: Sequence[Property], domain: Domain) -> npt.NDArray[Any]:
    """Return a point of each box [N, inputs]: float32 where every box holds such numbers, else float64."""
    centres = np.stack([_centre(one, domain) for one in properties])
    least, most = (np.stack([getattr(one, name) for one in properties]) for name in ("least", "most"))
    low, high = least.astype(np.float32), most.astype(np.float32)
    low = np.where(low < least, np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high > most, np.nextafter(high, np.float32(-np.inf)), high)
    if (low <= high).all():
        return np.clip(centres.astype(np.float32), low, high)
    return np.clip(centres, np.minimum(least, most), np.maximum(least, most))


def _centre(one: Property, domain: Domain) -> Floats:
    """Return the box's centre; in a coordinate cut off at the domain's side, ε from the other side."""
    half = (one.upper - one.lower) / 2
    centre = one.lower + half
    if not domain.bounded:
        return centre
    eps = half.max()
    narrow = half < eps * (1 - 1e-5)
    centre = np.where(narrow & (one.lower == domain.lower), np.maximum(one.upper - eps, domain.lower), centre)
    below = narrow & (one.upper == domain.upper) & (one.lower != domain.lower)
    return np.where(below, np.minimum(one.lower + eps, domain.upper), centre)
