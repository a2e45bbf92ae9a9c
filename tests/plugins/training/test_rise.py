"""How the radius of interval training rises: the published schedule, written out from its conditions."""

import pytest

from robench_plugins.training._schedules import risen
from robench_plugins.training.crown_ibp import CrownIbp
from robench_plugins.training.ibp import Ibp


def published(step, steps, middle=0.25, degree=4):
    """A power up to the middle, then a line, with α from equal slopes there and the value 1 at the end."""
    bend = int(steps * middle)
    alpha = 1 / ((steps - bend) * degree * bend ** (degree - 1) + bend * bend ** (degree - 1))
    if step < bend:
        return alpha * step**degree
    at = alpha * bend**degree
    return at + (1 - at) * (step - bend) / (steps - bend)


def test_the_smoothed_rise_is_the_published_one():
    for step in range(401):
        assert risen("smoothed", step / 400) == pytest.approx(published(step, 400), abs=1e-12)


def test_value_and_slope_are_continuous_and_the_end_is_1():
    assert (risen("smoothed", 0.0), risen("smoothed", 1.0)) == (0.0, pytest.approx(1.0, abs=1e-15))
    h = 1e-6
    left, bend, right = (risen("smoothed", 0.25 + side) for side in (-h, 0.0, h))
    assert bend == pytest.approx(1 / 13, abs=1e-12)  # m⁴ / (m⁴ + 4 m³ (1 − m)) at m = 1/4
    assert (bend - left) / h == pytest.approx((right - bend) / h, rel=1e-4)
    assert (right - bend) / h == pytest.approx(16 / 13, rel=1e-6)
    values = [risen("smoothed", part / 1000) for part in range(1001)]
    assert values == sorted(values)
    assert max(values) <= 1


def test_linear_is_the_part_itself_and_both_stay_within_0_and_1():
    assert risen("linear", 0.3) == 0.3
    for kind in ("linear", "smoothed"):
        assert (risen(kind, -0.5), risen(kind, 1.5)) == (0, pytest.approx(1))


@pytest.mark.parametrize("recipe", [Ibp, CrownIbp])
def test_recipes_take_it_over_their_ramp(recipe):
    made = recipe(wait=0.1, ramp=0.4, rise="smoothed")
    for part in (0.0, 0.1, 0.15, 0.2, 0.3, 0.5, 0.9):
        assert made.risen(part) == pytest.approx(risen("smoothed", (part - 0.1) / 0.4))
    assert made.risen(0.9) == 1
    assert recipe(wait=0.0, ramp=0.0, rise="smoothed").risen(0.0) == 1


@pytest.mark.parametrize("settings", [{"arch": "simple-convnet"}, {"temperature": 8.0}])
def test_networks_without_interval_rules_are_refused(settings):
    with pytest.raises(ValueError, match="interval bounds are for arch=cnn and arch=mlp"):
        Ibp(**settings)
