"""The default attack: exact radii, a schedule that follows from the sample alone, its cost, misleading gradients."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import robench
from oracles.classifiers import Function, linear, mlp
from oracles.known_radii import LINEAR, RELU, known
from robench.contracts import Outcome
from robench.health import CATALOGUE
from robench.registry import load_plugins
from robench.samples import Samples
from robench.testing import check_plugin
from robench.threat import Domain, Threat
from robench_plugins.attacks.portfolio import Portfolio

NORMS = ("linf", "l2", "l1")
CHECKS = ("fab:restarts=1,steps=10,targets=3", "square:queries=125", "hopskipjump:queries=150")
SCORES = CHECKS[1]
IN_FULL = ("fab:restarts=1,targets=9", "hopskipjump:queries=3000", "square:queries=2000")
PROBE, SHORT, RACE, MORE, LONG, RESTARTS, CORNERS = SEARCHES = (
    "probe",
    "apgd:steps=20",
    "race",
    "race:targets=3",
    "apgd",
    "apgd:loss=dlr,restarts=10",
    "square",
)
SPECS = (*SEARCHES, *CHECKS, *IN_FULL)
HEALTHY = {
    "randomness": 0.0,
    "softmax-outputs": 0.0,
    "logit-scale": 2.0,
    "zero-gradient-margin": 0.0,
    "loss-not-rising": 0.9,
    "gradient-differs": 0.1,
    "gradient-alignment": 0.9,
    "single-step-stronger": 0.0,
    "noise-stronger": -0.3,
}
SMALL = {"steps": 3, "heat": 2, "restarts": 1, "targets": 1, "queries": 8}


@dataclass(frozen=True)
class Small(Portfolio):
    """The schedule with less of everything, for tests that ask about something else."""

    def stages(self, classifier, threat):
        """Yield the stages, each cut short."""
        schedule, outcome = super().stages(classifier, threat), None
        try:
            while True:
                spec, attack, mask = schedule.send(outcome)
                fields = {field.name for field in dataclasses.fields(attack)}
                short = {name: min(getattr(attack, name), most) for name, most in SMALL.items() if name in fields}
                outcome = yield spec, dataclasses.replace(attack, **short), mask
        except StopIteration:
            return


def samples(x, y, domain=None, classes=None):
    x, y = np.asarray(x), np.asarray(y)
    return Samples(x, y, np.arange(len(x)), domain or Domain(), tuple(map(str, range(classes or int(y.max()) + 1))))


def attacked(model, data, norm, eps, out, attack="portfolio", **more):
    """Evaluate; return the rows of the attack, and which samples are left."""
    run = robench.evaluate(model, data, eps=eps, norm=norm, attacks=[attack], certifiers="none", out=out, **more)
    rows = run.evidence
    return rows, ~np.isin(data.index, rows[rows.status.isin(["falsified", "incorrect"])]["sample"])


def flat_points(classifier, count, seed=0):
    x = torch.rand(count, *classifier.input_shape, generator=torch.Generator().manual_seed(seed)).to(classifier.dtype)
    return samples(x.numpy(), classifier.logits(x).detach().argmax(1).numpy(), classes=classifier.classes)


@pytest.mark.parametrize("norm", NORMS)
def test_breaks_what_can_be_broken_on_the_named_list(norm, tmp_path):
    within = hit = 0
    for name in (*RELU, *LINEAR):
        case = known(name)
        x, y, radii = case.x[:12].numpy(), case.y[:12].numpy(), case.radii[norm][:12]
        eps = float(np.quantile(radii, 0.8, method="nearest"))
        data = samples(x, y, case.domain, case.classifier.classes)
        _, left = attacked(case.classifier, data, norm, eps, tmp_path / name, precision="fp64")
        assert left[radii > eps].all()
        within, hit = within + (radii < 0.98 * eps).sum(), hit + (~left)[radii < 0.98 * eps].sum()
    assert within >= 80
    assert hit >= 0.99 * within


def scheduled(details, margins, norm="linf"):
    """Drive the schedule by hand with outcomes that break nothing; return the samples that each stage got."""
    count = len(details)

    def outcome(margin, detail):
        none = torch.zeros(count, dtype=torch.int64)
        return Outcome(none > 0, torch.as_tensor(margin, dtype=torch.float64), none, none, detail)

    schedule, got, sent = Portfolio().stages(mlp((3, 4, 2)), Threat(norm, 0.1, Domain())), {}, None
    try:
        while True:
            spec, attack, mask = schedule.send(sent)
            assert load_plugins().resolve("attacks", spec).canonical == spec
            assert load_plugins().resolve("attacks", spec).value == attack
            got[spec] = list(range(count)) if mask is None else mask.nonzero()[:, 0].tolist()
            sent = outcome(margins.get(spec, [1.0] * count), details if spec == PROBE else [None] * count)
    except StopIteration:
        return got


def test_the_schedule_follows_from_probe_and_margins():
    """Clean margins are 2: below .6, .2 and .06 is close; a rare sign, two others, or scores .1 ahead mean in full."""
    details = [
        {"health": HEALTHY},
        {"health": HEALTHY},
        {"health": {**HEALTHY, "zero-gradient-margin": 1.0}},
        {"health": {**HEALTHY, "gradient-alignment": 0.0}},
        {"health": {**HEALTHY, "gradient-alignment": 0.0, "gradient-differs": 2.0}},
        {"health": HEALTHY},
        {"health": HEALTHY},
        None,
    ]
    nan = float("nan")
    got = scheduled(
        details,
        {
            RACE: [0.7, 0.5, 0.7, 0.7, 0.7, 0.7, 0.15, nan],
            MORE: [1.0, 0.05, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            SCORES: [0.65, 0.45, 0.7, 0.7, 0.7, 0.59, nan, 0.7],
        },
    )
    every = list(range(8))
    assert list(got) == list(SPECS)
    assert all(got[spec] == every for spec in (PROBE, SHORT, RACE, *CHECKS))
    assert got[MORE] == got[LONG] == [1, 6]
    assert got[RESTARTS] == got[CORNERS] == [1]
    # Nobody probed the last: nothing speaks for gradients there.
    assert all(got[spec] == [2, 4, 5, 7] for spec in IN_FULL)
    # Indicators that decide nothing do not either.
    shown = next(code for code, one in CATALOGUE.items() if not one.decides and code != "logit-scale")
    assert scheduled([{"health": {**HEALTHY, shown: 1e9}}], {})[IN_FULL[0]] == []
    # What square finds are corners.
    assert set(SPECS) - set(scheduled(details, {}, "l2")) == {CORNERS}


@pytest.mark.parametrize("norm", NORMS)
def test_the_schedule_of_a_sample_depends_on_that_sample_alone(norm, tmp_path):
    """In small batches, in a large one, in another order: the same stages, outcomes and passes."""
    net = mlp((8, 20, 20, 4), seed=3, dtype=torch.float64)
    data = flat_points(net, 60)
    eps = {"linf": 0.04, "l2": 0.1, "l1": 0.2}[norm]

    def rows(name, batch, part):
        made, left = attacked(net, part, norm, eps, tmp_path / name, Small(), batch_size=batch, precision="fp64")
        made = made[made.kind == "attack"][["sample", "evaluator", "status", "backwards"]].astype(str)
        return sorted(map(tuple, made.to_numpy())), left

    whole, left = rows("whole", 60, data)
    assert 10 < left.sum() < 50
    assert 0 < sum(row[1] == MORE for row in whole) < left.sum()
    for name, batch, part in (("sevens", 7, data), ("turned", 60, data.select(np.arange(60)[::-1]))):
        assert rows(name, batch, part)[0] == whole


@pytest.mark.parametrize("norm", NORMS)
def test_a_survivor_costs_no_more_than_a_fifth_of_the_published_cascade(norm, tmp_path):
    """AutoAttack: 7,864 forwards and 1,910 backwards for a sample that stands; the runner's own passes count here."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(10, 144, generator=generator)
    net = linear(weight, torch.zeros(10), (1, 12, 12), torch.float32)
    x = torch.rand(6, 1, 12, 12, generator=generator)
    y = net.logits(x).argmax(1)
    # Out of reach: the lowest margin falls to a twentieth of the clean one; only one in twenty survivors gets closer.
    way = weight[y, None] - weight[None, :].repeat(6, 1, 1)
    gap = (way * x.flatten(1)[:, None]).sum(2)
    size = way.norm(p={"linf": 1, "l2": 2, "l1": torch.inf}[norm], dim=2)
    eps = 0.95 * float((gap / size).masked_fill(gap == 0, torch.inf).amin())
    rows, left = attacked(net, samples(x.numpy(), y.numpy(), Domain.unbounded(), 10), norm, eps, tmp_path)
    assert left.all()
    cost = (rows.forwards + 2 * rows.backwards).groupby(rows["sample"]).sum()
    assert (rows.evaluator == LONG).any()
    assert not rows.evaluator.isin(IN_FULL).any()
    assert cost.max() <= (7864 + 2 * 1910) / 5


