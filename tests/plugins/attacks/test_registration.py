"""The attacks as specs: names, defaults, canonical forms."""

from __future__ import annotations

import pytest

from robench.errors import SpecError
from robench.registry import load_plugins
from robench_plugins.attacks.fgsm import FGSM
from robench_plugins.attacks.pgd import PGD


def test_the_default_attack_is_the_first_of_these_that_applies():
    """A schedule; an attack on votes; one for others that draw; one that needs logits alone; one for decisions."""
    (group,) = [group for group in load_plugins().defaults("attacks") if group[0].distribution == "robench"]
    assert [entry.name for entry in group] == ["portfolio", "smoothadv", "apgd", "square", "hopskipjump"]


@pytest.mark.parametrize(
    ("text", "value", "canonical"),
    [
        ("pgd", PGD(), "pgd"),
        ("pgd:steps=20", PGD(steps=20), "pgd:steps=20"),
        ("pgd:steps=50,targets=9", PGD(), "pgd"),
        (
            "pgd:restarts=10,targets=0,schedule=fixed,step=0.25",
            PGD(restarts=10, targets=0, schedule="fixed", step=0.25),
            "pgd:restarts=10,schedule=fixed,step=0.25,targets=0",
        ),
        ("fgsm:loss=margin", FGSM(loss="margin"), "fgsm:loss=margin"),
    ],
)
def test_specs(text, value, canonical):
    resolved = load_plugins().resolve("attacks", text)
    assert resolved.parts[0].value == value
    assert resolved.canonical == canonical


@pytest.mark.parametrize("text", ["pgd:steps=0", "pgd:loss=mse", "pgd:restarts=2,random_start=false", "pgd:step=0"])
def test_settings_without_a_meaning_are_refused(text):
    with pytest.raises(SpecError):
        load_plugins().resolve("attacks", text)
