"""Small classifiers and data for end-to-end tests, made in a moment and the same every time."""

from itertools import pairwise

import numpy as np
import torch
from torch import nn

from robench.samples import Samples
from robench.threat import Domain


def blobs(n=60, seed=0, dtype=np.float32):
    """Return three overlapping classes in [0, 1]^6."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0.3, 0.7, (3, 6))
    y = rng.integers(0, 3, n)
    x = np.clip(centres[y] + rng.normal(0, 0.08, (n, 6)), 0, 1).astype(dtype)
    return Samples(x, y, np.arange(n), Domain(), ("a", "b", "c"))


def trained(hidden=(16,), seed=0, dtype=torch.float32, steps=200):
    """Return a net fitted to `blobs`; without hidden layers a linear classifier."""
    data = blobs(400, seed=0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = [6, *hidden, 3]
        layers = []
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            layers += [nn.Linear(inputs, outputs), *([nn.ReLU()] if i < len(hidden) else [])]
        net = nn.Sequential(*layers)
    x, y = torch.from_numpy(np.asarray(data.x)), torch.from_numpy(data.y)
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return net.to(dtype).eval()
