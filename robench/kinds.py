"""The kinds of plugin: what each must offer, which may follow which in a chain, how each is named and used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robench import contracts
from robench.errors import SpecError

__all__ = ["KINDS", "Kind", "find_kind"]


@dataclass(frozen=True)
class Kind:
    """One kind of plugin.

    Attributes:
        name: plural, as in `robench_register_<name>`.
        noun: singular, for messages.
        protocols: a factory's instances are one of these.
        methods: what such an instance has, one of them at least.
        usage: a command with `{spec}`, or `{name}` alone, where a plugin of this kind stands.
        example: summary of the plugin that `robench plugins new` writes.
        link: the kind that may be chained to it with ` | `.
    """

    name: str
    noun: str
    protocols: tuple[Any, ...]
    methods: tuple[str, ...]
    usage: str
    example: str
    link: str | None = None

    @property
    def hook(self) -> str:
        """The name of the registration hook."""
        return f"robench_register_{self.name}"

    @property
    def module(self) -> str:
        """The noun as an identifier."""
        return self.noun.replace(" ", "_")

    @property
    def article(self) -> str:
        """`a` or `an`."""
        return "an" if self.noun[0] in "aeiou" else "a"


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "datasets",
            "dataset",
            (contracts.Dataset,),
            ("load",),
            "robench eval -d '{spec}' …",
            "uniform points on two sides of a hyperplane",
            link="transforms",
        ),
        Kind(
            "transforms",
            "transform",
            (contracts.Transform,),
            ("apply",),
            "robench eval -d 'DATASET | {spec}' …",
            "keep every k-th sample",
        ),
        Kind(
            "models",
            "model",
            (contracts.Model,),
            ("load",),
            "robench eval -m '{spec}' …",
            "which side of a hyperplane",
            link="wrappers",
        ),
        Kind(
            "wrappers",
            "wrapper",
            (contracts.Wrapper,),
            ("wrap",),
            "robench eval -m 'MODEL | {spec}' …",
            "multiply the logits",
        ),
        Kind(
            "noises",
            "noise",
            (contracts.Noise,),
            ("radius",),
            "robench eval -m 'MODEL | smooth:noise={name},sigma=SIGMA' …",
            "Laplace noise, which certifies in l1",
        ),
        Kind(
            "attacks",
            "attack",
            (contracts.Attack, contracts.CompositeAttack),
            ("perturb", "stages"),
            "robench eval -a '{spec}' …",
            "signed gradient descent on the margin",
            link="attack_modifiers",
        ),
        Kind(
            "attack_modifiers",
            "attack modifier",
            (contracts.AttackModifier,),
            ("modify",),
            "robench eval -a 'ATTACK | {spec}' …",
            "run an attack several times, keep the best points",
        ),
        Kind(
            "certifiers",
            "certifier",
            (contracts.Certifier,),
            ("certify",),
            "robench eval -c '{spec}' …",
            "exact dual-norm radius of an affine classifier",
        ),
        Kind(
            "bounds",
            "bound",
            (contracts.Bound,),
            ("evaluate",),
            "robench bound '{spec}' -d DATASET …",
            "identical inputs with different labels",
        ),
        Kind(
            "recipes",
            "recipe",
            (contracts.Recipe,),
            ("train",),
            "robench train '{spec}' -d DATASET --out FOLDER",
            "logistic regression by gradient descent",
        ),
        Kind(
            "importers",
            "importer",
            (contracts.Importer,),
            ("read",),
            "robench import '{spec}' PATH --out RESULTS",
            "radii from a comma-separated file",
        ),
    )
}


def find_kind(text: str) -> Kind:
    """Return the kind called `text`, singular or plural: `attack`, `attacks`, `attack-modifier`. Raises SpecError."""
    from robench.params import suggest

    wanted = text.replace("-", "_").replace(" ", "_")
    modules = {kind.module: kind for kind in KINDS.values()}
    found = KINDS.get(wanted) or modules.get(wanted)
    if found is None:
        raise SpecError(f"no kind of plugin is called {text!r}{suggest(wanted, modules)}: {', '.join(modules)}")
    return found
