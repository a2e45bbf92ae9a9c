"""auto_LiRPA 0.3, where it is installed: `pip install --target FOLDER --no-deps auto_LiRPA appdirs tqdm`.

It asks for older versions of numpy and torch; what it misses of those is given to it here and changes no figure.
"""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Peer", "available"]


def available() -> bool:
    """Import auto_LiRPA; False where that does not work."""
    gone = types.ModuleType("numpy.lib.arraysetops")
    gone.isin = np.isin  # type: ignore[attr-defined]
    sys.modules.setdefault("numpy.lib.arraysetops", gone)
    warnings.filterwarnings("ignore")
    try:
        import torch.onnx.symbolic_helper as helper
        from torch.onnx._internal.torchscript_exporter._globals import GLOBALS

        helper._set_opset_version = lambda version: setattr(GLOBALS, "export_onnx_opset_version", version)
        node: Any = torch._C.Node
        node.__getitem__ = lambda self, key: getattr(self, self.kindOf(key))(key)
        from auto_LiRPA import BoundedModule

        members = BoundedModule._named_members
        BoundedModule._named_members = lambda self, *given, remove_duplicate=True, **more: members(self, *given, **more)
    except ImportError as error:
        print(f"auto_LiRPA cannot be imported: {error}", file=sys.stderr)
        return False
    return True


class Peer:
    """One network in auto_LiRPA; slopes for sparse neurons only, as it does by default, unless that fails."""

    def __init__(self, module: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, sparse: bool = True) -> None:
        from auto_LiRPA import BoundedModule, BoundedTensor, PerturbationLpNorm

        self.x = BoundedTensor(x, PerturbationLpNorm(norm=float("inf"), eps=eps))
        options = {"iteration": steps, "lr_alpha": 0.5, "lr_decay": 0.98, "early_stop_patience": steps + 1}
        settings = {"optimize_bound_args": options, "sparse_features_alpha": sparse, "sparse_spec_alpha": sparse}
        self.net = BoundedModule(module, torch.zeros_like(x[:1]), settings)
        self.net.eval()
        classes = module(x[:1]).shape[1]
        eye = torch.eye(classes)
        rows = eye[y][:, None] - eye[None]
        self.rows = rows[torch.arange(classes) != y[:, None]].reshape(len(y), classes - 1, classes)

    def bounds(self, method: str, inside: bool = True) -> Tensor:
        """Return lower bounds of all margins [B, classes − 1]; without `inside` neurons keep CROWN's bounds."""
        given = {"x": (self.x,), "C": self.rows, "method": method, "bound_upper": False}
        if method == "CROWN-Optimized":
            self.net.bound_opts["optimize_bound_args"]["fix_intermediate_layer_bounds"] = not inside
            if not inside:
                self.net.compute_bounds(**given | {"method": "CROWN"})
                before = [node.inputs[0] for node in self.net.relus]
                given["intermediate_layer_bounds"] = {
                    node.name: [node.lower.detach(), node.upper.detach()] for node in before
                }
        lower, _ = self.net.compute_bounds(**given)
        return lower.detach()
