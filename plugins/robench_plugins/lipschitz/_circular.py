"""Circular padding in front of a convolution, of which the rules of slices and concatenations give a poor bound.

A graph has it as concat(z[n − b:], z, z[:e]), one axis after the other. These rules count an element as often as it is
repeated. But the padding and a convolution without one of its own are one operator: on a torus of n positions,
window i reads z[(si − b + dk) mod n], and where s divides n and there are no more than n/s windows, it is the circular
convolution with stride s, or some of its rows. Its norm is the largest of the symbol at the n/s frequencies of
the torus (`symbol`; Sedghi, Gupta & Long 2019).
"""

from __future__ import annotations

from dataclasses import dataclass

from robench.graph import Graph, Node

__all__ = ["Circular", "circular"]


@dataclass(frozen=True)
class Circular:
    """A convolution on a circular padding.

    Attributes:
        source: position of what is padded.
        begins: how many positions are put in front, for each spatial axis.
        chain: positions of the nodes in between.
    """

    source: int
    begins: tuple[int, ...]
    chain: frozenset[int]


def circular(graph: Graph, position: int) -> Circular | None:
    """Return what the convolution at `position` is with the padding before it; None where it is anything else."""
    node = graph.nodes[position]
    source, chain, fronts = node.inputs[0], set[int](), dict[int, int]()
    while (found := _padded(graph, source)) is not None and found[1] not in fronts:
        inner, axis, fronts[axis] = found
        chain |= {source, *graph.nodes[source].inputs} - {inner}
        source = inner
    if not chain or not _on_torus(node, graph.nodes[source].shape):
        return None
    return Circular(source, tuple(fronts.get(axis, 0) for axis in range(1, len(node.shape))), frozenset(chain))


def _padded(graph: Graph, position: int) -> tuple[int, int, int] | None:
    """Return (source, axis, positions in front) of a node that pads one spatial axis circularly, else None."""
    node = graph.nodes[position]
    if node.op != "concat" or not 2 <= len(node.inputs) <= 3:
        return None
    axis = _int(node, "axis")
    slices = [other for other in node.inputs if graph.nodes[other].op == "slice"]
    for place, source in enumerate(node.inputs):
        size = graph.nodes[source].shape[axis]
        before, after = node.inputs[:place], node.inputs[place + 1 :]
        if (
            axis > 0
            and len(before) <= 1
            and len(after) <= 1
            and all(graph.nodes[other].inputs == (source,) for other in (*before, *after))
            and all(other in slices for other in (*before, *after))
            and all(_cut(graph.nodes[other]) == (axis, size - graph.nodes[other].shape[axis], size) for other in before)
            and all(_cut(graph.nodes[other]) == (axis, 0, graph.nodes[other].shape[axis]) for other in after)
        ):
            return source, axis, sum(graph.nodes[other].shape[axis] for other in before)
    return None


def _cut(node: Node) -> tuple[int, int, int] | None:
    if node.attributes["step"] != 1:
        return None
    return _int(node, "axis"), _int(node, "start"), _int(node, "stop")


def _int(node: Node, name: str) -> int:
    value = node.attributes[name]
    assert isinstance(value, int)
    return value


def _on_torus(node: Node, shape: tuple[int, ...]) -> bool:
    """Whether the convolution reads the axes of `shape` once around at most, in steps that close."""
    stride, padding, dilation = (node.attributes[name] for name in ("stride", "padding", "dilation"))
    assert isinstance(stride, tuple) and isinstance(padding, tuple) and isinstance(dilation, tuple)
    axes = zip(shape[1:], node.shape[1:], stride, dilation, strict=True)
    return not any(padding) and all(n % s == 0 and m <= n // s and (s == 1 or d == 1) for n, m, s, d in axes)
