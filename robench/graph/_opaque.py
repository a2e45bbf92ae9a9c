"""A torch module as a classifier where it cannot become a graph: the map as executed."""

from __future__ import annotations

import copy
import hashlib

import torch
from torch import Tensor, nn

from robench.errors import InputError
from robench.graph._classifier import check_input
from robench.graph._identity import Identity

__all__ = ["ModuleClassifier", "module_fingerprint"]


class ModuleClassifier:
    """Runs a copy of a module: logits [B, classes]. Opaque: `graph` is None, and `why` says in one line what for.

    `identified` is whether the fingerprint names the function. Where the module holds something that cannot be
    identified, it is False, and the fingerprint is one that no other classifier has, in this process or another.
    """

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
        self.fingerprint, self.identified = module_fingerprint(module, dtype)

    def logits(self, x: Tensor) -> Tensor:
        """Return logits [B, classes] for `x` [B, ...]. Raises InputError for another shape or dtype."""
        check_input(x, self.input_shape, self.dtype)
        # A copy: whatever the module does to its argument, the caller's points stay as they are.
        out: Tensor = self._module(x.clone())
        return out

    def __repr__(self) -> str:
        """Shapes, precision and identity."""
        return (
            f"ModuleClassifier({list(self.input_shape)} to {self.classes} classes, {self.dtype}, "
            f"{self.device}, opaque, {self.fingerprint[:12]})"
        )


def module_fingerprint(module: nn.Module, dtype: torch.dtype) -> tuple[str, bool]:
    """Return the fingerprint of an opaque module, and whether it names the function, in this process and others.

    It covers the module tree, tensors, attributes, hooks, and code: of packages the version, else the code itself.
    """
    identity = Identity()
    found = identity.of(module)
    return hashlib.sha256(f"robench opaque 2\0{dtype}\0".encode() + found).hexdigest(), identity.known
