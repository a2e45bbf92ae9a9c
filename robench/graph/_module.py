"""A graph as a torch module: its constants are buffers, its forward pass runs the operators."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robench.graph._ir import Graph
from robench.graph._precision import in_precision
from robench.graph.operators import OPERATORS, group_sort

__all__ = ["GraphModule", "GroupSort"]


class GraphModule(nn.Module):
    """The network of a graph, [B, ...] to [B, classes]; trains nothing, exports with `torch.onnx.export`."""

    def __init__(self, graph: Graph, dtype: torch.dtype = torch.float32) -> None:
        """Copy the graph's constants in `dtype` into buffers, named `node3_weight` and so on."""
        super().__init__()
        graph = in_precision(graph, dtype)
        self.network = graph  # `graph` means something else to the TorchScript exporter
        self._last = graph.last_uses()
        for position, node in enumerate(graph.nodes):
            for name, tensor in node.constants.items():
                self.register_buffer(f"node{position}_{name}", tensor.clone())
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of `x`."""
        values: list[Tensor | None] = [x]
        for position, node in enumerate(self.network.nodes[1:], 1):
            constants = {name: self.get_buffer(f"node{position}_{name}") for name in node.constants}
            run = OPERATORS[node.op].bind(node.attributes, constants)
            values.append(run(*(values[i] for i in node.inputs)))
            for done in self._last[position]:
                values[done] = None
        out = values[-1]
        assert out is not None
        return out


class GroupSort(nn.Module):
    """Sort neighbouring channels in groups, ascending (Anil et al. 2019, "Sorting out Lipschitz functions").

    `group=2` is MaxMin. A layer of its own because graphs read it as one operator.
    """

    def __init__(self, group: int = 2) -> None:
        """Sort in groups of `group` channels."""
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """Sort `x` [B, C, ...]; C must be a multiple of the group."""
        return group_sort(x, self.group)

    def extra_repr(self) -> str:
        """Name the group in the module's representation."""
        return f"group={self.group}"
