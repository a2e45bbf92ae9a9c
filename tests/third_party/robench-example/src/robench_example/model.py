"""A model written down by hand: which side of a hyperplane."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robench import Classifier, Model, from_module, param

__all__ = ["HalvesModel"]


@dataclass(frozen=True)
class HalvesModel(Model):
    """Logits (−s, s) with s = Σ x_i − d / 2: two classes, divided by the hyperplane through the box's centre."""

    d: int = param(4, "numbers in each input", minimum=1)

    def load(self, device: torch.device, dtype: torch.dtype) -> Classifier:
        """Return the classifier; its network is traced into a graph, which certifiers and fingerprints work on."""
        layer = torch.nn.utils.skip_init(torch.nn.Linear, self.d, 2)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, self.d))
            layer.bias.copy_(torch.tensor([self.d / 2, -self.d / 2]))
        return from_module(layer.eval(), (self.d,), device=device, dtype=dtype)
