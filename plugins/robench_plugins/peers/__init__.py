"""Attacks of other libraries, held to the same verdicts as our own: foolbox, torchattacks, adv-lib."""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_attacks"]


@hookimpl
def robench_register_attacks(register: Register) -> None:
    """Register the adapters; each says how to install its library where that is missing."""
    register(
        "foolbox",
        f"{__name__}.foolbox:Foolbox",
        summary="any attack of foolbox (Rauber et al. 2017, 2020), by its name there",
    )
    register(
        "torchattacks",
        f"{__name__}.torchattacks:Torchattacks",
        summary="any attack of torchattacks (Kim 2020), by its name there",
    )
    register("advlib", f"{__name__}.advlib:AdvLib", summary="any attack of adv-lib (Rony et al.), by its name there")
