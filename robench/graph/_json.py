"""Graphs as JSON values: everything but the constants, which are listed by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from robench.errors import DataError, GraphError
from robench.graph._ir import Attribute, Graph, Node
from robench.graph.operators import OPERATORS, apply
from robench.graph.operators._base import Kind

__all__ = ["from_json", "to_json"]

_KEYS = {"op", "inputs", "attributes", "constants", "shape"}
_INFINITE = {"inf": float("inf"), "-inf": float("-inf")}


def to_json(graph: Graph) -> dict[str, Any]:
    """Return a graph as JSON values."""
    return {
        "nodes": [
            {
                "op": node.op,
                "inputs": list(node.inputs),
                "attributes": {name: _plain(value) for name, value in sorted(node.attributes.items())},
                "constants": sorted(node.constants),
                "shape": list(node.shape),
            }
            for node in graph.nodes
        ]
    }


def _plain(value: Attribute) -> Any:
    if isinstance(value, float) and value in _INFINITE.values():
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def from_json(value: Any, tensors: Mapping[str, Tensor]) -> Graph:
    """Return the graph that `value` describes with constants from `tensors`. Raises DataError, GraphError."""
    entries = value.get("nodes") if isinstance(value, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DataError("graph.json holds no nodes")
    nodes: list[Node] = []
    used: set[str] = set()
    for position, entry in enumerate(entries):
        try:
            nodes.append(_node(position, entry, nodes, tensors, used))
        except (DataError, GraphError) as error:
            raise DataError(f"graph.json: node {position}: {error}") from None
    left = sorted(set(tensors) - used)
    if left:
        raise DataError(f"weights.safetensors holds tensors that the graph does not use: {left[0]!r:.60}")
    return Graph(tuple(nodes))


def _node(position: int, entry: Any, nodes: list[Node], tensors: Mapping[str, Tensor], used: set[str]) -> Node:
    if not isinstance(entry, dict) or set(entry) != _KEYS:
        raise DataError(f"needs exactly the keys {', '.join(sorted(_KEYS))}")
    op, names = entry["op"], entry["constants"]
    inputs, shape = _ints(entry["inputs"], "inputs"), _ints(entry["shape"], "shape")
    if not isinstance(op, str) or not isinstance(entry["attributes"], dict):
        raise DataError("op must be a name and attributes an object")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError("constants must be a list of names")
    if position == 0:
        if op != "input" or inputs or entry["attributes"] or names or min(shape, default=1) < 1:
            raise DataError("the first node must be the input, with sizes above 0")
        return Node("input", shape=shape)
    if op not in OPERATORS:
        raise GraphError(f"unknown operator {op!r:.60}")
    kinds = OPERATORS[op].attributes
    attributes = {name: _attribute(name, item, kinds.get(name)) for name, item in entry["attributes"].items()}
    constants: dict[str, Tensor] = {}
    for name in names:
        key = f"{position}.{name}"
        if key not in tensors:
            raise DataError(f"tensor {key!r:.60} is missing from weights.safetensors")
        used.add(key)
        constants[name] = tensors[key]
    node = apply(op, nodes, inputs, attributes, constants)
    if node.shape != shape:
        raise DataError(f"{op} declares the shape {list(shape)}, but gives {list(node.shape)}")
    return node


def _ints(value: Any, name: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise DataError(f"{name} must be a list of integers")
    return tuple(value)


def _attribute(name: str, value: Any, kind: Kind | None) -> Attribute:
    if kind is None:
        raise GraphError(f"unknown attribute {name!r:.60}")
    if kind == "ints":
        return _ints(value, name)
    if kind == "int" and type(value) is int:
        return value
    if kind == "float" and (type(value) is float or (type(value) is int and abs(value) < 2**53)):
        return float(value)
    if kind == "float" and isinstance(value, str) and value in _INFINITE:
        return _INFINITE[value]
    raise GraphError(f"attribute {name} is {value!r:.60}, not of kind {kind}")
