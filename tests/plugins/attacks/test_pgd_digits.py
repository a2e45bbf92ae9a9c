"""The default PGD against a plain PGD-50-10, written here, on networks trained on real data."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from oracles.classifiers import Function
from robench.classifier import margins
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.attacks.pgd import PGD

EPS = {"linf": 0.1, "l2": 0.5, "l1": 1.5}


@functools.cache
def digits():
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)


@functools.cache
def trained(noise: float) -> Function:
    """A network with two hidden layers, trained on the first 1300 digits; `noise` makes it smoother."""
    x, y = digits()
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(15):
        for rows in torch.randperm(1300, generator=generator).split(64):
            noisy = x[rows] + noise * torch.randn(x[rows].shape, generator=generator)
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(noisy), y[rows]).backward()
            optimiser.step()
    return Function(network, (64,), 10)


def plain_pgd(network, x, y, norm, eps, steps=50, restarts=10):
    """PGD-50-10 as published: cross-entropy, step 2.5 eps/steps, uniform starts, last iterates; l1 as in SLIDE."""
    rng = np.random.default_rng(0)
    broken = torch.zeros(len(x), dtype=torch.bool)
    for _ in range(restarts):
        noise = torch.tensor(rng.uniform(-1, 1, size=x.shape), dtype=x.dtype)
        delta = clip(noise * eps if norm == "linf" else noise, norm, eps)
        for _ in range(steps):
            point = (x + delta).clamp(0, 1).requires_grad_()
            loss = nn.functional.cross_entropy(network(point), y, reduction="sum")
            (g,) = torch.autograd.grad(loss, point)
            if norm == "linf":
                way = g.sign()
            elif norm == "l2":
                way = g / g.norm(dim=1, keepdim=True).clamp_min(1e-12)
            else:
                # Tramèr & Boneh 2019: the sign on the largest 5 % of the entries.
                top = g.abs() >= g.abs().quantile(0.95, dim=1, keepdim=True)
                way = g.sign() * top / top.sum(1, keepdim=True)
            delta = clip(point.detach() - x + 2.5 * eps / steps * way, norm, eps)
        broken |= network((x + delta).clamp(0, 1)).argmax(1) != y
    return broken


def clip(delta, norm, eps):
    if norm == "linf":
        return delta.clamp(-eps, eps)
    if norm == "l2":
        return delta * (eps / delta.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
    # Duchi et al. 2008, Figure 1.
    size = delta.abs()
    ranked = size.sort(1, descending=True).values
    shift = (ranked.cumsum(1) - eps) / torch.arange(1, size.shape[1] + 1)
    last = (ranked > shift).sum(1, keepdim=True) - 1
    return delta.sign() * (size - shift.gather(1, last).clamp_min(0)).clamp_min(0)


@pytest.mark.parametrize("noise", [0.0, 0.4])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_at_least_as_strong_as_pgd_50_10(norm, noise):
    classifier = trained(noise)
    x, y = (part[1300:1600] for part in digits())
    with torch.no_grad():
        correct = margins(classifier.logits(x), y) > 0
    assert correct.float().mean() > 0.85
    x, y, eps = x[correct], y[correct], EPS[norm] * (1.5 if noise else 1)
    stream = Stream.for_samples(0, "pgd", range(len(x)))
    proposal = PGD().perturb(classifier, x, y, Threat(norm, eps, Domain()), stream)
    with torch.no_grad():
        ours = margins(classifier.logits(proposal.points), y) <= 0
    theirs = plain_pgd(classifier.function, x, y, norm, eps)
    assert 0.1 < ours.float().mean() < 0.97
    assert ours.sum() >= theirs.sum()
    assert (theirs & ~ours).sum() <= 1
    assert proposal.passes.backwards.sum() < 500 * len(x)
