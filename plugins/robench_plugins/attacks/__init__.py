"""Attacks: searches for misclassified points within a threat model."""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_attacks"]


@hookimpl
def robench_register_attacks(register: Register) -> None:
    """Register the built-in attacks."""
    register(
        "pgd",
        f"{__name__}.pgd:PGD",
        summary="projected gradient descent, untargeted and targeted (Madry et al. 2018)",
        default=True,
    )
    register("fgsm", f"{__name__}.fgsm:FGSM", summary="fast gradient sign method (Goodfellow et al. 2015)")
