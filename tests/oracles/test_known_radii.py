"""The stored radii against the enumeration that made them."""

from __future__ import annotations

import numpy as np
import pytest

from oracles.enumeration import TOLERANCE
from oracles.known_radii import COUNT, LINEAR, RELU, derive, known
from robench.threat import NORMS


@pytest.mark.parametrize("name", RELU)
def test_stored_radii_are_derived_again(name):
    case = known(name)
    for norm, samples in (("l2", range(0, COUNT, 4)), ("linf", [3]), ("l1", [5])):
        for sample in samples:
            assert derive(name, norm, sample) == pytest.approx(case.radii[norm][sample], abs=TOLERANCE)


@pytest.mark.parametrize("name", [*RELU, *LINEAR])
def test_radii_are_in_order_and_mostly_finite(name):
    case = known(name)
    assert len(case.x) == len(case.y) == COUNT
    assert {len(case.radii[norm]) for norm in NORMS} == {COUNT}
    finite = np.isfinite(case.radii["l2"])
    assert finite.mean() >= 0.9
    linf, l2, l1 = (case.radii[norm][finite] for norm in NORMS)
    assert (linf <= l2 + TOLERANCE).all()
    assert (l2 <= l1 + TOLERANCE).all()
    assert len(np.unique(case.y)) >= 2
