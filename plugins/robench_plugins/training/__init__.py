"""Recipes: how to train a classifier on a dataset."""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_recipes"]


@hookimpl
def robench_register_recipes(register: Register) -> None:
    """Register the built-in recipes."""
    register("standard", f"{__name__}.standard:Standard", summary="cross-entropy on the samples as they are")
    register("pgd-at", f"{__name__}.pgd_at:PgdAt", summary="adversarial training with PGD (Madry et al. 2018)")
    register("ibp", f"{__name__}.ibp:Ibp", summary="training on interval bounds (Gowal et al. 2018)")
