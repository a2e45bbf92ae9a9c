"""The network graph: the one form on which fingerprints, certificates and later bounds are computed."""

from robench.graph._ir import Graph, Node
from robench.graph.operators import OPERATORS, Operator, validate

__all__ = ["OPERATORS", "Graph", "Node", "Operator", "validate"]
