"""A linear classifier with two classes and Gaussian noise on its logits: expected accuracies in closed form.

The margin at x is m(x) + √2 σ N(0, 1), so a draw at x is correct with probability Φ(m(x) / (√2 σ)), and at the worst
point of a ball that lies in the domain with probability Φ((m(x) − ε ‖w‖_q) / (√2 σ)), q the dual exponent.
"""

import numpy as np
import torch
from scipy.stats import norm as normal

from robench.samples import Samples
from robench.threat import Domain

DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


class RandomLinear:
    """f_0 − f_1 = ⟨w, x⟩ + c, plus noise of standard deviation `sigma` on either logit."""

    classes, device, graph = 2, torch.device("cpu"), None

    def __init__(self, sigma=0.5, d=6, dtype=torch.float32, seed=0):
        draw = np.random.default_rng(seed)
        self.w = draw.normal(size=d)
        self.c = -self.w.sum() / 2  # the boundary runs through the centre of the unit box
        self.sigma, self.dtype, self.input_shape = sigma, dtype, (d,)
        self.fingerprint = f"{seed:032x}{int(1000 * sigma):032x}"
        self.weight = torch.tensor(self.w, dtype=dtype)
        self.asked = []

    def sample(self, x, stream):
        self.asked.append(len(x))
        # A sum of products: equal in every batch to the bit, as a matrix product need not be.
        half = ((x * self.weight).sum(1) + self.c) / 2
        return torch.stack([half, -half], 1) + self.sigma * stream.normal((2,), self.dtype)

    def margin(self, x, y):
        return (x.astype(np.float64) @ self.w + self.c) * (1 - 2 * y)

    def accuracy(self, x, y, norm=None, eps=0.0):
        """The probability that a draw is correct at x, or at the worst point of its ball, [N]."""
        loss = eps * np.linalg.norm(self.w, DUAL[norm]) if norm else 0.0
        return normal.cdf((self.margin(x, y) - loss) / (2**0.5 * self.sigma))

    def samples(self, n=40, seed=1):
        """Inputs well inside the box, so that balls of radius .2 lie in it; labelled by the noiseless function."""
        x = 0.3 + 0.4 * np.random.default_rng(seed).random((n, *self.input_shape))
        x = x.astype(np.float32)
        y = (self.margin(x, 0) < 0).astype(np.int64)
        y[::8] = 1 - y[::8]
        return Samples(x, y, 7 + 3 * np.arange(n), Domain(), ("a", "b"))
