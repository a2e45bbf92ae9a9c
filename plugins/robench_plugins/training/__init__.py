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
    register("gaussian", f"{__name__}.gaussian:Gaussian", summary="training on Gaussian noise (Cohen et al. 2019)")
    register(
        "smoothadv",
        f"{__name__}.smoothadv:SmoothAdv",
        summary="adversarial training of the vote over Gaussian noise (Salman et al. 2019)",
    )
    register("aol", f"{__name__}.aol:Aol", summary="1-Lipschitz MLP of almost-orthogonal layers (Prach & Lampert 2022)")
