"""Attacks: searches for misclassified points within a threat model."""

from __future__ import annotations

from robench import hookimpl
from robench.hookspecs import Register

__all__ = ["robench_register_attack_modifiers", "robench_register_attacks"]


@hookimpl
def robench_register_attack_modifiers(register: Register) -> None:
    """Register the built-in attack modifiers."""
    register(
        "eot",
        f"{__name__}.eot:EOT",
        summary="expectation over the draws of a randomized classifier (Athalye et al. 2018)",
        default=True,
    )
    register(
        "fast",
        f"{__name__}.fast:Fast",
        summary="search in lower precision or compiled, for GPUs; verdicts stay exact",
    )


@hookimpl
def robench_register_attacks(register: Register) -> None:
    """Register the built-in attacks."""
    register(
        "portfolio",
        f"{__name__}.portfolio:Portfolio",
        summary="the default: probes, short runs and restarts where samples still fall, checks without gradients",
        default=True,
    )
    register(
        "smoothadv",
        "robench_plugins.smoothing.smoothadv:SmoothAdv",
        summary="PGD on a smoothed classifier, by the log of its mean softmax (Salman et al. 2019)",
        default=True,  # of classifiers that vote
    )
    register(
        "race",
        f"{__name__}.race:Race",
        summary="short targeted runs from many random starts, most towards the classes in which they get furthest",
    )
    register(
        "pgd",
        f"{__name__}.pgd:PGD",
        summary="projected gradient descent, untargeted and targeted (Madry et al. 2018)",
    )
    register(
        "probe",
        f"{__name__}.probe:Probe",
        summary="health probes: whether gradients can be trusted, in up to 25 passes",
    )
    register("fgsm", f"{__name__}.fgsm:FGSM", summary="fast gradient sign method (Goodfellow et al. 2015)")
    register(
        "apgd",
        f"{__name__}.apgd:APGD",
        summary="Auto-PGD, untargeted and targeted (Croce & Hein 2020; l1-APGD, 2021)",
        default=True,  # of classifiers that draw, where no schedule is
    )
    register(
        "square",
        f"{__name__}.square:Square",
        summary="Square Attack, random search by scores alone (Andriushchenko et al. 2020; l1: Croce & Hein 2021)",
        default=True,  # of classifiers without gradients
    )
    register(
        "hopskipjump",
        f"{__name__}.hopskipjump:HopSkipJump",
        summary="the nearest error by decisions alone, in linf, l2 and l1 (Chen et al. 2020, with leaps)",
        default=True,  # of classifiers without scores
    )
    register(
        "transfer",
        f"{__name__}.transfer:Transfer",
        summary="points that fool another classifier: transfer:source=(MODEL) (Papernot et al. 2016)",
    )
    register(
        "fab",
        f"{__name__}.fab:FAB",
        summary="fast adaptive boundary, minimum-norm in linf, l2 and l1 (Croce & Hein 2020)",
    )
    register(
        "autoattack",
        f"{__name__}.autoattack:AutoAttack",
        summary="the published cascade: apgd, targeted apgd, targeted fab, square (Croce & Hein 2020, 2021)",
    )
    register("ddn", f"{__name__}.ddn:DDN", summary="decoupled direction and norm, l2 (Rony et al. 2019)")
    register("fmn", f"{__name__}.fmn:FMN", summary="fast minimum-norm attack in linf, l2 and l1 (Pintor et al. 2021)")
    register("cw", f"{__name__}.cw:CW", summary="the l2 attack of Carlini & Wagner (2017)")
    register(
        "deepfool",
        f"{__name__}.deepfool:DeepFool",
        summary="over the nearest linearised boundary, in linf, l2 and l1 (Moosavi-Dezfooli et al. 2016)",
    )
