"""Attacks of other libraries: their strength on classifiers with known radii, and that they leave nothing behind."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

import robench
from oracles.classifiers import mlp
from oracles.linear_box import exact_radius
from oracles.peers import WIDE, boxed, library, propose, stand_in
from robench.classifier import Counted
from robench.errors import InputError
from robench.runner._judge import Judge
from robench.streams import Stream
from robench.testing import check_plugin
from robench.threat import Domain, Threat
from robench_plugins.peers.advlib import AdvLib
from robench_plugins.peers.foolbox import Foolbox
from robench_plugins.peers.torchattacks import Torchattacks

pytestmark = [
    pytest.mark.peers,
    # What the libraries themselves warn of on new versions of torch and Python.
    pytest.mark.filterwarnings("ignore"),
]

FIXED = [
    (Foolbox("LinfPGD", options=("steps=200",)), "linf"),
    (Foolbox("L2PGD", options=("steps=200",)), "l2"),
    (Torchattacks("APGD"), "linf"),
    (Torchattacks("APGD"), "l2"),
    (Torchattacks("PGD", options=("steps=100", "alpha=0.02")), "linf"),
    (AdvLib("apgd"), "linf"),
    (AdvLib("apgd"), "l2"),
    (AdvLib("apgd_targeted"), "linf"),
    (AdvLib("pgd_linf", options=("loss_function=dl",)), "linf"),
]
NEAREST = [
    (Foolbox("L2DeepFoolAttack", options=("steps=20",)), "l2", 1.05),
    (Foolbox("LInfFMNAttack", options=("steps=200",)), "linf", 1.1),
    (Foolbox("HopSkipJumpAttack", options=("steps=10", "max_gradient_eval_steps=200")), "l2", 1.6),
    (Torchattacks("DeepFool"), "l2", 1.1),
    (AdvLib("fmn", options=("steps=200",)), "linf", 1.1),
    (AdvLib("fmn", options=("steps=200",)), "l2", 1.05),
    (AdvLib("ddn", options=("levels=none",)), "l2", 1.05),
    (AdvLib("alma", options=("num_steps=300",)), "l2", 1.1),
    (AdvLib("pdpgd"), "l1", 1.3),
]


@pytest.fixture(autouse=True)
def installed(request):
    stand_in("torchvision", "visdom")
    for value in (getattr(request.node, "callspec", None) and request.node.callspec.params.values()) or ():
        if hasattr(value, "library"):
            library(type(value))


def named(value):
    return f"{type(value).__name__}-{value.attack}" if hasattr(value, "attack") else None


def exact(norm):
    classifier, x, y = boxed()
    weight = classifier.logits(torch.cat([torch.zeros(1, 12), torch.eye(12)])).double().numpy()
    weight, bias = (weight[1:] - weight[:1]).T, weight[0]
    return np.array(
        [exact_radius(weight, bias, p, int(c), norm, -1.0, 3.0)[0] for p, c in zip(x.double().numpy(), y, strict=True)]
    )


@pytest.mark.parametrize(("attack", "norm"), FIXED, ids=named)
def test_the_budget_is_in_the_units_of_the_domain(attack, norm):
    """On a linear classifier over −1 … 3: broken not far above the exact radius, and never beyond the budget."""
    classifier, x, y = boxed()
    radii = exact(norm)
    eps = float(np.median(radii))
    assert attack.per_eps
    assert attack.applies(classifier, norm) is None
    proposal = propose(attack, classifier, x, y, norm, eps)
    verdict = Judge(Counted(classifier)).judge(x, y, proposal.points, Threat(norm, eps, WIDE))
    assert verdict.broken[torch.from_numpy(radii < 0.8 * eps)].float().mean() >= 0.8  # some get stuck, also here
    assert not verdict.broken[torch.from_numpy(radii > eps)].any()
    apart = (proposal.points - x).flatten(1).norm(p={"linf": torch.inf, "l2": 2}[norm], dim=1)
    assert 0.95 * eps <= apart.max() <= eps * 1.001  # the library searched at this ε, before any projection of ours


@pytest.mark.parametrize(("attack", "norm", "ratio"), NEAREST, ids=named)
def test_minimum_norm_attacks_come_near_the_exact_radius(attack, norm, ratio):
    classifier, x, y = boxed(shape=(1, 3, 4))
    assert not attack.per_eps
    assert attack.applies(classifier, norm) is None
    proposal = propose(attack, classifier, x, y, norm, None)
    verdict = Judge(Counted(classifier)).judge(x, y, proposal.points, Threat(norm, None, WIDE))
    assert verdict.broken.float().mean() >= 0.9
    reached = (verdict.distances[norm].numpy() / exact(norm))[verdict.broken.numpy()]
    assert reached.min() >= 1 - 1e-5
    assert np.median(reached) <= ratio


ALL = [Foolbox("LinfPGD"), Torchattacks("PGD"), AdvLib("apgd")]


@pytest.mark.parametrize("attack", ALL, ids=named)
def test_nothing_is_left_behind(attack):
    classifier = mlp([12, 8, 3])
    x = torch.rand(6, 12, generator=torch.Generator().manual_seed(0))
    y = classifier.logits(x).argmax(1)
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    counted = Counted(classifier)
    proposal = propose(attack, counted, x, y, "linf", 0.1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    assert (proposal.passes.forwards.sum(), proposal.passes.backwards.sum()) == counted.take()
    weights = [cell.cell_contents for cell in classifier.function.__closure__ if isinstance(cell.cell_contents, list)]
    assert weights
    assert all(part.grad is None for layers in weights for layer in layers for part in layer)


@pytest.mark.parametrize("attack", [Foolbox("LinfPGD", alone=True), Torchattacks("PGD", alone=True)], ids=named)
def test_alone_a_sample_does_not_depend_on_its_batch(attack):
    classifier, x, y = boxed()
    whole = propose(attack, classifier, x, y, "linf", 0.1).points
    order = torch.arange(len(x)).flip(0)[:5]
    part = propose(attack, classifier, x[order], y[order], "linf", 0.1, order.tolist()).points
    torch.testing.assert_close(part, whole[order])


def test_points_that_are_not_finite_become_the_clean_input(monkeypatch):
    library(Foolbox)
    classifier, x, y = boxed()
    monkeypatch.setattr(Foolbox, "search", lambda *_: torch.full_like(x, torch.nan))
    assert torch.equal(propose(Foolbox("LinfPGD"), classifier, x, y, "linf", 0.1).points, x)


@pytest.mark.parametrize(
    ("attack", "norm", "words"),
    [
        (Foolbox("L2PGD"), "linf", "searches in L2"),
        (Torchattacks("CW"), "linf", "searches in l2"),
        (Torchattacks("OnePixel"), "linf", "within a ball"),
        (AdvLib("sdf"), "l1", "searches in l2"),
    ],
    ids=named,
)
def test_another_norm_is_refused(attack, norm, words):
    assert words in attack.applies(boxed()[0], norm)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (Foolbox("LinfPDG"), "did you mean 'LinfPGD'"),
        (Torchattacks("PGF"), "no attack 'PGF'"),
        (AdvLib("fnm"), "did you mean 'fmn'"),
        (Foolbox("LinfPGD", options=("stepz=1",)), "no option 'stepz'"),
        (Torchattacks("PGD", options=("eps=1",)), "no option 'eps'"),
        (AdvLib("fmn", options=("stepz=1",)), "no option 'stepz'"),
        (AdvLib("fmn", options=("steps",)), "write key=value"),
        (AdvLib("fmn", options=("steps=1", "steps=2")), "given twice"),
    ],
    ids=lambda value: named(value) or "",
)
def test_wrong_names_and_options_are_one_clear_line(attack, words):
    with pytest.raises(InputError, match=words):
        attack.applies(boxed()[0], "linf")


def test_a_domain_without_sides_gets_some_where_they_do_not_matter():
    library(Foolbox)
    classifier, x, y = boxed()
    stream = Stream.for_samples(0, "test", range(len(x)))
    free = Threat("linf", 5.0, Domain(-np.inf, np.inf))
    points = Foolbox("LinfPGD").perturb(classifier, x, y, free, stream).points
    assert (points.amax() > 5) & (points.amin() < -3)
    assert (classifier.logits(points).argmax(1) != y).all()


@pytest.mark.parametrize(
    "spec",
    [
        "foolbox:LinfPGD,alone=true,options=steps=5",
        "torchattacks:APGD,alone=true,options=steps=5",
        "advlib:ddn,alone=true,options=steps=20",
    ],
)
def test_conforms(spec):
    library({"foolbox": Foolbox, "torchattacks": Torchattacks, "advlib": AdvLib}[spec.partition(":")[0]])
    failed = [finding for finding in check_plugin("attacks", spec) if not finding.ok]
    # How strong the library's attack is, is the library's: the kit asks more than some of them give.
    assert [str(finding) for finding in failed if finding.check != "closeness"] == []


def test_the_version_is_recorded(tmp_path):
    library(Foolbox)
    robench.evaluate(
        "digits-standard", "digits", attacks=["foolbox:LinfPGD,options=steps=3"], certifiers=[], norm="linf",
        eps=["0.1"], samples="0:4", out=tmp_path,
    )  # fmt: skip
    (file,) = tmp_path.rglob("manifest.json")
    assert json.loads(file.read_text())["environment"]["versions"]["foolbox"] == Foolbox.library.version
