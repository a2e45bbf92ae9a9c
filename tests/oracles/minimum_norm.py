"""What every minimum-norm attack promises, as functions of the attack: their tests say for which settings."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oracles.classifiers import Function, linear, mlp
from oracles.known_radii import Known
from robench.classifier import Counted, margins
from robench.distances import distance
from robench.runner._judge import Judge
from robench.streams import Stream
from robench.threat import Domain, Threat

__all__ = [
    "batches_agree",
    "broken",
    "classifiers_without_gradients_are_refused",
    "correct",
    "flat_logits_are_left_alone_or_searched",
    "keeps_to_shapes_and_domains",
    "leaves_everything_as_it_was",
    "misclassified_inputs_cost_one_pass",
    "not_finite_is_reported",
    "passes_are_counted",
    "propose",
    "ratios",
]


def propose(attack: Any, classifier: Any, x: Tensor, y: Tensor, norm: Any, domain: Domain | None = None, rows=None):
    """Ask `attack` about `x`; `rows` are the samples' indices."""
    stream = Stream.for_samples(0, "test", range(len(x)) if rows is None else rows)
    return attack.perturb(classifier, x, y, Threat(norm, None, domain or Domain()), stream)


def correct(classifier: Function, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return points of the unit box and their classes, no margin being close to 0."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4 * count + 40, *classifier.input_shape, generator=generator, dtype=classifier.dtype)
    logits = classifier.logits(x).detach()
    y = logits.argmax(1)
    rows = (margins(logits, y) > 1e-3).nonzero()[:count, 0]
    return x[rows], y[rows]


def broken(classifier: Function, x: Tensor, y: Tensor) -> Tensor:
    """Return which of `x` are misclassified."""
    return margins(classifier.logits(x).detach(), y) <= 0


def ratios(attack: Any, case: Known, norm: Any, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """Return verified distance over exact radius [samples that have one], inf where the runner takes nothing.

    Also holds that no verified point is nearer than the exact radius, and that the proposal's passes are the real ones.
    """
    base, x = case.classifier, case.x.to(dtype)
    classifier = dataclasses.replace(base, function=lambda rows: base.function(rows) * scale, dtype=dtype)
    counted = Counted(classifier)
    proposal = propose(attack, counted, x, case.y, norm, case.domain)
    assert (proposal.passes.forwards.sum(), proposal.passes.backwards.sum()) == counted.take()
    verdict = Judge(Counted(classifier)).judge(x, case.y, proposal.points, Threat(norm, None, case.domain))
    reached = np.where(verdict.broken.numpy(), verdict.distances[norm].numpy(), np.inf)
    radii = case.radii[norm]
    some = np.isfinite(radii) & (radii > 1e-6)
    assert not np.isfinite(reached[np.isinf(radii)]).any()
    assert (reached[some] >= radii[some] * (1 - (1e-7 if dtype == torch.float64 else 1e-3))).all()
    return reached[some] / radii[some]


def batches_agree(attack: Any, norm: Any) -> None:
    """Hold that a sample's point and passes are its own, whatever else is in the batch, to the last bits of a sum."""
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    classifier = linear(weight, torch.zeros(5))
    x, y = correct(classifier, 9)
    whole = propose(attack, classifier, x, y, norm)
    again = propose(attack, classifier, x, y, norm)
    assert torch.equal(whole.points, again.points)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    for parts in (torch.arange(9).split(1)[:3], torch.arange(9).split(4), [order]):
        for rows in parts:
            part = propose(attack, classifier, x[rows], y[rows], norm, rows=rows.tolist())
            torch.testing.assert_close(part.points, whole.points[rows], rtol=0, atol=1e-9)
            assert torch.equal(part.passes.forwards, whole.passes.forwards[rows])
            assert torch.equal(part.passes.backwards, whole.passes.backwards[rows])


def passes_are_counted(attack: Any, norm: Any, most: int) -> None:
    """Hold that the passes reported are those made, at most `most` gradients a sample, no batch above the first's."""
    inner = mlp((16, 40, 6), seed=2)
    x, y = correct(inner, 30)
    sizes: list[int] = []

    def logits(rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        return inner.function(rows)

    counted = Counted(dataclasses.replace(inner, function=logits))
    proposal = propose(attack, counted, x, y, norm)
    assert (proposal.passes.forwards.sum(), proposal.passes.backwards.sum()) == counted.take()
    assert proposal.passes.forwards.dtype == proposal.passes.backwards.dtype == torch.int64
    assert int(proposal.passes.backwards.max()) <= most
    assert max(sizes) <= 30


def misclassified_inputs_cost_one_pass(attack: Any, norm: Any) -> None:
    """Hold that nothing is searched, and nothing moved, where the clean input is an error already."""
    classifier = mlp((16, 40, 6), seed=2)
    x, y = correct(classifier, 10)
    wrong = torch.where(torch.arange(10) < 5, (y + 1) % 6, y)
    proposal = propose(attack, classifier, x, wrong, norm)
    assert torch.equal(proposal.points[:5], x[:5])
    assert (proposal.passes.forwards[:5] == 1).all()
    assert (proposal.passes.forwards[5:] > 1).all()
    assert broken(classifier, proposal.points, wrong).all()


def keeps_to_shapes_and_domains(attack: Any, norm: Any) -> None:
    """Hold shape, dtype and box of the points for odd inputs, few classes, empty batches and half-open domains."""
    for shape, classes in (((7,), 2), ((1, 3, 5), 3)):
        for dtype in (torch.float32, torch.float64):
            generator = torch.Generator().manual_seed(0)
            weight = torch.randn(classes, math.prod(shape), generator=generator)
            classifier = linear(weight, torch.zeros(classes), shape, dtype)
            x, y = correct(classifier, 4)
            for domain in (Domain(), Domain.unbounded(), Domain(-math.inf, 1.0), Domain(0.0, math.inf), Domain(-3, 7)):
                points = propose(attack, classifier, x, y, norm, domain).points
                assert (points.shape, points.dtype) == (x.shape, dtype)
                assert ((points >= domain.lower) & (points <= domain.upper)).all()
                assert not points.requires_grad
                if not domain.bounded:
                    assert broken(classifier, points, y).all()
    empty = propose(attack, classifier, x[:0], y[:0], norm)
    assert empty.points.shape == (0, *shape)
    assert empty.passes.forwards.shape == (0,)


def leaves_everything_as_it_was(attack: Any, norm: Any) -> None:
    """Hold that inputs, parameters and the global generator stay as they are, under no_grad too."""
    classifier = mlp((16, 30, 4))
    x, y = correct(classifier, 5)
    before, state = (x.clone(), y.clone()), torch.random.get_rng_state()
    with torch.no_grad():
        first = propose(attack, classifier, x, y, norm).points
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(first, propose(attack, classifier, x, y, norm).points)
    assert torch.equal(before[0], x)
    assert torch.equal(before[1], y)
    assert not x.requires_grad
    assert all(parameter.grad is None for parameter in classifier.function.parameters)
    assert torch.equal(state, torch.random.get_rng_state())


def not_finite_is_reported(attack: Any, norm: Any) -> None:
    """Hold that NaN and inf count as no success, and that a point where they are met is proposed if nothing else is."""
    weight = torch.tensor([[1.0, 0.2], [0.0, 0.0]])
    x, y = torch.tensor([[0.7, 0.5]]), torch.tensor([0])

    for value in (torch.nan, torch.inf):

        def logits(rows: Tensor, value: float = value) -> Tensor:
            return torch.where(rows[:, :1] < 0.65, value, rows @ weight.T)

        classifier = Function(logits, (2,), 2)
        proposal = propose(attack, classifier, x, y, norm)
        assert proposal.points.isfinite().all()
        assert not classifier.logits(proposal.points).isfinite().all()
        assert proposal.detail[0]["margin"] is None


def flat_logits_are_left_alone_or_searched(attack: Any, norm: Any) -> float:
    """Return the share of samples broken where logits are steps, without a gradient anywhere."""

    def logits(rows: Tensor) -> Tensor:
        cells = rows.detach().round(decimals=1) + 0 * rows
        return torch.stack([cells[:, 0] - 0.35, torch.zeros(len(rows))], 1)

    classifier = Function(logits, (3,), 2)
    x, y = torch.full((30, 3), 0.5), torch.zeros(30, dtype=torch.int64)
    proposal = propose(attack, classifier, x, y, norm)
    wrong = broken(classifier, proposal.points, y)
    assert torch.equal(proposal.points[~wrong], x[~wrong])
    assert (distance(proposal.points, x, norm)[wrong] > 0.1).all()
    return wrong.double().mean().item()


def classifiers_without_gradients_are_refused(attack: Any, norm: Any) -> None:
    """Hold that `applies` says so, and that a classifier that has gradients is taken."""
    reason = attack.applies(Function(lambda x: x.detach().flatten(1), (3,), 3), norm)
    assert reason is not None
    assert "gradients" in reason
    assert attack.applies(mlp((3, 4, 2)), norm) is None
