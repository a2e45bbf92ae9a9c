"""When Auto-PGD halves its step, and how its l1 version thins it out: the rules, one entry per row.

Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
and for l1 Croce & Hein 2021, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Halving", "Thinning", "checkpoints", "radii", "thinning_checkpoints"]


def checkpoints(steps: int) -> list[int]:
    """Return the numbers of steps after which the step size is looked at, ascending, all below `steps`.

    ⌈p_j N⌉ with p_1 = .22 and p_{j+1} = p_j + max(p_j − p_{j−1} − .03, .06) (Croce & Hein 2020, section 3.1), in
    whole percents, so that nothing is rounded but the end. For N = 100: 22, 41, 57, 70, 80, 87, 93, 99.
    """
    share = interval = 22
    out: list[int] = []
    while (step := -(-share * steps // 100)) < steps:
        if not out or step > out[-1]:
            out.append(step)
        interval = max(interval - 3, 6)
        share += interval
    return out


def thinning_checkpoints(steps: int) -> list[int]:
    """Return the same for l1: every ⌊.04 N⌋ steps, at least one (Croce & Hein 2021, section 3.2)."""
    every = max(4 * steps // 100, 1)
    return list(range(every, steps, every))


def radii(steps: int) -> list[tuple[float, int]]:
    """Return the radii (in units of ε) and numbers of steps of multi-ε-APGD (Croce & Hein 2021, section 3.3).

    3ε, 2ε and ε for 30, 30 and 40 % of the steps; what cannot be divided goes to ε, radii without steps are left out.
    """
    part = 3 * steps // 10
    return [(radius, count) for radius, count in ((3.0, part), (2.0, part), (1.0, steps - 2 * part)) if count]


@dataclass(eq=False)
class Halving:
    """The rule of linf and l2: step sizes in units of ε, and what the next checkpoint must know; all [R]."""

    size: Tensor
    rises: Tensor
    then: Tensor
    halved: Tensor

    @classmethod
    def begin(cls, size: float, loss: Tensor) -> Halving:
        """Return the state at the start, where the losses are `loss` [R]."""
        none = torch.zeros_like(loss, dtype=torch.bool)
        return cls(torch.full_like(loss, size), none.long(), loss, none)

    def note(self, rising: Tensor) -> None:
        """Count the rows whose last step raised the loss (bool [R])."""
        self.rises = self.rises + rising

    def revise(self, steps: int, rho: float, best: Tensor) -> Tensor:
        """Halve where due and return these rows (bool [R]), which go back to their best point.

        `steps` were made since the last checkpoint; `best` [R] is the highest loss so far. Condition 1: fewer than
        rho of these steps raised the loss. Condition 2: the best loss is what it was at the last checkpoint (at first:
        the start), and the step was not halved there.
        """
        self.halved = (self.rises < rho * steps) | (~self.halved & ~(best > self.then))
        self.size = torch.where(self.halved, self.size / 2, self.size)
        self.rises, self.then = torch.zeros_like(self.rises), best
        return self.halved


@dataclass(eq=False)
class Thinning:
    """The rule of l1: step sizes in units of ε, the coordinates that a step moves, those that the best point moved."""

    size: Tensor
    moved: Tensor
    changed: Tensor
    first: float

    @classmethod
    def begin(cls, size: float, changed: Tensor, dimensions: int, informed: bool) -> Thinning:
        """Return the state at starts that differ from the input in `changed` [R] of all `dimensions` coordinates.

        Steps move a fifth of all coordinates, or where the start is `informed` (given as a start, as in the published
        multi-ε code) two thirds of those in which it differs.
        """
        sizes = torch.full(changed.shape, size, dtype=torch.float64, device=changed.device)
        if informed:
            return cls(sizes, _two_thirds(changed), changed, size)
        fifth = max(-(-dimensions // 5), 1)
        return cls(sizes, torch.full_like(changed, fifth), torch.full_like(changed, dimensions), size)

    def revise(self, changed: Tensor) -> Tensor:
        """Set sparsity and step by what the best points changed, [R]; return the rows that go back to them (bool [R]).

        Where that fell by more than 5 % since the last checkpoint, the step is as long as at first and starts from the
        best point; elsewhere it is divided by 1.5, down to a tenth of the first.
        """
        sparser = 20 * changed < 19 * self.changed
        self.size = torch.where(sparser, self.first, (self.size / 1.5).clamp_min(self.first / 10))
        self.moved, self.changed = _two_thirds(changed), changed
        return sparser


def _two_thirds(count: Tensor) -> Tensor:
    """Return ⌊count / 1.5⌋, at least 1: rounded up, as in the authors' code, 2 coordinates would never become 1."""
    return (2 * count // 3).clamp_min(1)
