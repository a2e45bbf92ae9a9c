"""The identity of a classifier: sha256 over operators, settings, topology and constants."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from robench.graph._canonical import canonical
from robench.graph._ir import Attribute, Graph, Node

__all__ = ["fingerprint", "tensor_digest"]


def fingerprint(graph: Graph, dtype: torch.dtype) -> str:
    """Return the fingerprint (64 hex digits) of the function that `graph` is in precision `dtype`.

    A hash tree: a node hashes its operator, its settings, its constants and the hashes of its inputs, so
    that the order in which a file lists the nodes does not matter, nor that of the two sides of a sum.
    Constants and real settings are hashed as the doubles that they are after the cast to `dtype`.
    """
    digests: list[bytes] = []
    for node in canonical(graph).nodes:
        inputs = [digests[position] for position in node.inputs]
        digests.append(_digest(node, sorted(inputs) if node.op == "add" else inputs, dtype))
    return hashlib.sha256(b"robench graph 1\0" + str(dtype).encode() + b"\0" + digests[-1]).hexdigest()


def _digest(node: Node, inputs: list[bytes], dtype: torch.dtype) -> bytes:
    def shown(value: Attribute) -> str:
        return float(torch.tensor(value, dtype=dtype)).hex() if isinstance(value, float) else repr(value)

    settings = sorted((name, shown(value)) for name, value in node.attributes.items())
    shape = node.shape if node.op == "input" else ()
    sha = hashlib.sha256(repr((node.op, shape, settings, sorted(node.constants), len(inputs))).encode())
    for name in sorted(node.constants):
        sha.update(tensor_digest(node.constants[name].to(dtype).double()))
    for digest in inputs:
        sha.update(digest)
    return sha.digest()


def tensor_digest(tensor: Tensor) -> bytes:
    """Return the sha256 of a tensor's dtype, shape and bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    sha = hashlib.sha256(f"{tensor.dtype}{list(tensor.shape)}".encode())
    sha.update(flat.view(torch.uint8).numpy().data)
    return sha.digest()
