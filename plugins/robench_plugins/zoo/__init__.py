"""Bundled classifiers: small nets for the bundled digits, from one `robench train` command each (docs/zoo.md)."""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_models"]


@hookimpl
def robench_register_models(register: Register) -> None:
    """Register the bundled classifiers."""
    digits = f"{__name__}.digits"
    register("digits-standard", f"{digits}:Standard", summary="bundled digits CNN, standard training")
    register("digits-gaussian", f"{digits}:Gaussian", summary="bundled digits CNN, trained on Gaussian noise")
    register("digits-pgd-linf", f"{digits}:PgdLinf", summary="bundled digits CNN, adversarial training in linf")
    register("digits-pgd-l2", f"{digits}:PgdL2", summary="bundled digits CNN, adversarial training in l2")
    register("digits-ibp", f"{digits}:Ibp", summary="bundled digits CNN, trained on interval bounds in linf")
    register("digits-aol", f"{digits}:Aol", summary="bundled digits MLP, 1-Lipschitz in l2")
