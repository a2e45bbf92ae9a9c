"""Recipes: how to train a classifier on a dataset."""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_recipes"]


@hookimpl
def robench_register_recipes(register: Register) -> None:
    """Register the built-in recipes."""
    register("standard", f"{__name__}.standard:Standard", summary="cross-entropy on the samples as they are")
    register("fgsm-at", f"{__name__}.fgsm_at:FgsmAt", summary="adversarial training with one step (Wong et al. 2020)")
    register(
        "gradalign",
        f"{__name__}.gradalign:GradAlign",
        summary="one step, input gradients kept aligned (Andriushchenko & Flammarion 2020)",
    )
    register("pgd-at", f"{__name__}.pgd_at:PgdAt", summary="adversarial training with PGD (Madry et al. 2018)")
    register("trades", f"{__name__}.trades:Trades", summary="accuracy and divergence in the ball (Zhang et al. 2019)")
    register("ibp", f"{__name__}.ibp:Ibp", summary="training on interval bounds (Gowal et al. 2018)")
    register("crown-ibp", f"{__name__}.crown_ibp:CrownIbp", summary="training on linear bounds (Zhang et al. 2020)")
    register("gaussian", f"{__name__}.gaussian:Gaussian", summary="training on Gaussian noise (Cohen et al. 2019)")
    register(
        "smoothadv",
        f"{__name__}.smoothadv:SmoothAdv",
        summary="adversarial training of the vote over Gaussian noise (Salman et al. 2019)",
    )
    lipschitz = f"{__name__}.lipschitz.recipes"
    register("aol", f"{lipschitz}:Aol", summary="1-Lipschitz by almost-orthogonal layers (Prach & Lampert 2022)")
    register("cpl", f"{lipschitz}:Cpl", summary="1-Lipschitz by convex potential layers (Meunier et al. 2022)")
    register("cayley", f"{lipschitz}:Cayley", summary="1-Lipschitz by orthogonal matrices (Trockman & Kolter 2021)")
    register("bcop", f"{lipschitz}:Bcop", summary="1-Lipschitz by orthogonal convolutions (Li et al. 2019)")
    register("soc", f"{lipschitz}:Soc", summary="1-Lipschitz by skew orthogonal convolutions (Singla & Feizi 2021)")
    register("spectral-norm", f"{lipschitz}:SpectralNorm", summary="1-Lipschitz by spectral norms (Miyato et al. 2018)")
