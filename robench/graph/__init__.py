"""The network graph: the one form on which fingerprints, certificates and later bounds are computed."""

from robench.graph._ir import Graph, Node

__all__ = ["Graph", "Node"]
