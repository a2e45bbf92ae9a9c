"""A graph in one precision, and no lower one behind the scenes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

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
    """Keep reduced-precision shortcuts (TF32, bfloat16, autocast) out of what is computed, whatever the caller has set.

    All settings are put back afterwards. Inference mode is left too: what is made in it takes no gradients later.
    """
    cudnn, settings = torch.backends.cudnn, _settings()
    before = [(one, _own(one, parent)) for one, parent in settings]
    # Where these cannot be read the newer settings decide, and these are what they are from the start.
    try:
        matmul = torch.get_float32_matmul_precision()
    except RuntimeError:
        matmul = "highest"
    try:
        convolution = cudnn.allow_tf32
    except RuntimeError:
        convolution = True
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        try:
            # Both kinds of setting, in this order: torch refuses to read the older ones where they differ.
            torch.set_float32_matmul_precision("highest")
            cudnn.allow_tf32 = False
            for one, _ in settings:
                one.fp32_precision = "ieee"
            yield
        finally:
            torch.set_float32_matmul_precision(matmul)
            cudnn.allow_tf32 = convolution
            for one, value in before:
                one.fp32_precision = value


def _settings() -> list[tuple[Any, Any]]:
    """Return what has a precision of its own in newer versions of torch, each with what it inherits from."""
    backends: Any = torch.backends
    if not hasattr(backends, "fp32_precision"):
        return []
    cuda, mkldnn = backends.cudnn, backends.mkldnn
    return [
        (backends.cuda.matmul, cuda),
        (cuda.conv, cuda),
        (cuda.rnn, cuda),
        *((one, mkldnn) for one in (mkldnn.matmul, mkldnn.conv, mkldnn.rnn)),
    ]


def _own(setting: Any, parent: Any) -> str:
    """Return the precision as it was set; `none` where it is inherited, so that it goes on being so."""
    value = str(setting.fp32_precision)
    return "none" if value == parent.fp32_precision else value
