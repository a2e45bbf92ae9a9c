"""A torch module as a classifier where it cannot become a graph: the map as executed."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import inspect
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn

from robench.errors import InputError
from robench.graph._classifier import check_input
from robench.graph._fingerprint import tensor_digest

__all__ = ["ModuleClassifier", "module_fingerprint"]

# Attributes of every torch.nn.Module; what else a module holds may be part of what it computes.
_OWN = frozenset(vars(nn.Module()))


class ModuleClassifier:
    """Runs a copy of a module: logits [B, classes]. Opaque: `graph` is None, and `why` says in one line what for."""

    def __init__(
        self,
        module: nn.Module,
        input_shape: tuple[int, ...],
        classes: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        why: str = "",
    ) -> None:
        """Copy `module` to `device` in `dtype`; the copy's parameters take no gradients."""
        try:
            copied = copy.deepcopy(module)
        except Exception as error:
            raise InputError(f"{type(module).__name__} cannot be copied: {error}") from None
        self._module = copied.requires_grad_(False).eval().to(device=device, dtype=dtype)
        self.input_shape = input_shape
        self.classes = classes
        self.dtype = dtype
        self.device = torch.device(device)
        self.graph = None
        self.why = why
        self.fingerprint = module_fingerprint(module, dtype)

    def logits(self, x: Tensor) -> Tensor:
        """Return logits [B, classes] for `x` [B, ...]. Raises InputError for another shape or dtype."""
        check_input(x, self.input_shape, self.dtype)
        out: Tensor = self._module(x)
        return out

    def __repr__(self) -> str:
        """Shapes, precision and identity."""
        return (
            f"ModuleClassifier({list(self.input_shape)} to {self.classes} classes, {self.dtype}, "
            f"{self.device}, opaque, {self.fingerprint[:12]})"
        )


def module_fingerprint(module: nn.Module, dtype: torch.dtype) -> str:
    """Return the fingerprint of an opaque module: state, module tree, and the code's distribution and version."""
    sha = hashlib.sha256(f"robench opaque 1\0{dtype}".encode())
    for name, layer in module.named_modules():
        sha.update(repr((name, _code(type(layer)), layer.extra_repr())).encode())
        for key, value in sorted(_held(layer).items()):
            sha.update(repr((name, key)).encode())
            sha.update(tensor_digest(value) if isinstance(value, Tensor) else repr(value).encode())
    return sha.hexdigest()


def _held(layer: nn.Module) -> Mapping[str, object]:
    """Return the layer's own tensors and plain values; of anything else, its type."""
    held: dict[str, object] = {
        key: value for key, value in (*layer._parameters.items(), *layer._buffers.items()) if value is not None
    }
    for key, value in vars(layer).items():
        if key not in _OWN:
            held[key] = value if _is_plain(value) else f"{type(value).__module__}.{type(value).__qualname__}"
    return held


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) and not isinstance(item, Tensor) for item in value)
    return value is None or isinstance(value, bool | int | float | str | torch.dtype | Tensor)


def _code(cls: type) -> str:
    """Return what names the code of a class: its distribution and version, or its source where it has none."""
    package = cls.__module__.partition(".")[0]
    names = _distributions().get(package)
    if names:
        versions = ",".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(set(names)))
        return f"{cls.__module__}.{cls.__qualname__} of {versions}"
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        source = ""
    return f"{cls.__qualname__}: {hashlib.sha256(source.encode()).hexdigest()}"


@cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()
