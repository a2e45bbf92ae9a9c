"""AutoAttack: the published schedules, exact radii, and every known failure of the published code (docs/attacks.md)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import torch

import robench
from oracles.classifiers import Function, linear, mlp
from oracles.known_radii import LINEAR, RELU, known
from oracles.linear_box import exact_radius
from oracles.nets import blobs, trained
from oracles.random_linear import RandomLinear
from robench.classifier import margins
from robench.evaluation import _execute
from robench.metrics import random_results
from robench.registry import load_plugins
from robench.samples import Samples
from robench.testing import check_plugin
from robench.threat import Domain, Threat
from robench_plugins.attacks.autoattack import AutoAttack
from robench_plugins.attacks.cw import CW

NORMS = ("linf", "l2", "l1")


@dataclass(frozen=True)
class Short(AutoAttack):
    """The schedule with fewer steps, for tests that ask about something else."""

    steps: int = 20
    queries: int = 60

    def stages(self, classifier, threat):
        """Yield the attacks of the version, each cut short."""
        for spec, attack, mask in super().stages(classifier, threat):
            yield spec, self.cut(attack), mask

    def cut(self, attack):
        if hasattr(attack, "attack"):  # modified
            return dataclasses.replace(attack, attack=self.cut(attack.attack))
        short = {"queries": self.queries} if hasattr(attack, "queries") else {"steps": self.steps}
        return dataclasses.replace(attack, **short)


def samples(x, y, domain=None, classes=None):
    x, y = np.asarray(x), np.asarray(y)
    return Samples(x, y, np.arange(len(x)), domain or Domain(), tuple(map(str, range(classes or int(y.max()) + 1))))


def attacked(model, data, norm, eps, out, attack=None, **more):
    """Evaluate and return the run and which samples are left."""
    run = robench.evaluate(
        model, data, eps=eps, norm=norm, attacks=[attack or Short()], certifiers="none", out=out, **more
    )
    rows = run.evidence
    lost = rows[rows.status.isin(["falsified", "incorrect"])]["sample"]
    return run, ~np.isin(data.index, lost)


def digits_like(shape, classes, dtype=torch.float32, count=12, seed=0, scale=1.0):
    """Return a random linear classifier of inputs of some shape, and correct samples with their exact radii."""
    rng, size = np.random.default_rng(seed), int(np.prod(shape))
    weight, bias = rng.normal(size=(classes, size)), rng.normal(size=classes) * 0.1
    x = rng.choice([0.0, 0.3, 0.6, 1.0], size=(count, size))
    y = (x @ weight.T + bias).argmax(1)
    net = linear(weight * scale, bias * scale, shape, dtype)
    data = samples(x.reshape(count, *shape).astype(np.float32 if dtype == torch.float32 else float), y, None, classes)
    return (
        net,
        data,
        {n: np.array([exact_radius(weight, bias, x[i], y[i], n, 0, 1)[0] for i in range(count)]) for n in NORMS},
    )


# ---------------------------------------------------------------------- the published schedules

SCHEDULES = {
    ("standard", "linf"): ["apgd", "apgd:loss=dlr,targets=9", "fab:restarts=1,targets=9", "square"],
    ("standard", "l1"): ["apgd:restarts=5", "apgd:loss=dlr,targets=5", "fab:restarts=1,targets=9", "square"],
    ("plus", "l2"): [
        "apgd:restarts=5",
        "apgd:loss=dlr,restarts=5",
        "fab",
        "square",
        "apgd:loss=dlr,targets=9",
        "fab:restarts=1,targets=9",
    ],
    ("rand", "linf"): ["apgd | eot", "apgd:loss=dlr | eot"],
}


@pytest.mark.parametrize(("version", "norm"), SCHEDULES)
def test_the_published_schedules_in_canonical_specs(version, norm):
    stages = list(AutoAttack(version).stages(mlp((3, 4, 2)), Threat(norm, 0.1, Domain())))
    assert [spec for spec, _, _ in stages] == SCHEDULES[version, norm]
    for spec, attack, mask in stages:
        resolved = load_plugins().resolve("attacks", spec)
        assert mask is None
        assert (resolved.canonical, resolved.value) == (spec, attack)
    if norm == "linf":
        assert [spec for spec, _, _ in AutoAttack(version).stages(mlp((3, 4, 2)), Threat("l2", 0.1, Domain()))] == (
            SCHEDULES[version, norm]
        )


def test_published_parameters():
    """APGD: 100 steps from 2ε, ρ and the momentum .75; FAB: 100 steps, α_max .1, η 1.05, β .9; Square: p .8, 5,000."""
    ce, targeted, fab, square = (attack for _, attack, _ in AutoAttack().stages(None, Threat("linf", 0.1, Domain())))
    for apgd in (ce, targeted):
        assert (apgd.steps, apgd.rho, apgd.momentum, apgd.restarts) == (100, 0.75, 0.75, 1)
        assert apgd.ascent("linf").size == 2
        assert apgd.ascent("l1").phases == [(3.0, 30), (2.0, 30), (1.0, 40)]
    assert (fab.steps, fab.alpha_max, fab.eta, fab.beta) == (100, 0.1, 1.05, 0.9)
    assert (square.p_init, square.queries, square.restarts) == (0.8, 5000, 1)


@pytest.mark.parametrize("norm", NORMS)
def test_breaks_what_can_be_broken_on_the_named_list(norm, tmp_path):
    within = hit = 0
    for name in (*RELU, *LINEAR):
        case = known(name)
        x, y, radii = case.x[:12].numpy(), case.y[:12].numpy(), case.radii[norm][:12]
        eps = float(np.quantile(radii, 0.8, method="nearest"))
        data = samples(x, y, case.domain, case.classifier.classes)
        attack = Short(steps=40, queries=50)
        _, left = attacked(case.classifier, data, norm, eps, tmp_path / name, attack, precision="fp64")
        assert left[radii > eps].all()
        within, hit = within + (radii < 0.98 * eps).sum(), hit + (~left)[radii < 0.98 * eps].sum()
    assert within >= 80
    assert hit >= 0.99 * within


def test_each_attack_sees_what_those_before_left(tmp_path):
    run, left = attacked(trained(), blobs(), "linf", 0.1, tmp_path, Short("plus", queries=20))
    rows = run.evidence
    alive = set(rows[rows.status == "correct"]["sample"])
    for spec in SCHEDULES["plus", "l2"]:
        stage = rows[rows.evaluator == spec]
        assert set(stage["sample"]) == alive
        alive -= set(stage[stage.status == "falsified"]["sample"])
    assert alive == set(np.flatnonzero(left))
    assert 0 < len(alive) < len(left) * 0.9


def test_a_survivor_costs_no_more_than_published(tmp_path):
    """7,864 forwards and 1,910 backwards; the runner's own passes on top: one for the clean input, one per proposal."""
    net, data, _ = digits_like((1, 12, 12), 10, count=2)
    run, left = attacked(net, data, "linf", 1e-3, tmp_path, AutoAttack())
    assert left.all()
    cost = run.evidence.groupby("sample")[["forwards", "backwards"]].sum()
    assert (cost.forwards <= 7864).all()
    assert (cost.backwards == 1910 - 10).all()


