"""Layers with weights: linear, convolutions, batch normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

from robench.errors import GraphError
from robench.graph.operators._base import Attributes, Constants, Operator, Shape, as_float, as_int, as_ints
from robench.graph.operators._windows import check_window, is_symmetric, sizes, torch_padding

__all__ = ["LAYERS"]


def _check_vector(name: str, which: str, tensor: Tensor | None, size: int) -> None:
    if tensor is not None and tuple(tensor.shape) != (size,):
        raise GraphError(f"{name}: {which} has the shape {list(tensor.shape)}, not [{size}]")


def _infer_linear(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
    weight = constants["weight"]
    if len(shapes[0]) != 1:
        raise GraphError(f"linear needs an input of one axis, not {list(shapes[0])}: flatten it before")
    if weight.dim() != 2 or weight.shape[1] != shapes[0][0]:
        raise GraphError(f"linear: weight {list(weight.shape)} does not fit an input of {shapes[0][0]}")
    _check_vector("linear", "bias", constants.get("bias"), weight.shape[0])
    return (weight.shape[0],)


def _bind_linear(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
    weight, bias = constants["weight"], constants.get("bias")
    return lambda x: F.linear(x, weight, bias)


def _infer_conv(rank: int) -> Callable[[Sequence[Shape], Attributes, Constants], Shape]:
    name = f"conv{rank}d"

    def infer(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
        weight, groups = constants["weight"], as_int(attributes, "groups")
        if len(shapes[0]) != rank + 1 or weight.dim() != rank + 2:
            raise GraphError(f"{name}: input {list(shapes[0])} and weight {list(weight.shape)} do not fit")
        channels, *spatial = shapes[0]
        out, inner, *kernel = weight.shape
        if groups < 1 or out % groups or inner * groups != channels:
            raise GraphError(f"{name}: weight {list(weight.shape)}, {channels} channels and {groups} groups do not fit")
        window = [as_ints(attributes, key) for key in ("stride", "padding", "dilation")]
        check_window(name, rank, kernel, *window)
        _check_vector(name, "bias", constants.get("bias"), out)
        return (out, *sizes(name, spatial, kernel, *window))

    return infer


def _bind_conv(rank: int) -> Callable[[Attributes, Constants], Callable[..., Tensor]]:
    convolve: Callable[..., Tensor] = F.conv1d if rank == 1 else F.conv2d

    def bind(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
        weight, bias = constants["weight"], constants.get("bias")
        stride, padding, dilation = (as_ints(attributes, key) for key in ("stride", "padding", "dilation"))
        groups = as_int(attributes, "groups")
        if is_symmetric(padding):
            half = padding[:rank]
            return lambda x: convolve(x, weight, bias, stride, half, dilation, groups)
        around = torch_padding(padding)
        return lambda x: convolve(F.pad(x, around), weight, bias, stride, 0, dilation, groups)

    return bind


def _infer_batch_norm(shapes: Sequence[Shape], attributes: Attributes, constants: Constants) -> Shape:
    if not shapes[0]:
        raise GraphError("batch_norm needs a channel axis")
    for name, tensor in constants.items():
        _check_vector("batch_norm", name, tensor, shapes[0][0])
    eps = as_float(attributes, "eps")
    if not (math.isfinite(eps) and float(constants["var"].double().min()) + eps > 0 <= eps):
        raise GraphError(f"batch_norm: variance plus eps ({eps}) must be positive")
    return shapes[0]


def _bind_batch_norm(attributes: Attributes, constants: Constants) -> Callable[..., Tensor]:
    mean, var, weight, bias = (constants[name] for name in ("mean", "var", "weight", "bias"))
    eps = as_float(attributes, "eps")
    return lambda x: F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)


LAYERS = (
    Operator("linear", _infer_linear, _bind_linear, required=("weight",), optional=("bias",), affine=True),
    *(
        Operator(
            f"conv{rank}d",
            _infer_conv(rank),
            _bind_conv(rank),
            attributes={"stride": "ints", "padding": "ints", "dilation": "ints", "groups": "int"},
            required=("weight",),
            optional=("bias",),
            affine=True,
        )
        for rank in (1, 2)
    ),
    Operator(
        "batch_norm",
        _infer_batch_norm,
        _bind_batch_norm,
        attributes={"eps": "float"},
        required=("mean", "var", "weight", "bias"),
        affine=True,
    ),
)
