"""The Square Attack as a spec: published defaults, canonical form, what is refused."""

from __future__ import annotations

import pytest

from robench.errors import SpecError
from robench.registry import load_plugins
from robench_plugins.attacks.square import Square


def test_the_defaults_are_autoattacks():
    """Croce & Hein 2020: 5,000 queries, one run, p = .8."""
    assert load_plugins().resolve("attacks", "square").parts[0].value == Square(queries=5000, restarts=1, p_init=0.8)


@pytest.mark.parametrize(
    ("text", "value", "canonical"),
    [
        ("square:queries=5000", Square(), "square"),
        ("square:restarts=3,queries=100", Square(queries=100, restarts=3), "square:queries=100,restarts=3"),
        ("square:p_init=0.05", Square(p_init=0.05), "square:p_init=0.05"),
    ],
)
def test_specs(text, value, canonical):
    resolved = load_plugins().resolve("attacks", text)
    assert resolved.parts[0].value == value
    assert resolved.canonical == canonical


@pytest.mark.parametrize("text", ["queries=0", "restarts=0", "p_init=0", "p_init=1.1", "loss=ce"])
def test_settings_without_a_meaning_are_refused(text):
    with pytest.raises(SpecError):
        load_plugins().resolve("attacks", f"square:{text}")
