"""What theory says about every classifier on a dataset."""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_bounds"]


@hookimpl
def robench_register_bounds(register: Register) -> None:
    """Register the built-in bounds."""
    register(
        "transport",
        f"{__name__}.transport:Transport",
        summary="the error that no classifier avoids on these samples (Bhagoji et al. 2019, Dai et al. 2023)",
    )
