"""Votes: what a draw votes for, the class that wins, what that says about a sample, and how a row of evidence tells it.

A test of votes is PREDICT (Cohen, Rosenfeld & Kolter 2019): the class with the most of n votes, where the top two
differ by a two-sided binomial test at α. The last column of votes [B, classes + 1] counts the draws without a vote: it
takes part in the test, and is nobody's class.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch

from robench import binomial
from robench.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from robench.classifier import SmoothedClassifier
    from robench.streams import Stream

__all__ = ["Ballot", "Status", "note", "predict", "share", "status", "told", "votes_of", "winner"]

Status = Literal["correct", "incorrect", "abstain", "error"]


def votes_of(logits: Tensor) -> Tensor:
    """Return the class that each row of `logits` [B, classes] votes for, int64 [B]; `classes` for no vote.

    A tie and a logit that is not finite are no vote: what is counted for a class are draws at which it is strictly
    ahead, so ties count against every certificate.
    """
    best, place = logits.max(1)
    clear = ((logits == best[:, None]).sum(1) == 1) & (logits.abs().amax(1) < torch.inf)
    return torch.where(clear, place, logits.shape[1])


def winner(votes: Tensor, alpha: float) -> Tensor:
    """Return the class [B] that wins a vote, int64, or −1 where the votes do not tell (`binomial.predict`).

    Args:
        votes: int64 [B, classes + 1]; the last column counts the draws without a vote, and is nobody's class.
        alpha: the rate at which another class than the most likely one is returned, in (0, 1).

    Raises:
        InputError: an α outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha must lie between 0 and 1, not {alpha!r}")
    found = torch.from_numpy(binomial.predict(votes.cpu().numpy(), alpha))
    return found.masked_fill(found == votes.shape[1] - 1, binomial.ABSTAIN).to(votes.device)


def predict(vote: SmoothedClassifier, x: Tensor, stream: Stream, alpha: float) -> Tensor:
    """Return the class [B] of the vote at `x` [B, ...], int64, or −1 where `vote.n` draws do not tell.

    PREDICT of Cohen et al. 2019: a class that is not the most likely one is returned with probability at most `alpha`
    per sample. −1 as well where ties and logits that are not finite, together, are too many to tell.

    Raises:
        InputError: another shape or dtype than the classifier's, or an α outside (0, 1).
    """
    return winner(vote.draws(x, stream).count(range(len(x)), [vote.n] * len(x)), alpha)


def status(votes: Tensor, y: Tensor, alpha: float) -> list[Status]:
    """Return what votes [B, classes + 1] say about clean samples with labels `y` [B], at `alpha` each.

    `abstain` where they do not tell, `error` where no draw has a vote.
    """
    found, silent = winner(votes, alpha), votes[:, -1] == votes.sum(1)
    return [
        "error" if none else "abstain" if one < 0 else "correct" if one == label else "incorrect"
        for one, label, none in zip(found.tolist(), y.tolist(), silent.tolist(), strict=True)
    ]


class _Evaluator(Protocol):
    """What `share` asks of an evaluator, of a plan or of a manifest."""

    @property
    def kind(self) -> str: ...
    @property
    def per_eps(self) -> bool: ...


def share(alpha: float, evaluators: Iterable[_Evaluator], epsilons: int) -> float:
    """Return what the test of one proposed point may spend of `alpha`, so that with 1 − α none of a sample's is wrong.

    Every evaluator that proposes points may propose one per sample: at each of the ε, or once for all of them.
    """
    return alpha / max(1, sum(epsilons if one.per_eps else 1 for one in evaluators if one.kind != "certificate"))


@dataclass(frozen=True)
class Ballot:
    """A test of votes as a row tells it: its α, and the votes, int64 [classes + 1]."""

    alpha: float
    votes: Tensor

    @property
    def winner(self) -> int:
        """The class that wins, or −1."""
        return int(winner(self.votes[None], self.alpha))

    def status(self, label: int) -> Status:
        """Return what the votes say about a clean sample."""
        return status(self.votes[None], torch.tensor([label]), self.alpha)[0]


def note(votes: Tensor, alpha: float) -> Sequence[Mapping[str, Any]]:
    """Return the details [B] of rows that rest on votes [B, classes + 1] at `alpha`: by class, `none` without one."""
    last = votes.shape[1] - 1
    return [
        {"alpha": alpha, "votes": {"none" if c == last else str(c): n for c, n in enumerate(row) if n}}
        for row in votes.tolist()
    ]


def told(detail: str | None, n: int, classes: int) -> Ballot:
    """Return what the detail of a row tells (`note`, as JSON).

    Raises ValueError (one line) for anything but `n` votes of a test at some α.
    """
    try:
        found = json.loads(detail or "null")
        alpha, votes = found["alpha"], found["votes"]
        cells = list(votes.items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("the row tells no votes") from None
    if type(alpha) is not float or not 0 < alpha < 1:
        raise ValueError("the row's test has no alpha between 0 and 1")
    counts = [0] * (classes + 1)
    places = {**{str(c): c for c in range(classes)}, "none": classes}
    for name, count in cells:
        if name not in places or type(count) is not int or not 0 <= count <= n:
            raise ValueError(f"the row's votes are not counts, up to {n}, of {classes} classes")
        counts[places[name]] = count
    if sum(counts) != n:
        raise ValueError(f"the row tells {sum(counts)} votes, and {n} were taken")
    return Ballot(alpha, torch.tensor(counts, dtype=torch.int64))
