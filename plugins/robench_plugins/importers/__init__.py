"""Readers of other people's published per-sample results."""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_importers"]


@hookimpl
def robench_register_importers(register: Register) -> None:
    """Register the built-in importers."""
    register("cohen", f"{__name__}.cohen:Cohen", summary="CERTIFY files of randomized smoothing (Cohen et al. 2019)")
    register("vnncomp", f"{__name__}.vnncomp:VnnComp", summary="results of the verification competition VNN-COMP")
