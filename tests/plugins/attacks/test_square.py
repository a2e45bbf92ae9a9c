"""What the Square Attack promises besides strength: honest queries, any input, independence of the batch."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from oracles.classifiers import Function, linear, mlp
from robench.classifier import Counted, margins
from robench.distances import distance
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.attacks import _square_moves
from robench_plugins.attacks.pgd import PGD
from robench_plugins.attacks.square import Square

NORMS = ("linf", "l2", "l1")
EPS = {"linf": 0.12, "l2": 0.35, "l1": 1.0}


def sample(classifier, count, seed=0, low=0.0, high=1.0):
    """Correctly classified points of a box."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(6 * count + 40, *classifier.input_shape, generator=generator, dtype=classifier.dtype)
    x = x * (high - low) + low
    logits = classifier.logits(x)
    y = logits.argmax(1)
    rows = (margins(logits, y) > 1e-3).nonzero()[:count, 0]
    return x[rows], y[rows]


def perturb(attack, classifier, x, y, norm="linf", eps=None, indices=None, domain=None, seed=0):
    threat = Threat(norm, EPS[norm] if eps is None else eps, domain or Domain())
    stream = Stream.for_samples(seed, "test", range(len(x)) if indices is None else indices)
    return attack.perturb(classifier, x, y, threat, stream)


def broken(classifier, x, y):
    return margins(classifier.logits(x), y) <= 0


class Recorder:
    """A classifier that keeps what it was asked and what it answered."""

    def __init__(self, inner):
        self.inner, self.points, self.margins = inner, [], []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def logits(self, x):
        self.points.append(x.clone())
        out = self.inner.logits(x)
        self.margins.append(out)
        return out


def constant(shape, classes=3, dtype=torch.float32):
    return Function(lambda x: torch.eye(classes, dtype=dtype)[0].expand(len(x), -1), shape, classes, dtype)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("restarts", [1, 3])
def test_batch_size_and_order_do_not_matter(norm, restarts):
    generator = torch.Generator().manual_seed(3)
    classifier = linear(torch.randn(5, 24, generator=generator, dtype=torch.float64), torch.zeros(5), (2, 3, 4))
    x, y = sample(classifier, 15)
    attack = Square(queries=90, restarts=restarts)
    eps = {"linf": 0.12, "l2": 0.7, "l1": 2.5}[norm]
    whole = perturb(attack, classifier, x, y, norm, eps)
    flags = broken(classifier, whole.points, y)
    assert 2 < flags.sum() < 15
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    for parts in (torch.arange(15).split(1), torch.arange(15).split(7), [order]):
        for rows in parts:
            part = perturb(attack, classifier, x[rows], y[rows], norm, eps, indices=rows.tolist())
            torch.testing.assert_close(part.points, whole.points[rows], rtol=0, atol=1e-9)
            assert torch.equal(broken(classifier, part.points, y[rows]), flags[rows])
            assert torch.equal(part.passes.forwards, whole.passes.forwards[rows])


@pytest.mark.parametrize("norm", NORMS)
def test_the_best_of_all_queries_is_returned(norm):
    inner = mlp((16, 30, 5), seed=4, dtype=torch.float64)
    x, y = sample(inner, 1)
    recorder = Recorder(inner)
    proposal = perturb(Square(queries=300), recorder, x, y, norm, EPS[norm] / 4)
    seen = torch.cat([margins(one, y) for one in recorder.margins])
    assert len(seen) == proposal.passes.forwards.item() <= 300
    assert (proposal.passes.backwards == 0).all()
    (detail,) = proposal.detail
    assert detail["margin"] == seen.min().item()
    assert detail["step"] == seen.argmin().item() > 0
    assert margins(inner.logits(proposal.points), y).item() == pytest.approx(seen.min().item(), abs=1e-9)
    # Each proposal starts from the best point so far: in linf it differs from it in one window.
    best = seen.cummin(0)
    if norm == "linf":
        for step in range(1, len(seen)):
            base = recorder.points[(seen[:step] == best.values[step - 1]).nonzero()[0].item()]
            assert 0 < (recorder.points[step] != base).sum() <= 13


