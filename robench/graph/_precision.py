"""A graph in one precision."""

from __future__ import annotations

from dataclasses import replace

import torch

from robench.graph._ir import Attribute, Graph

__all__ = ["in_precision"]


def in_precision(graph: Graph, dtype: torch.dtype) -> Graph:
    """Return the graph with its constants and real settings rounded to `dtype`: the function of that precision."""

    def rounded(value: Attribute) -> Attribute:
        return float(torch.tensor(value, dtype=dtype)) if isinstance(value, float) else value

    return Graph(
        tuple(
            replace(
                node,
                attributes={name: rounded(value) for name, value in node.attributes.items()},
                constants={name: tensor.to(dtype) for name, tensor in node.constants.items()},
            )
            for node in graph.nodes
        )
    )
