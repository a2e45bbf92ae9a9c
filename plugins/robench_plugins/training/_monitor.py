"""What is measured after each epoch on samples that are not trained on: the signs of catastrophic overfitting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from robench.classifier import margins
from robench.contracts import HeldOut
from robench.samples import Samples
from robench.streams import Stream
from robench.threat import Threat
from robench_plugins.attacks.gradients import ascent
from robench_plugins.attacks.regions import Region
from robench_plugins.attacks.steps import move, step_sizes
from robench_plugins.training._live import Live

__all__ = ["Monitor", "aligned"]

_ROWS: Final = 512
_STEPS: Final = 10


class Monitor:
    """Measures a network under one step and under ten, in a linf ball cut at the domain (Wong et al. 2020)."""

    def __init__(self, network: nn.Module, held_out: HeldOut, seed: int, device: torch.device) -> None:
        """Watch `network`, which is put into evaluation mode meanwhile. PGD starts at the same points every time."""
        samples = held_out.samples
        self._network, self._samples, self._device = network, samples, device
        self._threat = Threat("linf", held_out.eps, samples.domain)
        self._streams = Stream.for_samples(seed, "monitor", samples.index, device)
        self._live = Live(network, samples.shape, len(samples.classes), device)

    def __call__(self) -> Mapping[str, float]:
        """Return `fgsm` and `pgd`, accuracies under attack, and `alignment`, the mean of cos(∇ℓ(x), ∇ℓ(x + δ_FGSM))."""
        training = self._network.training
        self._network.eval()
        sums = torch.zeros(3, dtype=torch.float64)
        for start in range(0, len(self._samples), _ROWS):
            sums += self._measure(start, min(start + _ROWS, len(self._samples)))
        self._network.train(training)
        return dict(zip(("fgsm", "pgd", "alignment"), (sums / max(1, len(self._samples))).tolist(), strict=True))

    def _measure(self, start: int, stop: int) -> Tensor:
        x, y = _tensors(self._samples, start, stop, self._device)
        region = Region.around(x, self._threat)
        stream = self._streams.select(torch.arange(start, stop, device=self._device)).child("start")
        here = ascent(self._live, x, y, "ce")
        there = ascent(self._live, move(region, x, here.direction, 1.0), y, "ce")
        robust = here.margin > 0
        point = region.start(stream)
        for size in step_sizes("fixed", _STEPS):
            now = ascent(self._live, point, y, "ce")
            robust &= now.margin > 0
            point = move(region, point, now.direction, size)
        with torch.no_grad():
            robust &= margins(self._live.logits(point), y) > 0
        fgsm = (here.margin > 0) & (there.margin > 0)
        cosine = aligned(here.direction, there.direction)
        return torch.stack([fgsm.double().sum(), robust.double().sum(), cosine.double().sum()]).cpu()


def aligned(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosine [B] between gradients [B, ...]; 0 where one of them is 0."""
    one, other = one.flatten(1), other.flatten(1)
    return torch.nn.functional.cosine_similarity(one, other, dim=1)


def _tensors(samples: Samples, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(samples.batch(start, stop).astype("float32")).to(device)
    return x, torch.from_numpy(samples.y[start:stop]).to(device)
