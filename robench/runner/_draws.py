"""One chunk of samples of a classifier that draws at inference: counts of draws instead of verdicts.

r* is not defined, so nothing is falsified. At every point proposed the runner draws twice, from streams that no plugin
has: `draws` *trial* draws, by which the worst point of a sample is chosen and its search is ended, and `draws` others,
which alone are reported. The count that chooses a point is never the count that is reported about it: the least of
several counts would be too low. And what an attack saw in its own draws counts nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robench.classifier import Counted, margins
from robench.contracts import Attack, Outcome, Proposal
from robench.distances import distances, project
from robench.numerics import per_sample
from robench.runner._answers import call, checked_proposal, spread
from robench.runner._chunk import Chunk, Cost, Work
from robench.runner._rows import Block, WitnessBlock, encode_detail
from robench.streams import Stream
from robench.threat import Norm

__all__ = ["RandomChunk", "Votes", "draws_stream", "vote"]


@dataclass(frozen=True, eq=False)
class Votes:
    """How the draws at one point per sample came out, [B] each.

    Attributes:
        trial: correct draws among the trial draws, int64.
        correct: correct draws among those that are reported, int64.
        trial_margin: mean margin over the trial draws, float64; NaN where logits are not finite.
        margin: the same over the others.
        prediction: the most frequent class among those that are reported, the lowest of several.
        error: some draw gave logits that are not finite; such a draw is not correct.
    """

    trial: Tensor
    correct: Tensor
    trial_margin: Tensor
    margin: Tensor
    prediction: Tensor
    error: Tensor


def draws_stream(
    seed: int, evaluator: str, norm: Norm | None, eps: float | None, samples: Sequence[int], device: torch.device
) -> Stream:
    """Return the streams of the runner's own draws at the points of one evaluator, one for each of `samples`."""
    return Stream.for_samples(seed, f"draws of {evaluator} in {norm} at {eps!r}", samples, device)


