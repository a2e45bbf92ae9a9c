"""One chunk of samples of a smoothed classifier: every verdict is a test of votes, with a confidence below 1.

The class that wins the vote is nobody's to evaluate. Clean samples are classified by PREDICT (Cohen et al. 2019), which
abstains where the votes do not tell. A point that is proposed was chosen on the attack's own draws; fresh draws, from
streams that no plugin has, then say whether another class than the label wins there. Where k points of a sample may be
tested each test spends α/k, so that with probability 1 − α none of its verdicts is wrong. Abstaining leaves it open.

Certifiers are asked about every correct sample, whatever the attacks showed: otherwise statistical statements that
contradict each other would never be made, and their number could not be held against chance.
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import cast

import numpy as np
import torch
from torch import Tensor

from robench.classifier import SmoothedClassifier
from robench.distances import distances, project
from robench.numerics import per_sample
from robench.runner._answers import spread
from robench.runner._chunk import Chunk
from robench.runner._draws import draws_stream
from robench.runner._judge import Verdict
from robench.runner._plan import Side
from robench.runner._rows import Block, encode_detail
from robench.threat import Norm, Threat
from robench.votes import note, share, status, winner

__all__ = ["SmoothedChunk"]


class SmoothedChunk(Chunk):
    """A chunk whose classifier votes. `upper` is the distance of the nearest point that a test calls misclassified."""

    @cached_property
    def _vote(self) -> SmoothedClassifier:
        return cast(SmoothedClassifier, self.plan.classifier)

    @cached_property
    def _share(self) -> float:
        """What one point's test may spend of α."""
        return share(self._vote.alpha, self.plan.evaluators, len(self.plan.epsilons))

    def _clean(self) -> list[int | None]:
        start, size, alpha = time.perf_counter(), len(self.x), self._vote.alpha
        rows = torch.arange(size, device=self.x.device)
        parts = self.batches.run(rows, lambda part: self._votes(part, self.x[part], "clean", None, None))
        votes = torch.cat([one for _, one in parts])
        prediction = winner(votes, alpha)
        found = status(votes, self.y, alpha)
        self.correct = prediction == self.y
        forwards, backwards = spread(self.judge.classifier.take(), None, size)
        self.blocks.append(
            Block(
                evaluator="clean",
                kind="clean",
                norm=None,
                eps=None,
                rows=np.arange(size),
                lower=np.zeros(size),
                upper=np.array([0.0 if one == "incorrect" else np.inf for one in found]),
                confidence=np.full(size, 1 - alpha),
                status=list(found),
                forwards=forwards,
                backwards=backwards,
                seconds=time.perf_counter() - start,
                detail=[encode_detail(one) for one in note(votes, alpha)],
            )
        )
        return [None if one == "error" else int(place) for one, place in zip(found, prediction.tolist(), strict=True)]

    def _active(self, threat: Threat, side: Side) -> Tensor:
        return self.correct if side == "certificate" else super()._active(threat, side)

    def _judge(self, spec: str, rows: Tensor, points: Tensor, threat: Threat) -> Verdict:
        x, y = self.x[rows], self.y[rows]
        points = points.detach().to(dtype=x.dtype, device=x.device)
        finite = points.flatten(1).isfinite().all(1)
        points = project(torch.where(per_sample(finite, x), points, x), x, threat)
        votes = self._votes(rows, points, spec, threat.norm, threat.eps)
        self._check_within(spec, rows, points, threat)
        self.judge.classifier.take()
        prediction = winner(votes, self._share)
        error = ~finite | (votes[:, -1] == votes.sum(1))
        broken = finite & (prediction >= 0) & (prediction != y)
        label = votes.gather(1, y[:, None])[:, 0]
        best = votes[:, :-1].scatter(1, y[:, None], -1).amax(1)
        return Verdict(
            broken=broken,
            numerical=torch.zeros_like(broken),
            error=error,
            points=points,
            distances=distances(points, x),
            prediction=prediction,
            margin=(label - best).double() / self._vote.n,
            method=["votes" if bad else None for bad in broken.tolist()],
            forwards=torch.full_like(y, self._vote.n),
            confidence=1 - self._share,
            notes=note(votes, self._share),
        )

    def _votes(self, rows: Tensor, points: Tensor, spec: str, norm: Norm | None, eps: float | None) -> Tensor:
        """Return the votes [B, classes + 1] of the runner's own draws at `points`."""
        indices = [self.indices[row] for row in rows.tolist()]
        stream = draws_stream(self.plan.seed, spec, norm, eps, indices, self.x.device)
        return self.judge.classifier.draws(points, stream).count(range(len(rows)), [self._vote.n] * len(rows))
