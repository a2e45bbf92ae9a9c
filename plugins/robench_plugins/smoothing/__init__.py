"""Classifiers behind noise."""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_wrappers"]


@hookimpl
def robench_register_wrappers(register: Register) -> None:
    """Register the built-in wrappers."""
    register("noise", f"{__name__}.noise:Noise", summary="Gaussian noise on the input, drawn anew at every call")
