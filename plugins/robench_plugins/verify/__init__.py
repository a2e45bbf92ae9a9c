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
        "crown-ibp",
        f"{__name__}.crown:CROWNIBP",
        summary="interval bounds, then one pass of linear bounds back from the margins (Zhang et al. 2020)",
        default=True,
        cost="small",
    )
    register(
        "crown",
        f"{__name__}.crown:CROWN",
        summary="linear bounds of every open neuron and of the margins (Zhang et al. 2018)",
    )
    register(
        "alpha-crown",
        f"{__name__}.crown:AlphaCROWN",
        summary="linear bounds with optimised slopes (Xu et al. 2021)",
    )
    register(
        "linear",
        f"{__name__}.linear:Linear",
        summary="exact dual-norm radius of an affine classifier",
        default=True,
        cost="small",
    )
    register(
        "bab",
        f"{__name__}.bab:BaB",
        summary="complete: attack, CROWN, alpha-CROWN, then branch and bound (Wang et al. 2021)",
    )
    register(
        "lp",
        f"{__name__}.lp:LP",
        summary="the triangle relaxation as a linear program, proven through its dual (Salman et al. 2019)",
    )
    register(
        "milp",
        f"{__name__}.milp:MILP",
        summary="complete, for small networks: mixed-integer programs, proven leaf by leaf (Tjeng et al. 2019)",
    )
