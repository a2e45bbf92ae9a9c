"""The conformance kit: point it at a plugin and get the checks that the built-in plugins pass.

    from robench.testing import check_attack

    def test_my_attack_conforms():
        check_attack(MyAttack(steps=10))

Every `check_<kind>` raises ConformanceError (an AssertionError) that lists what failed: what is required, why, and
what was seen. `check_plugin` returns the findings instead. `skip=("closeness",)` leaves a check out. A plugin is given
as an object or as a spec. Nothing here needs pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from robench.contracts import (
    Attack,
    AttackModifier,
    Bound,
    Certifier,
    CompositeAttack,
    Dataset,
    Importer,
    Model,
    Noise,
    Recipe,
    Transform,
    Wrapper,
)
from robench.kinds import find_kind
from robench.testing._findings import Choice, ConformanceError, Finding, raise_for

__all__ = [
    "ConformanceError",
    "Finding",
    "check_attack",
    "check_attack_modifier",
    "check_bound",
    "check_certifier",
    "check_dataset",
    "check_importer",
    "check_model",
    "check_noise",
    "check_plugin",
    "check_recipe",
    "check_transform",
    "check_wrapper",
]


def check_plugin(
    kind: str,
    plugin: Any,
    *,
    skip: Iterable[str] = (),
    only: Iterable[str] | None = None,
    path: Path | None = None,
) -> list[Finding]:
    """Return every finding about `plugin`, an object or a spec, of a kind (`attack`, `certifier`, …).

    `skip` leaves checks out, `only` all others. Importers need `path`, a file or folder that they read.
    Raises SpecError for an unknown kind, ValueError for an unknown check.
    """
    from robench.testing import (
        _attacks,
        _bounds,
        _certifiers,
        _data,
        _importers,
        _models,
        _modifiers,
        _noises,
        _training,
    )

    choice, kind = Choice.of(skip, only), find_kind(kind).name
    if kind == "importers":
        return _importers.importer_findings(_value(kind, plugin), path, choice)
    by_kind: dict[str, Callable[[Any, Choice], list[Finding]]] = {
        "attacks": _attacks.attack_findings,
        "attack_modifiers": _modifiers.modifier_findings,
        "bounds": _bounds.bound_findings,
        "certifiers": _certifiers.certifier_findings,
        "datasets": _data.dataset_findings,
        "models": _models.model_findings,
        "noises": _noises.noise_findings,
        "recipes": _training.recipe_findings,
        "transforms": _data.transform_findings,
        "wrappers": _models.wrapper_findings,
    }
    return by_kind[kind](_value(kind, plugin), choice)


def _value(kind: str, plugin: Any) -> Any:
    if not isinstance(plugin, str):
        return plugin
    from robench.registry import load_plugins

    return load_plugins().resolve(kind, plugin).value


def check_attack(attack: Attack | CompositeAttack | str, *, skip: Iterable[str] = ()) -> list[Finding]:
    """Check an attack against known radii, in every norm that it takes."""
    return raise_for(check_plugin("attacks", attack, skip=skip))


def check_attack_modifier(modifier: AttackModifier | str, *, skip: Iterable[str] = ()) -> list[Finding]:
    """Check that a one-step attack still conforms when modified."""
    return raise_for(check_plugin("attack_modifiers", modifier, skip=skip))


def check_bound(bound: Bound | str, *, skip: Iterable[str] = ()) -> list[Finding]:
    """Check a bound against the best classifier on small sets of samples, in every norm that it takes."""
    return raise_for(check_plugin("bounds", bound, skip=skip))


def check_certifier(certifier: Certifier | str, *, skip: Iterable[str] = ()) -> list[Finding]:
    """Check a certifier against closed forms and dense search, in every norm that it takes."""
    return raise_for(check_plugin("certifiers", certifier, skip=skip))


def check_dataset(dataset: Dataset | str, *, skip: Iterable[str] = ()) -> list[Finding]:
    """Check a dataset's splits: values, labels, indices, slices."""
    return raise_for(check_plugin("datasets", dataset, skip=skip))


def check_importer(importer: Importer | str, path: Path, *, skip: Iterable[str] = ()) -> list[Finding]:
    """Check what an importer reads from `path`, and what it does with foreign files."""
    return raise_for(check_plugin("importers", importer, skip=skip, path=path))


def check_model(model: Model | str, *, skip: Iterable[str] = ()) -> list[Finding]:
    """Check that a model gives one function, as it describes it."""
    return raise_for(check_plugin("models", model, skip=skip))


def check_noise(noise: Noise | str, *, skip: Iterable[str] = ()) -> list[Finding]:
    """Check a distribution of noise: its draws, and its radii against half-spaces."""
    return raise_for(check_plugin("noises", noise, skip=skip))


def check_recipe(recipe: Recipe | str, *, skip: Iterable[str] = ()) -> list[Finding]:
    """Check that a recipe learns, and repeats itself for equal seeds."""
    return raise_for(check_plugin("recipes", recipe, skip=skip))


def check_transform(transform: Transform | str, *, skip: Iterable[str] = ()) -> list[Finding]:
    """Check a transform on the kit's own dataset."""
    return raise_for(check_plugin("transforms", transform, skip=skip))


def check_wrapper(wrapper: Wrapper | str, *, skip: Iterable[str] = ()) -> list[Finding]:
    """Check that a wrapped linear classifier is one function, with an identity of its own."""
    return raise_for(check_plugin("wrappers", wrapper, skip=skip))
