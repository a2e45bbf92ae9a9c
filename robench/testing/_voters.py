"""A vote over noise so small that the base's decisions are the vote's: for attacks that take no other classifier."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from robench.streams import Stream
from robench.testing._subjects import Network
from robench.threat import Norm
from robench.votes import votes_of

__all__ = ["Voter"]


class _Gaussian:
    """N(0, σ²I), with radii that are not rounded down: the kit certifies nothing by it."""

    norms: ClassVar[tuple[Norm, ...]] = ("l2",)

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        out.normal_(0, self.sigma, generator=generator)

    def draw(self, stream: Stream, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return stream.normal(shape, dtype).mul_(self.sigma)

    def radius(self, p_low: npt.ArrayLike, norm: Norm, dimension: int) -> npt.NDArray[np.float64]:
        return np.asarray(self.sigma * ndtri(np.maximum(p_low, 0.5)), dtype=np.float64)

    def threshold(self, eps: float, norm: Norm, dimension: int) -> float:
        return float(ndtr(eps / self.sigma))


class Voter:
    """The vote of `base` over Gaussian noise. Of two classes with a linear border it is the base's decision itself."""

    graph = None

    def __init__(self, base: Network, sigma: float = 0.01) -> None:
        """Let `base` vote."""
        self.base, self.noise, self.n, self.alpha = base, _Gaussian(sigma), 1000, 0.001
        self.input_shape, self.classes = base.input_shape, base.classes
        self.dtype, self.device = base.dtype, base.device
        self.fingerprint = hashlib.sha256(f"{base.fingerprint} votes at {sigma!r}".encode()).hexdigest()

    def sample(self, x: Tensor, stream: Stream) -> Tensor:
        """Return the logits [B, classes] of one draw."""
        return self.base.logits(x + self.noise.draw(stream, self.input_shape, self.dtype))

    def draws(self, x: Tensor, stream: Stream) -> _Draws:
        """Return the draws around `x` [B, ...]."""
        return _Draws(self, x, stream.child("votes"))


class _Draws:
    """Votes, one sample at a time."""

    def __init__(self, voter: Voter, x: Tensor, stream: Stream) -> None:
        self._voter, self._x, self._stream = voter, x, stream
        self._made = [0] * len(x)

    @torch.no_grad()
    def count(self, samples: Sequence[int], draws: Sequence[int]) -> Tensor:
        classes = self._voter.classes
        votes = torch.zeros(len(samples), classes + 1, dtype=torch.int64, device=self._x.device)
        for place, (sample, times) in enumerate(zip(samples, draws, strict=True)):
            row = torch.tensor([sample], device=self._x.device)
            streams = self._stream.select(row).repeat(times, first=self._made[sample])
            self._made[sample] += times
            logits = self._voter.sample(self._x[row].repeat(times, *[1] * (self._x.dim() - 1)), streams)
            votes[place] = torch.bincount(votes_of(logits), minlength=classes + 1)
        return votes
