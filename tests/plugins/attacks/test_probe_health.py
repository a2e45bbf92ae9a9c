"""Each indicator is raised by the mask made for it, and none by an honest classifier."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from attacks.masked import MASKS, masked, winners_take_all

from robench.classifier import margins
from robench.contracts import TrainContext
from robench.graph import GraphClassifier, from_torch
from robench.health import CATALOGUE
from robench.streams import Stream
from robench.threat import Domain, Epsilon, Threat
from robench_plugins.attacks.probe import Probe
from robench_plugins.datasets.classes import Classes
from robench_plugins.datasets.digits import Digits
from robench_plugins.training.pgd_at import PgdAt
from robench_plugins.training.standard import Standard
from robench_plugins.zoo.digits import BUNDLED, Aol, PgdLinf

CPU = torch.device("cpu")
EPS = {"linf": 0.1, "l2": 0.5, "l1": 1.5}
PROBED = [one for one in CATALOGUE.values() if one.origin == "probe"]


def arrays(data, count):
    count = min(count, len(data))
    return torch.from_numpy(data.batch(0, count).astype(np.float32)), torch.from_numpy(data.y[:count].copy())


@cache
def digits(count=80):
    return arrays(Digits().load("test"), count)


@cache
def base():
    return PgdLinf().load(CPU, torch.float32)


def shares(classifier, norm="linf", eps=None, data=None):
    """The share of the samples classified correctly beyond the threshold of each indicator that is raised."""
    x, y = data or digits()
    with torch.no_grad():
        right = margins(classifier.logits(x), y) > 0
    threat = Threat(norm, eps or EPS[norm], Domain())
    stream = Stream.for_samples(0, "probe", range(int(right.sum())))
    proposal = Probe().perturb(classifier, x[right], y[right], threat, stream)
    found = {}
    for one in PROBED:
        bad = sum(one.beyond(detail["health"].get(one.code, torch.nan)) for detail in proposal.detail)
        if bad >= one.count and bad / len(proposal.detail) > one.share:
            found[one.code] = bad / len(proposal.detail)
    return found


def decided(found):
    return {code for code in found if CATALOGUE[code].decides}


RAISES = {
    "rounded to 16 levels": {"zero-gradient-margin"},
    "rounded to 8 levels": {"zero-gradient-margin"},
    "dithered to 8 levels": {"zero-gradient-margin"},
    "looked up in a table": {"zero-gradient-margin"},
    "rounded cosine coefficients": {"zero-gradient-margin"},
    "logits × 10⁴": {"logit-scale", "zero-gradient-ce"},
    "logits × 100": {"logit-scale", "zero-gradient-ce"},
    "logits × 10⁻⁴": set(),
    "log-probabilities": set(),
    "probabilities": {"softmax-outputs"},
    "probabilities, temperature 1/10": {"softmax-outputs", "vanishing-gradient"},
    "logits rounded to 1": {"zero-gradient-margin"},
    "logits rounded to 100": {"zero-gradient-margin"},
    "one-hot": {"zero-gradient-margin"},
    "saturated outputs": {"vanishing-gradient", "zero-gradient-margin"},
    "steep sigmoids on pixels, slope 30": {"gradient-alignment", "gradient-turns"},
    "steep sigmoids on pixels, slope 300": {"loss-not-rising", "gradient-differs"},
    "ripple .01, slope 6": {"gradient-differs", "single-step-stronger"},
    "ripple .003, slope 30": {"loss-not-rising", "noise-stronger"},
    "saw-tooth, slope −9": {"loss-not-rising", "noise-stronger"},
    "half of the gradient cut": {"gradient-differs"},
    "nine tenths of the gradient cut": {"gradient-differs", "unbounded-not-zero"},
    "pit of period 1/16": {"loss-not-rising", "gradient-differs"},
    "pit of period 1/16, shallow": {"loss-not-rising"},
    "pit of period 1/4": {"loss-not-rising"},
    "gradient reversed": {"loss-not-rising", "noise-stronger", "unbounded-not-zero"},
    "gradient permuted": {"loss-not-rising", "gradient-differs"},
    "gradient drowned in noise": {"loss-not-rising"},
    "gradient of a decoy": {"loss-not-rising", "gradient-differs"},
    "square root at 0": {"non-finite-gradient"},
    "confidence of its own": {"margin-jumps"},
    "noise off the grid": {"randomness"},
    "noise at inference": {"randomness"},
    "little noise at inference": {"randomness"},
}


@pytest.mark.parametrize("mask", MASKS, ids=[mask.name for mask in MASKS])
def test_a_mask_raises_what_it_was_made_for(mask):
    with torch.random.fork_rng():
        found = shares(masked(base(), mask))
    assert set(found) >= RAISES[mask.name]
    assert bool(decided(found)) != mask.harmless


def test_every_indicator_of_the_probe_is_raised_by_some_mask():
    assert {one.code for one in PROBED} == set().union(*RAISES.values())


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize(
    "name", ["rounded to 8 levels", "saturated outputs", "ripple .003, slope 30", "half of the gradient cut",
             "gradient reversed", "gradient permuted", "gradient of a decoy", "square root at 0"],
)  # fmt: skip
def test_masks_are_noticed_in_other_norms(name, norm):
    (mask,) = (mask for mask in MASKS if mask.name == name)
    assert decided(shares(masked(base(), mask), norm))


def test_a_way_that_turns_is_noticed():
    """A wide pit around smooth logits: gradients are right everywhere, and lead nowhere in a few steps."""
    (mask,) = (mask for mask in MASKS if mask.name == "pit of period 1/4")
    found = decided(shares(masked(Aol().load(CPU, torch.float32), mask), "l2", 1.0))
    assert found == {"gradient-turns", "margin-jumps"}


def test_winners_take_all_is_noticed():
    """Activations that jump: the gradient is right at the sample and foretells nothing beside it."""
    net = winners_take_all(*arrays(Digits().load("train"), 600), epochs=6)
    assert "gradient-differs" in shares(net)


@pytest.mark.parametrize("norm", list(EPS))
@pytest.mark.parametrize("factor", [0.5, 1, 2])
@pytest.mark.parametrize("bundled", BUNDLED, ids=[one.name for one in BUNDLED])
def test_bundled_classifiers_raise_nothing(bundled, norm, factor):
    assert shares(bundled().load(CPU, torch.float32), norm, factor * EPS[norm]) == {}


@pytest.mark.parametrize(
    ("keep", "recipe"),
    [
        (("3", "8"), Standard(width=4, epochs=15)),
        (("1", "7", "9"), PgdAt(width=4, epochs=8, eps=Epsilon.parse("0.1"))),
        (("4", "5", "6"), PgdAt(arch="mlp", width=4, epochs=10, norm="l2", eps=Epsilon.parse("0.5"))),
    ],
)
def test_two_and_three_classes_raise_nothing(keep, recipe):
    data = Classes(keep).apply(Digits())
    module = recipe.train(data.load("train"), TrainContext(0, CPU)).module
    x, y = arrays(data.load("test"), 80)
    classifier = GraphClassifier(from_torch(module.eval(), (1, 8, 8)), CPU)
    for norm, eps in EPS.items():
        assert shares(classifier, norm, eps, (x, y)) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiny_budgets_raise_nothing(dtype):
    x, y = digits()
    for eps in (1e-3, 1e-5, 1e-7):
        assert shares(PgdLinf().load(CPU, dtype), "linf", eps, (x.to(dtype), y)) == {}
