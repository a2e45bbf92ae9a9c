"""Adversarial training of smoothed classifiers (Salman et al. 2019, "Provably robust deep learning via …")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robench import param
from robench.contracts import TrainContext, Trained
from robench.graph import Graph
from robench.samples import Samples
from robench.streams import Stream
from robench.threat import Epsilon, Norm
from robench_plugins.attacks.gradients import ascent
from robench_plugins.attacks.losses import log_mean_softmax
from robench_plugins.attacks.regions import Region
from robench_plugins.attacks.steps import move, step_sizes
from robench_plugins.training._ball import BallSettings
from robench_plugins.training._data import Batch
from robench_plugins.training._live import evaluating
from robench_plugins.training._loop import BatchLoss, fit, hits

__all__ = ["SmoothAdv"]


@dataclass(frozen=True)
class SmoothAdv(BallSettings):
    """Minimise the cross-entropy at x̂ + N(0, σ² I), where x̂ in the ball fools the vote over the same noise.

    PGD from x in the ball, cut at the domain, increases −log of the mean softmax over the `draws` points x̂ + noise
    (eq. 6); the network then learns every one of these points. ε grows linearly over the first `warmup` epochs, as the
    authors have it. Training costs (`steps` + 1) · `draws` times as many passes as `gaussian`.

    History, per epoch: `loss` and `robust_accuracy` at the points trained on, `accuracy` at x + noise.
    """

    sigma: float = param(0.25, "standard deviation of the noise, in the units of the domain", above=0)
    norm: Norm = param("l2", "norm of the ball")
    eps: Epsilon = param(Epsilon.parse("0.5"), "radius of the ball")
    draws: int = param(2, "draws of noise that the softmax is averaged over, and trained on (m)", minimum=1)
    steps: int = param(2, "steps of the attack (T)", minimum=1)
    step: float | None = param(None, "size of each step in units of ε; 2/steps where not given", above=0)
    warmup: int = param(10, "epochs over which ε grows to its value", minimum=0)

    @property
    def evaluate(self) -> tuple[str, ...]:
        """Certificates of the vote over the noise of the training."""
        return "-c", f"smoothing:sigma={self.sigma:g}", "--norm", self.norm, "--eps", str(self.eps)

    def train(self, train: Samples, context: TrainContext) -> Trained:
        """Train on `train`."""
        streams = Stream.for_samples(context.seed, "smoothadv", train.index, context.device)

        def prepare(network: nn.Sequential) -> BatchLoss:
            def batch_loss(batch: Batch, part: float) -> tuple[Tensor, Mapping[str, Tensor]]:
                stream = streams.select(batch.rows.to(context.device)).child(batch.epoch)
                noise = self.sigma * stream.repeat(self.draws, "draw").normal(train.shape)
                vote = _SoftVote(network, noise, self.draws, len(train.classes))
                points, before = self._ascend(
                    vote, batch, Region.around(batch.x, self.threat(batch.epoch, train.domain))
                )
                logits, y = network(vote.noisy(points)), batch.y.repeat(self.draws)
                robust = hits(logits, y) / self.draws
                return F.cross_entropy(logits, y), {"accuracy": before, "robust_accuracy": robust}

            return batch_loss

        return fit(self, train, context, prepare)

    def _ascend(self, vote: _SoftVote, batch: Batch, region: Region) -> tuple[Tensor, Tensor]:
        """Return the last point of PGD, and how many draws were correct at x, as a mean over `draws`."""
        point, correct = batch.x, None
        size = 2 / self.steps if self.step is None else self.step
        for length in step_sizes("fixed", self.steps, size):
            now = ascent(vote, point, batch.y, "ce")
            if correct is None:
                correct = hits(vote.each, batch.y.repeat(self.draws)) / self.draws
            point = move(region, point, now.direction, length)
        assert correct is not None
        return point.detach(), correct


class _SoftVote:
    """The log of the mean softmax of the network while it is being trained, over given noise: what the attack sees."""

    def __init__(self, network: nn.Module, noise: Tensor, draws: int, classes: int) -> None:
        self.network, self.noise, self.draws = network, noise, draws
        self.input_shape = tuple(noise.shape[1:])
        self.classes = classes
        self.device = noise.device
        self.dtype = torch.float32
        self.fingerprint = "0" * 64
        self.graph: Graph | None = None
        self.each = noise.new_zeros(0, classes)

    def noisy(self, x: Tensor) -> Tensor:
        """Return x + noise [draws · B, ...], draw by draw."""
        return x.repeat(self.draws, *[1] * (x.dim() - 1)) + self.noise

    def logits(self, x: Tensor) -> Tensor:
        """Return the logarithm of the mean softmax [B, classes]; `each` keeps the draws' logits."""
        with evaluating(self.network):
            logits: Tensor = self.network(self.noisy(x))
        self.each = logits.detach()
        return log_mean_softmax(logits.reshape(self.draws, len(x), self.classes))