@torch.no_grad()
def vote(classifier: Counted, x: Tensor, y: Tensor, stream: Stream, draws: int, limit: int) -> Votes:
    """Draw 2 · `draws` times at the points `x` [B, ...] with labels `y` [B], at most `limit` rows (or B) at once."""
    counts = torch.zeros(2, len(x), dtype=torch.int64, device=x.device)
    sums = torch.zeros(2, len(x), dtype=torch.float64, device=x.device)
    ballots = torch.zeros(len(x), classifier.classes, dtype=torch.int64, device=x.device)
    copies = max(1, min(draws, limit // max(1, len(x))))
    for part in range(2):
        for first in range(0, draws, copies):
            times = min(copies, draws - first)
            streams = stream.repeat(times, ("trial", "report")[part], first=first)
            logits = classifier.sample(x.repeat(times, *[1] * (x.dim() - 1)), streams)
            margin = margins(logits, y.repeat(times)).double().reshape(times, len(x))
            counts[part] += (margin > 0).sum(0)
            sums[part] += margin.sum(0)
            if part:
                seen = torch.nn.functional.one_hot(logits.argmax(1), classifier.classes)
                ballots += seen.reshape(times, len(x), -1).sum(0)
    means = sums / draws
    return Votes(counts[0], counts[1], means[0], means[1], ballots.argmax(1), means.isnan().any(0))


class RandomChunk(Chunk):
    """A chunk whose classifier draws. `correct`: some trial draw is; `upper`: distance of a point where none is."""

    def _clean(self) -> list[int | None]:
        start, plan, size = time.perf_counter(), self.plan, len(self.x)
        rows = torch.arange(size, device=self.x.device)
        parts = [votes for _, votes in self.batches.run(rows, lambda part: self._vote(part, self.x[part], "clean"))]
        columns = ([getattr(one, name) for one in parts] for name in ("trial", "correct", "error"))
        trial, correct, error = (torch.cat(column) for column in columns)
        self.correct = (trial > 0) & ~error
        forwards, backwards = spread(self.judge.classifier.take(), None, size)
        self.blocks.append(
            Block.open(
                np.arange(size),
                evaluator="clean",
                kind="clean",
                norm=None,
                eps=None,
                status=["error" if bad else "open" for bad in error.tolist()],
                forwards=forwards,
                backwards=backwards,
                seconds=time.perf_counter() - start,
                detail=[
                    encode_detail({"draws": plan.draws, "trial": t, "correct": c}, _NOT_FINITE if bad else None)
                    for t, c, bad in zip(trial.tolist(), correct.tolist(), error.tolist(), strict=True)
                ],
            )
        )
        return [None] * size

    def _stage(self, work: Work, attack: Attack) -> Outcome:
        def propose(part: Tensor) -> tuple[Proposal, tuple[int, int], Tensor, Votes, Tensor]:
            # Fresh copies go out: a plugin that writes into its arguments changes nothing here.
            x, y, stream = self.x[part], self.y[part], self._stream(work.spec, part)
            made = call(work.spec, attack.perturb, self._handed(), x, y, work.threat, stream)
            proposal = checked_proposal(work.spec, made, self.x[part])
            searched = self.searched.take()
            points = proposal.points.detach().to(dtype=self.x.dtype, device=self.x.device)
            finite = points.flatten(1).isfinite().all(1)
            points = project(torch.where(per_sample(finite, points), points, self.x[part]), self.x[part], work.threat)
            votes = self._vote(part, points, work.spec, work.threat.norm, work.threat.eps)
            self._check_within(work.spec, part, points, work.threat)
            self.judge.classifier.take()
            return proposal, searched, points, votes, votes.error | ~finite

        size, device = len(self.x), self.x.device
        broken = torch.zeros(size, dtype=torch.bool, device=device)
        margin = torch.full((size,), torch.nan, dtype=torch.float64, device=device)
        forwards, backwards = torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.int64)
        details: list[Mapping[str, Any] | None] = [None] * size
        for part, seconds, (proposal, searched, points, votes, error) in self._guarded(work, propose):
            spent, back = spread(searched, proposal.passes, len(part))
            cost = Cost(spent + 2 * self.plan.draws, back, seconds)
            apart = distances(points, self.x[part])
            none = (votes.trial == 0) & ~error
            found = apart[work.threat.norm]
            self.upper[part] = torch.where(none, torch.minimum(self.upper[part], found), self.upper[part])
            broken[part], margin[part] = none, votes.trial_margin
            forwards[part.cpu()] = torch.from_numpy(cost.forwards)
            backwards[part.cpu()] = torch.from_numpy(cost.backwards)
            for row, detail in zip(part.tolist(), proposal.detail or [None] * len(part), strict=True):
                details[row] = detail
            self._keep(work, part, proposal, votes, error, found, cost)
            self._keep_points(work, part, points, votes, error, apart)
        return Outcome(broken, margin, forwards, backwards, details)

    def _vote(
        self, part: Tensor, points: Tensor, spec: str, norm: Norm | None = None, eps: float | None = None
    ) -> Votes:
        indices = [self.indices[row] for row in part.tolist()]
        stream = draws_stream(self.plan.seed, spec, norm, eps, indices, self.x.device)
        return vote(self.judge.classifier, points, self.y[part], stream, self.plan.draws, self.batches.limit)

    def _keep(
        self, work: Work, part: Tensor, made: Proposal, votes: Votes, error: Tensor, apart: Tensor, cost: Cost
    ) -> None:
        """Append the rows: they say nothing about r*, the counts are in the detail."""
        counts = zip(votes.trial.tolist(), votes.correct.tolist(), apart.tolist(), error.tolist(), strict=True)
        notes = [
            _NOT_FINITE if bad else {"draws": self.plan.draws, "trial": trial, "correct": correct, "distance": distance}
            for trial, correct, distance, bad in counts
        ]
        told = made.detail or [None] * len(part)
        self.blocks.append(
            Block.open(
                part.cpu().numpy(),
                evaluator=work.spec,
                kind=work.kind,
                norm=work.threat.norm,
                eps=work.threat.eps,
                status=["error" if bad else "open" for bad in error.tolist()],
                forwards=cost.forwards,
                backwards=cost.backwards,
                seconds=cost.seconds,
                detail=[encode_detail(one, note) for one, note in zip(told, notes, strict=True)],
            )
        )

    def _keep_points(
        self, work: Work, part: Tensor, points: Tensor, votes: Votes, error: Tensor, apart: dict[Norm, Tensor]
    ) -> None:
        """Keep every point that was counted, so that anybody can draw there again."""
        kept = ~error
        if not kept.any():
            return
        self.witnesses.append(
            WitnessBlock(
                evaluator=work.spec,
                norm=work.threat.norm,
                eps=work.threat.eps,
                rows=part[kept].cpu().numpy(),
                points=points[kept].cpu().numpy(),
                distances={norm: value[kept].cpu().numpy() for norm, value in apart.items()},
                prediction=votes.prediction[kept].cpu().numpy(),
                margin=votes.margin[kept].cpu().numpy(),
                detail=[encode_detail({"verified": "draws"})] * int(kept.sum()),
            )
        )


_NOT_FINITE = {"reason": "non-finite point or logits"}