@pytest.mark.parametrize("norm", NORMS)
def test_passes_are_what_really_passed_and_the_batch_never_grows(norm):
    inner, sizes = mlp((16, 40, 6), seed=2), []
    x, y = sample(inner, 40)

    def logits(rows):
        sizes.append(len(rows))
        return inner.function(rows)

    counted = Counted(dataclasses.replace(inner, function=logits))
    proposal = perturb(Square(queries=120, restarts=4), counted, x, y, norm, EPS[norm] / 2)
    assert (proposal.passes.forwards.sum(), proposal.passes.backwards.sum()) == counted.take()
    assert max(sizes) <= 40
    flags = broken(inner, proposal.points, y)
    assert 3 < flags.sum() < 38
    assert proposal.passes.forwards[~flags].max() <= 480
    # Most that break leave early: 16 + at most 7 queries after the one that broke it, on average far fewer.
    assert proposal.passes.forwards[flags].float().mean() < 200


def test_samples_leave_as_soon_as_they_are_broken():
    classifier = mlp((16, 40, 6), seed=2)
    x, y = sample(classifier, 10)
    wrong = torch.where(torch.arange(10) < 5, (y + 1) % 6, y)
    proposal = perturb(Square(queries=50), classifier, x, wrong, eps=1e-6)
    assert (proposal.passes.forwards[:5] == 1).all()
    assert (proposal.passes.forwards[5:] == 50).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("shape", "classes"),
    [((7,), 2), ((1,), 2), ((1, 3, 9), 3), ((2, 3), 4), ((3, 6, 5), 2), ((1, 14, 1), 3), ((2, 2, 3, 4), 2)],
    ids=str,
)
def test_shapes_dtypes_budgets_and_empty_batches(norm, dtype, shape, classes):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(classes, math.prod(shape), generator=generator)
    for low, high in ((0.0, 1.0), (-3.0, 250.0), (-math.inf, math.inf), (0.0, math.inf)):
        span = min(high - low, 50.0)
        classifier = linear(weight, torch.zeros(classes), shape, dtype)
        x, y = sample(classifier, 6, low=max(low, -25.0), high=max(low, -25.0) + span)
        for eps in (1e-5 * span, 0.2 * span, 20 * span):
            proposal = perturb(Square(queries=40), classifier, x, y, norm, eps, domain=Domain(low, high))
            assert (proposal.points.shape, proposal.points.dtype) == (x.shape, dtype)
            assert ((proposal.points >= low) & (proposal.points <= high)).all()
            assert (distance(proposal.points, x, norm) <= eps).all()
    empty = perturb(Square(queries=40, restarts=2), classifier, x[:0], y[:0], norm)
    assert empty.points.shape == (0, *shape)
    assert empty.passes.forwards.shape == (0,)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9), (40,), (2, 11, 3)], ids=str)
def test_every_pixel_and_channel_is_reached(norm, shape):
    """Where nothing is ever kept, every query shows its windows: they touch the last row and column too."""
    recorder = Recorder(constant(shape, dtype=torch.float64))
    x = torch.full((8, *shape), 0.5, dtype=torch.float64)
    perturb(Square(queries=60), recorder, x, torch.zeros(8, dtype=torch.int64), norm)
    start, asked = recorder.points[0], torch.stack([one for one in recorder.points[1:] if len(one) == 8])
    changed = (asked != start).float()
    if norm != "linf":
        far = distance(asked.flatten(0, 1), x.repeat(len(asked), *[1] * len(shape)), norm)
        assert (far <= EPS[norm] * (1 + 1e-12)).all()
    assert (changed.mean((0, 1)) > 0).all()
    assert (changed.flatten(2).sum(2) > 0).all()
    if norm == "linf":
        assert ((asked - x).abs().sub(EPS["linf"]).abs() < 1e-12).all()
        if len(shape) == 3 and shape[0] > 1:
            up = (asked > x).float() - (start > x).float()
            kinds = {tuple(channel.any().item() for channel in one) for row in up for one in row.bool()}
            assert len(kinds) == 2 ** shape[0] - 1


