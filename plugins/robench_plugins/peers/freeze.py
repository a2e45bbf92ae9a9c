"""Networks of other libraries' layers as graphs can express them: plain ones, with the effective weights.

Layers of orthogonium and deel-torchlip compute their weights from what is trained, by torch's parametrisations, and
have activations of their own. Nothing is believed of what they promise: certifiers bound what comes out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from robench import InputError
from robench_plugins.peers._activations import HalfMaxMin, Reflection, ScaledGroupSort, TwoSided

__all__ = ["double", "freeze"]


def freeze(module: nn.Module) -> nn.Module:
    """Return a copy of `module` in evaluation mode, with the weights that its layers have there.

    Parametrised weights are computed in float64, where their library allows that, and rounded once. Activations of
    orthogonium and deel-torchlip become ones of the same function that `robench.graph` can express, and that the
    certifier `lipschitz` bounds by 1; all other layers stay as they are. `module` stays as it is too.

    The certifier's bound is exact to rounding for linear layers, convolutions with zero or circular padding, MaxMin,
    GroupSort, Householder, PReLU with one slope, absolute values, average pools and pixel shuffles. It counts 2 for a
    layer that subtracts means over an image, and the L2 pools of torchlip are no graph.

    Raises InputError where the module cannot be copied.
    """
    try:
        copied = copy.deepcopy(module)
    except Exception as error:
        raise InputError(
            f"{type(module).__name__} cannot be copied ({error}): run it once in evaluation mode"
        ) from None
    with torch.no_grad():
        return _frozen(copied.eval(), {}).eval()


def double(module: nn.Module) -> nn.Module:
    """Return a copy of `module` in float64, parametrisations that name the dtype of what they compute included."""
    copied = copy.deepcopy(module).double()
    for part in copied.modules():
        if isinstance(getattr(part, "dtype", None), torch.dtype):
            part.dtype = torch.float64  # type: ignore[assignment]
    return copied


def _frozen(layer: nn.Module, done: dict[int, nn.Module]) -> nn.Module:
    """Replace what is inside of `layer`, and return it, or what stands for it; a layer that occurs twice stays one."""
    if id(layer) in done:
        return done[id(layer)]
    base = next((kind for kind in type(layer).__mro__ if _name(kind) in _RULES), None)
    made = layer if base is None or _differs(layer, base) else _RULES[_name(base)](layer)
    done[id(layer)] = done[id(made)] = made
    for name, inner in list(made._modules.items()):  # `named_children` names a layer once that occurs twice
        if inner is not None and name != "parametrizations":
            setattr(made, name, _frozen(inner, done))
    if parametrize.is_parametrized(made):
        # Not `remove_parametrizations`: it changes the class, which a copy shares with the original.
        weights = _effective(made)
        made.__class__ = parametrize.type_before_parametrizations(made)
        del made.parametrizations
        for name, weight in weights.items():
            made.register_parameter(name, nn.Parameter(weight))
    return made


def _differs(layer: nn.Module, base: type[nn.Module]) -> bool:
    """Whether a layer may compute something else than its base class does."""
    return type(layer).forward is not base.forward or bool(layer._forward_hooks or layer._forward_pre_hooks)


def _effective(layer: nn.Module) -> dict[str, Tensor]:
    own = {name: getattr(layer, name).detach().clone() for name in layer.parametrizations}  # type: ignore[union-attr]
    try:
        exact = double(layer)
        return {name: getattr(exact, name).detach().to(weight.dtype) for name, weight in own.items()}
    except (RuntimeError, TypeError):  # a parametrisation that is written for one precision
        return own


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _half_max_min(layer: Any) -> nn.Module:
    return HalfMaxMin() if layer.axis == 1 else layer


def _two_sided(layer: Any) -> nn.Module:
    return TwoSided(layer._coefficient_lip) if layer._dim in (None, 1) else layer


_ORTHOGONIUM = "orthogonium.layers.custom_activations"
_TORCHLIP = "deel.torchlip.modules"

# By name: neither library is imported for modules of the other.
_RULES: Mapping[str, Callable[[Any], nn.Module]] = MappingProxyType(
    {
        f"{_ORTHOGONIUM}.MaxMin": _half_max_min,
        f"{_ORTHOGONIUM}.HouseHolder": lambda layer: Reflection(layer.theta, 0.5**0.5) if layer.axis == 1 else layer,
        f"{_TORCHLIP}.activation.MaxMin": _two_sided,
        f"{_TORCHLIP}.activation.GroupSort": lambda layer: ScaledGroupSort(layer.group_size, layer._coefficient_lip),
        f"{_TORCHLIP}.activation.HouseHolder": lambda layer: Reflection(layer.theta),
        f"{_TORCHLIP}.normalization.BatchLipNorm": lambda layer: layer.vanilla_export(),
    }
)
