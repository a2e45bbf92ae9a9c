"""Certificates from the network's Lipschitz constant."""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_certifiers"]


@hookimpl
def robench_register_certifiers(register: Register) -> None:
    """Register the certifiers."""
    register(
        "lipschitz",
        f"{__name__}.margin:LipschitzMargin",
        summary="margin over √2 times the product of the layers' proven spectral norms, in l2 (Tsuzuku et al. 2018)",
        default=True,
        cost="small",
    )
    register(
        "fast-lip",
        f"{__name__}.local.fast_lip:FastLip",
        summary="margin over the slopes of logit differences in a ball around each sample (Weng et al. 2018)",
    )
