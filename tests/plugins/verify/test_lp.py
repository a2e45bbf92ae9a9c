"""`lp` and leaves: linear programs in float64, proven through their duals and by nothing else."""

import itertools
import math

import numpy as np
import pytest
import torch

from oracles.enumeration import TOLERANCE, exact_radius, random_net
from oracles.random_graphs import Draft, mlp, random_graph, step_names
from oracles.soundness import ball_points, margins
from oracles.triangles import triangle_minimum
from robench.errors import InputError
from robench.graph import GraphClassifier
from robench.regions import Condition, Region
from robench.registry import load_plugins
from robench.threat import Domain, Threat
from robench_plugins.verify import _highs
from robench_plugins.verify._affine import affine_map
from robench_plugins.verify._engine.bounds import bounded
from robench_plugins.verify._engine.lower import lower
from robench_plugins.verify._engine.region import region_of
from robench_plugins.verify._engine.slopes import Schedule, optimise
from robench_plugins.verify._forms import label_forms
from robench_plugins.verify._leaves import close_leaf, closed
from robench_plugins.verify.lp import LP

PIECEWISE = [name for name in step_names() if name not in ("sigmoid", "tanh")]
SPACE = Domain.unbounded()


def case(seed, norm="linf", samples=2):
    """A random graph of piecewise linear operators, points, labels and a threat."""
    rng = np.random.default_rng(seed)
    graph = random_graph(list(rng.choice(PIECEWISE, rng.integers(1, 7))), rng)
    x, y = torch.tensor(rng.normal(size=(samples, *graph.input_shape))), torch.tensor(rng.integers(0, 3, samples))
    return graph, x, y, Threat(norm, float(rng.choice([0.05, 0.3, 1.0])), SPACE)


def started(graph, x, y, threat, method="crown"):
    known = bounded(graph, region_of(x, threat), method)
    return known, label_forms(y, graph.classes).rows(known.program.last)


def values(program, x):
    made = [x]
    for step in program.steps[1:]:
        made.append(step.forward(*(made[source] for source in step.inputs)))
    return made


@pytest.mark.parametrize("part", range(4))
def test_duals_prove_the_optimum_and_nothing_above_a_value(part):
    """For every operator, linf and l1: what float64 proves is the program's optimum, at least CROWN's at any slopes."""
    generator = torch.Generator().manual_seed(part)
    better = 0
    for seed in range(40 * part, 40 * part + 40):
        graph, x, y, threat = case(seed, "l1" if seed % 3 == 0 else "linf")
        known, rows = started(graph, x, y, threat, "ibp" if seed % 4 == 0 else "crown")
        found = closed(known, {}, rows)
        assert found.words == ["optimal", "optimal"]
        scale = 1 + found.optimum.abs()
        assert ((found.optimum - found.bound).abs() <= 1e-6 * scale).all(), seed
        slopes = optimise(known.program, known.region, known.lines, rows, schedule=Schedule(15))
        assert (found.bound >= slopes.bound - 1e-6 * scale).all(), seed
        better += int((found.bound > slopes.bound + 1e-3 * scale).any())
        for sample in range(2):
            points = ball_points(graph, x[sample], int(y[sample]), threat.norm, threat.eps, SPACE, generator)
            worst = margins(graph, points, int(y[sample])).min()
            assert found.bound[2 * sample : 2 * sample + 2].min() <= worst + 1e-12, seed
    assert better > 0


def test_the_optimum_is_that_of_the_triangles_written_down_again():
    for seed in range(25):
        rng = np.random.default_rng(seed)
        weights, biases = random_net(rng, (3, 5, 4, 3))
        x = rng.normal(size=3)
        known, rows = started(
            mlp(weights, biases), torch.tensor(x)[None], torch.tensor([0]), Threat("linf", 0.7, SPACE)
        )
        inputs = [tuple(side.numpy()[0] for side in sides) for sides in known.inputs.values()]
        found = closed(known, {}, rows)
        for form, optimum in zip(rows.coefficients.numpy(), found.optimum.tolist(), strict=True):
            low, high = (side.numpy()[0] for side in (known.region.lower, known.region.upper))
            assert triangle_minimum(weights, biases, inputs, low, high, form) == pytest.approx(optimum, abs=1e-6)


