"""The checks that robench's own plugins pass, on the plugins as installed."""

import pytest

from robench.registry import load_plugins
from robench.testing import (
    check_attack,
    check_attack_modifier,
    check_bound,
    check_certifier,
    check_dataset,
    check_importer,
    check_model,
    check_noise,
    check_recipe,
    check_transform,
    check_wrapper,
)

SPECS = {
    "datasets": "halves:n=20,d=3,gap=0.1",
    "transforms": "every:k=3,offset=1",
    "models": "halves:d=3",
    "wrappers": "scaled:factor=0.5",
    "noises": "laplace:0.5",
    "attacks": "descent:steps=5,starts=3",
    "attack_modifiers": "again:times=3",
    "certifiers": "hyperplane",
    "bounds": "twins",
    "recipes": "logistic:epochs=20,rate=0.5",
    "importers": "csv-radii:norm=linf",
}


@pytest.mark.parametrize(("kind", "spec"), SPECS.items())
def test_specs_round_trip(kind, spec):
    resolved = load_plugins().resolve(kind, spec)
    assert resolved.parts[0].distribution == "robench-example"
    assert load_plugins().resolve(kind, resolved.canonical).value == resolved.value
    assert load_plugins().resolve(kind, resolved.full).value == resolved.value


def test_the_dataset_conforms():
    check_dataset("halves")


def test_the_transform_conforms():
    check_transform("every")


def test_the_model_conforms():
    check_model("halves")


def test_the_wrapper_conforms():
    check_wrapper("scaled")


def test_the_noise_conforms():
    check_noise("laplace")


def test_the_attack_conforms():
    check_attack("descent")


def test_the_attack_modifier_conforms():
    check_attack_modifier("again")


def test_the_certifier_conforms():
    check_certifier("hyperplane")


def test_the_bound_conforms():
    check_bound("twins")


def test_the_recipe_conforms():
    check_recipe("logistic")


def test_the_importer_conforms(tmp_path):
    file = tmp_path / "radii.csv"
    file.write_text("index,label,prediction,radius\n0,3,3,0.25\n1,1,2,0\n5,7,7,0.125\n")
    check_importer("csv-radii", file)
