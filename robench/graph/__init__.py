"""The network graph: the one form on which fingerprints, certificates and later bounds are computed.

`from_torch`, `from_onnx` and `load` give a `Graph`; `GraphClassifier` runs it; `from_module` does both for a
user's module, whatever is in it. `robench.graph.operators` lists the vocabulary.
"""

from robench.graph._checkpoint import check_folder, load, read_metadata, save
from robench.graph._classifier import GraphClassifier, check_input, shape_of
from robench.graph._fingerprint import fingerprint
from robench.graph._from_module import from_module
from robench.graph._identity import identify
from robench.graph._ir import Graph, Node
from robench.graph._module import GraphModule, GroupSort
from robench.graph._onnx import from_onnx
from robench.graph._onnx_file import read_onnx
from robench.graph._opaque import ModuleClassifier
from robench.graph._precision import full_precision, in_precision
from robench.graph._random_module import RandomModule
from robench.graph._torch import from_torch
from robench.graph.operators import OPERATORS, Operator, group_sort, validate

__all__ = [
    "OPERATORS",
    "Graph",
    "GraphClassifier",
    "GraphModule",
    "GroupSort",
    "ModuleClassifier",
    "Node",
    "Operator",
    "RandomModule",
    "check_folder",
    "check_input",
    "fingerprint",
    "from_module",
    "from_onnx",
    "from_torch",
    "full_precision",
    "group_sort",
    "identify",
    "in_precision",
    "load",
    "read_metadata",
    "read_onnx",
    "save",
    "shape_of",
    "validate",
]
