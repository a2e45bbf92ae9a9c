"""The operator vocabulary of the graph. Shapes and axes leave the batch dimension out.

| operator | constants | attributes |
|---|---|---|
| `linear` | `weight` [out, in], `bias` [out] optional | |
| `conv1d`, `conv2d` | `weight` [out, in/groups, ...], `bias` optional | `stride`, `padding`, `dilation`, `groups` |
| `batch_norm` | `mean`, `var`, `weight`, `bias` [channels], channels first | `eps` |
| `relu`, `sigmoid`, `tanh`, `neg` | | |
| `leaky_relu` | | `slope` |
| `clip` | | `min`, `max` (±inf where open) |
| `group_sort` | | `group`: neighbours along axis 0, sorted ascending (MaxMin is 2) |
| `add`, `sub` | `other` where there is one input, of the input's rank | `reverse` (`sub`): 1 is other − x |
| `mul`, `div` | `other`, of the input's rank | |
| `reshape` | | `shape` |
| `transpose` | | `axes` |
| `concat` | | `axis` |
| `slice` | | `axis`, `start`, `stop`, `step` |
| `pad` | | `padding` (all begins, then all ends), `value` |
| `max_pool2d` | | `kernel`, `stride`, `padding`, `dilation` |
| `avg_pool2d` | | `kernel`, `stride`, `padding`, `count_include_pad` |
| `global_avg_pool2d` | | output [channels, 1, 1] |
| `mean` | | `axes`, kept with size 1 |

Paddings of windows are (top, left, bottom, right) in two dimensions and (left, right) in one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from robench.errors import GraphError
from robench.graph._ir import Attribute, Graph, Node
from robench.graph.operators._base import Operator
from robench.graph.operators._layers import LAYERS
from robench.graph.operators._pointwise import POINTWISE, group_sort
from robench.graph.operators._pooling import POOLING
from robench.graph.operators._shapes import SHAPES

__all__ = ["OPERATORS", "Operator", "apply", "group_sort", "validate"]

OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {operator.name: operator for family in (LAYERS, POINTWISE, POOLING, SHAPES) for operator in family}
)


def apply(
    op: str,
    nodes: Sequence[Node],
    inputs: tuple[int, ...],
    attributes: Mapping[str, Attribute] | None = None,
    constants: Mapping[str, Tensor] | None = None,
) -> Node:
    """Return the node that applies `op` to earlier `nodes`, checked and with its shape. Raises GraphError."""
    operator = OPERATORS.get(op)
    if operator is None:
        raise GraphError(f"unknown operator {op!r}: choose one of {', '.join(sorted(OPERATORS))}")
    if any(not 0 <= position < len(nodes) for position in inputs):
        raise GraphError(f"{op} reads from nodes {list(inputs)}, which do not come before it")
    attributes, constants = attributes or {}, constants or {}
    shape = operator.shape([nodes[position].shape for position in inputs], attributes, constants)
    return Node(op, inputs, MappingProxyType(dict(attributes)), MappingProxyType(dict(constants)), shape)


def validate(graph: Graph) -> None:
    """Check every node against its operator, its declared shape, and that constants are finite. Raises GraphError."""
    if not graph.nodes or graph.nodes[0].op != "input":
        raise GraphError("a graph starts with its input node")
    if len(graph.nodes) < 2:
        raise GraphError("the output is the input itself: a classifier has at least one operator between them")
    if len(graph.nodes[-1].shape) != 1:
        raise GraphError(f"the output has the shape {list(graph.nodes[-1].shape)}: logits need one axis, [classes]")
    earlier = [graph.nodes[0]]
    for position, node in enumerate(graph.nodes[1:], 1):
        shape = apply(node.op, earlier, node.inputs, node.attributes, node.constants).shape
        if shape != node.shape:
            raise GraphError(f"node {position} ({node.op}) declares {list(node.shape)}, but gives {list(shape)}")
        if node.op == "pad" and node.attributes["value"] == -math.inf:
            raise GraphError(f"node {position} (pad): padding with -inf is supported before a max pool alone")
        for name, tensor in node.constants.items():
            if not bool(torch.isfinite(tensor).all()):
                raise GraphError(f"node {position} ({node.op}): {name} holds a value that is not finite")
        earlier.append(node)
