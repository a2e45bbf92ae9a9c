"""How ONNX layers, activations, arithmetic and pools become graph operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from robench.errors import GraphError
from robench.graph._onnx_call import Call, Value
from robench.graph._onnx_fold import TYPES
from robench.graph._onnx_shapes import SHAPE_IMPORTERS
from robench.graph.operators._windows import extents

__all__ = ["IMPORTERS"]


def _plain(op: str) -> Callable[[Call], Value]:
    return lambda call: call.builder.add(op, call.node())


def _leaky(call: Call) -> Value:
    return call.builder.add("leaky_relu", call.node(), slope=float(call.attribute("alpha", 0.01)))


def _prelu(call: Call) -> Value:
    slope = call.constant(1)
    if slope.numel() != 1:
        raise GraphError("PRelu with a slope per channel is not supported")
    return call.builder.add("leaky_relu", call.node(), slope=float(slope))


def _clip(call: Call) -> Value:
    low, high = call.scalar(1, "min", -math.inf), call.scalar(2, "max", math.inf)
    return call.builder.add("clip", call.node(), min=low, max=high)


def _arithmetic(op: str) -> Callable[[Call], Value]:
    return lambda call: call.builder.arithmetic(op, call.operand(0), call.operand(1), call.batched)


def _sum(call: Call) -> Value:
    out = call.node(0)
    for position in range(1, len(call.inputs)):
        out = call.builder.add("add", out, call.node(position))
    return out


def _scaled(tensor: Tensor, factor: float) -> Tensor:
    # In float64 the product of two float32 numbers is exact.
    return tensor if factor == 1.0 else tensor.double() * factor


def _gemm(call: Call) -> Value:
    if call.attribute("transA", 0):
        raise GraphError("Gemm with transA on an activation would mix the batch")
    weight = call.constant(1)
    if weight.dim() != 2:
        raise GraphError(f"Gemm: the weight has {weight.dim()} axes, not 2")
    weight = _scaled(weight if call.attribute("transB", 0) else weight.t(), float(call.attribute("alpha", 1.0)))
    out = call.builder.linear(call.node(), weight)
    beta, addend = float(call.attribute("beta", 1.0)), call.value(2)
    if addend is None or beta == 0.0:
        return out
    if isinstance(addend, Tensor):
        return call.builder.arithmetic("add", out, _scaled(addend, beta), call.batched)
    if beta != 1.0:
        addend = call.builder.arithmetic("mul", addend, torch.tensor(beta, dtype=torch.float64))
    return call.builder.add("add", out, addend)


def _matmul(call: Call) -> Value:
    left, right = call.value(0), call.value(1)
    if isinstance(left, int) and isinstance(right, Tensor) and right.dim() == 2:
        return call.builder.linear(left, right.t())
    if isinstance(right, int) and isinstance(left, Tensor) and left.dim() == 2:
        shape = call.shape(right)
        if shape[1:] == (1,) or (not call.batched and len(shape) == 1):
            out = call.builder.linear(call.builder.reshape(right, shape[:1]), left)
            return call.builder.reshape(out, (left.shape[0], *shape[1:]))
    raise GraphError("MatMul is supported between activation vectors and a constant matrix")


def _window(call: Call, spatial: Sequence[int], kernel: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return (stride, padding, dilation), `auto_pad` resolved."""
    rank = len(kernel)
    stride, dilation = call.ints("strides", (1,) * rank), call.ints("dilations", (1,) * rank)
    padding, auto = call.ints("pads", (0,) * 2 * rank), call.attribute("auto_pad", "NOTSET")
    if auto == "VALID":
        padding = (0,) * 2 * rank
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        if not len(stride) == len(dilation) == len(spatial) == rank or min(stride) < 1:
            raise GraphError(f"{call.op}: strides {list(stride)} and kernel {list(kernel)} do not fit")
        reach = extents(kernel, dilation)
        total = [
            max(0, (-(-size // step) - 1) * step + r - size)
            for size, step, r in zip(spatial, stride, reach, strict=True)
        ]
        less, more = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
        padding = less + more if auto == "SAME_UPPER" else more + less
    elif auto != "NOTSET":
        raise GraphError(f"{call.op}: auto_pad {auto!r} is not supported")
    return stride, padding, dilation


def _conv(call: Call) -> Value:
    node, weight, bias = call.node(), call.constant(1), call.optional(2)
    rank = weight.dim() - 2
    kernel = tuple(weight.shape[2:])
    if rank not in (1, 2) or call.ints("kernel_shape", kernel) != kernel:
        raise GraphError(f"Conv over {rank} axes with weight {list(weight.shape)} is not supported")
    stride, padding, dilation = _window(call, call.shape(node)[1:], kernel)
    constants = {"weight": weight} | ({} if bias is None else {"bias": bias})
    groups = int(call.attribute("group", 1))
    return call.builder.add(
        f"conv{rank}d", node, constants=constants, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


def _batch_norm(call: Call) -> Value:
    call.attribute("momentum")
    if call.attribute("training_mode", 0) or not call.attribute("spatial", 1):
        raise GraphError(
            "BatchNormalization in training mode (or not per channel) is not supported: export in eval mode"
        )
    names = ("weight", "bias", "mean", "var")
    constants = {name: call.constant(position) for position, name in enumerate(names, 1)}
    return call.builder.add("batch_norm", call.node(), constants=constants, eps=float(call.attribute("epsilon", 1e-5)))


def _pool_kernel(call: Call) -> tuple[int, ...]:
    kernel = call.ints("kernel_shape", ())
    if len(kernel) != 2:
        raise GraphError(f"{call.op} over {len(kernel)} axes is not supported: only 2")
    return kernel


def _max_pool(call: Call) -> Value:
    node, kernel = call.node(), _pool_kernel(call)
    stride, padding, dilation = _window(call, call.shape(node)[1:], kernel)
    call.attribute("storage_order")
    return call.builder.max_pool(node, kernel, stride, padding, dilation, bool(call.attribute("ceil_mode", 0)))


def _average_pool(call: Call) -> Value:
    node, kernel = call.node(), _pool_kernel(call)
    stride, padding, dilation = _window(call, call.shape(node)[1:], kernel)
    if any(step != 1 for step in dilation):
        raise GraphError("AveragePool with dilations is not supported")
    include = bool(call.attribute("count_include_pad", 0))
    return call.builder.avg_pool(node, kernel, stride, padding, bool(call.attribute("ceil_mode", 0)), include)


def _global_average(call: Call) -> Value:
    return call.builder.add("global_avg_pool2d", call.node())


def _reduce_mean(call: Call) -> Value:
    node, axes = call.node(), call.listed(1, "axes")
    call.attribute("noop_with_empty_axes")
    if not axes:
        raise GraphError("ReduceMean over all dimensions would mix the batch")
    return call.builder.mean(node, [call.axis(node, axis) for axis in axes], bool(call.attribute("keepdims", 1)))


def _dropout(call: Call) -> Value:
    for name in ("ratio", "seed", "is_test"):
        call.attribute(name)
    mode = call.optional(2)
    if mode is not None and bool(mode.any()):
        raise GraphError("Dropout in training mode is random: export in eval mode")
    return call.node()


def _cast(call: Call) -> Value:
    call.attribute("saturate")
    if TYPES.get(call.attribute("to")) not in (torch.float32, torch.float64):
        raise GraphError(f"Cast of an activation to type {call.attribute('to')} is not supported")
    return call.node()


def _softmax(call: Call) -> Value:
    """Drop a softmax at the very end: it changes no decision, and evidence is about logits."""
    node = call.node()
    axis = call.axis(node, call.attribute("axis", -1 if call.opset >= 13 else 1))
    *rest, _ = call.shape(node)
    if not call.last or any(size != 1 for size in rest) or axis != len(rest):
        raise GraphError(f"{call.op} is supported only as the last operator, over the classes")
    return node


IMPORTERS: Mapping[str, Callable[[Call], Value | Sequence[Value]]] = MappingProxyType(
    {
        **SHAPE_IMPORTERS,
        "Add": _arithmetic("add"),
        "AveragePool": _average_pool,
        "BatchNormalization": _batch_norm,
        "Cast": _cast,
        "Clip": _clip,
        "Conv": _conv,
        "Div": _arithmetic("div"),
        "Dropout": _dropout,
        "Gemm": _gemm,
        "GlobalAveragePool": _global_average,
        "Identity": lambda call: call.node(),
        "LeakyRelu": _leaky,
        "LogSoftmax": _softmax,
        "MatMul": _matmul,
        "MaxPool": _max_pool,
        "Mul": _arithmetic("mul"),
        "Neg": _plain("neg"),
        "PRelu": _prelu,
        "ReduceMean": _reduce_mean,
        "Relu": _plain("relu"),
        "Sigmoid": _plain("sigmoid"),
        "Softmax": _softmax,
        "Sub": _arithmetic("sub"),
        "Sum": _sum,
        "Tanh": _plain("tanh"),
    }
)
