"""The network graph: the one form on which fingerprints, certificates and later bounds are computed."""

from robench.graph._classifier import GraphClassifier, in_precision
from robench.graph._fingerprint import fingerprint
from robench.graph._ir import Graph, Node
from robench.graph._module import GraphModule, GroupSort
from robench.graph._onnx import from_onnx
from robench.graph._torch import from_torch
from robench.graph.operators import OPERATORS, Operator, group_sort, validate

__all__ = [
    "OPERATORS",
    "Graph",
    "GraphClassifier",
    "GraphModule",
    "GroupSort",
    "Node",
    "Operator",
    "fingerprint",
    "from_onnx",
    "from_torch",
    "group_sort",
    "in_precision",
    "validate",
]
