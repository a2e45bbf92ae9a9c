"""A graph in one precision, and no lower one behind the scenes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from robench.graph._ir import Attribute, Graph

__all__ = ["full_precision", "in_precision"]


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


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep reduced-precision shortcuts (TF32) out of what is computed, and put the settings back afterwards."""
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, conv.allow_tf32
    matmul.allow_tf32 = conv.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, conv.allow_tf32 = before
