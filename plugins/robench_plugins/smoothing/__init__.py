"""Classifiers behind noise: the vote that smoothing makes of them, its noises, and the certifier of votes.

The attack on votes, `smoothadv`, is registered with the other attacks: it stands before those that are the default of
classifiers that merely draw.
"""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_certifiers", "robench_register_noises", "robench_register_wrappers"]


@hookimpl
def robench_register_wrappers(register: Register) -> None:
    """Register the built-in wrappers."""
    register("noise", f"{__name__}.noise:Noise", summary="Gaussian noise on the input, drawn anew at every call")
    register("smooth", f"{__name__}.smooth:Smooth", summary="majority vote over noise on the input")


@hookimpl
def robench_register_noises(register: Register) -> None:
    """Register the built-in distributions of noise."""
    register("gaussian", f"{__name__}.noises:Gaussian", summary="normal noise: certifies in l2, and so in linf")
    register("uniform", f"{__name__}.noises:Uniform", summary="uniform noise in a cube: certifies in l1")


@hookimpl
def robench_register_certifiers(register: Register) -> None:
    """Register the built-in certifiers of votes."""
    register(
        "smoothing", f"{__name__}.certify:Smoothing", summary="randomized smoothing: CERTIFY, or a decision about ε"
    )
