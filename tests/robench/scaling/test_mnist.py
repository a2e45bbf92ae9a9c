"""MNIST beside figures that another program measured: an AOL-MLP 784-128-128-10, 600 steps of 100 at every size.

Those are of one seed, on all test images: CRA(36/255) .674, .762, .837 at 100, 200, 400 training samples, .929 at
12,800.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from robench.scaling import evaluations, make_plan, record, train_members
from robench.suite import run_suite

pytestmark = pytest.mark.data


def test_certified_accuracy_grows_as_it_was_measured_elsewhere(tmp_path: Path) -> None:
    recipe = "aol:width=128,depth=3,epochs=5,batch=100,offset=0.2"
    plan = make_plan(recipe, "mnist", "100+200+400+12800", range(2), "steps", tmp_path / "models")
    members, failures = train_members(plan)
    assert not failures
    asked = {"threats": [{"norm": "l2", "eps": ["36/255"]}], "attacks": "none", "certifiers": "lipschitz"}
    outcome = run_suite(evaluations(members, "mnist", asked), tmp_path / "results")
    assert not outcome.failures
    found = record(plan, members, outcome, tmp_path / "results", datetime.now(UTC), asked)
    (certified,) = [curve for curve in found.curves if curve.quantity == "certified"]
    assert certified.samples == 10000
    means = certified.values.mean(1)
    assert (means[2] - means[0]) / 2 == pytest.approx((0.837 - 0.674) / 2, abs=0.02)
    assert means[3] == pytest.approx(0.929, abs=0.02)
