"""A recipe: multinomial logistic regression by gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robench import Recipe, Samples, TrainContext, Trained, param

__all__ = ["Logistic"]


@dataclass(frozen=True)
class Logistic(Recipe):
    """Trains one affine layer on the cross-entropy, with all samples in every step.

    The start is small and random, from `seed` alone: torch's global generator is neither used nor set.
    """

    epochs: int = param(100, "gradient steps", minimum=1)
    rate: float = param(1.0, "learning rate", above=0)

    def train(self, train: Samples, context: TrainContext) -> Trained:
        """Return the trained module and the loss of each epoch."""
        x = torch.from_numpy(train.batch(0, len(train))).to(context.device, torch.float32)
        y = torch.from_numpy(train.y).to(context.device)
        layer = torch.nn.utils.skip_init(torch.nn.Linear, x[0].numel(), len(train.classes))
        draw = torch.Generator().manual_seed(context.seed)
        torch.nn.init.normal_(layer.weight, std=0.01, generator=draw)
        torch.nn.init.zeros_(layer.bias)
        module = torch.nn.Sequential(torch.nn.Flatten(), layer).to(context.device)
        optimiser = torch.optim.SGD(module.parameters(), self.rate)
        history = []
        for epoch in range(self.epochs):
            optimiser.zero_grad()
            loss = torch.nn.functional.cross_entropy(module(x), y)
            loss.backward()
            optimiser.step()
            history.append({"loss": loss.item()})
            context.report(epoch + 1, self.epochs, history[-1])
        return Trained(module.eval(), history)