def masked(inner):
    """Inputs rounded to tenths, as executed: no gradient anywhere."""
    return dataclasses.replace(inner, function=lambda x: inner.function(x.detach().round(decimals=1)) + 0 * x.sum())


@pytest.mark.parametrize("norm", NORMS)
def test_misleading_gradients_get_the_full_stages(norm, tmp_path):
    """A step that no gradient announces, in the corner of one pixel: only a search by scores finds it."""
    net = masked(linear(torch.tensor([[2.0] * 16, [0.0] * 16]), torch.tensor([-13.0, 0.0]), (1, 4, 4), torch.float32))
    data = samples(np.full((6, 1, 4, 4), 0.5, np.float32), [0] * 6, classes=2)
    rows, left = attacked(net, data, norm, {"linf": 0.02, "l2": 0.05, "l1": 0.06}[norm], tmp_path)
    assert left.all()
    assert all(set(rows[rows.evaluator == spec]["sample"]) == set(range(6)) for spec in IN_FULL)


def test_small_conforms():
    only = ["shape", "domain", "budget", "order", "empty", "inputs"]
    findings = check_plugin("attacks", Small(), only=only)
    assert [str(finding) for finding in findings if not finding.ok] == []


def test_two_classes_flat_inputs_and_logits_that_are_not_finite(tmp_path):
    def logits(x):
        return torch.where((x[:, :1] - 0.5).abs() > 0.05, torch.nan, torch.stack([x[:, 0], x[:, 0] - 1], 1))

    data = samples(np.full((3, 3), 0.5, np.float32), [0] * 3, classes=2)
    rows, left = attacked(Function(logits, (3,), 2), data, "linf", 0.2, tmp_path, Small())
    assert left.all()
    assert "falsified" not in set(rows.status)


def test_classifiers_without_gradients_are_refused():
    assert "gradients" in Portfolio().applies(Function(lambda x: x.detach().flatten(1), (3,), 3), "linf")
    assert Portfolio().applies(mlp((3, 4, 2)), "l1") is None