def test_the_first_windows_hold_the_share_asked_for():
    recorder = Recorder(constant((1, 20, 20)))
    x = torch.full((300, 1, 20, 20), 0.5)
    perturb(Square(queries=3, p_init=0.25), recorder, x, torch.zeros(300, dtype=torch.int64))
    start, asked = recorder.points[:2]
    changed = (asked != start).flatten(1).sum(1).float()
    # A window of 10 by 10 goes to one side: on stripes of random sides half of it changes.
    assert changed.max() <= 100
    assert changed.mean().item() == pytest.approx(50, rel=0.1)


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_budget_is_used_up(norm, channels):
    """Far from the sides of the box every query lies on the sphere: what a window gives up another gets."""
    recorder = Recorder(constant((channels, 9, 9), dtype=torch.float64))
    x = torch.full((5, channels, 9, 9), 0.5, dtype=torch.float64)
    perturb(Square(queries=50), recorder, x, torch.zeros(5, dtype=torch.int64), norm, eps=0.3)
    for asked in recorder.points:
        far = distance(asked, x, norm)
        assert (far <= 0.3 * (1 + 1e-12)).all()
        # Windows that both hold nothing, or a bump that undoes what is there, may leave a little.
        assert (far > 0.3 * (1 - 1e-6)).float().mean() >= 0.8


@pytest.mark.parametrize("shape", [(12,), (1, 4, 5)], ids=str)
def test_a_local_optimum_is_left_and_nothing_is_missed(shape, monkeypatch):
    """With few pixels a run ends when each has failed: the same point as if all queries were made, for fewer."""
    generator = torch.Generator().manual_seed(5)
    size = math.prod(shape)
    hidden = torch.randn(30, size, generator=generator, dtype=torch.float64)
    out = torch.randn(4, 30, generator=generator, dtype=torch.float64)
    classifier = Function(lambda x: ((x.flatten(1) - 0.5) @ hidden.T).relu() @ out.T, shape, 4, torch.float64)
    x, y = sample(classifier, 25)
    attack, eps = Square(queries=1500), 0.04
    early = perturb(attack, classifier, x, y, eps=eps)
    monkeypatch.setattr(_square_moves.Corners, "spent", lambda *_: None)
    late = perturb(attack, classifier, x, y, eps=eps)
    assert torch.equal(early.points, late.points)
    left = ~broken(classifier, late.points, y)
    assert 5 < left.sum() < 25
    assert (late.passes.forwards[left] == 1500).all()
    assert early.passes.forwards[left].max() < 700
    # Brute force: no single pixel moved to its other side lowers the margin.
    low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    for row in left.nonzero()[:, 0].tolist():
        point = early.points[row].flatten()
        flips = point.repeat(size, 1)
        other = torch.where(point == high[row].flatten(), low[row].flatten(), high[row].flatten())
        flips[range(size), range(size)] = other
        after = margins(classifier.logits(flips.reshape(-1, *shape)), y[row].repeat(size))
        assert (after >= margins(classifier.logits(early.points[row : row + 1]), y[row : row + 1]) - 1e-12).all()


def test_rounded_inputs_do_not_stop_it():
    """No gradient anywhere: PGD is left with a random walk, scores still tell the way."""
    plain = mlp((49, 60, 5), seed=6)

    def masked(points):
        # Rounded, with a gradient that is 0: what a white-box attack sees.
        return plain.function((points.detach() * 4).round() / 4 + 0 * points)

    classifier = dataclasses.replace(plain, function=masked)
    x, y = sample(classifier, 60, seed=1)
    eps = 0.13
    by_gradient = broken(classifier, perturb(PGD(steps=20, targets=0), classifier, x, y, eps=eps).points, y)
    by_score = broken(classifier, perturb(Square(queries=800), classifier, x, y, eps=eps).points, y)
    assert by_score.float().mean() > by_gradient.float().mean() + 0.25
    assert by_score.float().mean() > 0.7


