"""`milp`: a complete search that decides as enumeration does, and certifies nothing on HiGHS's word."""

import math

import numpy as np
import pytest
import torch

from oracles.enumeration import exact_radius, random_net
from oracles.piecewise import check_modes
from oracles.random_graphs import Draft, evaluate, mlp, random_graph, step_names
from oracles.soundness import ball_points, margins
from robench.graph import GraphClassifier
from robench.regions import Condition, Region
from robench.threat import Domain, Threat
from robench_plugins.verify import _highs
from robench_plugins.verify._encoding import encode, neurons_of
from robench_plugins.verify._halves import halve
from robench_plugins.verify._piecewise import Start, starts
from robench_plugins.verify.milp import MILP

PIECEWISE = [name for name in step_names() if name not in ("sigmoid", "tanh")]
SPACE = Domain.unbounded()


def certify(graph, x, y, threat, **parameters):
    return MILP(**parameters).certify(GraphClassifier(graph, dtype=x.dtype), x, y, threat, None)


def started(seed, norm="linf"):
    """A random graph of piecewise linear operators, one point, and where `milp` starts."""
    rng = np.random.default_rng(seed)
    graph = random_graph(list(rng.choice(PIECEWISE, rng.integers(1, 7))), rng)
    x, y = torch.tensor(rng.normal(size=(1, *graph.input_shape))), torch.tensor(rng.integers(0, 3, 1))
    threat = Threat(norm, float(rng.choice([0.05, 0.3])), SPACE)
    return graph, x, y, threat, starts(graph, x, y, threat, "crown")[0]


def least(start: Start):
    """Return the least value of each row that HiGHS finds, and the inputs where it is taken."""
    program, found = start.known.program, []
    neurons = {
        position: neurons_of(low[0].flatten().numpy(), high[0].flatten().numpy(), np.zeros(low[0].numel(), np.int8))
        for position, (low, high) in start.known.inputs.items()
    }
    encoding = encode(program, start.known.region, neurons, whole=True)
    solver = _highs.Solver(encoding.problem)
    costs, constants = encoding.form(program, program.last, start.forms.coefficients.numpy())
    for cost, constant in zip(costs, constants, strict=True):
        answer = solver.solve(cost)
        assert answer.word == "optimal"
        found.append((answer.objective + constant, answer.point[encoding.outputs[0]]))
    return found


@pytest.mark.parametrize("part", range(3))
def test_the_encoding_is_the_network(part):
    """For every operator: the optimum is a value that the network takes, and float64 proves that none is below it."""
    split, exact = 0, 0
    for seed in range(30 * part, 30 * part + 30):
        graph, x, _, _, start = started(seed, "l1" if seed % 4 == 0 else "linf")
        found = least(start)
        optimum = torch.tensor([value for value, _ in found])
        scale = 1e-5 * (1 + optimum.abs())
        points = torch.tensor(np.array([point for _, point in found])).reshape(-1, *x.shape[1:])
        taken = (evaluate(graph, points) * start.forms.coefficients).sum(1)
        assert ((taken - optimum).abs() <= scale).all(), seed
        # Moved up by the optimum, each row is proven to be above 0 in leaves; moved a little less it cannot be.
        proof = halve(_moved(start, scale - optimum), 200, 60.0)
        exact += proof.proven
        assert proof.proven or proof.leaves == 200, seed  # some take thousands
        assert not halve(_moved(start, -scale - optimum), 20, 60.0).proven, seed
        split += proof.leaves > 1
    assert split > 2
    assert exact >= 27


def _moved(start, shift):
    forms = start.forms
    moved = type(forms)(
        forms.owners, forms.coefficients, forms.constant + shift, forms.disjunct, forms.whose, forms.samples
    )
    return Start(start.known, moved, start.bounds + shift - 1e-9)


@pytest.mark.parametrize(("norm", "sizes"), [("linf", (2, 5, 3)), ("linf", (3, 5, 4, 3)), ("l1", (2, 4, 3, 2))])
def test_it_decides_as_enumeration_does(norm, sizes):
    decided = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        weights, biases = random_net(rng, sizes)
        graph, x = mlp(weights, biases), torch.tensor(rng.random((2, sizes[0])))
        y = GraphClassifier(graph, dtype=torch.float64).logits(x).argmax(1)
        for i in range(2):
            # Over an l1 ball cut by a box, proofs take the better one of both, not their intersection.
            domain = Domain() if norm == "linf" else SPACE
            radius = exact_radius(weights, biases, x[i].numpy(), int(y[i]), norm, domain.lower, domain.upper)
            if not 1e-3 < radius < 10:
                continue
            for factor in (0.5, 0.999, 1.001, 1.5):
                threat = Threat(norm, radius * factor, domain)
                found = certify(graph, x[i : i + 1], y[i : i + 1], threat)
                assert found.status == ["certified" if factor < 1 else "falsified"], (seed, i, factor, found.detail)
                assert float(found.lower) == (threat.eps if factor < 1 else 0.0)
                decided += 1
                if factor > 1:
                    assert margins(graph, found.points, int(y[i])) <= 0
    assert decided >= 16


