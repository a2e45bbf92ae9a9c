"""End to end: no masked classifier ends with a high number and a clean grade, and no honest one with a flag."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from attacks.masked import MASKS, masked

import robench
from robench.errors import InputError
from robench_plugins.datasets.digits import Digits
from robench_plugins.zoo.digits import BUNDLED, Standard

CPU = torch.device("cpu")
CASCADE = ("probe", "pgd:steps=15,targets=2", "square:queries=200")
COUNT, TOLERANCE = 50, 0.05
RANDOM = {"noise at inference", "little noise at inference"}
BY_NAME = {mask.name: mask for mask in MASKS}


@cache
def base():
    return Standard().load(CPU, torch.float32)


def evaluated(classifier, folder, attacks=CASCADE, norm="linf", eps="0.12", count=COUNT):
    """(empirical accuracy, grade, reasons)"""
    test = Digits().load("test")
    data = test.batch(0, count).astype(np.float32), test.y[:count]
    done = robench.evaluate(
        classifier, data, norm=norm, eps=eps, attacks=attacks, certifiers=(), batch_size=COUNT, out=folder
    )
    (result,) = done.summary["results"]
    return result["empirical_accuracy"], result["health"]["grade"], result["health"]["reasons"]


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """The base's own accuracy, from more steps than the masked ones get: masks change no decision, or few."""
    folder = tmp_path_factory.mktemp("truth")
    found = {}

    def of(norm="linf", eps="0.12", count=COUNT):
        key = norm, eps, count
        if key not in found:
            accuracy, grade, _ = evaluated(base(), folder, ("probe", "pgd:steps=30,targets=4"), *key)
            assert grade == "clean"
            found[key] = accuracy
        return found[key]

    return of


def test_there_is_something_to_hide(truth):
    assert truth() < 0.6


@pytest.mark.parametrize("mask", [mask for mask in MASKS if mask.name not in RANDOM], ids=lambda mask: mask.name)
def test_masked_classifiers_are_evaluated_to_the_truth_or_flagged(mask, truth, tmp_path):
    accuracy, grade, reasons = evaluated(masked(base(), mask), tmp_path)
    if mask.harmless:
        assert (grade, reasons) == ("clean", [])
        assert accuracy <= truth() + TOLERANCE
    else:
        assert grade == "flagged" or accuracy <= truth() + TOLERANCE
        assert bool(reasons) == (grade == "flagged")


@pytest.mark.parametrize(("norm", "eps"), [("l2", "0.6"), ("l1", "1.5")])
@pytest.mark.parametrize(
    "name",
    ["rounded to 8 levels", "logits × 10⁴", "saturated outputs", "ripple .003, slope 30", "half of the gradient cut",
     "pit of period 1/16", "gradient reversed", "gradient of a decoy"],
)  # fmt: skip
def test_in_other_norms(name, norm, eps, truth, tmp_path):
    accuracy, grade, _ = evaluated(masked(base(), BY_NAME[name]), tmp_path, norm=norm, eps=eps)
    assert grade == "flagged" or accuracy <= truth(norm, eps) + TOLERANCE
    assert grade == "clean" or not BY_NAME[name].harmless


@pytest.mark.parametrize(
    "name", ["rounded to 8 levels", "half of the gradient cut", "saturated outputs", "logits × 10⁴"]
)
def test_what_runs_by_default_calls_no_high_number_clean(name, truth, tmp_path):
    """Two that only its stages without gradients break, one whose number stays high, one that harms nothing."""
    accuracy, grade, _ = evaluated(masked(base(), BY_NAME[name]), tmp_path, None, count=25)
    assert grade != "clean" or accuracy <= truth(count=25) + TOLERANCE
    assert grade != "flagged" or not BY_NAME[name].harmless


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_classifiers_that_draw_without_saying_so_are_refused(name, tmp_path):
    with torch.random.fork_rng(), pytest.raises(InputError, match="different logits for the same input"):
        evaluated(masked(base(), BY_NAME[name]), tmp_path)


@pytest.mark.parametrize("bundled", BUNDLED, ids=lambda bundled: bundled.name)
def test_bundled_classifiers_are_clean(bundled, tmp_path):
    for norm, eps in (("linf", "0.1"), ("l2", "0.5"), ("l1", "1.5")):
        attacks = ("probe", "pgd:steps=10,targets=1", "square:queries=100")
        _, grade, reasons = evaluated(bundled().load(CPU, torch.float32), tmp_path, attacks, norm, eps)
        assert (grade, reasons) == ("clean", [])