def test_leaves_with_all_signs_are_exact():
    """The least leaf over all patterns is 0 at the exact radius, above it before, below it beyond."""
    checked = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        weights, biases = random_net(rng, (2, 3, 2, 3))
        graph, x = mlp(weights, biases), torch.tensor(rng.random((1, 2)))
        y = GraphClassifier(graph, dtype=torch.float64).logits(x).argmax(1)
        radius = exact_radius(weights, biases, x[0].numpy(), int(y), "linf", -np.inf, np.inf)
        if not 1e-3 < radius < 3:
            continue
        checked += 1
        for factor in (0.98, 1.0, 1.02):
            known, rows = started(graph, x, y, Threat("linf", radius * factor, SPACE), "ibp")
            first, second = known.program.activations
            least = math.inf
            for pattern in itertools.product((-1, 1), repeat=5):
                signs = {first: torch.tensor([pattern[:3]]), second: torch.tensor([pattern[3:]])}
                least = min(least, float(close_leaf(known, signs, rows).min()))
            assert (least > 0, abs(least) <= 10 * TOLERANCE) == (factor < 1, factor == 1), (seed, factor, least)
    assert checked >= 5


@pytest.mark.parametrize("part", range(2))
def test_leaves_hold_what_is_in_them_and_empty_ones_are_proven_empty(part):
    empty = 0
    for seed in range(1000 + 60 * part, 1060 + 60 * part):
        graph, x, y, threat = case(seed)
        rng = np.random.default_rng(seed)
        known, rows = started(graph, x, y, threat)
        program = known.program
        inside = values(program, x + threat.eps * torch.tensor(rng.uniform(-1, 1, x.shape)))
        signs = {}
        for position in program.activations:
            before = inside[program.steps[position].inputs[0]]
            sign = torch.where(before >= 0, 1, -1)
            if seed % 2:  # some signs are left open
                sign = sign * torch.tensor(rng.integers(0, 2, sign.shape))
            sign[1] = torch.where(torch.tensor(rng.random(sign[1].shape) < 0.1), -sign[1], sign[1])
            signs[position] = sign
        found = closed(known, signs, rows)
        value = (rows.coefficients.reshape(2, -1, 3) * inside[-1][:, None]).sum(-1)
        assert (found.bound.reshape(2, -1)[0] <= value[0] + 1e-12).all(), seed
        assert found.words[0] == "optimal"
        if seed % 2 == 0:  # the network is affine there: the minimum is a value
            points = found.points[rows.owners.index == 0]
            taken = (rows.coefficients[rows.owners.index == 0] * values(program, points)[-1]).sum(-1)
            assert torch.allclose(taken, found.bound.reshape(2, -1)[0], atol=1e-6), seed
        assert (found.words[1] == "infeasible") == bool((found.bound.reshape(2, -1)[1] == math.inf).all()), seed
        empty += found.words[1] == "infeasible"
    assert empty >= 10


def wrong(answer):
    """Every way in which a solver's answer may be wrong."""
    rng = np.random.default_rng(0)
    count = 0 if answer.duals is None else len(answer.duals)
    width = 0 if answer.point is None else len(answer.point)
    yield _highs.Answer("infeasible")
    yield _highs.Answer("optimal", 1e9, 1e9, answer.point, np.full(count, np.nan))
    yield _highs.Answer("optimal", 1.0, 1.0, answer.point, np.full(count, np.inf))
    yield _highs.Answer("optimal", 1.0, 1.0, np.full(width, np.nan), rng.normal(size=count) * 10)
    yield _highs.Answer("optimal", 1.0, 1.0, rng.normal(size=width) * 1e9, -answer.duals * 1e8 if count else None)
    yield _highs.Answer("infeasible", 1.0, 1.0, answer.point, np.ones(count) * 1e300)
    yield _highs.Answer("unheard of", math.nan, math.nan, None, np.zeros(3))


@pytest.mark.parametrize("which", range(7))
@pytest.mark.filterwarnings("error")
def test_no_wrong_answer_proves_anything_false(which, monkeypatch):
    right = _highs.Solver.solve

    def lie(self, cost=None, **limits):
        return list(wrong(right(self, cost, **limits)))[which]

    monkeypatch.setattr(_highs.Solver, "solve", lie)
    generator = torch.Generator().manual_seed(0)
    for seed in range(40):
        graph, x, y, threat = case(seed)
        known, rows = started(graph, x, y, threat)
        bound = close_leaf(known, {}, rows).reshape(2, -1).amin(1)
        for sample in range(2):
            points = ball_points(graph, x[sample], int(y[sample]), threat.norm, threat.eps, SPACE, generator)
            assert bound[sample] <= margins(graph, points, int(y[sample])).min() + 1e-12, seed


def certify(graph, x, y, threat, **parameters):
    return LP(**parameters).certify(GraphClassifier(graph, dtype=x.dtype), x, y, threat, None)