def wrong(answer):
    """Every way in which HiGHS may be wrong about a program with integers or without."""
    rng = np.random.default_rng(0)
    width = 0 if answer.point is None else len(answer.point)
    count = 0 if answer.duals is None else len(answer.duals)
    yield _highs.Answer("infeasible")
    yield _highs.Answer("infeasible", 1.0, math.inf, answer.point, rng.normal(size=count) * 1e3)
    yield _highs.Answer("optimal", -1.0, 1.0, np.full(width, np.nan), np.full(count, np.nan))
    yield _highs.Answer("optimal", -1.0, 1.0, rng.normal(size=width) * 1e12, None)
    yield _highs.Answer("unheard of", math.nan, math.nan, None, np.full(count, np.inf))


@pytest.mark.parametrize("which", range(5))
def test_no_wrong_answer_certifies(which, monkeypatch):
    """Where an error is known, nothing is certified whatever HiGHS says, and points stay in the set."""
    right = _highs.Solver.solve
    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr(
        _highs.Solver, "solve", lambda self, cost=None, **limits: list(wrong(right(self, cost, **limits)))[which]
    )
    checked = 0
    for seed in range(60):
        graph, x, y, threat, _ = started(seed)
        points = ball_points(graph, x[0], int(y), "linf", threat.eps, SPACE, generator)
        if margins(graph, points, int(y)).min() < 0:
            found = certify(graph, x, y, threat, leaves=30)
            assert found.status[0] != "certified", seed
            assert float(found.lower) == 0.0
            assert (found.points - x).abs().max() <= threat.eps + 1e-12
            checked += 1
    assert checked > 15


def test_infeasible_alone_is_open():
    """Without leaves HiGHS's word stays a word; with them it is proven."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        weights, biases = random_net(rng, (2, 6, 6, 3))
        graph, x = mlp(weights, biases), torch.tensor(rng.random((1, 2)))
        y = GraphClassifier(graph, dtype=torch.float64).logits(x).argmax(1)
        radius = exact_radius(weights, biases, x[0].numpy(), int(y), "linf", -np.inf, np.inf)
        if not 0.01 < radius < 5:
            continue
        threat = Threat("linf", 0.99 * radius, SPACE)
        bare = certify(graph, x, y, threat, leaves=0)
        if bare.status == ["open"]:
            assert bare.detail[0]["milp"] == "infeasible"
            proven = certify(graph, x, y, threat)
            assert proven.status == ["certified"]
            assert proven.detail[0]["leaves"] >= 1
            return
    pytest.fail("CROWN proved every case")


def test_conditions_of_regions():
    """A conjunction is unsafe where all its rows hold at once: found by the search, refuted by it."""
    draft = Draft((2,), np.random.default_rng(0))
    draft.add("relu").add("linear", constants={"weight": torch.eye(2)})
    box = torch.tensor([[0.0, -1.0]]).double(), torch.tensor([[2.0, 1.0]]).double()

    def found(*disjuncts):
        made = tuple((np.array(rows, dtype=float), np.array(offsets, dtype=float)) for rows, offsets in disjuncts)
        threat = Threat("linf", 1.0, SPACE, Region(*box, [Condition(made)]))
        return certify(draft.graph(), torch.tensor([[1.0, 0.0]]).double(), torch.tensor([0]), threat)

    both = found(([[-1, 0], [0, -1]], [1.5, 0.5]))  # f0 ≥ 1.5 and f1 ≥ 0.5
    assert both.status == ["falsified"]
    assert (both.points >= torch.tensor([1.5, 0.5]) - 1e-6).all()
    assert found(([[-1, 0], [0, -1]], [1.5, 1.5])).status == ["certified"]
    # Each row may hold, never both: HiGHS knows, and no single row is above 0 anywhere.
    never = found(([[-1, -1], [1, 1]], [1.5, -1.0]))
    assert never.status in (["open"], ["certified"])
    assert never.detail[0]["milp"] == "infeasible"


def test_time_and_memory_that_run_out(monkeypatch):
    graph, x, y, threat, start = next(made for seed in range(50) if not (made := started(seed))[-1].margin > 0)
    assert certify(graph, x, y, threat, timeout=1e-9).status == ["timeout"]
    assert certify(graph, x, y, threat, timeout=1e-9, leaves=0).status == ["timeout"]
    limited = Threat("linf", threat.eps, SPACE, _region(start, y, graph.classes, 1e-9))
    assert certify(graph, x, y, limited).status == ["timeout"]  # the data's own limit

    def full(self, problem, threads=1):
        raise MemoryError

    monkeypatch.setattr(_highs.Solver, "__init__", full)
    found = certify(graph, x, y, threat)
    assert found.status == ["timeout"]
    assert found.detail[0]["reason"] == "out of memory"


def _region(start, y, classes, seconds):
    return Region(start.known.region.lower, start.known.region.upper, [Condition.of_label(int(y), classes)], [seconds])


@pytest.mark.parametrize("bounds", ["ibp", "crown", "alpha"])
def test_the_callers_mode_does_not_matter(bounds):
    check_modes(MILP(bounds=bounds, leaves=20))


def test_threads_are_a_choice_of_the_moment():
    graph, x, y, threat, _ = next(made for seed in range(50) if not (made := started(seed))[-1].margin > 0)
    status = {tuple(certify(graph, x, y, threat, threads=threads).status) for threads in (1, 2, 1)}
    assert len(status) == 1
