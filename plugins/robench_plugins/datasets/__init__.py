"""Datasets and what turns one dataset into another."""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_datasets", "robench_register_transforms"]


@hookimpl
def robench_register_datasets(register: Register) -> None:
    """Register the built-in sources of labelled data."""
    register("digits", f"{__name__}.digits:Digits", summary="1,797 handwritten digits, 8x8 (scikit-learn)")
    register("mnist", f"{__name__}.mnist:Mnist", summary="70,000 handwritten digits, 28x28, from your own files")
    register("npz", f"{__name__}.npz:Npz", summary="arrays x and y from a NumPy .npz file")
    register("vnnlib", f"{__name__}.vnnlib:Vnnlib", summary="properties of a network (VNN-LIB): a box for each sample")


@hookimpl
def robench_register_transforms(register: Register) -> None:
    """Register the built-in transforms."""
    register("classes", f"{__name__}.classes:Classes", summary="keep some classes and relabel them in order")
    register("subset", f"{__name__}.subset:Subset", summary="a random, nested subset of n samples")
