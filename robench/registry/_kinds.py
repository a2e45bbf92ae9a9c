"""The kinds of plugin: their protocols, and which kind may follow which in a chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robench import contracts

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True)
class Kind:
    """One kind: its plural name, as in `robench_register_<name>`, and what a factory must offer."""

    name: str
    noun: str
    protocols: tuple[Any, ...]
    methods: tuple[str, ...]
    link: str | None = None

    @property
    def hook(self) -> str:
        """The name of the registration hook."""
        return f"robench_register_{self.name}"


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("datasets", "dataset", (contracts.Dataset,), ("load",), "transforms"),
        Kind("transforms", "transform", (contracts.Transform,), ("apply",)),
        Kind("models", "model", (contracts.Model,), ("load",), "wrappers"),
        Kind("wrappers", "wrapper", (contracts.Wrapper,), ("wrap",)),
        Kind(
            "attacks",
            "attack",
            (contracts.Attack, contracts.CompositeAttack),
            ("perturb", "stages"),
            "attack_modifiers",
        ),
        Kind("attack_modifiers", "attack modifier", (contracts.AttackModifier,), ("modify",)),
        Kind("certifiers", "certifier", (contracts.Certifier,), ("certify",)),
        Kind("recipes", "recipe", (contracts.Recipe,), ("train",)),
        Kind("importers", "importer", (contracts.Importer,), ("read",)),
    )
}
