"""transfer: another classifier is attacked, this one is asked nothing, and the runner decides."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import robench
from oracles.classifiers import Function, linear, mlp
from robench.classifier import Counted
from robench.contracts import Attack, Proposal
from robench.errors import InputError, SpecError
from robench.graph import from_torch, save
from robench.registry import load_plugins
from robench.streams import Stream
from robench.threat import Domain, Threat
from robench_plugins.attacks.fmn import FMN
from robench_plugins.attacks.pgd import PGD
from robench_plugins.attacks.square import Square
from robench_plugins.attacks.transfer import MOMENTUM, Transfer


@dataclasses.dataclass(frozen=True)
class Source:
    """A model that is a given classifier; counts how often it is loaded."""

    classifier: Function
    loads: list = dataclasses.field(default_factory=list, compare=False)

    def load(self, device, dtype):
        self.loads.append((device, dtype))
        return self.classifier


@pytest.fixture
def pair():
    """A source and a target that is nearly the same function, and samples that both classify correctly."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 12, generator=generator)
    source = linear(weight, -weight.sum(1) / 2, dtype=torch.float32)
    near = weight + 0.2 * torch.randn(4, 12, generator=generator)
    target = dataclasses.replace(linear(near, -near.sum(1) / 2, dtype=torch.float32), fingerprint="1" * 64)
    x = torch.rand(60, 12, generator=generator)
    y = source.logits(x).argmax(1)
    keep = target.logits(x).argmax(1) == y
    return source, target, x[keep], y[keep]


def proposed(attack, classifier, x, y, eps=0.2, norm="linf"):
    return attack.perturb(classifier, x, y, Threat(norm, eps, Domain()), Stream.for_samples(0, "t", range(len(x))))


def wrong(classifier, points, y):
    return classifier.logits(points).argmax(1) != y


def test_points_that_fool_the_source_fool_a_target_that_is_like_it(pair):
    source, target, x, y = pair
    points = proposed(Transfer(source=Source(source)), target, x, y).points
    own = proposed(PGD(), target, x, y).points
    assert wrong(target, points, y).double().mean() > 0.8 * wrong(target, own, y).double().mean() > 0.4
    # An attack that ends as soon as its own classifier is fooled goes less far.
    stopping = proposed(Transfer(source=Source(source), attack=PGD(targets=0)), target, x, y).points
    assert wrong(target, stopping, y).sum() < wrong(target, points, y).sum()


def test_the_points_are_those_of_the_attack_on_the_source(pair):
    source, target, x, y = pair
    for attack, eps in ((None, 0.2), (PGD(steps=3), 0.1), (FMN(steps=5), None)):
        transfer = Transfer(source=Source(source), attack=attack)
        assert transfer.per_eps == (eps is not None)
        assert torch.equal(
            proposed(transfer, target, x, y, eps).points, proposed(attack or MOMENTUM, source, x, y, eps).points
        )


def test_the_default_is_mi_fgsm():
    """Dong et al. 2018: 10 iterations, decay 1, steps of ε/10, from the sample itself."""
    assert (MOMENTUM.steps, MOMENTUM.momentum, MOMENTUM.step, MOMENTUM.schedule) == (10, 1.0, 0.1, "fixed")
    assert not MOMENTUM.random_start
    assert not MOMENTUM.early_exit


class Silent(Attack):
    """Asks the source about every other sample once, and keeps no account."""

    def perturb(self, classifier, x, y, threat, stream):
        classifier.logits(x[::2])
        return Proposal(x)


@pytest.mark.parametrize("attack", [None, PGD(steps=4), Silent()])
def test_the_sources_passes_stand_in_the_detail_and_are_not_the_targets(attack, pair):
    source, target, x, y = pair
    asked = []

    def counting(rows):
        asked.append(len(rows))
        return source.function(rows)

    counted = Counted(target)
    made = proposed(
        Transfer(source=Source(dataclasses.replace(source, function=counting)), attack=attack), counted, x, y
    )
    assert counted.take() == (0, 0)
    assert made.passes.forwards.tolist() == made.passes.backwards.tolist() == [0] * len(x)
    assert sum(one["source_forwards"] for one in made.detail) == sum(asked)


def test_the_source_is_loaded_once_for_a_device_and_a_precision(pair):
    source, target, x, y = pair
    model = Source(source)
    transfer = Transfer(source=model)
    for _ in range(3):
        assert transfer.applies(target, "l2") is None
        proposed(transfer, target, x, y)
    assert model.loads == [(torch.device("cpu"), torch.float32)]
    assert transfer == Transfer(source=model)
    assert hash(transfer) == hash(Transfer(source=model))


def test_what_does_not_fit_is_said(pair):
    source, target, *_ = pair

    def why(model, norm="linf", **settings):
        return Transfer(source=Source(model), **settings).applies(target, norm)

    assert "takes inputs [5], the target [12]" in why(mlp((5, 4, 4)))
    assert "has 3 classes, the target 4" in why(mlp((12, 4, 3)))
    assert "the target itself" in why(target)
    blind = dataclasses.replace(source, function=lambda rows: source.function(rows).detach())
    assert why(blind).startswith("on the source: the classifier gives no gradients")
    assert why(blind, attack=Square()) is None
    assert why(source, "linf", attack=load_plugins().resolve("attacks", "ddn").value).startswith("on the source: ddn")
    assert "in stages" in why(source, attack=load_plugins().resolve("attacks", "autoattack").value)


def test_the_spec_names_the_source_by_content(tmp_path):
    torch.manual_seed(0)
    save(from_torch(torch.nn.Linear(6, 3).eval(), (6,)), tmp_path / "net", {})
    resolved = load_plugins().resolve("attacks", f"transfer:source=(checkpoint:{tmp_path}/net),attack=(pgd:steps=7)")
    assert resolved.value.attack == PGD(steps=7)
    assert resolved.canonical.startswith("transfer:attack=(pgd:steps=7),source=(checkpoint:net@sha256:")
    assert str(tmp_path) not in resolved.canonical + resolved.full
    with pytest.raises(SpecError, match="'source' must be given"):
        load_plugins().resolve("attacks", "transfer")


@pytest.mark.parametrize("outputs", ["logits", "labels"])
def test_a_run_against_a_classifier_without_gradients(outputs, pair, tmp_path):
    source, target, x, y = pair
    weight = target.function

    def answers(rows):
        logits = weight(torch.from_numpy(rows)).numpy()
        return logits if outputs == "logits" else logits.argmax(1)

    classifier = robench.from_function(answers, (12,), 4, outputs=outputs, identity="the target")
    attack = Transfer(source=Source(source))
    done = robench.evaluate(classifier, (x.numpy(), y.numpy()), eps="0.2", attacks=[attack], out=tmp_path)
    (result,) = done.summary["results"]
    assert result["empirical_accuracy"] < 0.6
    (info,) = done.run.manifest.evaluators
    assert info.access == "transfer"
    with pytest.raises(InputError, match="has 3 classes, the target 4"):
        robench.evaluate(
            classifier, (x.numpy(), y.numpy()), eps="0.2", attacks=[Transfer(source=Source(mlp((12, 4, 3))))]
        )
