"""Where classifiers come from: checkpoints and ONNX files."""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_models"]


@hookimpl
def robench_register_models(register: Register) -> None:
    """Register the built-in sources of classifiers."""
    register(
        "checkpoint", f"{__name__}.checkpoint:Checkpoint", summary="a checkpoint folder (robench train writes them)"
    )
    register("onnx", f"{__name__}.onnx:Onnx", summary="an ONNX file with one input and one output of logits")
    register(
        "onnxruntime",
        f"{__name__}.runtime:OnnxRuntime",
        summary="an ONNX file as ONNX Runtime executes it: any operators, no gradients",
    )