def test_conforms():
    findings = check_plugin("attacks", Short(steps=5, queries=8), only=["shape", "domain", "order", "empty", "inputs"])
    assert [str(finding) for finding in findings if not finding.ok] == []


# ---------------------------------------------------------------------- failures of the published code, by name


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_failure_two_to_four_classes(classes, norm, tmp_path):
    net, data, radii = digits_like((1, 4, 4), classes)
    for version in ("standard", "plus"):
        eps = float(np.median(radii[norm]))
        _, left = attacked(net, data, norm, eps, tmp_path / version, Short(version))
        assert (left == (radii[norm] > eps))[abs(radii[norm] / eps - 1) > 0.02].all()


def test_failure_nan_logits_count_as_broken(tmp_path):
    def logits(x):
        flat = x.flatten(1)
        return torch.where((flat[:, :1] - 0.5).abs() > 0.05, torch.nan, torch.stack([flat[:, 0], flat[:, 0] - 1], 1))

    data = samples(np.full((4, 3), 0.5, np.float32), [0] * 4, classes=2)
    for norm in NORMS:
        run, left = attacked(Function(logits, (3,), 2), data, norm, 0.2, tmp_path / norm)
        assert left.all()
        rows = run.evidence
        assert "falsified" not in set(rows.status)
        assert set(rows[rows.status == "error"]["sample"]) == set(range(4))


