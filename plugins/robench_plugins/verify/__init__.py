"""Certificates from the network's graph."""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_certifiers"]


@hookimpl
def robench_register_certifiers(register: Register) -> None:
    """Register the built-in certifiers."""
    register(
        "ibp",
        f"{__name__}.ibp:IBP",
        summary="interval bound propagation, rounded outward (Gowal et al. 2018)",
        default=True,
        cost="small",
    )
    register(
        "linear",
        f"{__name__}.linear:Linear",
        summary="exact dual-norm radius of an affine classifier",
        default=True,
        cost="small",
    )