def test_what_lp_certifies_is_true_and_more_than_crown_certifies():
    proven = {"lp": 0, "crown": 0}
    crown = load_plugins().resolve("certifiers", "crown").value
    for seed in range(10):
        rng = np.random.default_rng(seed)
        weights, biases = random_net(rng, (2, 5, 4, 3))
        classifier = GraphClassifier(mlp(weights, biases), dtype=torch.float64)
        x = torch.tensor(rng.random((3, 2)))
        y = classifier.logits(x).argmax(1)
        exact = [exact_radius(weights, biases, x[i].numpy(), int(y[i]), "linf") for i in range(3)]
        for eps in (0.05, 0.2, 0.5):
            threat = Threat("linf", eps, Domain())
            found = LP().certify(classifier, x, y, threat, None)
            other = crown.certify(classifier, x, y, threat, None)
            for i, status in enumerate(found.status):
                assert float(found.lower[i]) == (eps if status == "certified" else 0.0)
                assert status != "certified" or exact[i] > eps - TOLERANCE
                assert other.status[i] != "certified" or status == "certified"
                proven["lp"] += status == "certified"
                proven["crown"] += other.status[i] == "certified"
    assert proven["lp"] > proven["crown"] > 10


def test_conditions_of_regions():
    """A conjunction is refuted by one of its rows; a disjunct that may hold leaves the region open."""
    draft = Draft((2,), np.random.default_rng(0))
    draft.add("relu").add("linear", constants={"weight": torch.eye(2)})
    lower, upper = torch.tensor([[0.0, -1.0]]).double(), torch.tensor([[2.0, 1.0]]).double()

    def status(*disjuncts):
        made = tuple((np.array(rows, dtype=float), np.array(offsets, dtype=float)) for rows, offsets in disjuncts)
        threat = Threat("linf", 1.0, SPACE, Region(lower, upper, [Condition(made)]))
        return certify(draft.graph(), torch.tensor([[1.0, 0.0]]).double(), torch.tensor([0]), threat).status

    never, may = ([[1, 1]], [0.5]), ([[1, 1]], [-0.5])  # f1 + f2 ≤ −0.5 never holds, f1 + f2 ≤ 0.5 may
    both = ([[1, 1], [-1, 0]], [0.5, 0])
    assert status(never) == ["certified"]
    assert status(may) == ["open"]
    assert status(both, never) == ["certified"]
    assert status(never, may) == ["open"]


def test_time_and_memory_that_run_out(monkeypatch):
    graph, x, y, threat = next(made for seed in range(50) if lp_open(*(made := case(seed, samples=1))))
    assert certify(graph, x, y, threat, timeout=1e-9).status == ["timeout"]

    def full(self, problem, threads=1):
        raise MemoryError

    monkeypatch.setattr(_highs.Solver, "__init__", full)
    found = certify(graph, x, y, threat)
    assert (found.status, found.detail) == (["timeout"], [{"reason": "out of memory"}])


def lp_open(graph, x, y, threat):
    return certify(graph, x, y, threat).detail[0].get("lp") is not None


@pytest.mark.parametrize(
    "spec", ["lp:timeout=0", "lp:timeout=-1", "lp:bounds=exact", "milp:timeout=0", "milp:threads=0", "milp:leaves=-1"]
)
def test_parameters_out_of_range_are_refused(spec):
    with pytest.raises(InputError):
        load_plugins().resolve("certifiers", spec)


def test_what_is_no_linear_program_is_refused_by_name():
    for name in ("lp", "milp"):
        certifier = load_plugins().resolve("certifiers", name).value
        smooth = Draft((2,), np.random.default_rng(0)).linear(3).add("tanh").linear(2).graph()
        assert certifier.applies(GraphClassifier(smooth), "linf") == "node 2: tanh is not piecewise linear"
        plain = GraphClassifier(Draft((2,), np.random.default_rng(0)).linear(3).graph())
        assert certifier.applies(plain, "linf") is None
        assert certifier.applies(plain, "l1") is None
        assert "l2" in certifier.applies(plain, "l2")
        with pytest.raises(ValueError, match="budget"):
            certifier.certify(plain, torch.zeros(1, 2), torch.tensor([0]), Threat("linf", None, SPACE), None)
    known, rows = started(smooth, torch.zeros(1, 2).double(), torch.tensor([0]), Threat("linf", 0.1, SPACE))
    with pytest.raises(ValueError, match="sigmoid"):
        close_leaf(known, {}, rows)


def test_affine_maps_are_the_network():
    for seed in range(40):
        graph, x, _, _ = case(seed)
        program = lower(graph)
        made = values(program, x)
        for at in [*(program.steps[position].inputs[0] for position in program.activations), program.last]:
            found = affine_map(program, at)
            value = found.constant + sum(made[k].flatten(1).numpy() @ part.T for k, part in found.parts.items())
            assert np.allclose(value, made[at].flatten(1).numpy(), atol=1e-10), (seed, at)
