"""`bab` decides: as enumeration does, as `milp` does, and never against a point that is known."""

import numpy as np
import pytest
import torch

from oracles.decisions import affine, decide, enumerated, gridded, smooth, tied, witness_complaint
from oracles.enumeration import random_net
from oracles.random_graphs import evaluate, mlp, random_graph, step_names
from oracles.rational import margin, rational_logits
from oracles.soundness import ball_points, margins
from robench.graph import GraphClassifier
from robench.threat import NORMS, Domain, Threat
from robench_plugins.verify.milp import MILP

PIECEWISE = [name for name in step_names() if name not in ("sigmoid", "tanh")]
SPLITS = ("signs", "inputs")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("split", SPLITS)
def test_it_decides_as_enumeration_does(split, dtype):
    """Dead and constant neurons among them; never out of time, witnesses true in rational arithmetic."""
    seeds = range(10) if dtype == torch.float64 else range(20, 26)
    assert [found for seed in seeds if (found := enumerated(seed, split, dtype))] == []


@pytest.mark.parametrize("split", SPLITS)
def test_a_hair_below_zero_is_not_certified(split):
    """Ties and margins far below float32's rounding, most of them where no float is."""
    assert [found for seed in range(9) if (found := tied(seed, split))] == []


def test_a_piece_without_relus_is_no_proof():
    assert [found for seed in range(12) if (found := affine(seed))] == []


@pytest.mark.parametrize("split", SPLITS)
def test_conditions_agree_with_a_grid(split):
    """Several rows in a disjunct, several disjuncts, several samples in a batch."""
    assert [found for seed in range(16) if (found := gridded(seed, split))] == []


@pytest.mark.parametrize("name", PIECEWISE)
def test_every_operator_is_decided_rightly(name):
    """Never certified with a known unsafe point in the ball; a witness is true in rational arithmetic."""
    generator, settled = torch.Generator().manual_seed(0), 0
    for seed in range(2):
        rng = np.random.default_rng(seed)
        around = [str(one) for one in rng.choice(["linear", "relu", "conv2d", "leaky_relu", "add nodes"], 2)]
        graph = random_graph([*around, name, "relu", "linear", "relu"], rng)
        x = torch.tensor(rng.random((2, *graph.input_shape)), dtype=torch.float32).double()
        y = evaluate(graph, x).argmax(1)
        threat = Threat(NORMS[seed % 3], float(rng.choice([0.1, 0.4])), Domain.unbounded())
        found = decide(graph, x, y, threat, split="signs", timeout=1.0, restarts=0)
        for k, status in enumerate(found.status):
            settled += status in ("certified", "falsified")
            if status == "certified":
                points = ball_points(graph, x[k], int(y[k]), threat.norm, threat.eps, threat.domain, generator)
                worst = points[margins(graph, points, int(y[k])).argmin()]
                assert margin(rational_logits(graph, worst), int(y[k])) > 0, (name, seed, k)
            elif status == "falsified":
                assert witness_complaint(graph, x[k], found.points[k].double(), int(y[k]), threat) is None
    assert settled >= 3


def test_it_decides_as_milp_does():
    both = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        graph = random_graph([str(one) for one in rng.choice(PIECEWISE, 4)], rng, shape=(2, 2, 2))
        x = torch.tensor(rng.normal(size=(2, *graph.input_shape)))
        y = evaluate(graph, x).argmax(1)
        threat = Threat("linf", float(rng.choice([0.05, 0.2, 0.5])), Domain.unbounded())
        ours = decide(graph, x, y, threat, split="signs", timeout=3.0).status
        other = MILP(timeout=3.0).certify(GraphClassifier(graph, dtype=torch.float64), x, y, threat, None).status
        for one, two in zip(ours, other, strict=True):
            if {one, two} <= {"certified", "falsified"}:
                assert one == two, seed
                both += 1
    assert both >= 20


