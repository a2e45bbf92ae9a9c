"""How each torch function on traced tensors becomes graph operators, by the function's name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor

from robench.errors import GraphError
from robench.graph._torch_shapes import SHAPE_HANDLERS
from robench.graph._trace import Handler, Traced, Tracer

__all__ = ["HANDLERS"]


def _number(value: object, name: str) -> float:
    """Return a Python number or a tensor of one element as a float."""
    if isinstance(value, Traced):
        raise GraphError(f"{name} depends on the input")
    return float(cast(Any, value))


def _pair(value: int | Sequence[int]) -> tuple[int, ...]:
    sizes = (value, value) if isinstance(value, int) else tuple(value)
    return tuple(int(size) for size in (sizes * 2 if len(sizes) == 1 else sizes))


def _around(value: int | Sequence[int]) -> tuple[int, ...]:
    return _pair(value) * 2


def _activation(op: str) -> Handler:
    def handler(t: Tracer, x: Traced, inplace: bool = False) -> Traced:
        out = t.emit(op, x)
        return t.update(x, out) if inplace else out

    return handler


def _leaky_relu(t: Tracer, x: Traced, negative_slope: float = 0.01, inplace: bool = False) -> Traced:
    out = t.emit("leaky_relu", x, slope=_number(negative_slope, "negative_slope"))
    return t.update(x, out) if inplace else out


def _prelu(t: Tracer, x: Traced, weight: Tensor) -> Traced:
    """Follow a slope for each channel as a x + (1 − a) relu(x); one for all as leaky_relu."""
    slopes = _weights(weight=weight)["weight"].flatten()
    if len(set(slopes.tolist())) == 1:
        return t.emit("leaky_relu", x, slope=float(slopes[0]))
    slopes = slopes.double().reshape(-1, *[1] * (len(t.shape(x)) - 1))
    below = t.builder.arithmetic("mul", x.node, slopes)
    above = t.builder.arithmetic("mul", t.emit("relu", x).node, 1 - slopes)
    return t.made(t.builder.arithmetic("add", below, above))


def _clamp(t: Tracer, x: Traced, min: object = None, max: object = None) -> Traced:
    low = -math.inf if min is None else _number(min, "min")
    high = math.inf if max is None else _number(max, "max")
    return t.emit("clip", x, min=low, max=high)


def _hardtanh(t: Tracer, x: Traced, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Traced:
    out = _clamp(t, x, min_val, max_val)
    return t.update(x, out) if inplace else out


def _relu6(t: Tracer, x: Traced, inplace: bool = False) -> Traced:
    return _hardtanh(t, x, 0.0, 6.0, inplace)


def _group_sort(t: Tracer, x: Traced, group: int) -> Traced:
    return t.emit("group_sort", x, group=group)


def _operand(value: object) -> int | Tensor:
    """Return the node of an activation, or a constant as a tensor; Python numbers are doubles."""
    if isinstance(value, Traced):
        return value.node
    return value if isinstance(value, Tensor) else torch.as_tensor(cast(Any, value), dtype=torch.float64)


def _arithmetic(op: str, swap: bool = False, in_place: bool = False) -> Handler:
    def handler(t: Tracer, left: object, right: object, *, alpha: float = 1, rounding_mode: None = None) -> Traced:
        if alpha != 1 or rounding_mode is not None:
            raise GraphError(f"{op} with alpha or rounding_mode is not supported")
        first, second = (right, left) if swap else (left, right)
        out = t.made(t.builder.arithmetic(op, _operand(first), _operand(second)))
        return t.update(left, out) if in_place else out

    return handler


def _linear(t: Tracer, x: Traced, weight: Tensor, bias: Tensor | None = None) -> Traced:
    given = _weights(weight=weight, bias=bias)
    return t.made(t.builder.linear(x.node, given["weight"], given.get("bias")))


def _matmul(t: Tracer, x: object, weight: object) -> Traced:
    if not isinstance(x, Traced) or isinstance(weight, Traced) or not isinstance(weight, Tensor) or weight.dim() != 2:
        raise GraphError("matmul is supported for an activation times a constant matrix")
    return t.made(t.builder.linear(x.node, weight.t()))


def _addmm(t: Tracer, bias: Tensor, x: Traced, weight: Tensor, *, beta: float = 1, alpha: float = 1) -> Traced:
    if (alpha, beta) != (1, 1) or isinstance(bias, Traced):
        raise GraphError("addmm is supported for a constant bias, alpha = 1 and beta = 1")
    product = _matmul(t, x, weight)
    return t.made(t.builder.arithmetic("add", product.node, bias))


def _weights(**tensors: Tensor | None) -> dict[str, Tensor]:
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    if any(isinstance(tensor, Traced) for tensor in given.values()):
        raise GraphError("a weight depends on the input")
    return given


def _conv(rank: int) -> Handler:
    def sizes(value: int | Sequence[int]) -> tuple[int, ...]:
        items = (value,) if isinstance(value, int) else tuple(value)
        return tuple(int(item) for item in (items * rank if len(items) == 1 else items))

    def handler(
        t: Tracer,
        x: Traced,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Traced:
        dilations = sizes(dilation)
        if padding == "same":
            totals = [d * (k - 1) for k, d in zip(weight.shape[2:], dilations, strict=True)]
            around = tuple(total // 2 for total in totals) + tuple(total - total // 2 for total in totals)
        else:
            around = sizes(0 if isinstance(padding, str) else padding) * 2
        return t.emit(
            f"conv{rank}d",
            x,
            constants=_weights(weight=weight, bias=bias),
            stride=sizes(stride),
            padding=around,
            dilation=dilations,
            groups=groups,
        )

    return handler


def _batch_norm(
    t: Tracer,
    x: Traced,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *unused: object,
) -> Traced:
    if training or mean is None or var is None:
        raise GraphError(
            "BatchNorm takes its statistics from the batch: call module.eval(), and keep track_running_stats on"
        )
    weight = torch.ones_like(mean) if weight is None else weight
    bias = torch.zeros_like(mean) if bias is None else bias
    return t.emit("batch_norm", x, constants=_weights(mean=mean, var=var, weight=weight, bias=bias), eps=float(eps))


def _dropout(t: Tracer, x: Traced, p: float = 0.5, training: bool = True, inplace: bool = False) -> Traced:
    if training:
        raise GraphError("dropout is active, so the forward pass is random: call module.eval() or remove it")
    return t.made(x.node, view_of=x)


def _max_pool2d(
    t: Tracer,
    x: Traced,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Traced:
    if return_indices:
        raise GraphError("max_pool2d with return_indices is not supported")
    kernel = _pair(kernel_size)
    step = _pair(stride) if stride else kernel
    return t.made(t.builder.max_pool(x.node, kernel, step, _around(padding), _pair(dilation), bool(ceil_mode)))


def _avg_pool2d(
    t: Tracer,
    x: Traced,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Traced:
    if divisor_override is not None:
        raise GraphError("avg_pool2d with divisor_override is not supported")
    kernel = _pair(kernel_size)
    step = _pair(stride) if stride else kernel
    node = t.builder.avg_pool(x.node, kernel, step, _around(padding), bool(ceil_mode), bool(count_include_pad))
    return t.made(node)


def _adaptive(t: Tracer, x: Traced, output_size: object) -> tuple[int, ...]:
    """Return the kernel (and stride) of an adaptive pool whose windows all have the same size."""
    shape = t.shape(x)
    wanted = output_size if isinstance(output_size, list | tuple) else (output_size,) * 2
    sizes = [have if want is None else int(want) for want, have in zip(wanted, shape[1:], strict=False)]
    if len(shape) != 3 or len(sizes) != 2 or any(s < 1 or have % s for s, have in zip(sizes, shape[1:], strict=True)):
        raise GraphError(f"adaptive pooling of {list(shape)} to {output_size} is not supported: sizes must divide")
    return tuple(have // size for size, have in zip(sizes, shape[1:], strict=True))


def _adaptive_avg_pool2d(t: Tracer, x: Traced, output_size: object) -> Traced:
    kernel = _adaptive(t, x, output_size)
    return t.made(t.builder.avg_pool(x.node, kernel, kernel, (0,) * 4, False, True))


def _adaptive_max_pool2d(t: Tracer, x: Traced, output_size: object, return_indices: bool = False) -> Traced:
    if return_indices:
        raise GraphError("adaptive_max_pool2d with return_indices is not supported")
    kernel = _adaptive(t, x, output_size)
    return t.made(t.builder.max_pool(x.node, kernel, kernel, (0,) * 4, (1, 1), False))


def _mean(
    t: Tracer, x: Traced, dim: int | Sequence[int] | None = None, keepdim: bool = False, **unused: None
) -> Traced:
    if dim is None or any(value is not None for value in unused.values()):
        raise GraphError("mean is supported over dimensions other than the batch, named by dim")
    axes = [t.axis(x, d) for d in ((dim,) if isinstance(dim, int) else dim)]
    return t.made(t.builder.mean(x.node, axes, bool(keepdim)))


def _cast(t: Tracer, x: Traced, *target: object, **options: object) -> Traced:
    for value in (*target, *options.values()):
        if isinstance(value, torch.dtype) and value not in (torch.float32, torch.float64):
            raise GraphError(f"a cast to {value} inside the net is not supported: let robench choose the precision")
    if options.get("copy"):
        return t.made(x.node)
    # A copy or the tensor itself, by the dtype, device and strides that the trace does not follow.
    x.family.sure = False
    return t.made(x.node, view_of=x)


def _detach(t: Tracer, x: Traced) -> Traced:
    return t.made(x.node, view_of=x)


def _clone(t: Tracer, x: Traced, **options: object) -> Traced:
    return t.made(x.node)


def _softmax(t: Tracer, x: Traced, *args: object, **options: object) -> Traced:
    raise GraphError("softmax is not supported: return its input, the logits; the classes predicted stay the same")


def _draw(t: Tracer, *args: object, **options: object) -> Traced:
    raise GraphError("random numbers are drawn in the forward pass: remove them, or make it a randomized classifier")


def _names(handler: Handler, *names: str) -> dict[str, Handler]:
    return dict.fromkeys(names, handler)


def _arithmetic_names(op: str, *aliases: str) -> dict[str, Handler]:
    return {
        **_names(_arithmetic(op), op, f"__{op}__", *aliases),
        **_names(_arithmetic(op, swap=True), f"__r{op}__", f"r{op}"),
        **_names(_arithmetic(op, in_place=True), f"__i{op}__"),
    }


HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        **SHAPE_HANDLERS,
        **{op: _activation(op) for op in ("relu", "sigmoid", "tanh")},
        **_names(_activation("neg"), "neg", "negative", "__neg__"),
        "leaky_relu": _leaky_relu,
        "prelu": _prelu,
        **_names(lambda t, x: t.emit("leaky_relu", x, slope=-1.0), "abs", "absolute", "__abs__"),
        **_names(_clamp, "clamp", "clip"),
        "clamp_min": lambda t, x, min: _clamp(t, x, min=min),
        "clamp_max": lambda t, x, max: _clamp(t, x, max=max),
        "hardtanh": _hardtanh,
        "relu6": _relu6,
        "group_sort": _group_sort,
        **_arithmetic_names("add"),
        **_arithmetic_names("sub", "subtract"),
        **_arithmetic_names("mul", "multiply"),
        **_arithmetic_names("div", "divide", "true_divide"),
        "__truediv__": _arithmetic("div"),
        "__rtruediv__": _arithmetic("div", swap=True),
        "__itruediv__": _arithmetic("div", in_place=True),
        "linear": _linear,
        **_names(_matmul, "matmul", "__matmul__", "mm"),
        "addmm": _addmm,
        "conv1d": _conv(1),
        "conv2d": _conv(2),
        "batch_norm": _batch_norm,
        **_names(_dropout, "dropout", "dropout1d", "dropout2d", "alpha_dropout", "feature_alpha_dropout"),
        "max_pool2d": _max_pool2d,
        "avg_pool2d": _avg_pool2d,
        "adaptive_avg_pool2d": _adaptive_avg_pool2d,
        "adaptive_max_pool2d": _adaptive_max_pool2d,
        "mean": _mean,
        **_names(_cast, "to", "type", "type_as", "float", "double", "cpu", "cuda", "contiguous"),
        "detach": _detach,
        "clone": _clone,
        **_names(_softmax, "softmax", "log_softmax"),
        **_names(_draw, "rand_like", "randn_like", "randint_like", "bernoulli", "multinomial", "normal", "poisson"),
        **_names(_draw, "rrelu", "gumbel_softmax", "uniform", "exponential", "random", "cauchy", "geometric"),
    }
)
