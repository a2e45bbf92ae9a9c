"""What an operator is: its settings and tensors, the shape it gives, and how torch evaluates it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from robench.errors import GraphError
from robench.graph._ir import Attribute

__all__ = ["MAX_ELEMENTS", "Attributes", "Constants", "Kind", "Operator", "Shape", "as_float", "as_int", "as_ints"]

Shape = tuple[int, ...]
Attributes = Mapping[str, Attribute]
Constants = Mapping[str, Tensor]
Kind = Literal["int", "float", "ints"]

# Elements of one activation per sample, and any one size; more is a damaged or hostile file.
MAX_ELEMENTS = 2**28


@dataclass(frozen=True)
class Operator:
    """One operator of the graph vocabulary.

    Attributes:
        name: the key in `OPERATORS`.
        infer: (input shapes, attributes, constants) to the output shape, all without the batch dimension;
            raises GraphError where they do not fit.
        bind: (attributes, constants) to a function of the batched input tensors.
        arity: fewest and most inputs.
        attributes: the kind of every setting; all of them must be given.
        required: constants that must be there.
        optional: constants that may be there.
        affine: whether the output is an affine function of the inputs.
        elementwise: whether output element i depends on input element i alone.
    """

    name: str
    infer: Callable[[Sequence[Shape], Attributes, Constants], Shape]
    bind: Callable[[Attributes, Constants], Callable[..., Tensor]]
    arity: tuple[int, int] = (1, 1)
    attributes: Mapping[str, Kind] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    affine: bool = False
    elementwise: bool = False

    def shape(self, shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
        """Check settings and tensors against the operator and return the output shape. Raises GraphError."""
        low, high = self.arity
        if not low <= len(shapes) <= high:
            raise GraphError(f"{self.name} takes {low} to {high} inputs, not {len(shapes)}")
        if set(attributes) != set(self.attributes):
            raise GraphError(
                f"{self.name} has the attributes {sorted(attributes)}; it needs exactly {sorted(self.attributes)}"
            )
        for key, kind in self.attributes.items():
            if not _is_kind(attributes[key], kind):
                raise GraphError(f"{self.name}: attribute {key} is {attributes[key]!r}, not of kind {kind}")
        missing = [name for name in self.required if name not in constants]
        extra = sorted(set(constants) - set(self.required) - set(self.optional))
        if missing or extra:
            raise GraphError(f"{self.name}: " + _blame(missing, extra))
        for name, tensor in constants.items():
            if not tensor.is_floating_point():
                raise GraphError(f"{self.name}: constant {name} is {tensor.dtype}, not a floating point type")
        shape = self.infer(shapes, attributes, constants)
        if any(size < 1 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise GraphError(f"{self.name} gives the shape {list(shape)}: empty or too large")
        return shape


def _blame(missing: Sequence[str], extra: Sequence[str]) -> str:
    return " and ".join(
        f"{what}: {', '.join(names)}"
        for what, names in (("constants missing", missing), ("unknown constants", extra))
        if names
    )


def _is_kind(value: Attribute, kind: Kind) -> bool:
    if kind == "ints":
        return isinstance(value, tuple) and all(type(item) is int and abs(item) <= MAX_ELEMENTS for item in value)
    if kind == "float":
        return type(value) is float and not math.isnan(value)
    return type(value) is int and abs(value) <= MAX_ELEMENTS


def as_int(attributes: Attributes, name: str) -> int:
    """Return an attribute of kind int."""
    value = attributes[name]
    assert isinstance(value, int)
    return value


def as_float(attributes: Attributes, name: str) -> float:
    """Return an attribute of kind float."""
    value = attributes[name]
    assert isinstance(value, float)
    return value


def as_ints(attributes: Attributes, name: str) -> tuple[int, ...]:
    """Return an attribute of kind ints."""
    value = attributes[name]
    assert isinstance(value, tuple)
    return value