@pytest.mark.parametrize("norm", NORMS)
def test_labels_alone_and_opaque_classifiers(norm):
    """One-hot logits make the margin a step: what random windows meet is found, and nothing crashes."""

    def labels(points):
        wrong = points.detach().flatten(1)[:, :2].sum(1) > 1.0
        return torch.nn.functional.one_hot(wrong.long(), 2).to(points)

    classifier = Function(labels, (1, 4, 4), 2)
    x, y = torch.full((30, 1, 4, 4), 0.5), torch.zeros(30, dtype=torch.int64)
    x[:, 0, 0, :2] = 0.499
    attack = Square(queries=150)
    assert attack.applies(classifier, norm) is None
    proposal = perturb(attack, classifier, x, y, norm)
    assert broken(classifier, proposal.points, y).float().mean() > 0.8
    far = perturb(attack, classifier, x * 0.2, y, norm)
    assert not broken(classifier, far.points, y).any()
    assert far.points.isfinite().all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_no_success_but_reported(norm, value):
    weight = torch.tensor([[1.0, 0.2, 0.1], [0.0, 0.0, 0.0], [-9.0, 0.0, 0.0]])
    x = torch.tensor([[0.9, 0.5, 0.5], [0.7, 0.5, 0.5], [0.66, 0.5, 0.5]])
    y = torch.zeros(3, dtype=torch.int64)

    for column in range(3):

        def cliff(points, column=column):
            out = points @ weight.T
            out[:, column] = torch.where(points[:, 0] < 0.65, value, out[:, column])
            return out

        classifier = Function(cliff, (3,), 3)
        proposal = perturb(Square(queries=60), classifier, x, y, norm, eps=0.2)
        out = classifier.logits(proposal.points)
        # The first never meets the cliff: its best point is a correct one; the others' is the error itself.
        assert out[0].isfinite().all()
        assert out[0, 0] > 0
        assert proposal.detail[0]["margin"] > 0
        for row in (1, 2):
            assert not out[row].isfinite().all()
            assert proposal.detail[row]["margin"] is None
        assert proposal.points.isfinite().all()


@pytest.mark.parametrize("norm", NORMS)
def test_the_point_reported_is_the_first_that_is_not_finite(norm):
    """Found again from the logged steps, whatever was kept in between."""
    inner = mlp((16, 30, 5), seed=4, dtype=torch.float64)
    x, y = sample(inner, 1)
    recorder = Recorder(inner)
    perturb(Square(queries=200), recorder, x, y, norm, EPS[norm] / 6)
    asked = torch.cat(recorder.points)
    for bad in (0, 1, 2, 15, 17, 30, 31, 33, 62, 79):

        def logits(points, bad=bad):
            out = inner.function(points)
            return torch.where((points == asked[bad]).all(1, keepdim=True), torch.nan, out)

        first = (asked == asked[bad]).all(1).nonzero()[0].item()
        strange = dataclasses.replace(inner, function=logits)
        proposal = perturb(Square(queries=200), strange, x, y, norm, EPS[norm] / 6)
        torch.testing.assert_close(proposal.points[0], asked[bad], rtol=0, atol=1e-12)
        assert proposal.detail[0] == {"margin": None, "restart": 0, "target": None, "step": first}


@pytest.mark.parametrize("norm", NORMS)
def test_an_error_behind_a_region_of_nan_is_still_found(norm):
    def logits(points):
        out = torch.stack([points.sum(1) - 2.0, torch.zeros(len(points))], 1)
        return torch.where(points[:, :1] > 0.9, torch.nan, out)

    classifier = Function(logits, (4,), 2)
    x, y = torch.full((20, 4), 0.85), torch.zeros(20, dtype=torch.int64)
    proposal = perturb(Square(queries=400), classifier, x, y, norm, eps={"linf": 0.5, "l2": 1.0, "l1": 1.8}[norm])
    # Half of the starts lie in it; so few features make some optima of bumps local ones.
    assert broken(classifier, proposal.points, y).float().mean() >= {"linf": 0.95, "l2": 0.75, "l1": 0.75}[norm]