@pytest.mark.parametrize("seed", range(4))
def test_smooth_networks_agree_with_dense_sampling(seed):
    """Where the least margin of a dense grid and the gradients' reach leave no doubt, it must be found."""
    graph, x, y = smooth(seed)
    size = x.shape[1]
    steps = torch.linspace(-1, 1, 101 if size == 2 else 31, dtype=torch.float64)
    grid = torch.cartesian_prod(*[steps] * size)
    decided = set()
    for eps in (0.1, 0.5, 2.0):
        found = decide(graph, x, y, Threat("linf", eps, Domain.unbounded()), timeout=8.0)
        for k, status in enumerate(found.status):
            points = (x[k] + eps * grid).requires_grad_()
            values = margins(graph, points, int(y[k]))
            slope = torch.autograd.grad(values.sum(), points)[0].abs().sum(1).max().item()
            least = values.min().item()
            decided.add(status)
            if status == "certified":
                assert least > 0
            elif status == "falsified":
                assert margins(graph, found.points[k : k + 1].double(), int(y[k])).item() <= 0
                # No grid point is further than half a step from the witness; slopes change little between them.
                assert least <= 2 * slope * eps * (steps[1] - steps[0]).item()
            else:
                assert abs(least) <= 2 * slope * eps * (steps[1] - steps[0]).item()
    assert decided & {"certified", "falsified"}


@pytest.mark.parametrize("split", SPLITS)
def test_a_batch_changes_no_answer(split):
    """Samples share batches of pieces, and a group's pieces; each is decided as it is alone."""
    weights, biases = random_net(np.random.default_rng(7), (3, 6, 5, 3))
    graph = mlp(weights, biases)
    x = torch.tensor(np.random.default_rng(6).random((9, 3)))
    y = evaluate(graph, x).argmax(1)
    threat = Threat("linf", 0.5, Domain())
    together = decide(graph, x, y, threat, split=split)
    assert {"certified", "falsified"} == set(together.status)
    for batch in (2, 3, 1000):
        assert decide(graph, x, y, threat, split=split, batch=batch).status == together.status
    for k in range(9):
        alone = decide(graph, x[k : k + 1], y[k : k + 1], threat, split=split)
        assert alone.status == [together.status[k]]
        assert float(alone.lower) == float(together.lower[k])
    none = decide(graph, x[:0], y[:0], threat, split=split)
    assert list(none.status) == [] and none.lower.shape == (0,)


@pytest.mark.parametrize("split", SPLITS)
def test_networks_of_zeros(split):
    """Weights of 0, inputs of 0, pre-activations of exactly 0: the margin is the bias's, or a tie."""
    for gap, wanted in ((1.0, "certified"), (0.0, "falsified"), (-1.0, "falsified")):
        zeros = [np.zeros((4, 2)), np.zeros((4, 4)), np.zeros((3, 4))]
        graph = mlp(zeros, [np.zeros(4), np.zeros(4), np.array([gap, 0.0, -5.0])])
        threat = Threat("linf", 0.5, Domain())
        found = decide(graph, torch.zeros(1, 2).double(), torch.zeros(1, dtype=torch.int64), threat, split=split)
        assert found.status == [wanted]
    # max(x, 0) around x = 0, margin 0.5 − max(x, 0): a tie at 0.5, and safe a hair before it.
    graph = mlp([np.ones((1, 1)), np.array([[-1.0], [0.0]])], [np.zeros(1), np.array([0.5, 0.0])])
    x, y = torch.zeros(1, 1).double(), torch.zeros(1, dtype=torch.int64)
    for eps, wanted in ((0.5, ("falsified", "open")), (0.5 - 1e-12, ("certified",)), (0.5 + 1e-12, ("falsified",))):
        found = decide(graph, x, y, Threat("linf", eps, Domain.unbounded()), split=split)
        assert found.status[0] in wanted
        assert float(found.lower) == (eps if wanted == ("certified",) else 0.0)
