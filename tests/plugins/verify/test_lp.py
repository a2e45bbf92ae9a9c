"""`lp`: the triangle relaxation, proven through its duals and by nothing else."""

import numpy as np
import pytest
import torch

from oracles.enumeration import TOLERANCE, exact_radius, random_net
from oracles.piecewise import SPACE, case, check_modes, started, values
from oracles.random_graphs import Draft, mlp
from oracles.soundness import ball_points, margins
from oracles.triangles import triangle_minimum
from robench.errors import InputError
from robench.graph import GraphClassifier
from robench.regions import Condition, Region
from robench.registry import load_plugins
from robench.threat import Domain, Threat
from robench_plugins.verify import _highs
from robench_plugins.verify._affine import affine_map
from robench_plugins.verify._engine.lower import lower
from robench_plugins.verify._engine.slopes import Schedule, optimise
from robench_plugins.verify._leaves import closed
from robench_plugins.verify.lp import LP


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


@pytest.mark.parametrize("bounds", ["ibp", "crown", "alpha"])
def test_the_callers_mode_does_not_matter(bounds):
    check_modes(LP(bounds=bounds))


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
        closed(known, {}, rows)


def test_affine_maps_are_the_network():
    for seed in range(40):
        graph, x, _, _ = case(seed)
        program = lower(graph)
        made = values(program, x)
        for at in [*(program.steps[position].inputs[0] for position in program.activations), program.last]:
            found = affine_map(program, at)
            value = found.constant + sum(made[k].flatten(1).numpy() @ part.T for k, part in found.parts.items())
            assert np.allclose(value, made[at].flatten(1).numpy(), atol=1e-10), (seed, at)
