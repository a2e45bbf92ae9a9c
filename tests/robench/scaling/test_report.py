"""How many samples a target takes, in the terminal."""

import math

import pytest

from robench.report_scaling import _samples


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (1, "1"),
        (289.4, "289"),
        (999.9, "1,000"),
        (2831.4, "2,830"),
        (102_400, "102,000"),
        (1e12, "1e+12"),
        (math.inf, "∞"),
    ],
)
def test_three_digits_and_no_exponent_where_people_count(n: float, text: str) -> None:
    assert _samples(n) == text