@pytest.mark.parametrize("norm", NORMS)
def test_failure_logits_times_ten_thousand(norm, tmp_path):
    eps = float(np.median(digits_like((1, 4, 4), 5)[2][norm]))
    for scale in (1e-4, 1e4):
        net, data, radii = digits_like((1, 4, 4), 5, scale=scale)
        run, left = attacked(net, data, norm, eps, tmp_path / str(scale))
        assert (left == (radii[norm] > eps))[abs(radii[norm] / eps - 1) > 0.02].all()
        rows = run.evidence
        first = rows[rows.evaluator.str.startswith("apgd") & ~rows.evaluator.str.contains("dlr")]
        assert (first.status == "falsified").sum() >= 4


@pytest.mark.parametrize("norm", NORMS)
def test_failure_results_depend_on_batch_size_and_order(norm, tmp_path):
    net, data, radii = digits_like((1, 4, 4), 5, dtype=torch.float64)
    eps = float(np.median(radii[norm]))
    tables = []
    order = np.random.default_rng(0).permutation(len(data.x))
    shuffled = Samples(data.x[order], data.y[order], order, data.domain, data.classes)
    for number, (some, size) in enumerate(((data, 12), (data, 5), (data, 1), (shuffled, 7))):
        run, _ = attacked(net, some, norm, eps, tmp_path / str(number), batch_size=size, precision="fp64")
        rows = run.evidence.sort_values(["sample", "evaluator"]).reset_index(drop=True)
        tables.append(rows[["sample", "evaluator", "status", "upper", "forwards", "backwards"]])
    for other in tables[1:]:
        exact = ["sample", "evaluator", "status", "forwards", "backwards"]
        assert other[exact].astype(str).equals(tables[0][exact].astype(str))
        np.testing.assert_allclose(other["upper"], tables[0]["upper"], rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("shape", [(10,), (1, 2, 7), (3, 5, 2)], ids=["flat", "wide", "high"])
@pytest.mark.parametrize("norm", NORMS)
def test_failure_flat_inputs_images_that_are_not_square_float64(norm, shape, dtype, tmp_path):
    net, data, radii = digits_like(shape, 4, dtype, count=6)
    eps = float(np.median(radii[norm]))
    precision = "fp64" if dtype == torch.float64 else "fp32"
    _, left = attacked(net, data, norm, eps, tmp_path, precision=precision)
    assert (left == (radii[norm] > eps))[abs(radii[norm] / eps - 1) > 0.02].all()


@pytest.mark.parametrize("norm", NORMS)
def test_failure_budgets_overshoot_and_points_do_not_reproduce_the_accuracy(norm, tmp_path):
    """Every witness lies within ε in exact arithmetic, and replaying them gives the accuracy again."""
    data = blobs()
    eps = {"linf": "0.06", "l2": "0.13", "l1": "0.3"}[norm]
    net = trained()
    run, left = attacked(net, data, norm, eps, tmp_path, Short())
    points = run.run.witnesses().to_pandas()
    wrong = set(points["sample"])
    clean = torch.as_tensor(np.asarray(data.x))
    correct = margins(net(clean), torch.as_tensor(data.y)) > 0
    assert (left == (correct.numpy() & ~np.isin(data.index, list(wrong)))).all()
    assert len(wrong) > 5
    for sample, raw in zip(points["sample"], points["point"], strict=True):
        x, point = clean[sample], torch.frombuffer(bytearray(raw), dtype=torch.float32)
        delta = [abs(Fraction(a) - Fraction(b)) for a, b in zip(point.tolist(), x.tolist(), strict=True)]
        budget = Fraction(float(eps))
        size = {"linf": max(delta), "l1": sum(delta), "l2": sum(d * d for d in delta)}[norm]
        assert size <= (budget * budget if norm == "l2" else budget)
        assert margins(net(point[None]), torch.tensor([data.y[sample]])) <= 0


def test_failure_rand_takes_a_lucky_pass(tmp_path):
    """auto-attack 105: one wrong draw breaks nothing. Almost every sample has one here, and hardly any is ever lost."""
    model = RandomLinear(sigma=0.3)
    data = model.samples(40)
    run = robench.evaluate(model, data, eps="0.0001", attacks=[Short("rand", steps=10)], draws=100, out=tmp_path).run
    (result,) = random_results([run])
    assert {one.evaluator for one in result.evaluators} == {"clean", "apgd | eot", "apgd:loss=dlr | eot"}
    truth = model.accuracy(data.x, data.y, "linf", 0.0001)
    assert abs(result.attacked.value - truth.mean()) < 4 * (0.25 / (40 * 100)) ** 0.5
    assert (truth**200).mean() < 0.1  # all draws right


def test_rand_without_draws_breaks_what_can_be_broken(tmp_path):
    net, data, radii = digits_like((1, 4, 4), 5)
    for norm in NORMS:
        eps = float(np.median(radii[norm]))
        _, left = attacked(net, data, norm, eps, tmp_path / norm, Short("rand", steps=25))
        assert left[radii[norm] > eps].all()
        assert left.sum() <= 8


def test_failure_a_run_cannot_be_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(_execute, "COMMIT_SECONDS", 0.0)
    settings = {"attacks": [Short(queries=20)], "certifiers": "none", "eps": "0.06", "batch_size": 20}
    whole = robench.evaluate(trained(), blobs(), out=tmp_path / "whole", **settings).evidence

    def stop(done, total, counts):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        robench.evaluate(trained(), blobs(), out=tmp_path / "parts", progress=stop, **settings)
    seen = []
    parts = robench.evaluate(
        trained(), blobs(), out=tmp_path / "parts", resume=True, progress=lambda *now: seen.append(now[0]), **settings
    ).evidence
    assert len(list((tmp_path / "parts").rglob("manifest.json"))) == 1
    assert min(seen) >= 20
    rows = [
        table.drop(columns=["run", "seconds"]).sort_values(["sample", "evaluator"]).reset_index(drop=True).astype(str)
        for table in (whole, parts)
    ]
    assert rows[0].equals(rows[1])


def test_failure_ten_steps_instead_of_a_hundred(tmp_path):
    net, data, _ = digits_like((1, 4, 4), 5, count=2)
    run, _ = attacked(net, data, "linf", 1e-4, tmp_path, AutoAttack())
    cost = run.evidence.groupby("evaluator").backwards.max()
    assert cost["apgd"] == 100
    assert cost["apgd:loss=dlr,targets=9"] == cost["fab:restarts=1,targets=9"] == 4 * 100


def test_failure_cw_is_weak_on_probabilities():
    """On probabilities it reaches what it reaches on logits, or nearly."""
    net, data, radii = digits_like((1, 4, 4), 4, torch.float64)
    soft = dataclasses.replace(net, function=lambda x: net.function(x).softmax(1))
    x, y = torch.as_tensor(np.asarray(data.x)), torch.as_tensor(data.y)
    stream = robench.Stream.for_samples(0, "cw", range(len(x)))
    points = CW(rate=0.05, search=4, steps=80).perturb(soft, x, y, Threat("l2", None, Domain()), stream).points
    wrong = margins(net.logits(points), y) <= 0
    reached = (points - x).flatten(1).norm(dim=1).numpy()
    assert wrong.all()
    assert np.median(reached / radii["l2"]) <= 1.02


def test_failure_the_global_generator_is_reset_and_weights_gather_gradients(tmp_path):
    net, state = trained(), torch.random.get_rng_state()
    numbers = np.random.get_state()[1].copy()
    robench.evaluate(net, blobs(12), eps="0.05", attacks=[Short()], certifiers="none", out=tmp_path)
    assert torch.equal(state, torch.random.get_rng_state())
    assert (numbers == np.random.get_state()[1]).all()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())


def test_classifiers_without_gradients_are_refused():
    reason = AutoAttack().applies(Function(lambda x: x.detach().flatten(1), (3,), 3), "linf")
    assert reason is not None
    assert "gradients" in reason
