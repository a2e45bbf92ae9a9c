"""Datasets and what turns one dataset into another."""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_datasets", "robench_register_transforms"]


@hookimpl
def robench_register_datasets(register: Register) -> None:
    """Register the built-in sources of labelled data."""
    for name, where, summary in (
        ("digits", "digits:Digits", "1,797 handwritten digits, 8x8 (scikit-learn)"),
        ("mnist", "mnist:Mnist", "70,000 handwritten digits, 28x28, from your own files"),
        ("fashion-mnist", "mnist:FashionMnist", "70,000 pictures of clothes, 28x28, from your own files"),
        ("cifar10", "cifar:Cifar10", "60,000 colour images, 32x32, ten classes, from your own files"),
        ("cifar100", "cifar:Cifar100", "60,000 colour images, 32x32, a hundred classes, from your own files"),
        ("svhn", "svhn:Svhn", "99,289 house numbers, 32x32, from your own files"),
        ("imagefolder", "imagefolder:ImageFolder", "images in a folder for each class, resized and cropped"),
        ("npz", "npz:Npz", "arrays x and y from a NumPy .npz file"),
        ("vnnlib", "vnnlib:Vnnlib", "properties of a network (VNN-LIB): a box for each sample"),
        ("hypercube", "hypercube:Hypercube", "made up: robustly solvable, but not from n samples"),
        ("gaussian-mixture", "gaussian_mixture:GaussianMixture", "made up: two Gaussians"),
        ("spheres", "spheres:Spheres", "made up: two concentric spheres"),
        ("lattice", "fragility:Lattice", "made up: the points A z, labelled by the last sign"),
        ("gaussian-points", "fragility:GaussianPoints", "made up: d Gaussian points in d classes"),
        ("half-space", "generators:HalfSpace", "made up: a Gaussian cut in half"),
        ("linear-generator", "generators:LinearGenerator", "made up: a linear generator, classes in its latent space"),
    ):
        register(name, f"{__name__}.{where}", summary=summary)


@hookimpl
def robench_register_transforms(register: Register) -> None:
    """Register the built-in transforms."""
    register("classes", f"{__name__}.classes:Classes", summary="keep some classes and relabel them in order")
    register("subset", f"{__name__}.subset:Subset", summary="a random, nested subset of n samples")
    register("imbalance", f"{__name__}.imbalance:Imbalance", summary="fewer training samples of some classes")
    register("noise-labels", f"{__name__}.noise_labels:NoiseLabels", summary="a fraction of training labels is wrong")
    register("pca", f"{__name__}.pca:Pca", summary="keep some principal components, in the inputs' own space")
