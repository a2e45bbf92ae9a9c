"""Other libraries, held to the same verdicts as our own code.

Attacks of foolbox, torchattacks and adv-lib; 1-Lipschitz layers of orthogonium and deel-torchlip.
"""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_attacks", "robench_register_recipes"]


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


@hookimpl
def robench_register_recipes(register: Register) -> None:
    """Register recipes whose layers are another library's."""
    register(
        "orthogonium",
        f"{__name__}.recipes:Orthogonium",
        summary="1-Lipschitz by orthogonium's layers (Boissin et al. 2025)",
    )
    register("torchlip", f"{__name__}.recipes:Torchlip", summary="1-Lipschitz by deel-torchlip's layers")