def test_a_start_that_is_not_finite_is_given_up():
    """Logits that are NaN wherever half of the pixels have moved: one window away from the start they still are."""

    def logits(points):
        out = torch.stack([0.25 - (points.flatten(1)[:, :12] - 0.5).sum(1), torch.zeros(len(points))], 1)
        return torch.where(((points - 0.5).abs() > 0.01).flatten(1).sum(1, keepdim=True) > 18, torch.nan, out)

    classifier = Function(logits, (1, 6, 6), 2)
    x, y = torch.full((30, 1, 6, 6), 0.5), torch.zeros(30, dtype=torch.int64)
    proposal = perturb(Square(queries=400), classifier, x, y, eps=0.1)
    # From the start itself none would be.
    assert broken(classifier, proposal.points, y).float().mean() > 0.5


@pytest.mark.parametrize("norm", NORMS)
def test_touches_neither_inputs_nor_parameters_nor_the_global_generator(norm):
    classifier = mlp((16, 30, 4))
    x, y = sample(classifier, 8)
    before, state = (x.clone(), y.clone()), torch.random.get_rng_state()
    attack = Square(queries=40, restarts=2)
    first = perturb(attack, classifier, x, y, norm)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(first.points, perturb(attack, classifier, x, y, norm).points)
    assert not torch.equal(first.points, perturb(attack, classifier, x, y, norm, seed=1).points)
    assert torch.equal(before[0], x)
    assert torch.equal(before[1], y)
    assert not first.points.requires_grad
    assert all(parameter.grad is None for parameter in classifier.function.parameters)
    assert torch.equal(state, torch.random.get_rng_state())


def test_restarts_find_more():
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(30, 12, generator=generator, dtype=torch.float64)
    out = torch.randn(4, 30, generator=generator, dtype=torch.float64)
    classifier = Function(lambda x: ((x - 0.5) @ hidden.T).relu() @ out.T, (12,), 4, torch.float64)
    x, y = sample(classifier, 150)
    found = [
        broken(classifier, (made := perturb(Square(queries=250, restarts=n), classifier, x, y, eps=0.05)).points, y)
        for n in (1, 6)
    ]
    assert not (found[0] & ~found[1]).any()
    assert found[1].sum() > found[0].sum()
    assert {detail["restart"] for detail in made.detail} <= set(range(6))
    assert any(detail["restart"] > 0 for detail in itertools.compress(made.detail, found[1].tolist()))


def test_classifiers_that_draw_are_refused():
    class Random:
        def sample(self, x, stream):
            return x

    assert "draws" in Square().applies(Random(), "linf")
    with pytest.raises(ValueError, match="ε"):
        perturb_at = Threat("linf", None, Domain())
        Square().perturb(
            constant((3,)), torch.zeros(1, 3), torch.zeros(1).long(), perturb_at, Stream.for_samples(0, "", [0])
        )


@pytest.mark.gpu
@pytest.mark.parametrize("norm", NORMS)
def test_a_gpu_finds_the_same(norm):
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    here = linear(weight, torch.zeros(5))
    x, y = sample(here, 30)
    there = dataclasses.replace(here, function=lambda rows: rows @ weight.cuda().T, device=torch.device("cuda"))
    stream = Stream.for_samples(0, "test", range(30), device="cuda")
    threat = Threat(norm, EPS[norm], Domain())
    proposal = Square(queries=200).perturb(there, x.cuda(), y.cuda(), threat, stream)
    assert proposal.points.is_cuda
    expected = perturb(Square(queries=200), here, x, y, norm)
    assert torch.equal(broken(here, proposal.points.cpu(), y), broken(here, expected.points, y))
